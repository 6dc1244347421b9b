"""Whatever an endpoint does, a task ends with a typed error, and nothing of it is left."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from agentflow import events
from agentflow.engine import Engine
from agentflow.errors import (
    BackendBusy,
    BackendError,
    BackendRejected,
    BackendTimeout,
    BackendUnreachable,
    BadReply,
    DeadlineExceeded,
    DefinitionError,
    RunFailed,
    TruncatedReply,
)
from agentflow.executor.models.client import OpenAIBackend
from agentflow.executor.models.retry import RetryPolicy
from agentflow.executor.models.stream import Timeouts
from agentflow.testing import Call, Fault, ScriptedServer
from agentflow.testing.replies import Pace, Reply

pytestmark = pytest.mark.virtual

ONCE = RetryPolicy(max_retries=0)
QUICK = Timeouts(first_token=30.0, idle=20.0, total=300.0)

BEFORE = [
    (Fault.html(), BadReply, "base URL of an OpenAI-compatible API"),
    (Fault.status(500, "out of memory"), BackendError, "failed (500): out of memory"),
    (Fault.status(401, "no key"), BackendRejected, "Check the API key"),
    (Fault.status(404, "no model"), BackendRejected, "Check the model's name"),
    (Fault.status(429, "slow down"), BackendBusy, "is busy (429)"),
    (Fault.hang_up(), BackendUnreachable, "broke the connection off"),
    (Fault.silence(), BackendTimeout, "no token within 30 s"),
]


def in_the_middle(*said: Any) -> list[tuple[Any, type[BackendError], str]]:
    """Faults after a few pieces of a reply."""
    return [
        (Fault.cut(*said, after=12), BackendUnreachable, "broke the connection off"),
        (Fault.stall(*said, after=12), BackendTimeout, "nothing more for 20 s"),
        (Fault.garbage(*said, after=12), BadReply, "not a chat completion"),
        (Fault.unfinished(*said, after=12), TruncatedReply, "the reply is cut off"),
        (Fault.error("overloaded", *said, after=12), BackendError, "overloaded"),
    ]


PLAN = '$1 = look(key="a")\n$2 = search(query="so many more words than there are tokens")\njoin()'
TURN = (Call("look", {"key": "a"}), Call("search", {"query": "so many more words"}))


def check(failed: RunFailed, kind: type[BackendError], remedy: str) -> None:
    error = failed.__cause__
    assert type(error) is kind, error
    assert error.url == "http://scripted/v1"
    assert error.url in str(failed) and remedy in str(failed)


@pytest.mark.parametrize("strategy", ["plan", "react"])
@pytest.mark.parametrize(("fault", "kind", "remedy"), BEFORE)
async def test_a_fault_before_the_first_token_ends_the_task(
    lab: Any, strategy: str, fault: Any, kind: type[BackendError], remedy: str
) -> None:
    failed = await lab.fails(fault, strategy=strategy, retry=ONCE, timeouts=QUICK)

    check(failed, kind, remedy)
    assert failed.results == {}
    assert isinstance(lab.events[-1], events.RunFailed)


@pytest.mark.parametrize(("fault", "kind", "remedy"), BEFORE)
async def test_a_fault_of_the_joiner_keeps_the_results(
    lab: Any, fault: Any, kind: type[BackendError], remedy: str
) -> None:
    failed = await lab.fails('$1 = look(key="a")\njoin()', fault, retry=ONCE, timeouts=QUICK)

    check(failed, kind, remedy)
    assert failed.results == {0: "apple"}


def asked(kind: type[BackendError]) -> int:
    """How often a model is asked for a reply that breaks off each time."""
    return 1 if kind is BadReply else 3


@pytest.mark.parametrize(("fault", "kind", "remedy"), in_the_middle(PLAN))
async def test_a_plan_that_breaks_off_every_time_keeps_what_was_done_and_ends_the_task(
    lab: Any, fault: Any, kind: type[BackendError], remedy: str
) -> None:
    failed = await lab.fails(*[fault] * 4, timeouts=QUICK)

    check(failed, kind, remedy)
    assert failed.results == {0: "apple"}
    assert lab.made == ["look a"]
    assert len(lab.server.requests) == asked(kind)


@pytest.mark.parametrize(("fault", "kind", "remedy"), in_the_middle(*TURN))
async def test_a_turn_that_breaks_off_every_time_keeps_what_was_done_and_ends_the_task(
    lab: Any, fault: Any, kind: type[BackendError], remedy: str
) -> None:
    failed = await lab.fails(*[fault] * 4, strategy="react", timeouts=QUICK)

    check(failed, kind, remedy)
    assert failed.results == {0: "apple"}
    assert lab.made == ["look a"]
    assert len(lab.server.requests) == asked(kind)


@pytest.mark.parametrize(("fault", "kind", "remedy"), in_the_middle("Answer: " + "word " * 30))
async def test_an_answer_that_breaks_off_every_time_ends_the_task(
    lab: Any, fault: Any, kind: type[BackendError], remedy: str
) -> None:
    failed = await lab.fails('$1 = look(key="a")\njoin()', *[fault] * 4, timeouts=QUICK)

    check(failed, kind, remedy)
    assert failed.results == {0: "apple"}
    assert len(lab.server.requests) == 1 + asked(kind)


async def test_writes_of_a_plan_that_breaks_off_are_not_made(lab: Any) -> None:
    plan = '$1 = put(key="a", value="x")\n$2 = look(key="a")\n$3 = search(query="x")\n'

    failed = await lab.fails(*[Fault.unfinished(plan)] * 3)

    assert isinstance(failed.__cause__, TruncatedReply)
    assert lab.made == ["search x"]
    assert lab.stock["a"] == "apple"


async def test_a_call_whose_line_never_ended_is_not_among_the_results(lab: Any) -> None:
    line = '$1 = look(key="a")'

    failed = await lab.fails(*[Fault.cut(line + " and so on" * 9, after=20)] * 3)

    assert lab.made == ["look a"]
    assert failed.results == {} and failed.pending == ()
    assert lab.told(events.NodeStarted) == lab.told(events.NodeCancelled) == []


async def test_a_long_call_is_stopped_when_the_plan_breaks_off(lab: Any) -> None:
    lab.takes = {"look": 600.0}

    failed = await lab.fails(*[Fault.cut(PLAN, after=12)] * 3)

    assert lab.ended("look a") < 1.0
    assert failed.pending == (0,)


@pytest.mark.parametrize("strategy", ["plan", "react"])
async def test_a_busy_endpoint_is_asked_again_when_it_said(lab: Any, strategy: str) -> None:
    answer = 'return "fine"' if strategy == "plan" else "fine"

    assert await lab.run(Fault.status(429, retry_after=7), answer, strategy=strategy) == "fine"

    first, second = lab.server.requests
    assert 7.0 <= second.started - first.started < 7.2


@pytest.mark.parametrize("strategy", ["plan", "react"])
async def test_a_failing_endpoint_is_asked_a_few_times_and_no_more(lab: Any, strategy: str) -> None:
    failed = await lab.fails(*[Fault.status(500)] * 9, strategy=strategy)

    assert type(failed.__cause__) is BackendError
    assert len(lab.server.requests) == 3


@pytest.mark.parametrize("strategy", ["plan", "react"])
async def test_an_endpoint_that_never_answers_meets_the_deadline(lab: Any, strategy: str) -> None:
    from agentflow.budgets.budget import Budget

    engine = await lab.prepare([Fault.silence()])

    with pytest.raises(DeadlineExceeded):
        await engine.run("Which?", strategy=strategy, budget=Budget(deadline="9s"))

    assert asyncio.get_running_loop().time() == 9.0
    await asyncio.sleep(0)
    assert lab.server.requests[0].disconnected


@pytest.mark.parametrize("strategy", ["plan", "react"])
async def test_an_endpoint_that_is_down_is_named(strategy: str) -> None:
    backend = OpenAIBackend("http://127.0.0.1:9/v1", "tiny", retry=ONCE)
    async with Engine(model=backend) as engine:
        with pytest.raises(RunFailed) as caught:
            await engine.run("Which?", strategy=strategy)
    await backend.aclose()

    assert isinstance(caught.value.__cause__, BackendUnreachable)
    assert "http://127.0.0.1:9/v1 refused the connection: is the server running" in str(
        caught.value
    )


@pytest.mark.parametrize("strategy", ["plan", "react"])
async def test_without_an_endpoint_the_error_says_how_to_name_one(
    strategy: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    async with Engine() as engine:
        with pytest.raises(RunFailed) as caught:
            await engine.run("Which?", strategy=strategy)

    assert isinstance(caught.value.__cause__, DefinitionError)
    assert "OPENAI_BASE_URL" in str(caught.value)


async def test_sockets_are_closed_when_a_task_is_cancelled(lab: Any) -> None:
    """The same over a real connection: the server sees the client leave."""
    plan = Reply('$1 = look(key="a")\n' + "Thought: hm\n" * 500, pace=Pace(0.1, 0.02))
    async with (
        ScriptedServer([plan]) as server,
        Engine(base_url=server.base_url, model="tiny", tools=lab.tools) as engine,
    ):
        run = engine.start("Which?")
        while not lab.made:
            await asyncio.sleep(0.05)
        run.cancel(reason="enough")
        await run.ended()
        while server.active:
            await asyncio.sleep(0.05)

        assert server.requests[0].disconnected
