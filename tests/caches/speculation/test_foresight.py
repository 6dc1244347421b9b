"""What an engine keeps of what it has learnt, and that a file of it is data."""

from __future__ import annotations

import asyncio
import json
import pickle
from pathlib import Path
from typing import Any

import pytest

from agentflow import Engine, Speculation, events, tool, workflow
from agentflow.budgets.ledger import Ledger
from agentflow.caches.speculation.foresight import Foresight
from agentflow.caches.speculation.trail import Trail

pytestmark = pytest.mark.virtual


@tool(reads="web")
async def first(query: str) -> str:
    await asyncio.sleep(2)
    return f"id-{query}"


@tool(reads="web")
async def second(key: str) -> str:
    await asyncio.sleep(2)
    return key


@workflow
async def pair(query: str) -> str:
    key = await first(query)
    await asyncio.sleep(5)
    return await second(key)


async def train(path: Path, times: int = 30) -> int:
    """Run the workflow in an engine of its own; how many guesses came true."""
    told: list[events.Event] = []
    policy = Speculation(memory=path)
    async with Engine(tools=[first, second], speculation=policy, subscribers=[told.append]) as e:
        for number in range(times):
            await e.run(pair, f"q{number}")
    return sum(isinstance(event, events.SpeculationUsed) for event in told)


async def test_what_was_learnt_is_kept_and_used_by_the_next_engine(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "memory.json"
    await train(path)

    assert await train(path, 1) >= 1
    assert await train(tmp_path / "other.json", 1) == 0


async def test_the_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "memory.json"
    await train(path, 2)

    assert [found.name for found in tmp_path.iterdir()] == ["memory.json"]
    json.loads(path.read_text("utf-8"))


class Trap:
    def __reduce__(self) -> Any:
        return (open, (str(Path.cwd() / "trapped"), "w"))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"garbage",
        b"\xff\xfe\x00",
        b"null",
        b"[]",
        b"3",
        b'{"format": "something else"}',
        b'{"version": 1}',
        b'{"recipes": 3}',
        b"[" * 100_000,
        pickle.dumps(Trap()),
    ],
)
async def test_a_file_that_is_no_memory_means_a_fresh_start_and_one_warning(
    tmp_path: Path, content: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "memory.json"
    path.write_bytes(content)

    await train(path, 1)

    assert capsys.readouterr().out.count("starts anew") == 1
    assert not Path("trapped").exists()
    json.loads(path.read_text("utf-8"))


async def test_a_memory_cut_short_means_a_fresh_start(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "memory.json"
    await train(path, 3)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])

    await train(path, 1)

    assert capsys.readouterr().out.count("starts anew") == 1


async def test_a_memory_that_cannot_be_written_is_a_warning_and_no_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("in the way")

    await train(tmp_path / "file" / "memory.json", 1)

    assert "not kept" in capsys.readouterr().out


async def test_who_learnt_nothing_does_not_overwrite_what_another_has_learnt(
    tmp_path: Path,
) -> None:
    path = tmp_path / "learnt.json"
    first, idle = (Foresight(Speculation(memory=path), Ledger()) for _ in range(2))
    trail = Trail("w")
    trail.called("f", {"x": "a"}, "b")
    first.learn(trail)
    first.close(trail)
    await first.aclose()
    kept = path.read_text("utf-8")

    idle.learn(Trail("w"))
    await idle.aclose()

    assert path.read_text("utf-8") == kept
    before = path.stat().st_mtime_ns
    await Foresight(Speculation(memory=path), Ledger()).aclose()
    assert path.stat().st_mtime_ns == before


def test_an_async_source_is_told_so(capsys: pytest.CaptureFixture[str]) -> None:
    class Waiting:
        async def candidates(self, trail: Trail, limit: int) -> list[Any]:
            return []

        def learn(self, trail: Trail) -> None: ...

        def close(self, trail: Trail) -> None: ...

    source: Any = Waiting()
    foresight = Foresight(Speculation(source=source), Ledger())

    assert foresight.candidates(Trail("w"), 3) == ()
    said = capsys.readouterr().out
    assert "Waiting" in said
    assert "candidates() is async" in said
