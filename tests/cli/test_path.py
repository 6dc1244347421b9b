"""The critical path, and what was saved against one call after another."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow import events
from agentflow.cli.account.gains import gains
from agentflow.cli.account.path import Stretch, critical_path
from agentflow.cli.account.reasons import Reasons
from agentflow.cli.account.spans import uses_of

from .told import made, planned, replied, timeline_of, told


def shape(path: Sequence[Stretch]) -> list[tuple[str, str, float, float]]:
    """A path in words and times."""
    return [
        (one.kind, "" if one.what is None else one.what.label, round(one.began, 6), round(one.ended, 6))
        for one in path
    ]  # fmt: skip


def test_the_path_is_the_chain_of_calls_that_waited_for_each_other() -> None:
    timeline = timeline_of(
        told(
            planned(0.0, "$1 = fetch(1)", "$2 = fetch(2)", "$3 = join2($1, $2)"),
            made(0, 0.0, 1.0),
            made(1, 0.0, 3.0),
            made(2, 3.0, 4.0, "join2"),
        )
    )

    assert shape(critical_path(timeline)) == [
        ("call", "$2 fetch", 0.0, 3.0),
        ("call", "$3 join2", 3.0, 4.0),
    ]


def test_what_a_call_waited_for_beside_what_it_needs_is_part_of_the_path() -> None:
    call = (1, "fetch", None)
    timeline = timeline_of(
        told(
            planned(0.0, "$1 = fetch(1)", "$2 = fetch($1)"),
            made(0, 0.0, 1.0),
            events.NodeWaited("r", 3.0, *call, "tool", 2.0),
            events.NodeStarted("r", 3.0, *call, 1),
            events.NodeRetrying("r", 3.5, *call, 1, 0.25, OSError("reset")),
            events.NodeStarted("r", 3.75, *call, 2),
            events.QuestionAsked("r", 4.0, *call, "q", "approval", "fetch(1)", "it asks"),
            events.QuestionAnswered("r", 6.0, *call, "q", "approve", "", "ada"),
            events.NodeFinished("r", 7.0, *call, 1),
        )
    )

    assert [(kind, began, ended) for kind, _, began, ended in shape(critical_path(timeline))] == [
        ("call", 0.0, 1.0),
        ("tool", 1.0, 3.0),
        ("call", 3.0, 3.5),
        ("retry", 3.5, 3.75),
        ("call", 3.75, 4.0),
        ("answer", 4.0, 6.0),
        ("call", 6.0, 7.0),
    ]


def test_a_plan_counts_up_to_the_line_that_the_run_waited_for() -> None:
    timeline = timeline_of(
        told(
            events.RoundStarted("r", 0.0, "plan", 1),
            planned(1.0, "$1 = fetch(1)", writing=True),
            made(0, 1.0, 5.0),
            replied(0.0, 2.0),
            events.RoundStarted("r", 5.0, "join", 1),
            replied(5.0, 6.0),
        )
    )

    assert shape(critical_path(timeline)) == [
        ("model", "plan", 0.0, 1.0),
        ("call", "$1 fetch", 1.0, 5.0),
        ("model", "answer", 5.0, 6.0),
    ]
    found = gains(timeline)
    assert (found.sequential, found.taken) == (7.0, 6.0)
    assert found.by["streaming"] == 1.0  # the plan went on for a second beside the call
    assert found.by["parallel"] == 0.0


def test_a_run_within_a_run_stands_in_place_of_its_call() -> None:
    timeline = timeline_of(
        told(
            planned(0.0, "$1 = inner(1)"),
            made(0, 0.0, 5.0, "inner"),
            events.RunStarted("s", 0.5, "inner", "r", 0),
            planned(1.0, "$1 = fetch(1)", run="s"),
            made(0, 1.0, 4.0, run="s"),
        )
    )

    assert shape(critical_path(timeline)) == [
        ("own", "", 0.0, 1.0),
        ("call", "$1 fetch", 1.0, 4.0),
        ("own", "", 4.0, 5.0),
    ]
    assert gains(timeline).sequential == 5.0


def test_a_map_over_a_map_follows_its_elements() -> None:
    timeline = timeline_of(
        told(
            planned(0.0, "$1 = fetch(each [1, 2])", "$2 = read(each $1)"),
            made(0, 0.0, 1.0, element=0),
            made(0, 0.0, 2.0, element=1),
            made(1, 1.0, 6.0, "read", element=0),
            made(1, 2.0, 3.0, "read", element=1),
        )
    )

    (first, second) = critical_path(timeline)
    assert (first.element, first.ended) == (0, 1.0)
    assert (second.element, second.began, second.ended) == (0, 1.0, 6.0)


def test_seconds_that_several_things_save_are_claimed_once() -> None:
    cached = events.NodeReused("r", 2.0, 2, "fetch", None, "memory", 4.0)
    timeline = timeline_of(
        told(
            events.SpeculationUsed("r", 1.0, 1, "fetch", 1.0),
            planned(0.0, "$1 = fetch(1)", "$2 = fetch(2)", "$3 = fetch(3)"),
            made(0, 0.0, 2.0),
            made(1, 1.0, 2.0),
            cached,
            events.NodeFinished("r", 2.0, 2, "fetch", None, 3),
        )
    )

    found = gains(timeline)

    assert found.by["speculation"] == 1.0  # a guess beside the first call
    assert found.by["parallel"] == 1.0  # the rest of it beside the first call
    assert found.by["cache"] == 4.0
    assert (found.sequential, found.taken, found.at_once) == (8.0, 2.0, 2)


def test_a_call_that_waits_for_an_equal_one_does_no_work_of_its_own() -> None:
    timeline = timeline_of(
        told(
            planned(0.0, "$1 = fetch(1)", "$2 = fetch(1)"),
            made(0, 0.0, 2.0),
            events.NodeStarted("r", 0.0, 1, "fetch", None, 1),
            events.NodeReused("r", 2.0, 1, "fetch", None, "shared", 2.0),
            events.NodeFinished("r", 2.0, 1, "fetch", None, 1),
        )
    )

    found = gains(timeline)
    assert (found.by["cache"], found.by["parallel"], found.sequential) == (2.0, 0.0, 4.0)


def test_what_was_called_long_after_its_needs_had_ended_did_not_wait_for_them() -> None:
    timeline = timeline_of(
        told(
            planned(0.0, "$1 = fetch(1)", "$2 = fetch(2)"),
            made(0, 0.0, 1.0),
            made(1, 0.0, 2.0),
            planned(2.5, "$3 = fetch($1)", first=2),
            made(2, 2.5, 3.0),
        )
    )
    reasons = Reasons(timeline)

    reason = reasons.of_step(timeline.steps["r", 2])
    assert (reason.kind, reason.of) == ("program", ("$2 fetch",))
    assert list(reasons.keeps_waiting(timeline.steps["r", 0])) == []


@pytest.mark.parametrize(
    ("line", "uses", "after"),
    [
        ("$3 = f($1, each $2[*].url, {\"a\": $12.x})", (1, 2, 12), ()),
        ('$3 = f("${1.a} and ${2}", "costs $5")', (1, 2), ()),
        (r'$3 = f("\\${1} \"${2}\"")', (2,), ()),
        ("$3 = f($1) if $2  # after $4, $5", (1, 2), (4, 5)),
        ('$3 = f("# after $4")', (), ()),
        ("$3 = f()", (), ()),
    ],
)  # fmt: skip
def test_what_a_line_needs_is_read_from_it(
    line: str, uses: tuple[int, ...], after: tuple[int, ...]
) -> None:
    assert uses_of(line) == (uses, after)


@st.composite
def runs(draw: st.DrawFn) -> list[events.Event]:
    """Runs of calls that need earlier ones, some cached, guessed at, waiting or retried."""
    ends: list[float] = []
    happened: list[events.Event] = []
    seconds = st.sampled_from([0.0, 0.5, 1.0, 1.25, 3.0])
    writes = draw(st.booleans())
    for node in range(draw(st.integers(1, 7))):
        needs = draw(st.sets(st.integers(0, node - 1), max_size=2)) if node else set()
        joined = draw(seconds)
        ready = max([joined, *(ends[need] for need in needs)])
        waited, took = draw(seconds), draw(seconds)
        given_ = ", ".join(f"${need + 1}" for need in sorted(needs))
        happened.append(
            planned(joined, f"${node + 1} = fetch({given_})", first=node, writing=writes)
        )
        began, call = ready + waited, (node, "fetch", None)
        if waited:
            why = draw(st.sampled_from(["tool", "run", "rate"]))
            happened.append(events.NodeWaited("r", began, *call, why, waited))
        source = draw(st.sampled_from(["", "", "", "memory", "journal", "shared"]))
        if source:
            happened.append(events.NodeReused("r", began, *call, source, took))
            took = 0.0
        elif draw(st.booleans()):
            happened.append(
                events.PartialCommitted("r", began, node, "fetch", node, min(began, 0.5))
            )
        happened += [events.NodeStarted("r", began, *call, 1)] if not source else []
        happened.append(events.NodeFinished("r", began + took, *call, node))
        ends.append(began + took)
    if writes:
        happened += [events.RoundStarted("r", 0.0, "plan", 1), replied(0.0, draw(seconds) + 3.0)]
    return told(happened, end=max(ends))


@given(runs())
def test_the_path_covers_the_run_and_nothing_is_counted_twice(happened: list[events.Event]) -> None:
    timeline = timeline_of(happened)

    path = critical_path(timeline)

    assert sum(one.seconds for one in path) == pytest.approx(timeline.seconds)
    assert all(one.seconds > 0 for one in path)
    for one, other in itertools.pairwise(path):
        assert one.ended == other.began


@given(runs())
def test_what_is_saved_is_what_the_run_is_shorter_by(happened: list[events.Event]) -> None:
    timeline = timeline_of(happened)

    found = gains(timeline)

    assert all(seconds >= 0 for seconds in found.by.values())
    assert found.sequential - found.taken == pytest.approx(sum(found.by.values()))
    made = [step.span() for step in timeline.steps.values()]
    work = sum(span.seconds + span.hidden for span in made if span.source != "shared")
    reused = sum(span.saved for span in made if span.source)
    spoken = sum(said.ended - said.began for said in timeline.speeches)
    assert found.sequential <= work + reused + spoken + timeline.seconds + 1e-6


@given(runs())
def test_every_call_has_a_reason_that_names_only_what_had_ended(
    happened: list[events.Event],
) -> None:
    timeline = timeline_of(happened)
    reasons = Reasons(timeline)
    ended = {step.label: step.ended for step in timeline.steps.values()}

    for step in timeline.steps.values():
        reason = reasons.of_step(step)
        assert reason.text and reason.kind not in ("unknown", "waiting")
        if reason.kind in ("needed", "after", "program"):
            (label,) = reason.of
            assert ended[label] is not None and ended[label] <= (step.began or 0.0) + 1e-5  # type: ignore[operator]  # it is a number
