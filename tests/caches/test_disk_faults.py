"""A disk tier that breaks is a miss, one warning, and whole again soon after."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import aclosing, closing
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs
from structlog.typing import EventDict

from agentflow.caches import database, diskstore
from agentflow.caches.diskstore import BATCH, IN_DATABASE, DiskStore
from agentflow.caches.store import Entry
from agentflow.errors import DefinitionError

KEYS = [f"key {n}" for n in range(200)]


@pytest.fixture
def logged() -> Iterator[list[EventDict]]:
    with capture_logs() as events:
        yield events


def disk(folder: Path, **options: Any) -> DiskStore:
    """A store that bears a busy machine."""
    return DiskStore(folder, patience=60, **options)


def entry(key: str) -> Entry:
    return Entry(key.encode() * 100, 1.0, tool="search")


async def fill(folder: Path) -> Path:
    """A store with all keys, closed; gives its database."""
    async with aclosing(disk(folder)) as store:
        for key in KEYS:
            store.put(key, entry(key))
    return folder / "values" / "cache.db"


async def works(store: DiskStore) -> bool:
    """Whether a store keeps what it is given, by the word of another one."""
    store.put("new", entry("new"))
    await store.flush()
    async with aclosing(disk(store._database.folder.parent)) as other:
        return await other.get(["new"]) == [entry("new")]


def none_is_wrong(found: list[Entry | None]) -> bool:
    return all(one is None or one == entry(key) for key, one in zip(KEYS, found, strict=True))


def empty(path: Path) -> None:
    path.write_bytes(b"")


def cut_in_half(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def cut_to_100_bytes(path: Path) -> None:
    os.truncate(path, 100)


def spoil_the_header(path: Path) -> None:
    write_at(path, 0, b"not a database at all")


def spoil_the_middle(path: Path) -> None:
    for at in range(4096, path.stat().st_size, 8192):
        write_at(path, at, b"\xa5" * 4096)


def spoil_everything(path: Path) -> None:
    path.write_bytes(b"\xa5" * path.stat().st_size)


def remove(path: Path) -> None:
    path.unlink()


def remove_the_folder(path: Path) -> None:
    shutil.rmtree(path.parent.parent)


def put_another_in_its_place(path: Path) -> None:
    path.rename(path.with_name("old.db"))
    path.write_bytes(b"not a database at all")


FAULTS = [
    empty, cut_in_half, cut_to_100_bytes, spoil_the_header, spoil_the_middle, spoil_everything,
    remove, remove_the_folder, put_another_in_its_place,
]  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_store_that_was_damaged_while_closed_repairs_itself(
    tmp_path: Path, fault: Callable[[Path], None], logged: list[EventDict]
) -> None:
    fault(await fill(tmp_path / "cache"))

    async with aclosing(disk(tmp_path / "cache")) as store:
        first = await store.get(KEYS)
        second = await store.get(KEYS)
        assert none_is_wrong(first)
        assert none_is_wrong(second)
        assert None in first
        for _ in range(2):  # damage in the middle may show at the first write only
            repaired = await works(store)

    assert repaired
    assert len(logged) <= 2  # of the entry that was found damaged, and of the database


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_store_that_is_damaged_while_open_repairs_itself(
    tmp_path: Path, fault: Callable[[Path], None], logged: list[EventDict]
) -> None:
    path = await fill(tmp_path / "cache")
    async with aclosing(disk(tmp_path / "cache")) as store:
        assert None not in await store.get(KEYS)
        fault(path)

        for _ in range(2):
            assert none_is_wrong(await store.get(KEYS))
        for _ in range(2):
            repaired = await works(store)

    assert repaired
    assert len(logged) <= 2


async def test_a_damaged_database_is_put_aside_and_only_the_last_one_is_kept(
    tmp_path: Path, logged: list[EventDict]
) -> None:
    for n in range(3):
        path = await fill(tmp_path / "cache")
        write_at(path, 0, b"spoilt, number %d" % n)
        async with aclosing(disk(tmp_path / "cache")) as store:
            assert await store.get(["key 1"]) == [None]

    [aside] = (tmp_path / "cache").glob("values.damaged-*")
    assert (aside / "cache.db").read_bytes().startswith(b"spoilt, number 2")


@pytest.mark.parametrize("content", [b"", b"short", b"\xa5" * 300_000])
async def test_a_value_file_that_was_altered_is_a_miss(tmp_path: Path, content: bytes) -> None:
    large = Entry(b"x" * 2 * IN_DATABASE)
    async with aclosing(disk(tmp_path / "cache")) as store:
        store.put("a", large)
        store.put("b", large)
        await store.flush()
        found = await store.get(["a", "b"])
        [one, other] = sorted((tmp_path / "cache" / "values").glob("??/??/*.val"))
        one.write_bytes(content)

        assert found == [large, large]
        assert sorted(await store.get(["a", "b"]), key=bool) == [None, large]
        await store.flush()
        assert not one.exists()  # the entry is forgotten
        assert other.exists()


async def test_value_files_that_changed_places_are_misses(tmp_path: Path) -> None:
    async with aclosing(disk(tmp_path / "cache")) as store:
        store.put("a", Entry(b"a" * 2 * IN_DATABASE))
        store.put("b", Entry(b"b" * 2 * IN_DATABASE))
        await store.flush()
        one, other = (tmp_path / "cache" / "values").glob("??/??/*.val")
        one.rename(tmp_path / "x")
        other.rename(one)
        (tmp_path / "x").rename(other)

        assert await store.get(["a", "b"]) == [None, None]


async def test_value_files_that_no_row_names_are_swept_when_they_are_old(tmp_path: Path) -> None:
    async with aclosing(disk(tmp_path / "cache")) as store:
        store.put("a", Entry(b"a" * 2 * IN_DATABASE))
    values = tmp_path / "cache" / "values"
    [named] = values.glob("??/??/*.val")
    old, young, foreign = (
        values / "ab" / "cd" / name for name in ("0" * 28 + ".val", "1" * 28 + ".val", "x.val")
    )
    old.parent.mkdir(parents=True)
    for path in (old, young, foreign):
        path.write_bytes(b"orphan")
    for path in (old, foreign, named):
        os.utime(path, (1e9, 1e9))

    async with aclosing(disk(tmp_path / "cache")) as store:
        store.put("b", Entry(b"1"))

    assert [path.exists() for path in (named, old, young, foreign)] == [True, False, True, True]


async def test_a_place_where_nothing_can_be_made_is_all_misses_and_one_warning(
    tmp_path: Path, logged: list[EventDict]
) -> None:
    (tmp_path / "file").write_text("in the way")
    async with aclosing(disk(tmp_path / "file" / "cache")) as store:
        for _ in range(3):
            store.put("a", entry("a"))
            await store.flush()
            assert await store.get(["a"]) == [None]
        lost = store.stats().lost

    assert lost == 6  # three writes, three reads
    assert len(logged) == 1


async def test_it_is_tried_again_after_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr("agentflow.clock.monotonic", lambda: now)
    (tmp_path / "cache").write_text("in the way")
    store = disk(tmp_path / "cache")
    assert await store.get(["a"]) == [None]
    (tmp_path / "cache").unlink()

    store.put("a", entry("a"))
    await store.flush()
    assert not (tmp_path / "cache").exists()

    now += 2.0
    assert await works(store)
    await store.aclose()


async def test_while_another_process_writes_reads_go_on_and_writes_are_tried_again(
    tmp_path: Path,
) -> None:
    path = await fill(tmp_path / "cache")
    async with aclosing(disk(tmp_path / "cache")) as store:
        assert None not in await store.get(KEYS)
        with closing(sqlite3.connect(path, isolation_level=None)) as con:
            con.execute("BEGIN IMMEDIATE")
            store.put("new", entry("new"))
            held_up = await store._worker.ask(10, store._write)
            read = await store.get([*KEYS, "new"])
            con.execute("ROLLBACK")

        assert held_up
        assert None not in read
        assert await works(store)
        assert store.stats().lost == 0


async def test_what_stays_locked_out_is_lost_with_one_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, logged: list[EventDict]
) -> None:
    monkeypatch.setattr(diskstore, "TRIES", 2)
    path = await fill(tmp_path / "cache")
    async with aclosing(disk(tmp_path / "cache")) as store:
        assert None not in await store.get(KEYS)
        with closing(sqlite3.connect(path, isolation_level=None)) as con:
            con.execute("BEGIN IMMEDIATE")
            for key in ("x", "y"):
                store.put(key, entry(key))
                await store.flush()
            found = await store.get(["x", "y"])
            con.execute("ROLLBACK")

        assert found == [None, None]
        assert store.stats().lost == 2
        assert len(logged) == 1
        assert await works(store)


async def test_a_database_that_is_locked_when_it_is_to_be_opened_is_a_miss_for_a_while(
    tmp_path: Path,
) -> None:
    path = await fill(tmp_path / "cache")
    async with aclosing(disk(tmp_path / "cache")) as store:
        with closing(sqlite3.connect(path, isolation_level=None)) as con:
            con.execute("BEGIN EXCLUSIVE")
            locked = await store.get(["key 1"])
            con.execute("ROLLBACK")

        assert locked == [None]
        assert await store.get(["key 1"]) == [entry("key 1")]


async def test_a_get_does_not_wait_for_a_disk_that_hangs(tmp_path: Path) -> None:
    hung = threading.Event()
    store = DiskStore(tmp_path / "cache", patience=0.01)
    store._worker.submit(hung.wait)
    store.put("a", entry("a"))

    assert await store.get(["a", "b"]) == [entry("a"), None]

    hung.set()
    await store.aclose()
    async with aclosing(disk(tmp_path / "cache")) as later:
        assert await later.get(["a"]) == [entry("a")]


async def test_a_write_that_cannot_wait_any_more_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(diskstore, "WAITING_BYTES", 1000)
    hung = threading.Event()
    store = disk(tmp_path / "cache")
    store._worker.submit(hung.wait)
    store.put("a", Entry(b"x" * 600))
    store.put("b", Entry(b"x" * 600))
    hung.set()

    assert await store.get(["a", "b"]) == [Entry(b"x" * 600), None]
    assert store.stats().lost == 1
    await store.aclose()


async def test_the_limit_is_kept_and_the_oldest_go(tmp_path: Path) -> None:
    limit = 8 << 20
    async with aclosing(disk(tmp_path / "cache", limit_bytes=limit)) as store:
        for n in range(120):
            size = 2 * IN_DATABASE if n % 4 == 0 else 90_000
            store.put(f"large {n}", Entry(b"x" * size))
            await store.flush()
            files = (tmp_path / "cache").rglob("*")
            assert sum(path.stat().st_size for path in files if path.is_file()) <= limit
        stats = store.stats()
        found = await store.get([f"large {n}" for n in range(120)])

    held = [n for n in range(120) if found[n] is not None]
    assert held == list(range(held[0], 120))
    assert len(held) == stats.entries == 120 - stats.evicted
    assert stats.bytes > limit // 2
    assert stats.lost == 0


@pytest.mark.parametrize("on_opening", [OSError(errno.EROFS, "read-only file system"), None])
async def test_a_folder_that_is_read_only_is_said_to_be_so_once(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    logged: list[EventDict],
    on_opening: OSError | None,
) -> None:
    await fill(tmp_path / "cache")

    def opened(folder: Path, **_settings: Any) -> None:
        if on_opening is not None:
            raise on_opening
        uri = f"file:{folder / 'cache.db'}?mode=ro"
        with closing(sqlite3.connect(uri, uri=True)) as con:
            con.execute("CREATE TABLE t (x)")

    monkeypatch.setattr(database, "open_cache", opened)
    async with aclosing(disk(tmp_path / "cache")) as store:
        assert await store.get(KEYS[:2]) == [None, None]
        store.put("new", entry("new"))

    assert [event["event"] for event in logged] == ["the cache is read-only, everything is a miss"]
    assert "read" in logged[0]["error"]


async def test_a_warning_without_an_error_names_none(
    tmp_path: Path, logged: list[EventDict]
) -> None:
    database.Database(tmp_path).warn("kind", "what")
    assert logged == [{"event": "what", "log_level": "warning", "folder": str(tmp_path)}]


def test_a_limit_that_holds_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DefinitionError, match="limit_bytes"):
        DiskStore(tmp_path, limit_bytes=1000)


async def test_time_across_processes_is_wall_time(tmp_path: Path) -> None:
    now = 1_800_000_000.0
    async with aclosing(disk(tmp_path / "cache", wall=lambda: now)) as store:
        store.put("a", Entry(b"1", expires=now + 60))
        store.put("b", Entry(b"2"))
        await store.flush()

        now += 59.9
        before = await store.get(["a", "b"])
        now += 0.1
        after = await store.get(["a", "b"])
        exported = [key async for key, _ in store.export()]
        await store.flush()

        assert before == [Entry(b"1", expires=1_800_000_060.0), Entry(b"2")]
        assert after == [None, Entry(b"2")]
        assert exported == ["b"]
        assert store.stats().entries == 1  # the expired one is gone from the disk


async def test_an_export_has_every_entry_and_bears_a_break(tmp_path: Path) -> None:
    await fill(tmp_path / "cache")
    async with aclosing(disk(tmp_path / "cache")) as store:
        store.put("waiting", entry("waiting"))
        everything = {key: one async for key, one in store.export()}
        async for _ in store.export():
            break
        await store.clear()
        nothing = [key async for key, _ in store.export()]

    assert everything == {key: entry(key) for key in [*KEYS, "waiting"]}
    assert nothing == []


async def test_clearing_reaches_whoever_has_it_open(tmp_path: Path) -> None:
    await fill(tmp_path / "cache")
    async with (
        aclosing(disk(tmp_path / "cache")) as one,
        aclosing(disk(tmp_path / "cache")) as other,
    ):
        assert None not in await other.get(KEYS)
        await one.clear()

        assert set(await other.get(KEYS)) == {None}
        assert await works(other)
        assert await one.get(["new"]) == [entry("new")]
    assert list((tmp_path / "cache").iterdir()) == [tmp_path / "cache" / "values"]


async def test_clearing_reaches_what_is_being_written(tmp_path: Path) -> None:
    keys = [f"key {n}" for n in range(2 * BATCH)]
    async with aclosing(disk(tmp_path / "cache")) as store:
        for key in keys:
            store.put(key, entry(key))
        assert await store._worker.ask(10, store._write)  # the first of several batches
        await store.clear()
        await store.flush()

        assert set(await store.get(keys)) == {None}


async def test_clearing_removes_what_an_interrupted_one_left(tmp_path: Path) -> None:
    await fill(tmp_path / "cache")
    (tmp_path / "cache" / "values.cleared-0").mkdir()
    async with aclosing(disk(tmp_path / "cache")) as store:
        await store.clear()

    assert list((tmp_path / "cache").iterdir()) == []


async def test_what_it_holds_can_be_looked_up(tmp_path: Path) -> None:
    await fill(tmp_path / "cache")
    async with aclosing(disk(tmp_path / "cache")) as store:
        unused = store.stats()
        measured = await store.measured()

    assert unused.entries == 0
    assert measured.entries == len(KEYS)
    assert measured.bytes > sum(len(entry(key).value) for key in KEYS)


async def test_an_entry_that_is_no_json_is_lost_and_nothing_else(
    tmp_path: Path, logged: list[EventDict]
) -> None:
    async with aclosing(disk(tmp_path / "cache")) as store:
        store.put("odd", Entry(b"1", cost=1j))  # type: ignore[arg-type]  # on purpose
        store.put("even", entry("even"))
        await store.flush()

        assert await store.get(["odd", "even"]) == [None, entry("even")]
        assert (store.stats().lost, store.stats().stored) == (1, 1)
    assert [event["event"] for event in logged] == ["an entry cannot be stored"]


def test_a_rollback_that_fails_too_does_not_hide_that_the_disk_is_full() -> None:
    full = sqlite3.OperationalError("database or disk is full")
    full.sqlite_errorcode = sqlite3.SQLITE_FULL
    try:
        try:
            raise full
        except sqlite3.Error:
            rollback = sqlite3.OperationalError("cannot rollback - no transaction is active")
            rollback.sqlite_errorcode = sqlite3.SQLITE_ERROR
            raise rollback from None
    except sqlite3.Error as error:
        assert not database.is_damage(error)


def write_at(path: Path, at: int, content: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(content)
