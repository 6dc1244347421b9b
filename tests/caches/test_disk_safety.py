"""Nothing on disk is ever unpickled, followed out of its folder, or believed.

Each attack is first tried on a plain diskcache, where it works: so the test can fail.
"""

from __future__ import annotations

import os
import pickle
import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import aclosing, closing
from pathlib import Path
from typing import Any

import pytest
from diskcache import Cache  # type: ignore[import-untyped]  # it has no types
from structlog.testing import capture_logs
from structlog.typing import EventDict

from agentflow.caches.disk import SafeCache, SafeDisk, open_cache
from agentflow.caches.diskstore import DiskStore
from agentflow.caches.envelope import pack
from agentflow.caches.shared_epochs import SharedEpochs
from agentflow.caches.store import Entry

ENTRY = Entry(b'{"a":1}', 1.0)


@pytest.fixture
def logged() -> Iterator[list[EventDict]]:
    with capture_logs() as events:
        yield events


class Planted:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.makedirs, (str(self.folder), 0o700, True)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of a store with an entry under the key ``k``."""
    directory = tmp_path / "cache" / "values"
    directory.mkdir(parents=True, mode=0o700)
    with closing(open_cache(directory, disk_min_file_size=128 << 10)) as cache:
        cache.set("k", pack("k", ENTRY))
    return directory


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    return tmp_path / "unpickled"


def disk(folder: Path, **options: Any) -> DiskStore:
    """A store that bears a busy machine."""
    return DiskStore(folder, patience=60, **options)


def tamper(folder: Path, statement: str, *values: object) -> None:
    with closing(sqlite3.connect(folder / "cache.db", isolation_level=None)) as con:
        assert con.execute(statement, values).rowcount == 1


async def read(folder: Path, key: str = "k") -> Entry | None:
    """Everything a store does with what it finds."""
    async with aclosing(disk(folder.parent)) as store:
        found = await store.get([key])
        exported = [entry async for _, entry in store.export()]
        assert exported in ([], found)
        store.put("another", ENTRY)
        await store.delete([key])
        await store.clear()
    return found[0]


def plainly(folder: Path) -> None:
    """What a plain diskcache does with it."""
    with closing(Cache(str(folder))) as cache:
        for key in cache:
            cache.get(key)
        cache.get("k")


async def test_an_untouched_entry_is_read(folder: Path) -> None:
    assert await read(folder) == ENTRY


async def test_a_row_marked_as_pickled_is_a_miss(folder: Path, marker: Path) -> None:
    planted = pickle.dumps(Planted(marker))
    tamper(folder, "UPDATE Cache SET mode = 4, value = ?", planted)

    assert await read(folder) is None
    assert not marker.exists()


def test_a_plain_diskcache_would_have_unpickled_the_row(folder: Path, marker: Path) -> None:
    tamper(folder, "UPDATE Cache SET mode = 4, value = ?", pickle.dumps(Planted(marker)))

    plainly(folder)

    assert marker.exists()


async def test_a_value_file_marked_as_pickled_is_a_miss(folder: Path, marker: Path) -> None:
    name = value_file(folder, pickle.dumps(Planted(marker)))
    tamper(folder, "UPDATE Cache SET mode = 4, value = NULL, filename = ?", name)

    assert await read(folder) is None
    assert not marker.exists()


async def test_a_value_file_that_is_a_pickle_is_a_miss(folder: Path, marker: Path) -> None:
    name = value_file(folder, pickle.dumps(Planted(marker)))
    tamper(folder, "UPDATE Cache SET mode = 2, value = NULL, filename = ?", name)

    assert await read(folder) is None
    assert not marker.exists()


async def test_a_pickled_key_is_left_alone(folder: Path, marker: Path) -> None:
    tamper(folder, "UPDATE Cache SET raw = 0, key = ?", pickle.dumps(Planted(marker)))

    assert await read(folder) is None
    assert not marker.exists()


def test_a_plain_diskcache_would_have_unpickled_the_key(folder: Path, marker: Path) -> None:
    tamper(folder, "UPDATE Cache SET raw = 0, key = ?", pickle.dumps(Planted(marker)))

    plainly(folder)

    assert marker.exists()


@pytest.mark.parametrize("mode", [0, 3, 5, -1, None, "one", b"1"])
async def test_a_row_of_any_other_mode_is_a_miss(folder: Path, mode: object) -> None:
    tamper(folder, "UPDATE Cache SET mode = ?", mode)

    assert await read(folder) is None


@pytest.mark.parametrize("value", [7, 1.5, "text", None, b"", b"\xff" * 100])
async def test_a_row_with_any_other_value_is_a_miss(folder: Path, value: object) -> None:
    tamper(folder, "UPDATE Cache SET value = ?", value)

    assert await read(folder) is None


@pytest.mark.parametrize("mode", [2, 3, 4])
async def test_a_file_outside_of_the_folder_is_neither_read_nor_removed(
    folder: Path, mode: int
) -> None:
    outside = folder.parent / "outside"
    outside.write_bytes(pack("k", ENTRY))
    tamper(folder, "UPDATE Cache SET mode = ?, value = NULL, filename = '../outside'", mode)

    assert await read(folder) is None
    assert outside.exists()


def test_a_plain_diskcache_would_have_removed_it(folder: Path) -> None:
    outside = folder.parent / "outside"
    outside.write_bytes(pack("k", ENTRY))
    tamper(folder, "UPDATE Cache SET mode = 2, value = NULL, filename = '../outside'")

    with closing(Cache(str(folder))) as cache:
        assert cache.get("k") == pack("k", ENTRY)
        cache.delete("k")

    assert not outside.exists()


async def test_a_value_file_that_is_a_link_is_not_followed(folder: Path) -> None:
    outside = folder.parent / "outside"
    outside.write_bytes(pack("k", ENTRY))
    name = value_file(folder, b"")
    (folder / name).unlink()
    (folder / name).symlink_to(outside)
    tamper(folder, "UPDATE Cache SET mode = 2, value = NULL, filename = ?", name)

    assert await read(folder) is None
    assert outside.exists()


async def test_a_value_file_that_is_a_pipe_holds_nobody_up(folder: Path) -> None:
    name = value_file(folder, b"")
    (folder / name).unlink()
    os.mkfifo(folder / name)
    tamper(folder, "UPDATE Cache SET mode = 2, value = NULL, filename = ?", name)

    assert await read(folder) is None


async def test_the_value_of_another_key_is_a_miss(folder: Path) -> None:
    tamper(folder, "UPDATE Cache SET key = 'other'")

    assert await read(folder, "other") is None


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("_directory", "/nowhere"),
        ("sqlite_user_version", 7),
        ("sqlite_writable_schema = 1; --", 1),
        ("disk_other", 1),
        ("size_limit", b"\x80\x04."),
        ("eviction_policy", None),
    ],
)
async def test_settings_that_are_not_ours_put_the_database_aside(
    folder: Path, key: str, value: object, logged: list[EventDict]
) -> None:
    tamper(folder, "INSERT OR REPLACE INTO Settings VALUES (?, ?)", key, value)

    async with aclosing(disk(folder.parent)) as store:
        assert await store.get(["k"]) == [None]
        assert "damaged" in logged[0]["event"]
        assert [path.name[:15] for path in folder.parent.glob("values.*")] == ["values.damaged-"]

        await store.clear()
        assert list(folder.parent.glob("values.*")) == []


@pytest.mark.parametrize(
    "change",
    ["value = '[1,'", "value = X'5b312c'", "value = X'5b312c225d225d'", "mode = 4", "mode = 2"],
)
async def test_a_count_that_is_none_begins_the_epochs_anew(
    tmp_path: Path, change: str, logged: list[EventDict]
) -> None:
    resource = [("orders",)]
    async with aclosing(SharedEpochs(tmp_path / "cache", patience=60)) as epochs:
        before = await epochs.look(resource)
    tamper(tmp_path / "cache" / "epochs", f"UPDATE Cache SET {change} WHERE key = '[]'")

    async with aclosing(SharedEpochs(tmp_path / "cache", patience=60)) as epochs:
        damaged = await epochs.look(resource)
        repaired = await epochs.look(resource)

    assert before is not None
    assert damaged is None
    assert repaired not in (None, before)
    assert [event["event"] for event in logged] == ["the cache was damaged and starts empty"]


async def test_a_planted_pickle_among_the_epochs_is_not_read(tmp_path: Path, marker: Path) -> None:
    async with aclosing(SharedEpochs(tmp_path / "cache", patience=60)) as epochs:
        await epochs.look([("orders",)])
    planted = pickle.dumps(Planted(marker))
    tamper(
        tmp_path / "cache" / "epochs",
        "UPDATE Cache SET mode = 4, value = ? WHERE key = '[]'",
        planted,
    )

    async with aclosing(SharedEpochs(tmp_path / "cache", patience=60)) as epochs:
        await epochs.look([("orders",)])
        await epochs.rise([("orders",)])

    assert not marker.exists()


def test_only_bytes_under_text_can_be_stored(tmp_path: Path) -> None:
    disk = SafeDisk(str(tmp_path), min_file_size=10)

    with pytest.raises(TypeError, match="key is text"):
        disk.put(b"k")
    with pytest.raises(TypeError, match="value is bytes"):
        disk.store({"a": 1}, False)
    with pytest.raises(TypeError, match="value is bytes"):
        disk.store(b"", True)


async def test_the_folder_is_for_its_owner_only(tmp_path: Path) -> None:
    async with aclosing(disk(tmp_path / "deep" / "cache")) as store:
        store.put("k", ENTRY)
        await store.flush()

    for path in (tmp_path / "deep" / "cache", tmp_path / "deep" / "cache" / "values"):
        assert path.stat().st_mode & 0o777 == 0o700


async def test_a_folder_that_others_may_write_to_is_not_used(
    folder: Path, logged: list[EventDict]
) -> None:
    folder.parent.chmod(0o777)

    assert await read(folder) is None
    assert "chmod go-w" in logged[0]["error"]


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a folder away")
async def test_a_folder_of_another_user_is_not_used(folder: Path, logged: list[EventDict]) -> None:
    os.chown(folder, 65534, 65534)

    assert await read(folder) is None
    assert "belongs to another user" in logged[0]["error"]


@pytest.mark.skipif(sys.version_info < (3, 12), reason="sqlite3 has no setconfig")
def test_it_works_with_an_sqlite_that_knows_no_double_quoted_strings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect = sqlite3.connect

    def strict(*args: Any, **kwargs: Any) -> sqlite3.Connection:
        con: sqlite3.Connection = connect(*args, **kwargs)
        if sys.version_info >= (3, 12):
            con.setconfig(sqlite3.SQLITE_DBCONFIG_DQS_DDL, False)
            con.setconfig(sqlite3.SQLITE_DBCONFIG_DQS_DML, False)
        return con

    monkeypatch.setattr(sqlite3, "connect", strict)
    with (
        closing(Cache(str(tmp_path / "plain"))) as plain,
        pytest.raises(sqlite3.OperationalError, match="no such column"),
    ):
        plain.set("k", b"1")
    (tmp_path / "ours").mkdir()
    with closing(open_cache(tmp_path / "ours")) as cache:
        assert isinstance(cache, SafeCache)
        cache.set("k", b"1")
        assert len(cache) == 1


def value_file(folder: Path, content: bytes) -> str:
    """Write a value file and give its name."""
    name = f"ab/cd/{'0' * 28}.val"
    (folder / name).parent.mkdir(parents=True)
    (folder / name).write_bytes(content)
    return name
