"""``agentflow runs``: the list, one run, and getting rid of runs."""

from __future__ import annotations

import json
import os
import sqlite3
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from agentflow import clock
from agentflow.cli import codes
from agentflow.cli.listing import age
from agentflow.executor.journal.portable import load
from agentflow.executor.journal.rows import Batch
from agentflow.executor.journal.store import JournalStore, digest_of

from .conftest import Done

Cli: TypeAlias = Callable[..., Done]

MORE = '''
from agentflow import tool, workflow


@tool(pure=True)
async def big(n: int) -> list[int]:
    """More than is kept beside its call."""
    return list(range(n))


@tool(writes="mail", approve=True)
async def send(to: str) -> str:
    """Send a mail."""
    return f"sent to {to}"


@workflow
async def spread(n: int) -> int:
    """A map."""
    return sum(len(part) for part in await big.map([n, n + 1]))


@workflow
async def nothing() -> list[int]:
    """A map without elements."""
    return await big.map([])


@workflow
async def mail(to: str) -> str:
    """Asks."""
    await big(2000)
    return await send(to)
'''


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch, project: Path) -> None:
    monkeypatch.delenv("AGENTFLOW_JOURNAL", raising=False)
    (project / "more.py").write_text(MORE)


@pytest.fixture
def journal(project: Path) -> Path:
    return project / "state" / "agentflow" / "journal.db"


def run(cli: Cli, *words: str) -> str:
    """Run something; its id."""
    name: str = cli("run", *words, "--json", "-q").json["run"]
    return name


def test_runs_are_listed_newest_first_with_what_came_of_them(cli: Cli) -> None:
    good = run(cli, "flow.py:total", "3", "add=[1]")
    bad = run(cli, "flow.py:hopeless", "4")

    done = cli("runs")

    assert done.code == codes.OK
    head, first, second = done.out.splitlines()
    assert head.split() == ["run", "state", "age", "took", "cost", "what"]
    assert first.startswith(f"{bad}  failed ")
    assert first.endswith("flow.py:hopeless 4 (hopeless failed: OSError: no luck with 4)")
    assert second.startswith(f"{good}  finished ")
    assert second.endswith("flow.py:total 3 'add=[1]': 7")


def test_the_list_can_be_narrowed(cli: Cli) -> None:
    runs = [run(cli, "flow.py:total", str(n)) for n in range(3)]
    failed = run(cli, "flow.py:hopeless", "4")

    def listed(*words: str) -> list[str]:
        return [row["id"] for row in cli("runs", "--json", *words).json["runs"]]

    assert listed() == [failed, *reversed(runs)]
    assert listed("--limit", "2") == [failed, runs[2]]
    assert listed("--state", "failed") == [failed]
    assert listed("--state", "failed", "--state", "finished", "--limit", "9") == listed()
    assert "no such runs" in cli("runs", "--state", "paused").out
    done = cli("runs", "--state", "fialed")
    assert (done.code, "Did you mean 'failed'?" in done.err) == (codes.USAGE, True)


def test_the_json_of_a_list_says_how_each_goes_on(cli: Cli, journal: Path) -> None:
    good, bad = run(cli, "flow.py:total", "3"), run(cli, "flow.py:hopeless", "4")

    data = cli("runs", "--json").json

    assert (data["ok"], data["journal"]) == (True, str(journal))
    first, second = data["runs"]
    assert (first["id"], first["state"], first["resume"]) == (
        bad,
        "failed",
        f"agentflow resume {bad}",
    )
    assert (second["id"], second["state"], second["resume"]) == (good, "finished", None)
    assert (second["what"], second["note"], second["asks"]) == ("flow.py:total 3", "6", [])
    assert 0 <= clock.wall() - second["began"] < 60 and second["seconds"] > 0


def test_where_nothing_is_kept_nothing_is_made(cli: Cli, journal: Path) -> None:
    done = cli("runs")

    assert (done.code, done.out) == (codes.OK, f"{journal}: no runs are kept there\n")
    assert cli("runs", "--json").json["runs"] == []
    assert (cli("runs", "show", "8f2a").code, journal.exists()) == (codes.FAILED, False)


def test_one_run_is_shown_with_its_calls(cli: Cli, project: Path) -> None:
    name = run(cli, "flow.py:outer", "2", "--deadline", "1m")

    done = cli("runs", "show", name[:5])

    assert done.code == codes.OK
    head, state, command, _, *calls, _, note = done.out.splitlines()
    assert head == f"{name}  flow.py:outer 2"
    assert state.startswith("finished, began 2")
    assert command == f"in {project}: agentflow run --deadline=1m flow.py:outer 2"
    assert [" ".join(call.split()[:4]) for call in calls] == [
        "✓ $1 = total(2)",
        "✓ $1 = double(0)",
        "✓ $2 = double(1)",
    ]
    assert calls[1].startswith("✓   $1")  # a run within the run
    assert (calls[0].split()[-1], calls[2].split()[-1], note) == ("2", "2", "2")


def test_what_failed_what_was_mapped_and_what_is_large_is_shown(cli: Cli) -> None:
    failed = run(cli, "flow.py:hopeless", "4")
    spread = run(cli, "more.py:spread", "2000")

    shown = cli("runs", "show", failed)
    assert "✗ $2 = broken(4)" in shown.out
    assert "OSError: no luck with 4\n" in shown.out
    assert shown.out.endswith(f"to go on: agentflow resume {failed}\n")
    (call,) = cli("runs", "show", spread, "--json").json["calls"]
    assert (call["tool"], call["status"], call["elements"]) == ("big", "done", 2)
    (call,) = cli("runs", "show", run(cli, "more.py:nothing"), "--json").json["calls"]
    assert (call["status"], call["told"]) == ("done", "0 elements")
    mail = cli("runs", "show", run(cli, "more.py:mail", "a@x")).out
    assert "2,000 items" in mail  # kept under its digest


def test_the_time_for_an_answer_is_not_the_call_s(cli: Cli, journal: Path) -> None:
    name = run(cli, "flow.py:total", "0")
    step = "total/send:1#0"
    call: dict[str, Any] = {"run": name, "node": 0, "tool": "send", "element": None}
    records: list[dict[str, Any]] = [
        {"event": "plan_extended", "nodes": [0], "steps": [step], "lines": ["$1 = send()"]},
        {"event": "question_asked", "at": 1.5, "question": step},
        {"event": "question_answered", "at": 60.5, "question": step},
        {"event": "node_finished", "began": 1.0, "at": 61.0, "step": step, "value": "sent"},
    ]
    store = JournalStore(journal)
    store.claim(name)
    store.write(Batch(lines={name: [json.dumps({**call, **record}) for record in records]}))
    store.close()

    (told,) = cli("runs", "show", name, "--json").json["calls"]

    assert (told["status"], told["seconds"], told["told"]) == ("done", 1.0, '"sent"')


def test_what_is_asked_is_listed_with_what_to_type(cli: Cli) -> None:
    name = run(cli, "more.py:mail", "a@x")

    listed = cli("runs").out.splitlines()
    assert listed[2] == '  asks: $2 send(to="a@x"): it asks before each call'
    assert listed[3] == f"  agentflow approve {name}"
    shown = cli("runs", "show", name).out
    assert '? $2 = send("a@x")' in shown
    assert f"  agentflow deny {name} '$2'\n" in shown
    cli("approve", name)
    assert "asks" not in cli("runs").out


def test_the_command_names_the_journal_where_it_is_not_the_usual_one(cli: Cli) -> None:
    name = run(cli, "flow.py:hopeless", "4", "--journal", "own.db")

    shown = cli("runs", "show", name, "--journal", "own.db").out

    assert shown.endswith(f"to go on: agentflow resume {name} --journal=own.db\n")


def test_a_run_is_forgotten(cli: Cli) -> None:
    name, other = run(cli, "flow.py:total", "1"), run(cli, "flow.py:total", "2")

    assert cli("runs", "delete", name).out == f"run {name} is forgotten\n"

    assert [row["id"] for row in cli("runs", "--json").json["runs"]] == [other]
    done = cli("runs", "delete", name)
    assert (done.code, f"there is no run '{name}'" in done.err) == (codes.FAILED, True)


def test_a_run_is_exported_to_a_new_file_for_its_owner(cli: Cli, project: Path) -> None:
    name = run(cli, "flow.py:total", "3")

    assert cli("runs", "export", name, "run.jsonl").out == f"run {name} is in run.jsonl\n"

    assert load("run.jsonl").row.id == name
    assert stat.S_IMODE((project / "run.jsonl").stat().st_mode) == 0o600
    done = cli("runs", "export", name, "run.jsonl")
    assert (done.code, "run.jsonl: File exists" in done.err) == (codes.USAGE, True)
    lines = cli("runs", "export", name, "-").out.splitlines()
    assert json.loads(lines[0])["id"] == name and len(lines) > 5


def test_runs_are_pruned_by_age_and_by_size(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    for n in range(3):
        run(cli, "flow.py:total", str(n))

    assert cli("runs", "prune", "--keep", "1h").out == "0 runs are forgotten\n"
    later = clock.wall() + 7200
    monkeypatch.setattr(clock, "wall", lambda: later)
    last = run(cli, "flow.py:total", "9")
    assert cli("runs", "prune", "--keep", "1h", "--json").json == {"ok": True, "removed": 3}
    assert [row["id"] for row in cli("runs", "--json").json["runs"]] == [last]
    assert cli("runs", "prune", "--max-size", "1kB").out == "1 run is forgotten\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["prune"], "--keep 7d, or --max-size 100MB"),
        (["prune", "--keep", "a while"], "is not a duration"),
        (["prune", "--max-size", "much"], "'much' is no size"),
        (["show"], "'agentflow runs show RUN'"),
        (["export", "8f2a"], "'agentflow runs export RUN FILE'"),
        (["shwo", "8f2a"], "Did you mean 'show'?"),
        (["--state", "banana"], "no run is 'banana'"),
        (["--limit", "-3"], "write 1 or more, not -3"),
    ],
)
@pytest.mark.parametrize("kept", [True, False])
def test_a_mistake_is_named(cli: Cli, words: list[str], said: str, kept: bool) -> None:
    if kept:
        run(cli, "flow.py:total", "1")

    done = cli("runs", *words)

    assert (done.code, done.out) == (codes.USAGE, "")
    assert said in done.err


def test_damage_is_said_and_the_other_runs_are_listed(cli: Cli, journal: Path) -> None:
    broken, good, odd = (run(cli, "flow.py:total", n) for n in "234")
    assert cli("runs", "check").out == f"{journal}: nothing is damaged\n"
    database = sqlite3.connect(journal)
    database.execute("UPDATE records SET lines = x'7b' WHERE run = 1")
    database.execute("UPDATE runs SET target = '5' WHERE number = 2")
    database.execute("UPDATE runs SET asks = '[{\"call\": 5}]', target = '{}' WHERE number = 3")
    database.commit()
    database.close()

    listed = cli("runs")
    assert listed.code == codes.OK
    assert f"{good}  damaged " in listed.out and f"{broken}  finished " in listed.out
    assert f"{odd}  damaged " in listed.out and "what it asks cannot be read" in listed.out
    checked = cli("runs", "check")
    assert (checked.code, f"the records of run {broken} are damaged" in checked.out) == (1, True)
    shown = cli("runs", "show", broken)
    assert (shown.code, "damaged: " in shown.out) == (codes.FAILED, True)
    assert cli("runs", "show", good).code == codes.OK
    assert not cli("runs", "check", "--json").json["ok"]


def test_records_that_make_no_sense_are_damage(cli: Cli, journal: Path) -> None:
    name = run(cli, "flow.py:total", "2")
    store = JournalStore(journal)
    store.claim(name)
    lines = ['{"event":"node_finished"}', '{"no":1}', '{"event":"run_finished","at":"x"}']
    store.write(Batch(lines={name: lines}))
    store.close()

    shown = cli("runs", "show", name)

    assert (shown.code, "is not one of a run" in shown.out) == (codes.FAILED, True)
    assert "$2 = double(1)" in shown.out


def test_a_large_value_that_cannot_be_read_damages_nothing_else(cli: Cli, journal: Path) -> None:
    name = run(cli, "flow.py:total", "2")
    store = JournalStore(journal)
    step = next(record["steps"][0] for record in store.records(name) if "steps" in record)
    ended = {"event": "node_finished", "run": name, "at": 2.0, "began": 1.0, "node": 0}
    ended |= {"tool": "double", "element": None, "step": step, "turn": 1}
    values = {digest_of(b"{"): {"$blob": digest_of(b"{")}, "": {"$json": {"$a": 1, "b": 2}}}
    for digest, value in values.items():
        store.claim(name)
        blobs = {digest: b"{"} if digest else {}
        line = json.dumps({**ended, "value": value})
        store.write(Batch(lines={name: [line]}, blobs=blobs, refs=[(name, d) for d in blobs]))
        shown = cli("runs", "show", name)
        assert (shown.code, "damaged" in shown.out) == (codes.OK, False)
        told = cli("runs", "show", name, "--json").json["calls"][0]["told"]
        assert told == "2 items" if not digest else told.startswith("not readable: ")
    store.close()


def test_another_program_s_file_is_no_journal(cli: Cli, project: Path) -> None:
    (project / "notes.txt").write_text("hello")

    for words in (["runs"], ["runs", "check"], ["resume", "8f2a"], ["approve", "8f2a"]):
        done = cli(*words, "--journal", "notes.txt")
        assert (done.code, "it is no journal" in done.out + done.err) == (codes.FAILED, True)
    assert (project / "notes.txt").read_text() == "hello"


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(-5, "0 s"), (59.9, "59 s"), (60, "1 min"), (7199, "1 h"), (86400, "1 day"), (2e5, "2 days")],
)
def test_an_age_has_one_unit(seconds: float, told: str) -> None:
    assert age(seconds) == told


def test_a_control_sequence_of_somebody_else_reaches_no_terminal(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(cli, "flow.py:shout", "a\x1b[2Jb")
    monkeypatch.setattr("agentflow.cli.screen.stdout_is_terminal", lambda: True)
    monkeypatch.setattr("agentflow.cli.listing.stdout_is_terminal", lambda: True)
    monkeypatch.setattr(os, "get_terminal_size", lambda *_: os.terminal_size((200, 50)))

    assert "\x1b" not in cli("runs").out
