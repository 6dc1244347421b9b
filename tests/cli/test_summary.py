"""The rows at the end of a run."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterable
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from agentflow import events
from agentflow.cli.account.accounts import Account
from agentflow.cli.account.gains import gains
from agentflow.cli.account.losses import losses
from agentflow.cli.account.path import critical_path
from agentflow.cli.rows import Row, heads
from agentflow.cli.screen import Screen
from agentflow.cli.summary import outcome

from .told import made, planned, replied, tally_of, told

Cli: TypeAlias = Callable[..., Any]


def rows(happened: Iterable[events.Event], usd: str = "0", **saved: str) -> str:
    """The rows of a run, as they are written to a file."""
    tally = tally_of(happened)
    timeline = tally.timeline
    usd_saved = {why: Decimal(amount) for why, amount in saved.items()}
    path = critical_path(timeline)
    account = Account(Decimal(usd), gains(timeline), usd_saved, list(losses(tally)), path, "")
    written = io.StringIO()
    screen = Screen(written)
    screen.unicode = True
    for head, text in heads(list(outcome(tally, account))):
        screen.row(head, text)
    return written.getvalue()


def test_a_run_without_anything_to_say_has_one_row() -> None:
    assert rows(told()) == "ran       no calls in 0.0 ms\n"
    one = told(planned(0.0, "$1 = fetch(1)"), made(0, 0.0, 1.5))
    assert rows(one) == "ran       1 call in 1.5 s\n"


def test_calls_side_by_side_are_what_a_run_saved_and_the_longest_is_what_limited_it() -> None:
    happened = told(
        planned(0.0, "$1 = fetch(1)", "$2 = fetch(2)", "$3 = join2($1, $2)"),
        made(0, 0.0, 1.0),
        made(1, 0.0, 3.0),
        made(2, 3.0, 4.0, "join2"),
    )

    assert rows(happened) == (
        "ran       3 calls in 4.0 s; one after another it would have been 5.0 s\n"
        "saved     1.0 s  calls side by side, up to 2 at once\n"
        "limited   calls 4.0 s (100%)\n"
        "          $2 fetch 3.0 s › $3 join2 1.0 s\n"
    )


def test_everything_that_saved_or_wasted_something_has_a_row_of_its_own() -> None:
    early = events.SampleEnded(
        "r", 6.0, 0, "fetch", None, 1, "m", "cancelled", "another passed", "0.002", 1.5, "0.004"
    )
    happened = told(
        events.RoundStarted("r", 0.0, "plan", 1),
        planned(1.0, "$1 = fetch(1)", "$2 = fetch(2)", "$3 = fetch(3)", writing=True),
        made(0, 1.0, 5.0),
        made(1, 1.0, 2.0),
        events.NodeReused("r", 1.0, 2, "fetch", None, "disk", 2.5),
        events.NodeFinished("r", 1.0, 2, "fetch", None, 3),
        events.SpeculationStarted("r", 1.0, 1, "fetch"),
        events.SpeculationUsed("r", 2.0, 1, "fetch", 0.5),
        events.SpeculationStarted("r", 1.0, 2, "fetch"),
        events.SpeculationWasted("r", 2.0, 2, "fetch", 0.75, "0.001", "it failed"),
        events.PartialWarmed("r", 0.5, 1, "fetch"),
        events.PartialRetracted("r", 0.75, 1, "fetch", 0.25, "its call was not made"),
        events.NodeRetrying("r", 3.0, 0, "fetch", None, 1, 0.5, OSError("reset")),
        replied(0.0, 3.0, cached_tokens=50, saved="0.003"),
        replied(3.0, 3.5, warmed=True, session="s"),
        events.SampleStarted("r", 4.5, 0, "fetch", None, 1, "m"),
        early,
        events.ReplyStopped("r", 3.0, "it is wrong", 35, 2_013),
        end=6.0,
    )

    assert rows(happened, "0.0123", prompts="0.003", cache="0.02") == (
        "ran       3 calls in 6.0 s; one after another it would have been 12.0 s\n"
        "          1 model call, 200 + 20 tokens (50% of prompts cached), $0.0123\n"
        "saved      1.0 s          calls side by side, up to 2 at once\n"
        "           2.0 s          3 of 3 calls begun while the model was still writing\n"
        "          ~2.5 s  ~$0.02  1 call not made again, from disk\n"
        "          500 ms          1 of 2 guesses came true\n"
        "                  $0.003  50 prompt tokens were cached\n"
        "          1 reply stopped early, after 35 tokens of at most 2,048\n"
        "wasted    750 ms  $0.001  1 of 2 guesses not used\n"
        "          250 ms          1 call begun while written, and not made so\n"
        "           1.5 s  $0.002  1 sample cancelled under way\n"
        "           2.5 s          1 attempt that failed, and the pauses after\n"
        "          500 ms          1 prompt computed ahead, and not asked for\n"
        "limited   calls 3.5 s (58%), the model 1.0 s (17%), between calls 1.0 s (17%) and pauses "
        "before another attempt 500 ms (8%)\n"
        "          plan 1.0 s › $1 fetch 4.0 s\n"
        "samples   1 sample of 1 call: 1 cancelled (1 because another passed)\n"
    )


def test_a_prompt_that_was_computed_ahead_and_asked_for_is_not_wasted() -> None:
    ahead = replied(0.0, 1.0, warmed=True, session="s")

    assert "computed ahead" in rows(told(ahead))
    assert "computed ahead" not in rows(told(ahead, replied(1.0, 2.0, session="s")))


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


def test_on_a_terminal_a_long_text_goes_on_below_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setattr(Screen, "size", property(lambda _: os.terminal_size((40, 24))))
    written = Terminal()
    screen = Screen(written)
    for head, text in heads([Row("saved", "calls that are made side by side", "1.0 s")]):
        screen.row(head, text)

    assert written.getvalue() == (
        "saved     1.0 s  calls that are made\n                 side by side\n"
    )


def test_what_cannot_be_written_as_it_is_has_another_form() -> None:
    written = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    Screen(written).row("limited   ", "plan 1 s › $1 fetch 2 s")
    written.seek(0)

    assert written.read() == "limited   plan 1 s > $1 fetch 2 s\n"


# At the shell


def test_the_json_of_a_run_says_what_it_saved_wasted_and_waited_for(cli: Cli) -> None:
    data = cli("run", "flow.py:thrice", "5", "--json", "-q").json

    saved, limited = data["saved"], data["limited"]
    assert sorted(saved) == ["at_once", "by", "seconds", "seconds_sequential"]
    assert sorted(saved["by"]) == [
        "cache", "parallel", "partial", "prompts", "resume", "samples", "speculation", "streaming",
    ]  # fmt: skip
    total = sum(each["seconds"] for each in saved["by"].values())
    assert total == pytest.approx(saved["seconds"], abs=1e-4)
    assert data["wasted"] == {}
    assert limited["reached"] is None
    assert sum(limited["by"].values()) == pytest.approx(data["seconds"], abs=1e-4)
    assert {"kind", "began", "ended"} <= set(limited["path"][0])


def test_what_was_in_vain_is_there_too(cli: Cli) -> None:
    data = cli("run", "flow.py:hopeless", "1", "--json", "-q").json

    assert data["wasted"]["retries"]["number"] == 1


def test_a_deadline_that_passed_is_what_limited_a_run(cli: Cli, project: Path) -> None:
    (project / "slow.py").write_text(
        "import asyncio\n"
        "from agentflow import tool\n\n\n"
        "@tool(pure=True)\n"
        "async def never() -> None:\n"
        "    await asyncio.Event().wait()\n"
    )

    data = cli("run", "slow.py:never", "--deadline", "100ms", "--json", "-q").json

    assert data["limited"]["reached"] == "the deadline"


def test_an_undeclared_tool_is_told_of_with_its_time_and_the_line_to_add(cli: Cli) -> None:
    err = cli("run", "flow.py:shout", "hey").err

    [note] = [line for line in err.splitlines() if line.startswith("note      shout declares no ")]
    assert "(1 call, " in note
    assert 'One line changes that: @tool(pure=True), @tool(reads="web")' in note
