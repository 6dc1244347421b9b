"""Events as they are shown and counted."""

from __future__ import annotations

import io
import os
from collections.abc import Callable

import pytest

from agentflow import events
from agentflow.cli.account.savings import Savings
from agentflow.cli.account.tally import Tally
from agentflow.cli.output import duration, gist
from agentflow.cli.progress import Progress, price
from agentflow.cli.screen import Screen

Show = Callable[..., list[str]]

PLAN = events.PlanExtended("r", 0.0, (0, 1), ("$1 = fetch(1)", "$2 = read(each $1)"))
EVENTS: list[events.Event] = [
    events.RunStarted("r", 10.0, "task"),
    events.RoundStarted("r", 10.0, "plan", 1),
    events.CallPredicted("r", 10.0, 1, "fetch", {}, 0.9, "it mostly comes first"),
    events.SpeculationStarted("r", 10.0, 1, "fetch"),
    PLAN,
    events.NodeStarted("r", 10.5, 0, "fetch", None, 1),
    events.NodeRetrying("r", 11.0, 0, "fetch", None, 1, 0.25, OSError("reset")),
    events.NodeStarted("r", 11.25, 0, "fetch", None, 2),
    events.NodeFinished("r", 11.5, 0, "fetch", None, ["a", "b"]),
    events.NodeStarted("r", 11.5, 1, "read", 0, 1),
    events.NodeStarted("r", 11.5, 1, "read", 1, 1),
    events.NodeFinished("r", 11.625, 1, "read", 0, "x"),
    events.NodeFailed("r", 11.7, 1, "read", 1, ValueError("bad")),
    events.NodeFailed("r", 11.7, 1, "read", None, ValueError("bad")),
    events.RunStarted("s", 11.8, "inner", "r", 1),
    events.NodeSkipped("s", 11.9, 0, "more", None, "more was skipped: its guard was false"),
    events.ModelReplied("r", 12.0, "m", 1200, 34, 0, "0.00125", 0.5, True),
    events.RunFailed("r", 12.0, ValueError("bad")),
]
PLAIN = """\
round     plan 1
plan      $1 = fetch(1)
plan      $2 = read(each $1)
start     $1 fetch
retry     $1 fetch: attempt 1 failed (OSError: reset), the next one in 250 ms
start     $1 fetch
done      $1 fetch 1.0 s: 2 items
failed    $2 read, element 1: ValueError: bad
failed    $2 read: ValueError: bad
  run       inner
  skipped   $1 more was skipped: its guard was false
model     m 500 ms: about 1,200 + 34 tokens, $0.00125
"""


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


def shown(screen: Screen, until: int | None = None) -> Tally:
    """Everything up to an event, counted and shown."""
    tally = Tally()
    progress = Progress(screen, tally)
    for event in EVENTS[:until]:
        tally.take(event)
        progress.take(event)
        progress.tick(event.at)
    return tally


def test_every_event_is_a_plain_line_where_nobody_looks() -> None:
    file = io.StringIO()

    shown(Screen(file))

    assert file.getvalue() == PLAIN


def test_a_terminal_has_marks_a_bar_and_the_running_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setattr(Screen, "size", property(lambda _: os.terminal_size((80, 24))))
    file = Terminal()

    shown(Screen(file), until=12)

    drawn = file.getvalue().rpartition("\x1b[J")[2]
    assert drawn == (
        "━━━━━━━━━━━━──────────── 1/2 calls, 1 running, 1.6 s plan\n"
        "⠦ 1 of 2 125 ms  $2 = read(each $1)\n"
    )
    assert "✓ $1 fetch 1.0 s: 2 items\n" in file.getvalue()


def test_it_is_redrawn_ten_times_a_second_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    file = Terminal()
    tally = Tally()
    progress = Progress(Screen(file), tally)
    tally.take(EVENTS[0])

    for step in range(100):
        progress.tick(10.0 + step / 100)

    assert file.getvalue().count("waiting for the model") == 10


def test_calls_are_counted() -> None:
    tally = shown(Screen(io.StringIO()))

    [fetch, read, more] = [call.as_dict() for call in tally.calls.values()]
    assert fetch == {
        "run": "r", "id": 1, "tool": "fetch", "status": "done", "seconds": 1.0, "attempts": 2
    }  # fmt: skip
    assert (read["status"], read["elements"], read["error"]) == ("failed", 2, "ValueError: bad")
    assert (more["status"], more["attempts"]) == ("skipped", 0)
    assert tally.usage() == {
        "model_calls": 1, "prompt_tokens": 1200, "completion_tokens": 34, "cached_tokens": 0,
        "usd": "0.00125", "estimated": True,
    }  # fmt: skip
    assert tally.seconds == 2.0


@pytest.mark.parametrize("answered", [True, False])
def test_the_time_for_an_answer_is_not_the_call_s(answered: bool) -> None:
    tally, call = Tally(), (0, "send", None)
    asked = ("mail/send:1#0", "approval", "send()", "it asks")
    tally.take(events.NodeStarted("r", 1.0, *call))
    tally.take(events.QuestionAsked("r", 1.5, *call, *asked))
    if answered:
        tally.take(events.QuestionAnswered("r", 60.5, *call, asked[0], "approve", "", "ada"))
        tally.take(events.NodeFinished("r", 61.0, *call, "sent"))
    else:
        tally.take(events.NodeCancelled("r", 60.5, *call))

    (send,) = tally.calls.values()
    expected = (1.0, "done") if answered else (0.5, "asked")
    assert (send.seconds, send.status) == expected


def test_reuse_and_guesses_are_counted_by_reason() -> None:
    call = ("r", 1.0, 0, "fetch")
    savings = counted(
        events.NodeStarted(*call, None),
        events.NodeFinished(*call, None, 1),
        events.NodeReused("r", 1.0, 1, "fetch", None, "memory", 2.0),
        events.NodeFinished("r", 1.0, 1, "fetch", None, 1),
        events.NodeStarted("r", 1.0, 2, "fetch", 0),
        events.NodeRetrying("r", 1.0, 2, "fetch", 0, 1, 0.0, OSError()),
        events.NodeStarted("r", 1.0, 2, "fetch", 0, 2),
        events.NodeReused("r", 1.0, 2, "fetch", 0, "speculated", 0.5),
        events.CallPredicted("r", 1.0, 1, "fetch", {"url": "x"}, 0.5, "it mostly follows"),
        events.SpeculationStarted("r", 1.0, 1, "fetch"),
        events.SpeculationUsed("r", 1.0, 1, "fetch", 0.5),
        events.SpeculationStarted("r", 1.0, 2, "fetch"),
        events.SpeculationWasted("r", 1.0, 2, "fetch", 0.25, "0.001", "it failed"),
        events.SpeculationOvertaken("r", 1.0, 3, "fetch"),
    ).as_dict()

    assert savings["reuse"] == {
        "calls": 3, "reused": 2, "share": 0.6667, "by": {"memory": 1, "speculated": 1},
        "seconds_saved": 2.5,
    }  # fmt: skip
    assert savings["speculation"] == {
        "started": 2, "used": 1, "wasted": 1, "overtaken": 1, "seconds_saved": 0.5,
        "seconds_wasted": 0.25, "usd_wasted": "0.001",
    }  # fmt: skip


def counted(*happened: events.Event) -> Savings:
    """What was saved, after some events."""
    tally = Tally()
    for event in happened:
        tally.take(event)
    return tally.savings


def test_what_is_not_told_to_have_ended_is_cancelled_with_its_run() -> None:
    tally = shown(Screen(io.StringIO()), until=8)
    tally.take(events.RunFailed("r", 12.0, TimeoutError()))

    assert [call.status for call in tally.calls.values()] == ["cancelled", "cancelled"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0004, "0.4 ms"),
        (0.0996, "100 ms"),
        (0.5, "500 ms"),
        (0.9996, "1.0 s"),
        (61.5, "1 min 2 s"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("usd", "text"), [("0.00125", "$0.00125"), ("0.5", "$0.5"), ("12.345", "$12.35")]
)
def test_prices(usd: str, text: str) -> None:
    assert price(usd) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("short", '"short"'),
        ("x" * 1200, "1,200 characters, 1 line"),
        (["a"], "1 item"),
        ({}, "0 items"),
        (42, "42"),
        (None, "null"),
    ],
)
def test_values_in_a_few_words(value: object, text: str) -> None:
    assert gist(value) == text


def test_a_replica_that_goes_down_is_told_once_however_many_runs_use_it() -> None:
    screen = io.StringIO()
    progress = Progress(Screen(screen), Tally())
    for event in (
        events.ReplicaDown("r", 10.0, "a:1", "it refused the connection"),
        events.ReplicaDown("s", 10.0, "a:1", "it refused the connection"),
        events.ReplicaUp("r", 14.0, "a:1", 4.0),
        events.ReplicaUp("s", 14.0, "a:1", 4.0),
        events.ReplicaDown("s", 20.0, "a:1", "it hangs"),
    ):
        progress.take(event)

    assert screen.getvalue().splitlines() == [
        "replica   a:1 is down: it refused the connection",
        "replica   a:1 is back after 4.0 s",
        "replica   a:1 is down: it hangs",
    ]


def test_on_a_terminal_what_happens_to_replicas_has_marks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    screen = Terminal()
    progress = Progress(Screen(screen), Tally())
    progress.take(events.ReplicaDown("r", 10.0, "a:1", "it hangs"))
    progress.take(events.ReplicaUp("r", 14.0, "a:1", 4.0))
    progress.tick(15.0)

    assert "▼ a:1 is down: it hangs" in screen.getvalue()
    assert "▲ a:1 is back after 4.0 s" in screen.getvalue()


def test_a_loop_that_was_blocked_and_events_that_were_missed_are_told() -> None:
    screen = io.StringIO()
    progress = Progress(Screen(screen), Tally())
    progress.take(events.LoopBlocked("r", 1.0, 2.25, "flow.py:3 in fetch", "fetch", 0, "r"))
    progress.take(events.LoopBlocked("r", 1.0, 0.7, "flow.py:9 in flow", by="r"))
    progress.take(events.EventsDropped("r", 2.0, 1200, {"node_started": 1100, "text_delta": 100}))

    assert screen.getvalue().splitlines() == [
        "blocked   fetch held the event loop for 2.2 s: flow.py:3 in fetch",
        "blocked   code held the event loop for 700 ms: flow.py:9 in flow",
        "missed    1,200 events: 1,100 node_started, 100 text_delta",
    ]
