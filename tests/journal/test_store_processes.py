"""Several processes use one journal, and some of them are killed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agentflow.executor.journal.rows import Batch
from agentflow.executor.journal.store import JournalStore

Open = Callable[..., JournalStore]

HEAD = """
import itertools, json, sys, threading
from pathlib import Path
from agentflow.errors import JournalError
from agentflow.executor.journal.rows import Batch
from agentflow.executor.journal.store import JournalStore

store, name = JournalStore(Path(sys.argv[1])), sys.argv[2]
first = {"name": "n", "kind": "task", "target": {}, "began": 1.0}

def numbered(first, last):
    return [json.dumps({"n": n}) for n in range(first, last)]

def say(*words):
    print(*words, flush=True)
"""

WRITES_100 = """
say("ready")
sys.stdin.readline()
store.write(Batch(runs={name: first}))
for n in range(100):
    store.write(Batch(lines={name: numbered(3 * n, 3 * n + 3)}))
store.write(Batch(runs={name: {"state": "finished"}}))
store.close()
"""

WRITES_FOR_EVER = """
store.write(Batch(runs={name: first}))
for n in itertools.count():
    store.write(Batch(lines={name: numbered(3 * n, 3 * n + 3)}))
    say(n)
"""

DIES_IN_A_TRANSACTION = """
class Blobs(dict):
    def items(self):
        store._file._db.execute("PRAGMA cache_spill = 1").fetchall()
        say("within")
        threading.Event().wait()

store.write(Batch(runs={name: first}, lines={name: numbered(0, 5)}))
large = [json.dumps({"n": 5, "text": "x" * 900_000})] * 10
store._file._db.execute("PRAGMA cache_size = 5").fetchall()
store.write(Batch(lines={name: large}, blobs=Blobs()))
"""

CLAIMS = """
store.runs()
say("ready")
sys.stdin.readline()
try:
    store.claim(name)
    say("won")
    sys.stdin.readline()
except JournalError as error:
    say("lost" if "is going on in another process" in str(error) else error)
"""


class Process(subprocess.Popen[str]):
    """A script with a store, which says things and waits to be told to go on."""

    def __init__(self, script: str, path: Path, name: str) -> None:
        command = [sys.executable, "-c", HEAD + script, str(path), name]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        super().__init__(command, text=True, bufsize=1, **pipes)  # type: ignore[call-overload]  # of a dict

    def hear(self) -> str:
        """The next thing it says; empty at its end."""
        assert self.stdout is not None
        return self.stdout.readline().rstrip("\n")

    def go_on(self) -> None:
        assert self.stdin is not None
        self.stdin.write("go on\n")
        self.stdin.flush()

    def die(self) -> list[str]:
        """Kill it without warning; what it had said until then."""
        assert self.stdout is not None
        self.kill()
        return [line for line in self.stdout if line.endswith("\n")]


@pytest.fixture
def started(path: Path) -> Iterator[Callable[..., Process]]:
    processes = []

    def start(script: str, name: str = "a") -> Process:
        processes.append(Process(script, path, name))
        return processes[-1]

    yield start
    for process in processes:
        with process:
            process.kill()


Started = Callable[..., Process]


def numbers(store: JournalStore, run: str) -> list[object]:
    return [record["n"] for record in store.records(run)]


def test_processes_that_make_and_write_a_journal_at_once_lose_nothing(
    started: Started, store: JournalStore
) -> None:
    processes = [started(WRITES_100, name) for name in "abc"]
    assert [process.hear() for process in processes] == ["ready"] * 3
    for process in processes:
        process.go_on()

    assert [process.wait(50) for process in processes] == [0, 0, 0]

    for run in "abc":
        assert numbers(store, run) == list(range(300))
        assert store.run(run).state == "finished"
    assert store.check() == []
    names = {file.name for file in store.path.parent.iterdir()}
    assert names - {"journal.db-wal", "journal.db-shm"} == {"journal.db", "journal.db.owners"}


def test_what_was_acknowledged_survives_the_death_of_its_process(
    started: Started, opened: Open
) -> None:
    processes = [started(WRITES_FOR_EVER, name) for name in "ab"]
    for _ in range(50):
        for process in processes:
            process.hear()
    said = [process.die() for process in processes]
    store = opened()

    for run, lines in zip("ab", said, strict=True):
        acknowledged = int(lines[-1]) if lines else 49
        kept = numbers(store, run)
        assert kept == list(range(len(kept)))
        assert len(kept) % 3 == 0
        assert len(kept) >= 3 * (acknowledged + 1)
        assert store.run(run).state == "interrupted"
        store.claim(run)
        store.write(Batch(lines={run: ['{"n":-1}']}))
        assert numbers(store, run) == [*kept, -1]
    assert store.check() == []


def test_a_death_within_a_transaction_undoes_all_of_it(started: Started, opened: Open) -> None:
    process = started(DIES_IN_A_TRANSACTION)
    assert process.hear() == "within"
    log = opened().path.with_name("journal.db-wal")
    assert log.stat().st_size > 1_000_000  # part of it has reached the disk
    process.die()
    store = opened()

    assert numbers(store, "a") == [0, 1, 2, 3, 4]
    assert store.run("a").size == len('{"n": 0}') * 5 + 4
    assert store.check() == []
    store.claim("a")
    store.write(Batch(lines={"a": ['{"n":5}']}))
    assert numbers(store, "a") == [0, 1, 2, 3, 4, 5]


def test_of_processes_that_claim_a_run_one_wins_until_it_dies(
    started: Started, store: JournalStore, begun: Callable[..., Batch]
) -> None:
    store.write(begun("a"))
    store.close()

    for _ in range(3):
        processes = [started(CLAIMS) for _ in range(3)]
        assert [process.hear() for process in processes] == ["ready"] * 3
        for process in processes:
            process.go_on()
        said = {process: process.hear() for process in processes}
        assert sorted(said.values()) == ["lost", "lost", "won"]
        assert store.run("a").state == "running"
        next(process for process, word in said.items() if word == "won").die()
        assert store.run("a").state == "interrupted"
