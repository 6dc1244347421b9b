"""What is wrong with the file of a journal is said in words, and never made worse."""

from __future__ import annotations

import math
import os
import sqlite3
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from agentflow.errors import JournalError
from agentflow.executor.journal import schema
from agentflow.executor.journal.rows import Batch
from agentflow.executor.journal.store import JournalStore, digest_of

Open = Callable[..., JournalStore]
Begun = Callable[..., Batch]
Refused = Callable[[], str]


@pytest.fixture
def whole(store: JournalStore, begun: Begun) -> Path:
    """The file of a journal with ten runs, closed."""
    for n in range(10):
        store.write(begun(f"run {n}", lines=[f'{{"n":{n},"text":"{"x" * 3000}"}}'] * 3))
    store.close()
    return store.path


@pytest.fixture
def refused(store: JournalStore) -> Refused:
    """What a store says when it is to be opened, twice the same."""

    def say() -> str:
        said = []
        for act in (store.open, store.runs):
            with pytest.raises(JournalError) as caught:
                act()
            assert caught.value.path == str(store.path)
            said.append(str(caught.value))
        assert said[0] == said[1]
        return said[0]

    return say


def sql(path: Path, statement: str) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute(statement)
        db.commit()


def test_the_journal_of_a_newer_version_is_left_alone(whole: Path, refused: Refused) -> None:
    sql(whole, "PRAGMA user_version = 7")
    before = whole.read_bytes()

    assert "was written by a newer version of agentflow (format 7, " in refused()
    assert whole.read_bytes() == before


def test_the_database_of_another_program_is_left_alone(path: Path, refused: Refused) -> None:
    path.parent.mkdir(mode=0o700)
    sql(path, "CREATE TABLE runs (id)")
    before = path.read_bytes()

    assert "is a database of another program: name another file" in refused()
    assert path.read_bytes() == before


def test_a_file_that_is_no_database_is_left_alone(path: Path, refused: Refused) -> None:
    path.parent.mkdir(mode=0o700)
    path.write_text("# Notes\n" * 1000)

    assert "it is no journal: move it aside, or name another file" in refused()
    assert path.read_text() == "# Notes\n" * 1000


def test_an_empty_file_is_no_journal(path: Path, refused: Refused) -> None:
    path.parent.mkdir(mode=0o700)
    path.touch()

    assert "is empty, so it is no journal: remove it and a new one begins" in refused()
    assert path.stat().st_size == 0


@pytest.mark.parametrize("length", [0.5, 0.99])
def test_a_file_that_was_cut_is_damaged(whole: Path, refused: Refused, length: float) -> None:
    os.truncate(whole, int(whole.stat().st_size * length) // 4096 * 4096)

    assert "it is damaged: move it aside, and a new one begins" in refused()


def test_a_folder_in_the_place_of_the_file_is_said(path: Path, refused: Refused) -> None:
    path.mkdir(mode=0o700, parents=True)

    assert "is no regular file" in refused()


def test_a_folder_that_others_may_write_to_is_refused(path: Path, refused: Refused) -> None:
    path.parent.mkdir()
    path.parent.chmod(0o770)

    assert f"others may write to {path.parent}: chmod go-w {path.parent}" in refused()
    assert not path.exists()


def test_the_log_of_another_journal_is_not_taken_over(
    whole: Path, path: Path, refused: Refused
) -> None:
    log = path.with_name("journal.db-wal")
    log.write_bytes(b"\x37\x7f\x06\x82" * 1000)
    whole.unlink()

    assert "the log of a removed journal is left (-wal): remove it too" in refused()
    assert log.stat().st_size == 4000


def test_a_journal_that_somebody_else_made_meanwhile_stays(whole: Path, opened: Open) -> None:
    schema.create(whole)

    assert len(opened().runs()) == 10
    assert not list(whole.parent.glob("*.new"))


def test_a_row_that_is_too_large_is_not_read(
    whole: Path, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schema, "LARGEST", 5000)
    store = opened()

    assert len(store.runs()) == 10
    with pytest.raises(JournalError, match=r"the journal cannot be read .*too big"):
        list(store.records("run 3"))


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a file away")
def test_the_file_of_another_user_is_refused(whole: Path, refused: Refused) -> None:
    os.chown(whole, 65534, -1)

    assert "belongs to another user: name a file of your own" in refused()


def test_damage_that_sqlite_quotes_is_said(whole: Path, refused: Refused) -> None:
    whole.write_bytes(whole.read_bytes().replace(b"NULL DEFAULT", b"NULL DEF\xed\xa0LT", 1))

    assert "it is damaged: move it aside, and a new one begins" in refused()


def test_damage_in_the_middle_spares_what_is_whole(whole: Path, opened: Open) -> None:
    data = bytearray(whole.read_bytes())
    at = data.index(b'{"n":6')
    data[at + 100] ^= 0x01  # in a text, where JSON does not mind it
    whole.write_bytes(data)
    store = opened()

    assert len(store.runs()) == 10
    assert len(list(store.records("run 5"))) == 3
    with pytest.raises(JournalError, match=r"records of run run 6 are damaged \(row 1 of 1\)"):
        list(store.records("run 6"))
    assert [text for text in store.check() if "run 6" in text]


def test_rows_that_are_missing_are_noticed(whole: Path, store: JournalStore) -> None:
    store.write(Batch(lines={"run 3": ['{"n":4}']}, refs=[("run 4", digest_of(b"1"))]))
    store.close()
    sql(whole, "DELETE FROM records WHERE run = 4 AND seq = 1")
    records = store.records("run 3")

    assert [next(records)["n"] for _ in range(3)] == [3, 3, 3]
    with pytest.raises(JournalError, match=r"run 3 are damaged \(row 2 of 2\)"):
        next(records)
    assert len(store.check()) == 2  # and a value that is referred to


def test_a_value_that_was_changed_is_noticed(store: JournalStore, begun: Begun) -> None:
    digest = digest_of(b"[1]")
    store.write(begun("a"))
    store.write(Batch(blobs={digest: b"[1]"}, refs=[("a", digest)]))
    store.close()
    sql(store.path, "UPDATE blobs SET data = x'5b325d'")

    with pytest.raises(JournalError, match=f"the value {digest} is damaged"):
        store.blob(digest)
    assert len(store.check()) == 1


@pytest.mark.parametrize(
    "change",
    [
        "name = x'ff00'",
        "target = '{'",
        "target = '[]'",
        "asks = '[1]'",
        "asks = 5",
        "tokens = 'many'",
        "seconds = 9e999",
        "began = -9e999",
        f"target = '{'[' * 100_000}'",
    ],
)
def test_one_bad_run_does_not_hide_the_others(whole: Path, opened: Open, change: str) -> None:
    sql(whole, f"UPDATE runs SET {change} WHERE id = 'run 4'")

    rows = {row.id: row for row in opened().runs()}

    assert len(rows) == 10
    assert rows["run 4"].state == "damaged"
    assert math.isfinite(rows["run 4"].began)
    assert rows["run 4"].note.startswith("its row is damaged: ")
    assert rows["run 5"].state == "interrupted"


def test_only_their_user_may_read_the_files(path: Path, store: JournalStore, begun: Begun) -> None:
    before = os.umask(0)
    try:
        store.write(begun("a"))
        modes = {
            file.name: stat.S_IMODE(file.stat().st_mode)
            for file in (path.parent, *path.parent.rglob("*"))
        }
    finally:
        os.umask(before)

    [lock] = [file.name for file in path.with_name("journal.db.owners").iterdir()]
    assert modes == {
        "state": 0o700,
        "journal.db": 0o600,
        "journal.db-wal": 0o600,
        "journal.db-shm": 0o600,
        "journal.db.owners": 0o700,
        lock: 0o600,
    }


def test_files_that_others_may_read_are_closed_to_them(whole: Path, store: JournalStore) -> None:
    whole.chmod(0o644)

    store.runs()

    assert stat.S_IMODE(whole.stat().st_mode) == 0o600


def test_a_lock_that_is_never_released_is_an_error_and_then_forgotten(
    store: JournalStore, whole: Path, begun: Begun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schema, "PATIENCE", 0.05)
    with closing(sqlite3.connect(whole, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(JournalError, match="another process has kept it locked for too long"):
            store.write(begun("a"))
        assert len(store.runs()) == 10  # reading goes on
        other.execute("ROLLBACK")

    store.write(begun("a"))

    assert len(store.runs()) == 11


def test_a_full_disk_loses_nothing_that_was_kept(
    store: JournalStore, whole: Path, begun: Begun
) -> None:
    with store._file.read() as db:
        pages = db.execute("PRAGMA page_count").fetchone()[0]
        db.execute(f"PRAGMA max_page_count = {pages + 2}").fetchall()

    with pytest.raises(JournalError, match="the disk is full: make room and go on"):
        store.write(begun("large", lines=['{"n":"' + "x" * 100_000 + '"}']))
    with store._file.read() as db:
        db.execute("PRAGMA max_page_count = 1000000").fetchall()
    store.write(begun("a"))

    assert [row.id for row in store.runs(limit=2)] == ["a", "run 9"]
    assert store.check() == []


HEAD = """
import os, resource, sys
from pathlib import Path
from agentflow.errors import JournalError
from agentflow.executor.journal.rows import Batch
from agentflow.executor.journal.store import JournalStore

store = JournalStore(Path(sys.argv[1]))
first = {"name": "n", "kind": "task", "target": {}, "began": 1.0}
"""

FILLS_THE_DISK = """
import signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
store.write(Batch(runs={"a": first}, lines={"a": ["{}"]}))
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, resource.RLIM_INFINITY))
kept = failed = 0
for _ in range(20):
    try:
        store.write(Batch(lines={"a": ['{"n":"' + "x" * 50_000 + '"}']}))
        kept += 1
    except JournalError as error:
        failed, last = failed + 1, error
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
store.write(Batch(lines={"a": ["{}"]}))
assert failed and kept
assert len(list(store.records("a"))) == kept + 2
print(last)
"""

GIVEN_AWAY = """
store.write(Batch(runs={"a": first}))
store.close()
if os.getuid() == 0:
    for path in (store.path.parent, *store.path.parent.rglob("*")):
        os.chown(path, 65534, 65534)
"""

READS_ONLY = """
if os.getuid() == 0:  # who may write everywhere
    os.setuid(65534)
store.path.chmod(0o400)
store.path.parent.chmod(0o500)
for path in (store.path, store.path.with_name("new.db")):
    try:
        JournalStore(path).write(Batch(runs={"b": first}))
    except JournalError as error:
        print(error)
"""


def run(script: str, path: Path) -> str:
    """What a process of its own prints."""
    done = subprocess.run(
        [sys.executable, "-c", HEAD + script, str(path)],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_limit_on_files_is_an_error_until_it_is_lifted(path: Path) -> None:
    assert "see whether it has room" in run(FILLS_THE_DISK, path)


@pytest.fixture
def public() -> Iterator[Path]:
    """A folder that other users can reach; pytest's own is closed to them."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def test_a_journal_that_may_not_be_written_is_said(public: Path) -> None:
    path = public / "state" / "journal.db"
    run(GIVEN_AWAY, path)

    old, new = run(READS_ONLY, path).splitlines()

    assert "name a file in a folder of your own" in old
    assert "name a file in a folder of your own" in new
