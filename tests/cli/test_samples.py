"""What is shown of samples, and of the limits they were made within."""

from __future__ import annotations

import io
import os

import pytest

from agentflow import events
from agentflow.budgets import Budget, Ledger
from agentflow.cli.account.spending import likely, tried, within
from agentflow.cli.account.tally import Tally
from agentflow.cli.progress import Progress
from agentflow.cli.screen import Screen

CALL = (0, "write", None)
HAPPENED: list[events.Event] = [
    events.RunStarted("r", 10.0, "brief"),
    events.PlanExtended("r", 10.0, range(1), ['$1 = write("tea")']),
    events.NodeStarted("r", 10.0, *CALL),
    events.Allocated("r", 10.0, 3, 0.8, 0.002, 0.004),
    events.SampleStarted("r", 10.0, *CALL, 1, "cheap"),
    events.SampleStarted("r", 10.0, *CALL, 2, "cheap"),
    events.SampleStarted("r", 10.0, *CALL, 3, "good"),
    events.SampleEnded("r", 10.5, *CALL, 2, "cheap", "refused", "too short", "0.001", 0.5),
    events.Allocated("r", 10.5, 1, 0.7, 0.001, 0.002),
    events.SampleStarted("r", 10.5, *CALL, 4, "cheap"),
    events.SampleEnded("r", 12.0, *CALL, 3, "good", "passed", "", "0.01", 2.0),
    events.SampleEnded(
        "r", 12.0, *CALL, 1, "cheap", "cancelled", "sample 3 passed", "0.001", 2.0, "0.003"
    ),
    events.SampleEnded(
        "r", 12.0, *CALL, 4, "cheap", "cancelled", "sample 3 passed", "0.0005", 1.5, "0.0035"
    ),
    events.Allocated("r", 12.0, 0, 0.95, 0.0, 0.001),
    events.ModelReplied("r", 12.0, "good", 10, 20, None, "0.01", 1.9, node=0),
    events.NodeFinished("r", 12.0, *CALL, "A text."),
    events.RunFinished("r", 12.0, "A text."),
]
PLAIN = """\
plan      $1 = write("tea")
start     $1 write
sample    $1 write, sample 1 of cheap begins
sample    $1 write, sample 2 of cheap begins
sample    $1 write, sample 3 of good begins
refused   $1 write, sample 2 of cheap refused after 500 ms, $0.001: too short
sample    $1 write, sample 4 of cheap begins
sample    $1 write, sample 3 of good passed after 2.0 s, $0.01
sample    $1 write, sample 1 of cheap cancelled after 2.0 s, $0.001: sample 3 passed
sample    $1 write, sample 4 of cheap cancelled after 1.5 s, $0.0005: sample 3 passed
model     good 1.9 s: 10 + 20 tokens, $0.01
done      $1 write 2.0 s by good: "A text."
"""


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


def counted(until: int | None = None) -> Tally:
    """The events up to one of them, counted."""
    tally = Tally()
    for event in HAPPENED[:until]:
        tally.take(event)
    return tally


def test_every_sample_is_a_plain_line_where_nobody_looks() -> None:
    file = io.StringIO()
    tally = Tally()
    progress = Progress(Screen(file), tally)
    for event in HAPPENED:
        tally.take(event)
        progress.take(event)

    assert file.getvalue() == PLAIN


def test_a_terminal_shows_how_many_samples_of_which_model_are_under_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setattr(Screen, "size", property(lambda _: os.terminal_size((80, 24))))
    file = Terminal()
    tally = Tally()
    screen = Screen(file)
    progress = Progress(screen, tally)

    drawn = []
    for event in HAPPENED[:-1]:
        tally.take(event)
        progress.take(event)
        progress.tick(event.at)
        drawn.append(file.getvalue().rpartition("\x1b[J")[2])

    screen.clear()

    assert drawn[7].splitlines()[-3:] == [
        "∅ $1 write, sample 2 of cheap refused after 500 ms, $0.001: too short",
        "──────────────────────── 0/1 call, 1 running, 500 ms, 80% likely",
        '⠴ 500 ms  $1 = write("tea")  1 × cheap, 1 × good',
    ]
    assert '✓ $1 write 2.0 s by good: "A text."' in file.getvalue()
    assert "sample 1" not in file.getvalue()  # what is one of many is not told
    assert "≈" not in file.getvalue()


def test_the_summary_says_what_became_of_the_samples_and_which_model_passed() -> None:
    assert list(tried(counted())) == [
        "4 samples of 1 call: 1 passed, 1 refused and 2 cancelled (2 because another passed)",
        "cheap passed 0 of 3, $0.0025; good passed 1 of 1, $0.01",
    ]
    assert list(tried(Tally())) == []


def test_what_judges_cost_is_told_beside_what_they_judged() -> None:
    tally = counted()
    tally.take(events.ModelReplied("r", 12.0, "judge", 30, 1, None, "0.005", 0.1, node=0))

    assert list(tried(tally))[1].endswith("; judges and other model calls $0.0025")


def test_a_single_model_needs_no_line_of_its_own() -> None:
    tally = Tally()
    tally.take(events.SampleEnded("r", 1.0, *CALL, 1, "", "failed", "no answer", "0", 0.5))

    assert list(tried(tally)) == ["1 sample of 0 calls: 1 failed"]


def test_the_summary_says_what_was_used_of_each_limit_and_what_was_saved() -> None:
    ledger = Ledger(Budget(usd="0.05", tokens=20_000, deadline="30s"))
    ledger.begin(lambda: 7.0, before=2.0)  # an earlier sitting counts
    ledger.reserve("0.02", 3000).settle("0.0125", 1234)

    [line] = within(counted(), ledger)
    assert line == (
        "$0.0125 of $0.05 spent; 1,234 of 20,000 tokens used; 2.0 s of 30.0 s taken; "
        "$0.0065 saved by cancelling samples"
    )
    assert list(within(Tally(), Ledger())) == []


def test_the_summary_says_how_likely_success_was() -> None:
    [line] = likely(counted().samples)
    assert line == (
        "success within the limits was 80% likely at the start, 95% when it was last decided what "
        "to begin (3 decisions in 7.0 ms)"
    )
    assert list(likely(Tally().samples)) == []


def test_chances_that_are_not_estimated_are_not_told() -> None:
    tally = Tally()
    tally.take(events.Allocated("r", 1.0, 1, None, None, 0.001))

    assert list(likely(tally.samples)) == []
    assert tally.samples.as_dict()["probability"] == {"start": None, "end": None}


def test_the_chances_told_are_those_of_the_run_that_decided_first() -> None:
    tally = Tally()
    tally.take(events.Allocated("r", 1.0, 1, 0.5, 0.01, 0.001))
    tally.take(events.Allocated("child", 1.0, 1, 0.25, 0.01, 0.001))

    assert (tally.samples.at_start, tally.samples.at_end) == (0.5, 0.5)


def test_json_has_the_same_as_numbers() -> None:
    assert counted().samples.as_dict() == {
        "probability": {"start": 0.8, "end": 0.95},
        "decisions": 3,
        "seconds_deciding": 0.007,
        "samples": 4,
        "passed": 1,
        "refused": 1,
        "failed": 0,
        "cancelled": 2,
        "cancelled_because": {"another passed": 2},
        "usd_saved": "0.0065",
        "models": {
            "cheap": {
                "samples": 3, "passed": 0, "refused": 1, "failed": 0, "cancelled": 2,
                "usd": "0.0025",
            },
            "good": {
                "samples": 1, "passed": 1, "refused": 0, "failed": 0, "cancelled": 0,
                "usd": "0.01",
            },
        },
    }  # fmt: skip


def test_samples_are_under_way_no_more_when_their_run_is_set_aside() -> None:
    tally = counted(8)
    assert tally.samples.under_way("r", 0).total() == 2

    tally.take(events.RunPaused("r", 12.0, []))

    assert not tally.samples.open


def test_samples_that_are_under_way_when_their_run_ends_are_under_way_no_more() -> None:
    assert counted(7).samples.under_way("r", 0) == {"cheap": 2, "good": 1}

    tally = counted(7)
    tally.take(events.RunFailed("r", 12.0, TimeoutError()))

    assert not tally.samples.open


def test_a_sample_that_is_cancelled_though_none_passed_says_why() -> None:
    tally = Tally()
    for number in (1, 2):
        tally.take(
            events.SampleEnded("r", 2.0, *CALL, number, "", "cancelled", "its call ended", "0", 1.0)
        )

    assert list(tried(tally)) == ["2 samples of 0 calls: 2 cancelled (2 because its call ended)"]
