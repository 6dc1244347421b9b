"""Runs that ask: ``approve``, ``deny``, ``--yes``, and questions at the terminal."""

from __future__ import annotations

import asyncio
import os
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from agentflow.cli import codes
from agentflow.cli.asking import Asker
from agentflow.cli.screen import Screen
from agentflow.errors import DefinitionError
from agentflow.executor.journal.rows import Batch
from agentflow.executor.journal.store import JournalStore
from agentflow.tools.approval import Answer, Question

from .conftest import Done

Cli: TypeAlias = Callable[..., Done]

FLOW = '''
from pathlib import Path

from agentflow import tool, workflow


@tool(writes="mail/{to}", approve=True)
async def send(to: str) -> str:
    """Send a mail."""
    with Path("sent.txt").open("a") as file:
        file.write(f"{to}\\n")
    return f"sent to {to}"


@workflow
async def mail(first: str, second: str) -> list[str]:
    """Asks twice, one after the other."""
    return [await send(first), await send(second)]


@tool
async def note(text: str) -> str:
    """Note something."""
    return text


@workflow
async def noted(to: str) -> str:
    """Awaits what needs the mail."""
    return await note(send(to).ref)


@workflow
async def both(first: str, second: str) -> list[str]:
    """Asks for all at once."""
    return await send.map([first, second])


@workflow
async def one(to: str) -> str:
    """A run of its own."""
    return await send(to)


@workflow
async def apart(first: str, second: str) -> list[str]:
    """Asks in several runs, whose calls are all the first of theirs."""
    return await one.map([first, second])
'''


@pytest.fixture(autouse=True)
def flows(monkeypatch: pytest.MonkeyPatch, project: Path) -> None:
    monkeypatch.delenv("AGENTFLOW_JOURNAL", raising=False)
    (project / "ask.py").write_text(FLOW)


@pytest.fixture
def sent(project: Path) -> Callable[[], list[str]]:
    """To whom mails were sent."""

    def read() -> list[str]:
        path = project / "sent.txt"
        return path.read_text().split() if path.exists() else []

    return read


Sent: TypeAlias = Callable[[], list[str]]


def test_a_run_that_asks_is_set_aside_and_says_what_to_type(cli: Cli, sent: Sent) -> None:
    done = cli("run", "ask.py:mail", "a@x", "b@x")

    assert (done.code, done.out, sent()) == (codes.WAITING, "", [])
    run = cli("runs", "--json").json["runs"][0]["id"]
    summary, *told = done.err.splitlines()[-6:]
    assert summary.startswith("ran       1 call (1 asked) in ")
    assert told == [
        "agentflow run: mail waits for 1 answer.",
        'asks: $1 send(to="a@x"): it asks before each call',
        f"  agentflow approve {run} '$1'",
        f"  agentflow deny {run} '$1'",
        f"to go on: agentflow resume {run}",
    ]


def test_what_was_approved_is_done_once_and_the_next_question_is_asked(
    cli: Cli, sent: Sent
) -> None:
    run = cli("run", "ask.py:mail", "a@x", "b@x", "--json", "-q").json["run"]

    done = cli("approve", run[:6])
    assert done.out == f'approved: $1 send(to="a@x")\nto go on: agentflow resume {run}\n'
    assert sent() == []
    assert (cli("resume", run, "-q").code, sent()) == (codes.WAITING, ["a@x"])
    (ask,) = cli("runs", "--json").json["runs"][0]["asks"]
    assert cli("approve", run, "$2", "--json").json == {
        "ok": True,
        "run": run,
        "answered": [ask["question"]],
        "open": [],
        "resume": f"agentflow resume {run}",
    }
    done = cli("resume", run, "--json", "-q")
    assert (done.json["result"], sent()) == (["sent to a@x", "sent to b@x"], ["a@x", "b@x"])


def test_what_was_denied_fails_with_the_reason(cli: Cli, sent: Sent) -> None:
    run = cli("run", "ask.py:mail", "a@x", "b@x", "--json", "-q").json["run"]

    assert cli("deny", run, "--why", "not today").out.startswith("denied: $1 send(")
    done = cli("resume", run)

    assert (done.code, sent()) == (codes.FAILED, [])
    assert done.err.endswith(
        "agentflow resume: $1 send failed: send was not called: approval was denied: not today.\n"
        "what was denied stays so: to be asked again, run it anew\n"
    )


def test_a_denial_is_told_through_the_call_that_needed_it(cli: Cli, sent: Sent) -> None:
    run = cli("run", "ask.py:noted", "a@x", "--json", "-q").json["run"]
    cli("deny", run)
    done = cli("resume", run)

    assert (done.code, sent()) == (codes.FAILED, [])
    assert done.err.endswith("what was denied stays so: to be asked again, run it anew\n")


def test_who_answered_is_shown_and_what_can_be_done_about_a_denial(cli: Cli) -> None:
    run = cli("run", "ask.py:mail", "a@x", "b@x", "--json", "-q").json["run"]
    cli("approve", run)
    cli("resume", run, "-q")
    cli("deny", "last", "--why", "not today")
    cli("resume", "last", "-q")

    shown = cli("runs", "show", "last")
    data = cli("runs", "show", "last", "--json").json

    first, second = data["calls"]
    assert first["answers"][0].startswith("approved by ")
    assert second["answers"][0].endswith("(not today)")
    assert first["answers"][0] in shown.out and second["answers"][0] in shown.out
    assert data["resume"] is None and "to go on" not in shown.out
    assert shown.out.endswith(
        "what was denied stays so: to be asked again, run it anew: "
        "agentflow run ask.py:mail a@x b@x\n"
    )


def test_of_several_questions_one_is_named_or_all_are_answered(cli: Cli, sent: Sent) -> None:
    run = cli("run", "ask.py:both", "a@x", "b@x", "--json", "-q").json["run"]

    done = cli("approve", run)
    assert (done.code, "asks several questions: say which" in done.err) == (codes.FAILED, True)
    done = cli("deny", run, "$1[0]")
    assert done.out == (
        'denied: $1[0] send(to="a@x")\n'
        'asks: $1[1] send(to="b@x"): it asks before each call\n'
        f"  agentflow approve {run} '$1[1]'\n"
        f"  agentflow deny {run} '$1[1]'\n"
    )
    other = cli("run", "ask.py:both", "c@x", "d@x", "--json", "-q").json["run"]
    assert cli("approve", other, "--all").out.count("approved: ") == 2
    assert (cli("resume", other, "-q").code, sorted(sent())) == (codes.OK, ["c@x", "d@x"])


def test_questions_of_nested_runs_have_commands_that_can_be_copied(cli: Cli, sent: Sent) -> None:
    done = cli("run", "ask.py:apart", "a@x", "b@x", "-q")
    commands = [line for line in done.err.splitlines() if line.startswith("  agentflow")]
    run = shlex.split(commands[0])[2]
    listed = [line for line in cli("runs").out.splitlines() if line.startswith("  agentflow")]
    shown = [line for line in cli("runs", "show", run).out.splitlines() if "  agentflow" in line]

    assert (shown, listed) == (commands, [commands[0], commands[2]])
    done = cli(*shlex.split(commands[0])[1:])
    assert (done.code, done.out.count("approved: "), done.out.count("asks: ")) == (codes.OK, 1, 1)
    assert cli("approve", run, "$1").out.startswith('approved: $1 send(to="b@x")')  # what is left
    assert cli(*shlex.split(commands[0])[1:]).code == codes.OK
    assert (cli("resume", run, "-q").code, sorted(sent())) == (codes.OK, ["a@x", "b@x"])


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["approve", "8f2a"], codes.FAILED, "there is no run '8f2a'"),
        (["approve", "RUN", "$7"], codes.FAILED, "does not ask '$7'"),
        (["approve", "RUN", "--value", "1"], codes.USAGE, "send has not been called"),
        (["approve", "RUN", "--value", "[" * 9999], codes.USAGE, "is not JSON"),
        (["approve", "RUN", "--value", "sent"], codes.USAGE, "text stands in quotes"),
        (["approve", "RUN", "--all", "--value", "1"], codes.USAGE, "leave --all out"),
    ],
)
def test_a_mistake_answers_nothing(cli: Cli, words: list[str], code: int, said: str) -> None:
    run = cli("run", "ask.py:mail", "a@x", "b@x", "--json", "-q").json["run"]

    done = cli(*(run if word == "RUN" else word for word in words))

    assert (done.code, done.out) == (code, "")
    assert said in done.err
    assert len(cli("runs", "--json").json["runs"][0]["asks"]) == 1


def test_an_answer_stays(cli: Cli) -> None:
    run = cli("run", "ask.py:mail", "a@x", "b@x", "--json", "-q").json["run"]
    assert cli("approve", run).code == codes.OK

    assert cli("approve", run, "$1").code == codes.OK
    assert cli("approve", run).out.startswith("approved: $1 send(")
    done = cli("deny", run, "$1")

    assert (done.code, done.out) == (codes.FAILED, "")
    assert done.err.startswith(
        "agentflow deny: $1 send(to=\"a@x\") was answered with 'approve' by "
    )


@pytest.mark.parametrize("verb", ["approve", "deny"])
def test_where_nothing_is_asked_all_of_it_cannot_be_answered(cli: Cli, verb: str) -> None:
    run = cli("run", "flow.py:total", "2", "--json", "-q").json["run"]

    done = cli(verb, run, "--all")

    assert (done.code, done.out) == (codes.FAILED, "")
    assert done.err == f"agentflow {verb}: run {run} asks nothing that is not answered.\n"
    assert not cli(verb, run, "--all", "--json").json["ok"]


@pytest.mark.parametrize(("state", "goes_on"), [("finished", False), ("cancelled", True)])
def test_only_a_run_that_can_go_on_is_offered_to(
    cli: Cli, project: Path, state: str, goes_on: bool
) -> None:
    run = cli("run", "ask.py:mail", "a@x", "b@x", "--json", "-q").json["run"]
    store = JournalStore(project / "state" / "agentflow" / "journal.db")
    store.claim(run)
    store.write(Batch(runs={run: {"state": state}}))
    store.close()

    done = cli("approve", run)

    assert done.out.startswith("approved: $1 send(")
    assert (f"to go on: agentflow resume {run}" in done.out) == goes_on
    assert (cli("approve", run, "--json").json["resume"] is not None) == goes_on


def test_scripts_approve_everything_or_have_to_keep_the_run(cli: Cli, sent: Sent) -> None:
    refused = cli("run", "ask.py:mail", "a@x", "b@x", "--no-journal", "-q")
    assert (refused.code, "--yes approves it" in refused.err, sent()) == (codes.USAGE, True, [])

    assert cli("run", "ask.py:mail", "a@x", "b@x", "--no-journal", "--yes", "-q").code == codes.OK
    run = cli("run", "ask.py:mail", "c@x", "d@x", "--json", "-q").json["run"]
    resumed = cli("resume", run, "--yes")
    assert (resumed.code, "approved by --yes" in resumed.err) == (codes.OK, True)
    assert sent() == ["a@x", "b@x", "c@x", "d@x"]


# At the terminal


class Person:
    """Sits at a terminal that is standard input."""

    def __init__(self) -> None:
        self._keyboard, self.terminal = os.openpty()

    def types(self, text: str) -> None:
        os.write(self._keyboard, text.encode())

    def leaves(self) -> None:
        for number in (self._keyboard, self.terminal):
            os.close(number)


@pytest.fixture
def person(monkeypatch: pytest.MonkeyPatch) -> Iterator[Person]:
    person = Person()
    with os.fdopen(os.dup(person.terminal)) as terminal:
        monkeypatch.setattr(sys, "stdin", terminal)
        yield person
    person.leaves()


def question(kind: Any = "approval") -> Question:
    call = 'send(to="a\x1b[2J")'
    return Question("mail/send:1#0", "8f2a-1", 0, None, "send", kind, call, "it asks", {})


@pytest.mark.parametrize(
    ("kind", "typed", "answer"),
    [
        ("approval", "y\n", Answer("approve", by="who ran it")),
        ("approval", "what?\nNo\n", Answer("deny", by="who ran it")),
        ("approval", "v\nl\n", None),
        ("approval", "\n", None),
        ("approval", "\x04", None),
        ("doubt", "yes\n", Answer("approve", by="who ran it")),
        ("doubt", 'v\nno json\nv\n{"id": 7}\n', Answer("done", value={"id": 7}, by="who ran it")),
        ("doubt", "later\n", None),
    ],
)
async def test_who_sits_there_is_asked(
    person: Person, capsys: pytest.CaptureFixture[str], kind: str, typed: str, answer: Answer | None
) -> None:
    person.types(typed)

    assert await Asker(Screen(sys.stderr), waits=True)(question(kind)) == answer

    shown = capsys.readouterr().err
    assert 'send(to="a[2J")' in shown and "it asks" in shown and "[l]ater? " in shown


async def test_where_nothing_waits_there_is_no_later(
    person: Person, capsys: pytest.CaptureFixture[str]
) -> None:
    asker = Asker(Screen(sys.stderr), waits=False)
    person.types("l\n\nn\n")

    assert await asker(question()) == Answer("deny", by="who ran it")
    assert capsys.readouterr().err.count("[y]es, [n]o? ") == 3

    person.types("\x04")
    with pytest.raises(DefinitionError, match="waits for an answer"):
        await asker(question())


async def test_one_question_is_asked_at_a_time(
    person: Person, capsys: pytest.CaptureFixture[str]
) -> None:
    asker = Asker(Screen(sys.stderr), waits=True)
    person.types("y\nn\n")

    async with asyncio.timeout(30):
        answers = await asyncio.gather(asker(question()), asker(question()))

    assert [answer.verdict for answer in answers if answer] == ["approve", "deny"]


async def test_a_question_that_somebody_else_answered_is_taken_away(
    person: Person, capsys: pytest.CaptureFixture[str]
) -> None:
    screen = Screen(sys.stderr)
    asked = asyncio.ensure_future(Asker(screen, waits=True)(question()))
    await asyncio.sleep(0)
    await asyncio.sleep(0)

    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked

    screen.insist("shown again")
    assert capsys.readouterr().err.endswith("[l]ater? \nshown again\n")
