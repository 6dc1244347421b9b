"""Epochs that processes share: a write is seen by all before it happens, whatever breaks."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import aclosing, closing
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs
from structlog.typing import EventDict

from agentflow.caches import shared_epochs
from agentflow.caches.epochs import Epochs
from agentflow.caches.shared_epochs import SharedEpochs

ONE = [("orders", "1")]
TWO = [("orders", "2")]
ALL = [("orders",)]


@pytest.fixture
def logged() -> Iterator[list[EventDict]]:
    with capture_logs() as events:
        yield events


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def patient(folder: Path, limit: int = 4096) -> SharedEpochs:
    """On a busy machine, opening a database takes as long as it takes."""
    return SharedEpochs(folder, patience=60, limit=limit)


def shared(folder: Path, limit: int = 4096) -> aclosing[Epochs]:
    return aclosing(Epochs(patient(folder, limit)))


async def settled(epochs: Epochs) -> tuple[int, ...]:
    """The epoch of an order, looked up so that it is known without waiting."""
    await epochs.look(ONE)
    found = await epochs.look(ONE)
    assert found is not None
    assert epochs.now(ONE) == found
    return found


async def test_an_epoch_is_known_without_waiting_once_it_was_looked_up(folder: Path) -> None:
    async with shared(folder) as epochs:
        assert epochs.now(ONE) is None
        found = await settled(epochs)

        assert epochs.now(TWO) is None
        assert await epochs.look(ONE + TWO) == found + found  # nothing but the root has a count
        assert epochs.now(ONE + TWO) == found + found


async def test_a_write_by_one_is_seen_by_the_other(folder: Path) -> None:
    async with shared(folder) as one, shared(folder) as other:
        before = await settled(one)
        await settled(other)

        await other.raised(ONE)

        assert one.now(ONE) is None
        after = await one.look(ONE)
        assert after is not None
        assert after > before
        assert await other.look(ONE) == after


async def test_a_write_elsewhere_changes_no_epoch_here(folder: Path) -> None:
    async with shared(folder) as one, shared(folder) as other:
        before = await settled(one)
        await other.raised(TWO)

        assert one.now(ONE) is None  # it cannot know
        assert await one.look(ONE) == before
        assert one.now(ONE) == before


async def test_a_write_is_seen_by_who_comes_later(folder: Path) -> None:
    async with shared(folder) as one:
        before = await settled(one)
        await one.raised(ALL)
    async with shared(folder) as later:
        after = await later.look(ONE)

    assert after is not None
    assert after > before


async def test_a_write_that_nobody_waits_for_is_open_everywhere_until_it_has_ended(
    folder: Path,
) -> None:
    async with shared(folder) as one, shared(folder) as other:
        before = await settled(one)
        await settled(other)
        ended = one.left(ONE)
        assert one.now(ONE) is None
        assert await one.look(ONE) is None
        assert await one.look(TWO) is not None  # pays
        assert await other.look(ONE) is None

        ended()
        assert one.now(ONE) is None
        after = await settled(one)
        assert after > before
        assert await settled(other) == after


async def test_a_write_is_counted_when_it_begins_and_when_it_ends(folder: Path) -> None:
    async with shared(folder) as one, shared(folder) as other:
        before = await settled(other)
        async with one.writing(ONE):
            during = await one.look(ONE)
        after = await settled(other)

    assert before is not None
    assert during is not None
    assert before < during < after


async def test_a_write_that_is_cancelled_while_others_are_told_has_ended_for_them(
    folder: Path,
) -> None:
    async def write(epochs: Epochs) -> None:
        async with epochs.writing(ONE):
            raise AssertionError("it was cancelled before")

    async with shared(folder) as one, shared(folder) as other:
        writing = asyncio.create_task(write(one))
        await asyncio.sleep(0)
        writing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await writing
        await one.look(TWO)  # pays what is owed

        assert await other.look(ONE) is not None


async def test_while_another_process_writes_nobody_can_tell_what_is_there(folder: Path) -> None:
    async with shared(folder) as one, shared(folder) as other:
        before = await settled(other)
        async with one.writing(ONE):
            for resources in (ONE, ALL, TWO + ONE):
                assert await other.look(resources) is None
                assert other.now(resources) is None
            assert await other.look(TWO) == before
            assert other.now(TWO) == before
        assert await other.look(ONE) is not None


async def test_a_write_whose_end_cannot_be_counted_yet_has_not_ended(
    folder: Path, monkeypatch: pytest.MonkeyPatch, logged: list[EventDict]
) -> None:
    monkeypatch.setattr(shared_epochs, "TRIES", 1)
    async with shared(folder) as one, shared(folder) as other:
        before = await settled(other)
        with closing(sqlite3.connect(folder / "epochs" / "cache.db", isolation_level=None)) as con:
            async with one.writing(ONE):
                con.execute("BEGIN IMMEDIATE")
            assert await other.look(ONE) is None
            con.execute("ROLLBACK")
        assert await one.look(ONE) is not None  # pays
        assert await settled(other) > before


async def test_nothing_is_known_while_a_raise_is_being_paid(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with shared(folder) as epochs:
        await settled(epochs)
        known: list[object] = []
        count = SharedEpochs._count

        def watched(self: SharedEpochs, *args: Any) -> None:
            known.append(epochs.now(ONE))
            count(self, *args)
            known.append(epochs.now(ONE))

        monkeypatch.setattr(SharedEpochs, "_count", watched)
        await epochs.raised(TWO)
    assert known == [None, None]


async def test_a_write_that_fails_is_counted_too(folder: Path) -> None:
    async with shared(folder) as one, shared(folder) as other:
        with pytest.raises(ZeroDivisionError):
            async with one.writing(ONE):
                during = await other.look(ONE)
                1 / 0  # noqa: B018  # raises
        assert await other.look(ONE) != during
        assert await settled(other)


DIES = """
import asyncio, os, signal, sys
from pathlib import Path
from agentflow.caches.epochs import Epochs
from agentflow.caches.shared_epochs import SharedEpochs

async def main():
    epochs = Epochs(SharedEpochs(Path(sys.argv[1]), patience=60))
    async with epochs.writing([("orders", "1")]):
        print("writes", flush=True)
        sys.stdin.readline()
        os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


async def test_the_end_of_a_write_whose_process_died_is_counted_by_who_looks_next(
    folder: Path,
) -> None:
    async with shared(folder) as one, shared(folder) as other:
        before = await settled(one)
        command = [sys.executable, "-c", DIES, str(folder)]
        pipe = subprocess.PIPE
        with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "writes\n"
            assert await one.look(ONE) is None
            assert one.now(ONE) is None
            process.communicate("die")

        after = await settled(one)
        assert after[0] == before[0] + 2
        assert await settled(other) == after  # once
    assert list((folder / "epochs" / "owners").iterdir()) == []


SCRIPT = """
import asyncio, sys
from pathlib import Path
from agentflow.caches import shared_epochs
from agentflow.caches.epochs import Epochs
from agentflow.caches.shared_epochs import SharedEpochs

shared_epochs.TRIES = 1000

async def main():
    epochs = Epochs(SharedEpochs(Path(sys.argv[1]), patience=60))
    for n in range(50):
        await epochs.raised([("orders", str(n % 5))])
    print(*await epochs.look([("orders", "1"), ("orders",)]))
    await epochs.aclose()

asyncio.run(main())
"""


async def test_no_raise_of_several_processes_is_lost(folder: Path) -> None:
    async with shared(folder) as epochs:
        await settled(epochs)
        before = await epochs.look([*ONE, *ALL])
        command = [sys.executable, "-c", SCRIPT, str(folder)]
        running = [
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            for _ in range(3)
        ]
        for process in running:
            _, err = process.communicate(timeout=50)
            assert process.returncode == 0, err

        assert epochs.now(ONE) is None
        after = await epochs.look([*ONE, *ALL])

    assert before is not None
    assert after is not None
    assert [new - old for new, old in zip(after, before, strict=True)] == [30, 150]


async def test_the_rows_are_bounded_and_folding_them_lowers_no_epoch(folder: Path) -> None:
    async with shared(folder, limit=60) as epochs:
        resources = [("orders", str(n)) for n in range(200)]
        known = {resource: (await epochs.look([resource]) or (0,)) for resource in resources}
        for resource in resources:
            await epochs.raised([resource])
            before, known[resource] = known[resource], await epochs.look([resource]) or (0,)
            assert known[resource] > before
        now = {resource: await epochs.look([resource]) for resource in resources}

    with closing(sqlite3.connect(folder / "epochs" / "cache.db")) as con:
        [(rows,)] = con.execute("SELECT count(*) FROM Cache").fetchall()
    assert rows <= 63
    assert all((now[resource] or (0,)) >= known[resource] for resource in resources)


def remove_the_folder(folder: Path) -> None:
    shutil.rmtree(folder)


def remove_the_epochs(folder: Path) -> None:
    shutil.rmtree(folder / "epochs")


def move_the_epochs(folder: Path) -> None:
    (folder / "epochs").rename(folder / "moved")


def empty_the_database(folder: Path) -> None:
    (folder / "epochs" / "cache.db").write_bytes(b"")


def spoil_the_database(folder: Path) -> None:
    (folder / "epochs" / "cache.db").write_bytes(b"\xa5" * 50_000)


FAULTS = [
    remove_the_folder, remove_the_epochs, move_the_epochs, empty_the_database, spoil_the_database,
]  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
async def test_lost_counts_make_no_old_epoch_true_again(
    folder: Path, fault: Callable[[Path], None], logged: list[EventDict]
) -> None:
    async with shared(folder) as epochs:
        before = await settled(epochs)
    fault(folder)

    async with shared(folder) as epochs:
        found = [await epochs.look(ONE) for _ in range(3)]

    assert before not in found
    assert found[1] is not None


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_write_after_a_loss_is_seen_by_who_had_it_open(
    folder: Path, fault: Callable[[Path], None], logged: list[EventDict]
) -> None:
    async with shared(folder) as one, shared(folder) as other:
        before = await settled(one)
        await settled(other)
        fault(folder)

        await other.raised(ONE)

        assert one.now(ONE) != before
        assert await one.look(ONE) != before


@pytest.mark.parametrize("content", [None, b"", b"short", b"x" * 16])
async def test_a_generation_that_is_gone_or_another_is_a_change(
    folder: Path, content: bytes | None
) -> None:
    async with shared(folder) as epochs:
        before = await settled(epochs)
        path = folder / "epochs" / "generation"
        path.unlink()
        if content is not None:
            path.write_bytes(content)

        assert epochs.now(ONE) is None
        assert await settled(epochs) == before


async def test_a_generation_is_read_through_a_replacement(folder: Path) -> None:
    async with shared(folder) as epochs:
        before = await settled(epochs)
        path = folder / "epochs" / "generation"
        copy = path.with_name("copy")
        copy.write_bytes(path.read_bytes())
        os.replace(copy, path)

        assert epochs.now(ONE) == before
        path.write_bytes(b"y" * 16)
        assert epochs.now(ONE) is None


async def test_every_start_of_the_machine_begins_anew(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with shared(folder) as epochs:
        before = await settled(epochs)
        await epochs.raised(TWO)
    monkeypatch.setattr(shared_epochs, "boot", lambda: b"another")
    async with shared(folder) as epochs:
        after = await settled(epochs)

    assert after != before


async def test_while_a_raise_is_owed_nothing_is_known_and_it_is_paid_as_soon_as_it_can(
    folder: Path, monkeypatch: pytest.MonkeyPatch, logged: list[EventDict]
) -> None:
    monkeypatch.setattr(shared_epochs, "TRIES", 1)
    async with shared(folder) as one, shared(folder) as other:
        before = await settled(one)
        await settled(other)
        local = one.here(ONE)
        with closing(sqlite3.connect(folder / "epochs" / "cache.db", isolation_level=None)) as con:
            con.execute("BEGIN IMMEDIATE")
            for _ in range(2):
                await one.raised(ONE)
            owed = one.now(ONE), await one.look(ONE), await other.look(ONE)
            con.execute("ROLLBACK")

        assert owed == (None, None, before)
        assert one.here(ONE) != local
        after = await one.look(ONE)
        assert after is not None
        assert after > before
        assert await other.look(ONE) == after
        assert [event["event"] for event in logged] == [
            "other processes may not learn of writes in time"
        ]


async def test_a_writer_does_not_wait_for_a_disk_that_hangs(folder: Path) -> None:
    disk = threading.Event()
    one = SharedEpochs(folder, patience=0.01)
    one._worker.submit(disk.wait)

    assert not await one.rise(ONE)
    assert one.now(ONE) is None
    assert await one.look(ONE) is None

    disk.set()
    one._worker.submit(int).result()
    later = patient(folder)
    before = await later.look(ONE)
    await one.aclose()  # pays
    after = await later.look(ONE)
    await later.aclose()

    assert before is not None
    assert after is not None
    assert after > before


async def test_where_nothing_can_be_made_nothing_is_known(
    tmp_path: Path, logged: list[EventDict]
) -> None:
    (tmp_path / "file").write_text("in the way")
    async with shared(tmp_path / "file" / "cache") as epochs:
        local = epochs.here(ONE)
        await epochs.raised(ONE)

        assert await epochs.look(ONE) is None
        assert epochs.now(ONE) is None
        assert epochs.here(ONE) > local
    assert len(logged) == 2  # that it cannot be used, and what follows from that


async def test_a_closed_one_knows_nothing(folder: Path) -> None:
    epochs = Epochs(patient(folder))
    await settled(epochs)
    await epochs.aclose()
    await epochs.aclose()

    epochs.left(ONE)()
    await epochs.raised(ONE)
    assert epochs.now(ONE) is None
    assert await epochs.look(ONE) is None
