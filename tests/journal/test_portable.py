"""A run can be taken out of its journal as one file, and is read back whole or not at all."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agentflow.errors import JournalError
from agentflow.executor.journal import portable
from agentflow.executor.journal.portable import RecordedRun, export, load
from agentflow.executor.journal.rows import Batch
from agentflow.executor.journal.store import JournalStore, digest_of

Begun = Callable[..., Batch]

LARGE = json.dumps({"rows": [{"é": "x" * 50}] * 200}, ensure_ascii=False).encode()
RECORDS: list[dict[str, Any]] = [
    {"event": "session", "n": 1, "wall": 5.5},
    {"event": "node_finished", "node": 1, "value": {"$blob": digest_of(LARGE)}},
    {"event": "node_finished", "node": 2, "value": ["half \ud83d", "é\n", 1e300, None]},
]


@pytest.fixture
def recorded(store: JournalStore, begun: Begun) -> JournalStore:
    """A journal with a run ``brief-1``."""
    asks = [{"question": "q", "why": "é"}]
    lines = [json.dumps(record) for record in RECORDS]
    store.write(begun("brief-1", lines=lines, state="paused", asks=asks, usd="0.5"))
    store.write(Batch(blobs={digest_of(LARGE): LARGE}, refs=[("brief-1", digest_of(LARGE))]))
    return store


def exported(store: JournalStore) -> str:
    file = io.StringIO()
    export(store, "brief", file)
    return file.getvalue()


@pytest.fixture
def file(recorded: JournalStore, tmp_path: Path) -> Path:
    path = tmp_path / "run.jsonl"
    path.write_text(exported(recorded), "utf-8")
    return path


def test_a_run_is_read_back_as_it_was(file: Path, recorded: JournalStore) -> None:
    first, second, third = RECORDS
    whole = {**second, "value": {"$json": json.loads(LARGE)}}

    assert load(file) == RecordedRun(recorded.run("brief-1"), (first, whole, third))


def test_the_file_is_lines_of_plain_json(file: Path) -> None:
    lines = file.read_text("ascii").splitlines()

    head, *records = map(json.loads, lines)
    assert (head["agentflow"], head["version"], head["id"]) == ("run", 1, "brief-1")
    assert head["asks"] == [{"question": "q", "why": "é"}]
    assert len(records) == 3


def test_a_damaged_run_is_not_exported(recorded: JournalStore) -> None:
    missing = json.dumps({"value": {"$blob": digest_of(b"")}})
    recorded.write(Batch(lines={"brief-1": [missing]}))
    with pytest.raises(JournalError, match=f"the value {digest_of(b'')} is missing"):
        exported(recorded)


@pytest.mark.parametrize("data", [b"[1", b"\xff", b"[" * 100_000])
def test_a_large_value_that_is_no_json_is_not_exported(recorded: JournalStore, data: bytes) -> None:
    digest = digest_of(data)
    line = json.dumps({"value": {"$blob": digest}})
    recorded.write(
        Batch(lines={"brief-1": [line]}, blobs={digest: data}, refs=[("brief-1", digest)])
    )
    with pytest.raises(JournalError, match=f"the value {digest} is no JSON"):
        exported(recorded)


def test_what_only_looks_like_a_reference_stays(store: JournalStore, begun: Begun) -> None:
    values = [{"$blob": "a", "b": 1}, [{"$blob": "a"}], {"in": {"$blob": "a"}}]
    store.write(begun("brief", lines=[json.dumps({"value": value}) for value in values]))

    records = [json.loads(line) for line in exported(store).splitlines()[1:]]

    assert [record["value"] for record in records] == values


def test_an_unknown_run_is_not_exported(store: JournalStore) -> None:
    with pytest.raises(JournalError, match="no run 'brief'"):
        exported(store)


def replaced(number: int, line: str) -> Callable[[list[str]], None]:
    def change(lines: list[str]) -> None:
        lines[number - 1] = line

    return change


def in_head(**fields: object) -> Callable[[list[str]], None]:
    def change(lines: list[str]) -> None:
        lines[0] = json.dumps(json.loads(lines[0]) | fields)

    return change


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (replaced(3, '{"event":'), "line 3: Expecting value"),
        (replaced(2, "[1]"), "line 2: it is a list, not an object"),
        (replaced(4, "["), "line 4: "),
        (replaced(3, '{"a":' * 100_000), "line 3: it is nested too deeply"),
        (replaced(1, "{}"), "line 1: it is no recorded run"),
        (replaced(1, ""), "line 1: it is no recorded run"),
        (replaced(1, "root:x:0:0"), "line 1: it is no recorded run: "),
        (in_head(version=2), r"line 1: .*newer version of agentflow \(format 2, this one reads"),
        (in_head(version="1"), "line 1: it is no recorded run"),
        (in_head(target="here"), "line 1: target is 'here'"),
        (in_head(tokens=True), "line 1: tokens is 'True'"),
        (in_head(began=1e999), "line 1: began is 'inf'"),
        (in_head(asks=[1]), "line 1: asks is"),
        (in_head(usd=None), "line 1: usd is 'None'"),
        (list.clear, "line 1: "),
        (list.pop, "2 records instead of 3"),
        (in_head(records=None), "3 records instead of None"),
    ],
)
def test_a_line_that_is_damaged_is_named(
    file: Path, change: Callable[[list[str]], None], says: str
) -> None:
    lines = file.read_text("utf-8").splitlines()
    change(lines)
    file.write_text("\n".join(lines), "utf-8")

    with pytest.raises(JournalError, match=says) as caught:
        load(file)
    assert caught.value.path == str(file)


def test_a_file_that_is_not_there_is_said(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none.jsonl"):
        with pytest.raises(JournalError, match="a recorded run cannot be read: "):
            load(path)


@pytest.mark.parametrize(("limit", "value"), [("LARGEST", 500), ("LARGEST_FILE", 600)])
def test_more_than_can_be_read_is_refused(
    file: Path, monkeypatch: pytest.MonkeyPatch, limit: str, value: int
) -> None:
    monkeypatch.setattr(portable, limit, value)

    with pytest.raises(JournalError, match="line 3: there is more than can be read"):
        load(file)
