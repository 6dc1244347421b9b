"""When the calls of a plan start while it is being written, on virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from agentflow import events
from agentflow.executor.strategies.streamed import LINGER
from agentflow.testing import ChatCall
from agentflow.testing.replies import Pace

pytestmark = pytest.mark.virtual

SLOW = Pace(first_token=0.3, per_token=0.02)
IN_TWELVES = Pace(first_token=0.3, per_token=0.02, tokens_per_chunk=12)
WHOLE = Pace(first_token=0.3, per_token=0.02, tokens_per_chunk=1000)
ANSWER = "Answer: done"


@pytest.mark.parametrize("pace", [SLOW, IN_TWELVES, WHOLE])
async def test_a_read_starts_in_the_chunk_that_holds_its_closing_bracket(
    lab: Any, when: Any, pace: Pace
) -> None:
    one, two = '$1 = search(query="one")', '$2 = search(query="another one")'

    await lab.run(f"{one}\n{two}\njoin()", ANSWER, pace=pace)

    plan = lab.server.requests[0]
    assert lab.started("search one") == when(plan, one)
    assert lab.started("search another one") == when(plan, two)


@pytest.mark.parametrize("pace", [SLOW, IN_TWELVES, WHOLE])
async def test_every_chunking_gives_the_same_calls_and_the_same_answer(
    lab: Any, pace: Pace
) -> None:
    plan = (
        'Thought: find both\n$1 = search(query="one", k=1)\n$2 = upper(text="${1[0]}!")\n'
        '$3 = put(key="a", value=$2)\n$4 = look(key="a")\nreturn [$2, $4]'
    )

    assert await lab.run(plan, pace=pace) == '["ONE 0!", "ONE 0!"]'
    assert lab.made == ["search one", "upper one 0!", "put a ONE 0!", "look a"]


async def test_a_dependent_starts_the_moment_its_input_is_there(lab: Any) -> None:
    lab.takes = {"search": 5.0}

    await lab.run('$1 = search(query="one")\n$2 = upper(text=$1[0])\njoin()', ANSWER, pace=SLOW)

    assert lab.started("upper one 0") == lab.ended("search one")


async def test_a_call_that_ends_between_two_lines_starts_what_waits_for_it(
    lab: Any, when: Any
) -> None:
    lab.takes = {"search": 0.6}
    two, late = "$2 = upper(text=$1[0])", f'$3 = search(query="{"long " * 40}")'

    await lab.run(f'$1 = search(query="one")\n{two}\n{late}\njoin()', ANSWER, pace=SLOW)

    plan = lab.server.requests[0]
    assert when(plan, two) < lab.ended("search one") < when(plan, late)
    assert lab.started("upper one 0") == lab.ended("search one")


async def test_the_joiner_is_asked_the_moment_the_last_call_ends(lab: Any) -> None:
    lab.takes = {"search": 7.0}

    await lab.run('$1 = search(query="one")\njoin()', ANSWER, pace=SLOW)

    assert lab.server.requests[1].started == lab.ended("search one")


async def test_a_write_waits_for_the_end_of_the_plan(lab: Any, when: Any) -> None:
    write, last = '$1 = put(key="a", value="x")', '$2 = search(query="something else")'

    await lab.run(f"{write}\n{last}\njoin()", ANSWER, pace=SLOW)

    plan = lab.server.requests[0]
    assert lab.started("put a x") == when(plan, "join()")
    assert lab.started("search something else") == when(plan, last)


async def test_an_undeclared_call_waits_for_the_end_of_the_plan(lab: Any, when: Any) -> None:
    await lab.run('$1 = shout(text="x")\n$2 = search(query="y")\njoin()', ANSWER, pace=SLOW)

    assert lab.started("shout x") == when(lab.server.requests[0], "join()")


async def test_the_end_of_the_plan_may_be_a_return(lab: Any, when: Any) -> None:
    write = '$1 = put(key="a", value="x")'

    assert await lab.run(f"{write}\nreturn $1\n", pace=SLOW) == "done"

    # whether a path follows the reference is known with the newline
    assert lab.started("put a x") == when(lab.server.requests[0], "return $1\n")


async def test_the_end_of_the_plan_may_be_the_end_of_the_text(lab: Any) -> None:
    await lab.run('$1 = put(key="a", value="x")\n', ANSWER, pace=SLOW)

    assert lab.made == ["put a x"]


async def test_a_read_after_a_waiting_write_of_the_same_resource_waits_and_sees_it(
    lab: Any, when: Any
) -> None:
    lab.takes = {"put": 1.0}

    await lab.run('$1 = put(key="a", value="x")\n$2 = look(key="a")\njoin()', ANSWER, pace=SLOW)

    assert lab.started("put a x") == when(lab.server.requests[0], "join()")
    assert lab.started("look a") == lab.ended("put a x")
    assert "-> x" in lab.asked(1)


async def test_a_read_before_a_write_does_not_see_it(lab: Any) -> None:
    lab.takes = {"look": 9.0}

    await lab.run('$1 = look(key="a")\n$2 = put(key="a", value="x")\njoin()', ANSWER, pace=SLOW)

    assert lab.started("put a x") == lab.ended("look a")
    assert "-> apple" in lab.asked(1)


async def test_what_uses_the_value_of_a_waiting_call_waits_with_it(lab: Any) -> None:
    await lab.run('$1 = shout(text="x")\n$2 = upper(text=$1)\njoin()', ANSWER, pace=SLOW)

    assert lab.made == ["shout x", "upper x!"]
    assert "-> X!" in lab.asked(1)


async def test_writes_may_be_told_to_start_with_their_own_line(lab: Any, when: Any) -> None:
    write, last = '$1 = put(key="a", value="x")', '$2 = search(query="something else")'

    await lab.run(f"{write}\n{last}\njoin()", ANSWER, pace=SLOW, commit="line")

    plan = lab.server.requests[0]
    assert lab.started("put a x") == when(plan, f"{write}\n")
    assert lab.started("put a x") < when(plan, last)


async def test_even_then_a_write_does_not_start_before_its_guard_can_be_read(lab: Any) -> None:
    plan = '$1 = search(query="x", k=0)\n$2 = put(key="a", value="x") if $1\njoin()'

    await lab.run(plan, ANSWER, pace=SLOW, commit="line")

    assert lab.made == ["search x"]
    assert lab.stock["a"] == "apple"


# A guard is read after the bracket, when the call may have started.


@pytest.mark.parametrize("pace", [SLOW, IN_TWELVES, WHOLE])
async def test_a_guard_takes_an_early_start_back_and_nobody_hears_of_it(
    lab: Any, pace: Pace
) -> None:
    lab.takes = {"search second": 60.0}
    plan = '$1 = search(query="first", k=0)\n$2 = search(query="second") if $1\njoin()'

    await lab.run(plan, ANSWER, pace=pace)

    second = [event for event in lab.told(events.NodeStarted) if event.tool == "search"][1:]
    assert second == []
    assert lab.told(events.NodeCancelled) == []
    [skipped] = lab.told(events.NodeSkipped)
    assert skipped.tool == "search"
    lines = [line for event in lab.told(events.PlanExtended) for line in event.lines]
    assert len(lines) == 2 and lines[1].endswith("if $1")
    assert "skipped" in lab.asked(1)
    if pace is SLOW:
        assert "search second" in lab.made  # it did start


async def test_a_call_with_a_guard_that_holds_runs_as_guarded(lab: Any) -> None:
    plan = '$1 = search(query="first")\n$2 = search(query="second") if $1\nreturn $2[0]'

    assert await lab.run(plan, pace=SLOW) == "second 0"
    finished = [event.tool for event in lab.told(events.NodeFinished)]
    assert finished == ["search", "search"]


async def test_a_policy_after_the_bracket_takes_an_early_start_back_as_well(lab: Any) -> None:
    lab.takes = {"look c": 0.0, "look": 1.0}
    plan = '$1 = look(key=each ["c", "a"]) join first\nreturn $1'

    assert await lab.run(plan, pace=SLOW) == "apple"
    [(line,)] = [event.lines for event in lab.told(events.PlanExtended)]
    assert line.endswith('look(key=each ["c", "a"]) join first')


async def test_an_equal_call_that_is_not_guarded_keeps_its_value(lab: Any) -> None:
    """The early start of line 3 is the call of line 2, which is not taken back with it."""
    lab.takes = {"upper": 60.0}
    plan = (
        '$1 = search(query="none", k=0)\n$2 = upper(text="x")\n'
        '$3 = upper(text="x") if $1\nreturn $2'
    )

    assert await lab.run(plan, pace=SLOW) == "X"
    assert lab.made == ["search none", "upper x"]


async def test_values_are_gathered_by_a_policy(lab: Any) -> None:
    lab.takes = {"search slow": 60.0, "search quick": 1.0}
    plan = (
        '$1 = search(query="slow", k=1)\n$2 = search(query="quick", k=1)\n'
        "$3 = gather($1, $2) join first\nreturn $3"
    )

    assert await lab.run(plan, pace=SLOW) == '["quick 0"]'
    assert lab.ended("search slow") < 3.0


async def test_gathered_values_are_observed_like_others(lab: Any) -> None:
    await lab.run('$1 = shout(text="x")\n$2 = gather($1, "y")\njoin()', ANSWER, pace=SLOW)

    assert '$2 = gather($1, "y")\n-> ["x!", "y"]' in lab.asked(1)


async def test_equal_pure_calls_are_made_once(lab: Any) -> None:
    plan = '$1 = upper(text="x")\n$2 = upper("x")\nreturn [$1, $2]'

    assert await lab.run(plan, pace=SLOW) == '["X", "X"]'
    assert lab.made == ["upper x"]


@pytest.mark.parametrize("tokens", [1, 3, 1000])
async def test_one_chunk_may_hold_many_lines_or_a_part_of_one(lab: Any, tokens: int) -> None:
    lines = "".join(f'${n} = search(query="q{n}")\n' for n in range(1, 9))

    await lab.run(lines + "join()", ANSWER, pace=Pace(0.3, 0.02, tokens))

    assert lab.made == [f"search q{n}" for n in range(1, 9)]


async def test_the_plan_is_told_while_it_is_written(lab: Any) -> None:
    plan = '$1 = search(query="one")\njoin()'

    await lab.run(plan, ANSWER, pace=SLOW)

    assert "".join(lab.said("plan")) == plan
    assert len(lab.said("plan")) > 5


@pytest.mark.parametrize(("seconds", "later"), [(0.0, LINGER / 2), (1.0, 0.9)])
async def test_the_backends_own_count_of_tokens_is_waited_for(
    lab: Any, seconds: float, later: float
) -> None:
    """It comes after the plan's end, when calls that take no time have ended already."""
    lab.takes = {"search": seconds}

    async def model(call: ChatCall) -> AsyncIterator[str]:
        yield ANSWER if call.number else '$1 = search(query="one")\njoin()'
        await asyncio.sleep(later)

    engine = await lab.prepare(model)
    await engine.run("Which?")

    planner, _ = lab.told(events.ModelReplied)
    assert not planner.estimated


async def test_a_backend_that_does_not_count_is_not_waited_for_long(lab: Any, when: Any) -> None:
    plan = '$1 = search(query="one")\njoin()\n' + "and on and on " * 100

    await lab.run(plan, ANSWER, pace=SLOW)

    planning, joining = lab.server.requests
    assert joining.started - when(planning, "join()") == pytest.approx(LINGER)
    assert planning.disconnected


async def test_prose_without_end_after_the_plan_is_not_read(lab: Any, when: Any) -> None:
    lab.takes = {"search": 30.0}
    plan = '$1 = search(query="one")\njoin()\n' + "and on and on " * 100

    await lab.run(plan, ANSWER, pace=SLOW)

    exchange = lab.server.requests[0]
    assert exchange.disconnected
    assert exchange.ended < when(exchange, "join()") + 1.0
    planner, _ = lab.told(events.ModelReplied)
    assert planner.estimated
