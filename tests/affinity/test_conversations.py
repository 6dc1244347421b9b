"""Conversations of runs: what their models are told of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from structlog.testing import capture_logs

from agentflow import _http, events
from agentflow.budgets.budget import Budget
from agentflow.caches.affinity.jobs import Pause
from agentflow.clock import now
from agentflow.context import run_scope
from agentflow.engine import Engine
from agentflow.errors import RunCancelled, RunFailed
from agentflow.executor.affinity.conversation import THINKING, Conversation
from agentflow.executor.affinity.pauses import COMPUTES, MODEL, WEB, slowest
from agentflow.executor.metering import MeteredModel
from agentflow.executor.models.base import ChatRequest
from agentflow.executor.models.client import OpenAIBackend
from agentflow.executor.models.retry import RetryPolicy
from agentflow.executor.strategies.task import Task
from agentflow.llms import llm
from agentflow.sessions import Session
from agentflow.testing import Call, Fault, ScriptedServer
from agentflow.testing.replies import Pace, Reply
from agentflow.tools.tool import tool
from agentflow.workflows import workflow

pytestmark = pytest.mark.virtual

SLOW = Pace(first_token=5.0)
STEADY = Pace(per_token=0.1)
LOOK = Reply(Call("look", {"key": "a"}, "c1"))


class Keeper(OpenAIBackend):
    """A backend that wants to hear of sessions, and notes what it hears."""

    heard: list[tuple[Any, ...]]
    requests: list[Any]

    def stream(self, request: ChatRequest, **options: Any) -> Any:
        assert request.session is not None
        self.heard.append(("asked", request.session.id))
        self.requests.append(request)
        return super().stream(request, **options)

    def away(self, session: str, pause: Pause | None) -> None:
        self.heard.append(("away", session, pause))

    def ended(self, session: str) -> None:
        self.heard.append(("ended", session))


class Desk:
    """An engine whose model keeps sessions."""

    def __init__(self, *script: Any, pace: Pace = Pace()) -> None:
        self.server = ScriptedServer(list(script), pace=pace)
        self.http = _http.client(transport=self.server.transport())
        self.model = Keeper(
            "http://scripted/v1", "tiny", http=self.http, retry=RetryPolicy(max_retries=0)
        )
        self.model.heard, self.model.requests = [], []
        self.events: list[events.Event] = []
        self.engine = Engine(
            model=self.model, tools=[look, compute], subscribers=[self.events.append]
        )

    @property
    def heard(self) -> list[tuple[Any, ...]]:
        """What the model heard, with the ids of sessions counted from 1."""
        ids = {session: number for number, session in enumerate(self.sessions, 1)}
        return [(what, ids[session], *rest) for what, session, *rest in self.model.heard]

    @property
    def sessions(self) -> list[str]:
        """The ids of sessions, in the order they were first heard of."""
        return list(dict.fromkeys(session for _, session, *_ in self.model.heard))

    async def aclose(self) -> None:
        await self.engine.aclose()
        await self.http.aclose()


@tool(reads="web")
async def look(key: str) -> str:
    """Look something up."""
    await asyncio.sleep(2.0)
    return f"what is under {key}"


@tool(pure=True)
async def compute(n: int) -> int:
    """One more."""
    await asyncio.sleep(0.5)
    return n + 1


@llm(repairs=2)
async def number(of: str) -> int:
    """How many are {of}?"""
    raise AssertionError("the body is not run")


@llm
async def called(thing: str) -> str:
    """What else is {thing} called?"""
    raise AssertionError("the body is not run")


@workflow
async def numbers(*what: str) -> int:
    return sum([await number(one) for one in what])


@pytest.fixture
async def desk() -> AsyncIterator[Any]:
    made: list[Desk] = []

    def make(*script: Any, **options: Any) -> Desk:
        made.append(Desk(*script, **options))
        return made[-1]

    yield make
    for one in made:
        await one.aclose()


async def test_turns_are_one_session_that_is_away_while_its_tools_run(desk: Any) -> None:
    there = desk(LOOK, "Done.")

    await there.engine.run(Task("Which?", "react"))

    assert there.heard == [("asked", 1), ("away", 1, WEB), ("asked", 1), ("ended", 1)]


async def test_what_a_tool_took_is_what_it_is_expected_to_take(desk: Any) -> None:
    keys = [Reply(Call("look", {"key": str(n)})) for n in range(9)]
    there = desk(*keys, "Done.")

    await there.engine.run(Task("Which?", "react", budget=Budget(deadline=900)))

    pauses = [rest[0] for what, _, *rest in there.heard if what == "away"]
    assert pauses[0] == WEB
    assert pauses[-1] == Pause(2.0, 2.0)


@pytest.mark.parametrize(("pace", "waits_for_both"), [(Pace(), True), (STEADY, False)])
async def test_calls_that_are_over_when_the_model_has_spoken_are_not_waited_for(
    desk: Any, pace: Pace, waits_for_both: bool
) -> None:
    calls = Reply(Call("compute", {"n": 1}), Call("look", {"key": "a"}))
    there = desk(calls, "Done.", pace=pace)

    await there.engine.run(Task("Which?", "react"))

    [pause] = [rest[0] for what, _, *rest in there.heard if what == "away"]
    assert pause == (slowest([WEB, COMPUTES]) if waits_for_both else WEB)


async def test_planner_and_joiner_are_two_sessions(desk: Any) -> None:
    there = desk('$1 = look(key="a")\njoin()', "Answer: done")

    await there.engine.run("Which?")

    assert there.heard == [
        ("asked", 1), ("away", 2, WEB), ("away", 1, WEB), ("asked", 2), ("ended", 2), ("ended", 1),
    ]  # fmt: skip
    assert [session.split("/")[1] for session in there.sessions] == ["plan", "join"]


async def test_a_correction_belongs_to_the_session_of_its_call(desk: Any) -> None:
    there = desk("many", '{"value": 3}', '{"value": 4}')

    assert await there.engine.run(numbers, "wheels", "legs") == 7

    assert there.heard == [
        ("asked", 1), ("asked", 1), ("ended", 1), ("asked", 2), ("ended", 2),
    ]  # fmt: skip
    assert not [event for event in there.events if isinstance(event, events.PrefixBroken)]


async def test_a_backend_without_schemas_breaks_no_prefix(desk: Any) -> None:
    there = desk(Fault.status(400), "many", "3")

    assert await there.engine.run(numbers, "wheels") == 3

    assert there.heard == [("asked", 1)] * 3 + [("ended", 1)]
    assert not [event for event in there.events if isinstance(event, events.PrefixBroken)]


@pytest.mark.parametrize("strategy", ["plan", "react"])
async def test_a_session_ends_with_a_run_that_fails(desk: Any, strategy: Any) -> None:
    there = desk(Fault.status(500))

    with pytest.raises(RunFailed):
        await there.engine.run(Task("Which?", strategy))

    assert ("ended", 1) in there.heard


@pytest.mark.parametrize("target", [Task("Which?"), Task("Which?", "react"), numbers])
async def test_a_session_ends_with_a_run_that_is_cancelled(desk: Any, target: Any) -> None:
    there = desk("never", pace=SLOW)
    arguments = () if isinstance(target, Task) else ("wheels",)
    run = there.engine.start(target, *arguments)
    await asyncio.sleep(1.0)

    run.cancel()
    with pytest.raises(RunCancelled):
        await run

    asked = {session for what, session, *_ in there.heard if what == "asked"}
    assert asked and all(("ended", session) in there.heard for session in asked)


async def test_a_request_says_whose_program_it_belongs_to(desk: Any) -> None:
    there = desk("1", "2", "3")

    @workflow
    async def outer() -> int:
        await asyncio.sleep(3.0)
        return await numbers("wheels")

    began = now()
    await there.engine.tenant("acme").run(outer)
    await there.engine.run(numbers, "legs")
    await there.engine.run(Task("Which?", "react", budget=Budget(deadline=60)))

    first, second, third = (request.session for request in there.model.requests)
    assert (first.tenant, first.began, first.deadline) == ("acme", began, None)
    assert (second.tenant, second.began) == ("", began + 3.0)
    assert third.deadline == began + 63.0


async def test_a_request_says_how_much_work_follows_it_as_far_as_is_known(desk: Any) -> None:
    there = desk("rounds", "discs")

    @workflow
    async def chain() -> str:
        first = called("wheels")
        return await look(called(first.ref).ref)

    @workflow
    async def around() -> str:
        return await look(chain().ref)

    await there.engine.run(around)

    follows = [request.session.remaining for request in there.model.requests]
    assert follows == [MODEL.p50 + 2 * WEB.p50, 2 * WEB.p50]


async def test_sessions_of_different_runs_have_different_names(desk: Any) -> None:
    there = desk("1", "2")

    await asyncio.gather(there.engine.run(numbers, "wheels"), there.engine.run(numbers, "wheels"))

    assert len(set(there.sessions)) == 2


@workflow
async def forgets(turns: int) -> None:
    """Asks with a history that does not grow."""
    run = run_scope.get()
    model = MeteredModel(run.host.model(None), run)
    with Conversation(run, model, "by hand") as conversation:
        for turn in range(turns):
            said = {"role": "user", "content": f"It is {turn} o'clock. What now?"}
            await model.complete(conversation.next(ChatRequest(messages=[said])))


async def test_a_prompt_that_does_not_go_on_is_told_and_warned_of_once(desk: Any) -> None:
    there = desk("a", "b", "c", "d")

    with capture_logs() as logged:
        await there.engine.run(forgets, 3)
        await there.engine.run(forgets, 1)

    broken = [event for event in there.events if isinstance(event, events.PrefixBroken)]
    assert [(event.byte, event.before[:11], event.after[:11]) for event in broken] == [
        (len("user:\nIt is "), "user:\nIt is", "user:\nIt is")
    ] * 2
    assert broken[0].before.endswith("0 o'clock. What now?")
    assert broken[0].after.endswith("1 o'clock. What now?")
    assert broken[0].session == there.sessions[0]
    [warning] = [line for line in logged if line["log_level"] == "warning"]
    assert (warning["session"], warning["byte"]) == (broken[0].session, broken[0].byte)


# Sessions that outlast a run


async def test_a_session_rests_between_its_turns(desk: Any) -> None:
    there = desk("hello", LOOK, "found", "hello you")
    chat = Session()
    for said in ("hi", "look"):
        await there.engine.run(chat, said)
    await there.engine.run(chat.fork(), "hi")

    assert there.heard == [
        *(("asked", 1), ("away", 1, THINKING)),
        *(("asked", 1), ("away", 1, WEB), ("asked", 1), ("away", 1, THINKING)),
        *(("asked", 2), ("away", 2, THINKING)),
    ]
    assert there.sessions[0] == f"{chat.id}/act/0"


async def test_a_new_epoch_is_another_session_to_its_model(desk: Any) -> None:
    too_long = Fault.status(400, "maximum context length is 400 tokens")
    there = desk("fine", too_long, "a summary", "fine again")
    chat = Session(tools=())
    await there.engine.run(chat, "a long story " * 30, max_tokens=100)

    assert await there.engine.run(chat, "hi", max_tokens=100) == "fine again"

    assert there.heard == [
        *(("asked", 1), ("away", 1, THINKING)),
        *(("asked", 1), ("asked", 1), ("ended", 1), ("asked", 2), ("away", 2, THINKING)),
    ]
    assert there.sessions == [f"{chat.id}/act/0", f"{chat.id}/act/1"]
    [compacted] = [e for e in there.events if isinstance(e, events.ContextCompacted)]
    assert (compacted.session, compacted.epoch) == (chat.id, 1)


async def test_an_epoch_is_over_for_planner_and_joiner_alike(desk: Any) -> None:
    too_long = Fault.status(400, "maximum context length is 1500 tokens")
    plan = "$1 = compute(n=1)\njoin()\n"
    there = desk("fine", plan, too_long, "a summary", "Answer: fine again")
    chat = Session()
    await there.engine.run(chat, "a long story " * 100, max_tokens=100)

    assert await there.engine.run(chat, "hi", strategy="plan", max_tokens=100) == "fine again"

    assert chat.epoch == 1
    over = {session for what, session, *_ in there.model.heard if what == "ended"}
    assert over == {f"{chat.id}/plan/0", f"{chat.id}/join/0"}
