"""Whatever the bytes of a journal or of an exported run are, reading them ends, in our words."""

from __future__ import annotations

import io
import json
import random
import sqlite3
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from agentflow.errors import JournalError
from agentflow.executor.journal.portable import export, load
from agentflow.executor.journal.rows import Batch
from agentflow.executor.journal.store import JournalStore, digest_of

Begun = Callable[..., Batch]

SEEDS = 150
LINES = [
    json.dumps({"event": "node_finished", "n": n, "value": ["é", None, 1.5]}) for n in range(6)
]
PIECES = [
    b"\0",
    b"\n",
    b"[" * 2000,
    b'{"a":' * 2000,
    b"1" * 5000,
    b"\xff",
    b"\xed\xa0\x80",
    b"}",
    b'"',
]
BLOB = b'{"large":[1,2,3]}'


def damaged(data: bytes, seed: int) -> bytes:
    """Bytes with a few random changes, always the same for a seed."""
    rng = random.Random(seed)
    changed = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(changed) + 1)
        end = min(len(changed), at + rng.choice([1, 2, 16, 500]))
        match rng.randrange(5):
            case 0:
                changed[at:end] = rng.randbytes(end - at)
            case 1:
                del changed[at:end]
            case 2:
                changed[at:at] = rng.choice(PIECES)
            case 3:
                changed[at:at] = changed[at:end]
            case 4:
                del changed[at + 1 :]
    return bytes(changed)


@pytest.fixture
def whole(store: JournalStore, begun: Begun) -> Path:
    """The file of a journal with four runs, closed."""
    for run in "abcd":
        store.write(begun(run, lines=LINES, asks=[{"question": "q"}], state="paused"))
        store.write(Batch(lines={run: LINES}))
        store.answer(run, "q", "done", "[1]", "me")
    digest = digest_of(BLOB)
    line = json.dumps({"value": {"$blob": digest}})
    store.write(Batch(lines={"a": [line]}, blobs={digest: BLOB}, refs=[("a", digest)]))
    store.close()
    return store.path


def read_all(path: Path) -> int:
    """Read everything there is in a journal; how often that did not go well."""
    store = JournalStore(path)
    failed = 0
    try:
        for read in readers(store):
            try:
                read()
            except JournalError as error:
                assert str(path) in str(error)
                failed += 1
    finally:
        store.close()
    return failed


def readers(store: JournalStore) -> Iterator[Callable[[], object]]:
    yield store.runs
    yield store.check
    yield lambda: store.blob(digest_of(BLOB))
    for run in "abcd":
        yield lambda run=run: store.run(run)  # type: ignore[misc]  # of a default
        yield lambda run=run: list(store.records(run))  # type: ignore[misc]  # of a default
        yield lambda run=run: store.answers(run)  # type: ignore[misc]  # of a default
        yield lambda run=run: export(store, run, io.StringIO())  # type: ignore[misc]  # of a default


def test_an_undamaged_journal_is_read(whole: Path) -> None:
    assert read_all(whole) == 0


def test_damaged_records_are_errors_of_ours(whole: Path) -> None:
    data, failed = "\n".join(LINES).encode(), 0
    for seed in range(SEEDS):
        row = damaged(data, seed)
        checksum = zlib.crc32(row) if seed % 4 else seed
        with closing(sqlite3.connect(whole)) as db:
            change = "UPDATE records SET lines = ?, checksum = ? WHERE run = 2 AND seq = 0"
            db.execute(change, (row, checksum))
            db.commit()
        failed += read_all(whole) > 0

    assert failed > SEEDS / 2


def test_a_damaged_file_is_an_error_of_ours(whole: Path) -> None:
    data, failed = whole.read_bytes(), 0
    for seed in range(SEEDS):
        whole.write_bytes(damaged(data, seed))
        failed += read_all(whole) > 0

    assert failed > SEEDS / 4


def test_columns_of_any_type_are_errors_of_ours(whole: Path) -> None:
    values = ["NULL", "-1", "9e999", "x'ff00ff'", "'{'", "9223372036854775807", "zeroblob(100000)"]
    tables = {
        "runs": "owner id name kind target state began updated seconds usd tokens asks note size rows",
        "records": "run seq lines checksum",
        "answers": "question verdict value by at",
        "blobs": "digest data",
    }
    for table, columns in tables.items():
        for column in columns.split():
            for value in values:
                before = whole.read_bytes()
                with closing(sqlite3.connect(whole)) as db, suppress(sqlite3.IntegrityError):
                    db.execute(f"UPDATE OR IGNORE {table} SET {column} = {value}")
                    db.commit()
                read_all(whole)
                whole.write_bytes(before)


def test_a_damaged_export_is_an_error_of_ours(whole: Path, tmp_path: Path) -> None:
    store, text, failed = JournalStore(whole), io.StringIO(), 0
    export(store, "a", text)
    store.close()
    file = tmp_path / "run.jsonl"
    for seed in range(3 * SEEDS):
        file.write_bytes(damaged(text.getvalue().encode(), seed))
        try:
            load(file)
        except JournalError as error:
            assert str(file) in str(error)
            failed += 1

    assert failed > SEEDS
