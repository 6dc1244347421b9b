"""A reply that breaks off loses no task: the same is answered, and called, as without it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from agentflow import Budget, Late, events, llm, tool, workflow
from agentflow.errors import BackendError, BudgetExceeded, RunFailed, TruncatedReply
from agentflow.executor.models.stream import Timeouts
from agentflow.testing import Call, Fault
from agentflow.testing.replies import Pace, Reply

pytestmark = pytest.mark.virtual

QUICK = Timeouts(idle=20.0)
FAULTS: dict[str, Any] = {
    "cut": Fault.cut,
    "stall": Fault.stall,
    "unfinished": Fault.unfinished,
    "error": lambda *said, after: Fault.error("overloaded", *said, after=after),
}
PLAN = """Thought: first of all
$1 = look(key="a")
$2 = upper(text=$1)
$3 = put(key="b", value=$2)
$4 = shout(text="done")"""
TURN = Reply(
    "First of all",
    Call("look", {"key": "a"}),
    Call("put", {"key": "b", "value": "APPLE"}),
    Call("look", {"key": "b"}),
    Call("shout", {"text": "done"}),
)
SCRIPTS: dict[str, list[Reply]] = {
    "plan": [Reply(PLAN), Reply("Thought: so\nAnswer: it is APPLE now")],
    "react": [TURN, Reply("It is APPLE now.")],
}
PLACES = [(strategy, at) for strategy in SCRIPTS for at in (0, 1)]


async def outcome(lab: Any, script: Sequence[Any], **options: Any) -> tuple[Any, ...]:
    """What a task comes to: its answer, its calls in order, what they changed and gave."""
    lab.made, lab.events[:] = [], []
    lab.stock = {"a": "apple", "b": "banana"}
    answer = await lab.run(*script, timeouts=QUICK, **options)
    await asyncio.sleep(1.0)
    assert lab.server.active == 0
    finished = sorted((e.node, str(e.value)) for e in lab.told(events.NodeFinished))
    assert not lab.told(events.NodeCancelled)
    return answer, lab.made, lab.stock, finished


def told(lab: Any) -> dict[str, str]:
    """All text that was told, by role."""
    roles = {event.role for event in lab.told(events.TextDelta)}
    return {role: "".join(lab.said(role)) for role in roles}


# Wherever, and however, a reply breaks off


@pytest.mark.parametrize(("strategy", "at"), PLACES)
@pytest.mark.parametrize("kind", FAULTS)
async def test_a_task_comes_to_the_same_wherever_a_reply_breaks_off(
    lab: Any, strategy: str, at: int, kind: str
) -> None:
    script = SCRIPTS[strategy]
    expected = await outcome(lab, script, strategy=strategy)
    said, size = told(lab), len(lab.server.requests[at].sent)
    assert len(expected[1]) >= 4 and "put b APPLE" in expected[1]

    for after in range(size):
        broken = FAULTS[kind](*script[at].pieces, after=after)
        again = [*script[:at], broken, *script[at:]]

        assert await outcome(lab, again, strategy=strategy) == expected, after
        assert told(lab) == said
        assert len(lab.server.requests) == len(script) + 1
        assert lab.told(events.TextRetracted) == []


@pytest.mark.parametrize("strategy", SCRIPTS)
async def test_a_task_goes_on_if_every_reply_breaks_off_twice(lab: Any, strategy: str) -> None:
    script = SCRIPTS[strategy]
    expected = await outcome(lab, script, strategy=strategy)

    again: list[Any] = []
    for reply in script:
        again += [Fault.cut(*reply.pieces, after=7), Fault.unfinished(*reply.pieces, after=3)]
        again.append(reply)

    assert await outcome(lab, again, strategy=strategy) == expected


@pytest.mark.parametrize("kind", FAULTS)
async def test_what_is_typed_is_read_as_if_nothing_had_broken_off(lab: Any, kind: str) -> None:
    @llm
    async def count(thing: str) -> dict[str, int]:
        """Count {thing}."""
        raise NotImplementedError

    @workflow
    async def counted() -> dict[str, int]:
        return await count("fruit")

    answer = '{"apples": 3, "pears": 12}'

    for after in range(1, 12):
        lab.events.clear()
        broken = FAULTS[kind](answer, after=after)
        engine = await lab.prepare([broken, answer], timeouts=QUICK)

        assert await engine.run(counted) == {"apples": 3, "pears": 12}
        assert lab.said("call") and told(lab) == {"call": answer}
        assert len(lab.server.requests) == 2


# What it costs


@pytest.mark.parametrize("strategy", SCRIPTS)
async def test_each_attempt_is_paid_and_the_budget_is_kept(lab: Any, strategy: str) -> None:
    script = SCRIPTS[strategy]
    done, ended = 0, 0

    for tokens in range(1_000, 10_000, 150):
        broken = [Fault.cut(*script[0].pieces, after=9), *script]
        budget = Budget(tokens=tokens)
        try:
            await outcome(lab, broken, strategy=strategy, budget=budget, max_tokens=600)
            done += 1
            assert len(lab.told(events.ModelReplied)) == 3
        except RunFailed:
            ended += 1
        assert lab.engine.ledger.spent.tokens <= tokens
        assert lab.engine.ledger.reserved.tokens == 0

    assert done and ended


@pytest.mark.parametrize("strategy", SCRIPTS)
async def test_what_cannot_be_paid_twice_ends_with_what_broke_it_off(
    lab: Any, strategy: str
) -> None:
    reply = SCRIPTS[strategy][0]
    refused = await lab.fails(strategy=strategy, budget=Budget(tokens=1), max_tokens=600)
    assert isinstance(refused.__cause__, BudgetExceeded)
    once = refused.__cause__.asked

    failed = await lab.fails(
        Fault.unfinished(*reply.pieces, after=20), "never asked",
        strategy=strategy, budget=Budget(tokens=once), max_tokens=600,
    )  # fmt: skip

    assert isinstance(failed.__cause__, TruncatedReply)
    assert isinstance(failed.__cause__.__cause__, BudgetExceeded)
    assert len(lab.server.requests) == 1


async def test_each_attempt_is_told_and_the_one_that_broke_off_is_estimated(lab: Any) -> None:
    await lab.run(Fault.cut("It is so.", after=3), "It is so.", strategy="react")

    replied = lab.told(events.ModelReplied)
    assert [event.estimated for event in replied] == [True, False]
    total = sum(event.prompt_tokens + event.completion_tokens for event in replied)
    assert lab.engine.ledger.spent.tokens == total


@pytest.mark.parametrize("strategy", SCRIPTS)
async def test_silence_does_not_outlast_the_deadline(lab: Any, strategy: str) -> None:
    silent = [Fault.stall(*SCRIPTS[strategy][0].pieces, after=5)] * 2
    engine = await lab.prepare([*silent, "never asked"], timeouts=QUICK)

    with pytest.raises(Exception, match="passed its deadline"):
        await engine.run("Which?", strategy=strategy, budget=Budget(deadline=30.0))

    await asyncio.sleep(1.0)
    assert len(lab.server.requests) == 2
    assert lab.server.active == 0


# A reply that comes differently


async def test_a_turn_that_comes_differently_is_another_turn(lab: Any) -> None:
    old = Fault.cut("Let me", Call("put", {"key": "a", "value": "x"}), after=30)
    new = "Let us", Call("look", {"key": "a"}), Call("put", {"key": "b", "value": "y"})

    answer = await lab.run(old, Reply(*new), "Done.", strategy="react")

    assert answer == "Done."
    assert sorted(lab.made) == ["look a", "put b y"]
    _, turn, *results = lab.server.requests[-1].body["messages"][1:]
    assert turn["content"] == "Let us"
    assert [call["function"]["name"] for call in turn["tool_calls"]] == ["look", "put"]
    assert [result["content"] for result in results] == ["apple", "done"]
    assert len(lab.told(events.TextRetracted)) == 1


async def test_what_was_read_already_is_not_read_again(lab: Any) -> None:
    look = Call("look", {"key": "a"})
    old = Fault.cut(look, "and then", Call("search", {"query": "old"}), after=14)

    await lab.run(old, Reply(look, Call("search", {"query": "new"})), "Done.", strategy="react")

    assert lab.made == ["look a", "search new"]


@pytest.mark.parametrize("strategy", SCRIPTS)
async def test_a_call_that_was_still_written_is_taken_back(lab: Any, strategy: str) -> None:
    @tool(reads="web")
    async def fetch(url: str, hint: Late[str]) -> str:
        """Fetch."""
        try:
            lab.made.append(f"fetch {url}")
            return await hint
        except asyncio.CancelledError:
            lab.made.append(f"left {url}")
            raise

    if strategy == "react":
        old = Fault.cut(Call("fetch", {"url": "a", "hint": "so many more words"}), after=12)
        script = [old, Call("fetch", {"url": "b", "hint": "few"}), "few"]
    else:
        old = Fault.cut('$1 = fetch(url="a", hint="so many more words"', after=13)
        script = [old, '$1 = fetch(url="b", hint="few")\nreturn $1']

    answer = await lab.run(*script, tools=[fetch], strategy=strategy, pace=Pace(0.1, 0.1))

    assert answer == "few"
    assert lab.made == ["fetch a", "left a", "fetch b"]
    assert len(lab.told(events.PartialRetracted)) == 1


async def test_a_plan_that_comes_differently_is_another_plan(lab: Any) -> None:
    old = '$1 = look(key="a")\n$2 = put(key="a", value="x")\n$3 = search(query="old") and'
    new = '$1 = search(query="new", k=1)\n$2 = put(key="b", value="y")\nreturn $1'

    answer = await lab.run(Fault.unfinished(old), new, rounds=1)

    assert answer == '["new 0"]'
    assert lab.made == ["look a", "search old", "search new", "put b y"]
    assert len(lab.told(events.TextRetracted)) == 1
    assert len(lab.told(events.RoundStarted)) == 1  # it is no round of its own


async def test_a_call_whose_line_was_not_complete_is_not_part_of_either_plan(lab: Any) -> None:
    lab.takes = {"look": 600.0}
    old = '$1 = look(key="a") and so on'
    engine = await lab.prepare([Fault.cut(old, after=12), 'return "fine"'])

    assert await engine.run("Which?") == "fine"

    assert lab.made == ["look a"]
    assert lab.ended("look a") < 1.0
    assert lab.told(events.NodeStarted) == lab.told(events.PlanExtended) == []


async def test_a_plan_that_wrote_and_comes_differently_is_asked_to_go_on(lab: Any) -> None:
    old = '$1 = put(key="a", value="x")\n$2 = look(key="a")\n$3 = search('
    new = '$1 = look(key="b")\n$2 = put(key="b", value="y")\njoin()'
    more = "$3 = upper(text=$2)\nreturn $3"

    answer = await lab.run(Fault.unfinished(old), new, more, commit="line")

    assert answer == "X"
    assert lab.made == ["put a x", "look a", "upper x"]
    assert "cut_off" in lab.asked(2) and "Go on from here" in lab.asked(2)
    assert [event.number for event in lab.told(events.RoundStarted)] == [1, 2]


async def test_an_answer_that_comes_differently_is_told_from_its_start(lab: Any) -> None:
    plan = '$1 = look(key="a")\njoin()'
    old = Fault.cut("Thought: hm\nAnswer: it was a pear", after=9)

    assert await lab.run(plan, old, "Answer: it is an apple") == "it is an apple"

    kinds = (events.TextDelta, events.TextRetracted)
    after = [event for event in lab.events if isinstance(event, kinds)]
    at = next(i for i, event in enumerate(after) if isinstance(event, events.TextRetracted))
    told = [event.text for event in after[at + 1 :] if isinstance(event, events.TextDelta)]
    assert "".join(told) == "it is an apple"
    assert lab.made == ["look a"]


async def test_a_typed_answer_that_comes_differently_is_told_with_its_call(lab: Any) -> None:
    @llm
    async def name(thing: str) -> str:
        """Name {thing}."""
        raise NotImplementedError

    @workflow
    async def named() -> str:
        return await name("it")

    engine = await lab.prepare([Fault.cut("one two three", after=3), "another name"])

    assert await engine.run(named) == "another name"

    [void] = lab.told(events.TextRetracted)
    told = lab.events[lab.events.index(void) :]
    assert void.node == 0
    assert "".join(e.text for e in told if isinstance(e, events.TextDelta)) == "another name"


# What is not asked for again


async def test_a_plan_that_was_read_to_its_end_is_not_asked_for_again(lab: Any) -> None:
    lab.takes = {"look": 5.0}
    plan = '$1 = look(key="a")\njoin()\n'
    broken = Fault.cut(plan + "and so on", after=13)

    assert await lab.run(broken, "Answer: yes", pace=Pace(0.1, 0.1)) == "yes"

    assert len(lab.server.requests) == 2
    assert lab.made == ["look a"]


async def test_a_turn_that_was_rejected_is_not_asked_for_again(lab: Any) -> None:
    turn = Call("look", {"key": 1}), Call("look", {"key": "and so on and so forth"})
    engine = await lab.prepare([Fault.cut(*turn, after=25), "Done."])
    engine.services.partial = False  # then it is read on

    assert await engine.run("Which?", strategy="react") == "Done."

    assert len(lab.server.requests) == 2
    assert lab.asked(1).startswith("not called: ")
    assert lab.made == lab.told(events.TextRetracted) == []


async def test_a_failure_that_will_not_pass_ends_the_task(lab: Any) -> None:
    failed = await lab.fails(Fault.garbage("Let me think", after=2), "never asked")

    assert isinstance(failed.__cause__, BackendError) and not failed.__cause__.retryable
    assert len(lab.server.requests) == 1
