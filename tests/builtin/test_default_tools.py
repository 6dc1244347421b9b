"""What a run gets by default."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from agentflow import Engine, Task, events
from agentflow.errors import DefinitionError
from agentflow.testing import Call, Reply, ScriptedServer
from agentflow.tools.builtin import default_tools
from agentflow.tools.builtin.files import FileText
from agentflow.tools.builtin.files_write import Written
from agentflow.tools.builtin.http import Page
from agentflow.tools.builtin.python import PythonResult
from agentflow.tools.builtin.sql import Rows


def names(root: Path | None = None, **options: Any) -> list[str]:
    return [tool.name for tool in default_tools(root, **options)]


def test_without_a_root_no_file_is_reached() -> None:
    assert names() == ["calculate", "http_get"]


def test_with_a_root_files_are_reached(folder: Path) -> None:
    assert names(folder)[2:] == ["read_file", "list_files", "search_text"]


def test_programs_run_only_if_asked_for(folder: Path) -> None:
    assert "python" not in names(folder)
    assert "python" in names(folder, python=True)


def test_files_are_written_only_if_asked_for(folder: Path) -> None:
    assert names(folder, write=True)[2:] == [
        *("read_file", "list_files", "search_text", "write_file")
    ]
    with pytest.raises(DefinitionError, match="name the root"):
        default_tools(write=True)


def test_a_database_is_read_only_if_it_is_named(folder: Path) -> None:
    assert "sql" not in names(folder, write=True)
    [*_, sql] = default_tools(folder, write=True, sql=folder / "app.db")
    assert (sql.name, str(sql.effect)) == ("sql", "reads(sql/app.db)")


def test_a_root_that_is_no_folder_is_an_error(folder: Path) -> None:
    with pytest.raises(DefinitionError, match="not a folder"):
        default_tools(folder / "missing")


def test_results_are_described_and_survive_json(folder: Path) -> None:
    returns = {tool.name: tool.spec.returns for tool in default_tools(folder, python=True)}

    assert sorted(returns["http_get"]["properties"]) == [
        *("bytes", "content_type", "status", "text", "truncated", "url")
    ]
    assert returns["list_files"] == {"items": {"type": "string"}, "type": "array"}
    for value in (
        FileText("a", 1, 2, 3, "b", truncated=False),
        Page("http://a/", 200, "text/plain", "é", 2, truncated=True),
        PythonResult("out", "", 0),
        Written("a", 3, 1, created=True),
        Rows(["a"], [[1, 1.5, "x", None]], changed=1),
    ):
        adapter: TypeAdapter[Any] = TypeAdapter(type(value))
        assert adapter.validate_json(adapter.dump_json(value)) == value


# In a run


async def page(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nhere")
    await writer.drain()
    writer.close()


async def outcome(root: Path, url: str, partial: bool) -> tuple[dict[str, Any], set[str]]:
    """The values of the calls of a run, by tool, and which of them began while written."""
    (root / "app.db").touch()
    calls = (
        Call("http_get", {"url": url}),
        Call("write_file", {"path": "out/a.txt", "text": "one\ntwo\n" * 20}),
        Call("sql", {"query": "SELECT 6 * ?", "params": [7]}),
    )
    seen: list[events.Event] = []
    tools = default_tools(root, write=True, allow_private=True, sql=root / "app.db")
    async with (
        ScriptedServer([Reply(*calls), "done"]) as server,
        Engine(
            tools=tools, base_url=server.base_url, model="m", api_key="x", partial=partial
        ) as engine,
    ):
        engine.subscribe(seen.append)
        await engine.start(Task("go", strategy="react"))
    values = {event.tool: event.value for event in seen if isinstance(event, events.NodeFinished)}
    return values, {e.tool for e in seen if isinstance(e, events.PartialCommitted)}


async def test_a_run_gives_the_same_with_partial_execution_and_without(tmp_path: Path) -> None:
    values = []
    server = await asyncio.start_server(page, "127.0.0.1", 0)
    async with server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/a"
        for partial in (True, False):
            root = tmp_path / str(partial)
            root.mkdir()
            found, early = await outcome(root, url, partial)
            values.append(found)
            assert early == ({"http_get", "write_file", "sql"} if partial else set())
            assert sorted(path.name for path in root.rglob("*")) == ["a.txt", "app.db", "out"]

    assert values[0] == values[1]
    assert (values[0]["write_file"].lines, values[0]["sql"].rows) == (40, [[42]])
