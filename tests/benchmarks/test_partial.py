"""What partial execution can save, by arithmetic, and that the workloads measure what they say."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import count, pairwise

import pytest
from partial_abort import PACES, Rejection, forecast, rejections, together
from partial_bound import Fragment, Pair, Stopped, Timing, spared
from partial_cases import PER_TOKEN, Workload, workloads
from partial_engines import Engines
from partial_llama import INTERPRETER, QUESTIONS, VALIDATION, Real, Runs, table
from partial_runs import Bench
from partial_server import Told
from partial_wire import Written

from agentflow.testing import ChatCall, ScriptedServer
from agentflow.testing.chat import Exchange
from agentflow.testing.replies import Call, Pace, Reply
from agentflow.testing.tokens import tokens

pytestmark = pytest.mark.virtual


# The arithmetic


def timing(*fragments: tuple[float, float], decoded: float = 10.0, latency: float = 0.0) -> Timing:
    return Timing(latency, decoded, decoded, [Fragment(*fragment) for fragment in fragments])


@pytest.mark.parametrize(
    ("fragments", "earliest"),
    [
        ([(10.0, 4.0)], 14.0),  # all of the work needs all of the arguments
        ([(0.0, 4.0)], 10.0),  # none of it does, and it is done before they end
        ([(0.0, 13.0)], 13.0),
        ([(2.0, 1.0), (5.0, 1.0), (10.0, 1.0)], 11.0),  # each is done before the next can be
        ([(2.0, 6.0), (5.0, 6.0), (10.0, 1.0)], 15.0),  # each waits for the one before
        ([], 10.0),
    ],
)
def test_work_is_done_when_its_text_is_there_and_the_work_before_it_done(
    fragments: list[tuple[float, float]], earliest: float
) -> None:
    assert timing(*fragments).earliest == earliest


def test_without_partial_execution_work_begins_when_the_arguments_are_complete() -> None:
    assert timing((0.0, 3.0), (10.0, 1.0)).in_turn == 14.0


def test_no_turn_is_over_before_its_reply() -> None:
    plan = Timing(0.0, decoded=10.0, ended=12.0, fragments=[Fragment(10.0, 1.0)])
    assert (plan.earliest, plan.in_turn) == (12.0, 12.0)


def test_the_bound_is_what_can_be_saved_of_the_latency() -> None:
    assert timing((0.0, 5.0), (10.0, 5.0)).bound == pytest.approx(5 / 20)


@pytest.mark.parametrize("work", [5.0, 10.0, 20.0])
def test_the_bound_of_work_that_needs_no_argument_is_the_smaller_over_the_sum(work: float) -> None:
    its = timing((0.0, work))
    assert its.bound == pytest.approx(min(10.0, work) / (10.0 + work))
    assert its.ceiling == pytest.approx(its.bound)


def test_a_saving_is_compared_with_the_bound_of_its_own_run() -> None:
    pair = Pair(timing((0.0, 10.0), latency=11.0), timing((0.0, 10.0), latency=20.0))
    assert pair.saving == pytest.approx(0.45)
    assert pair.share == pytest.approx(0.45 / 0.5)


def test_tokens_in_flight_are_not_to_be_spared() -> None:
    replies = [Stopped(after=100, decoded=4, in_flight=2), Stopped(50, 0, 0)]
    assert spared(replies) == pytest.approx((96 + 50) / (98 + 50))


# What is heard


def event(**delta: object) -> bytes:
    return b"data: " + json.dumps({"choices": [{"delta": delta}]}).encode() + b"\n\n"


def call(**function: str) -> bytes:
    return event(tool_calls=[{"index": 0, "function": function}])


def test_a_text_is_there_when_the_chunk_with_its_last_character_is() -> None:
    first, *rest = (
        event(role="assistant", content=""),
        event(content="one "),
        event(content="two"),
    )
    heard = Written.read([(5.0, first), (6.0, rest[0]), (8.0, rest[1]), (9.0, b"data: [DONE]\n\n")])
    assert [heard.at(text) for text in ("", "one", "one t", "two")] == [0.0, 1.0, 3.0, 3.0]
    assert (heard.began, heard.ended) == (5.0, 9.0)


def test_arguments_of_calls_are_text_and_events_may_be_cut_anywhere() -> None:
    whole = event(role="assistant") + call(name="f", arguments="") + call(arguments='{"a": 1}')
    cut = len(whole) - 5
    heard = Written.read([(1.0, whole[:cut]), (2.0, whole[cut:])])
    assert heard.pieces == ((1.0, ""), (2.0, '{"a": 1}'))
    assert heard.until('"a"') == 2


def test_what_is_said_before_a_call_is_no_part_of_it() -> None:
    heard = Written.read([(1.0, event(content="Well, ") + call(name="f", arguments="{}"))])
    assert (heard.called, heard.text) == (1, "Well, {}")
    assert Written.read([(1.0, event(content="Well."))]).called is None


def test_a_text_that_never_came_is_an_error() -> None:
    with pytest.raises(AssertionError, match="never came"):
        Written.read([(1.0, event(content="one"))]).at("two")


# The workloads, without sockets and on virtual time


class Here:
    """A server in this process, as `Engines` knows one."""

    def __init__(self) -> None:
        self.base_url = "http://scripted/v1"
        self._model = Told()
        self._server = ScriptedServer(self._model)
        self.transport = self._server.transport()

    def say(self, reply: Reply) -> None:
        self._model.reply = reply

    def served(self) -> list[Exchange]:
        served = self._server.requests[:]
        self._server.requests.clear()
        return served


@asynccontextmanager
async def bench() -> AsyncIterator[Bench]:
    here = Here()
    made = Bench(here, transport=here.transport)
    yield made
    await made.aclose()


MODELLED = {
    f"{its.name}, {ratio:g}": its
    for ratio in (0.5, 1.0, 2.0)
    for its in workloads(ratio, 0.0)
    if its.modelled
}


@pytest.mark.parametrize("workload", MODELLED.values(), ids=MODELLED)
async def test_a_workload_reaches_its_bound_where_computing_takes_no_time(
    workload: Workload,
) -> None:
    async with bench() as it:
        pair = await it.pair(workload, on_first=True)
    assert pair.off.latency == pytest.approx(pair.off.in_turn, abs=1e-6)
    assert pair.on.latency == pytest.approx(pair.on.earliest, abs=0.006)  # token counts linger
    assert pair.share > 0.98


@pytest.mark.parametrize(("name", "workload"), MODELLED.items(), ids=MODELLED)
def test_a_tool_works_as_many_times_as_long_as_its_text_takes_to_write_as_it_is_said(
    name: str, workload: Workload
) -> None:
    ratio = float(name.rpartition(", ")[2])
    assert sum(workload.costs) == pytest.approx(ratio * len(tokens(workload.text)) * PER_TOKEN)


async def rejected(pace: Pace, positions: int = 4) -> list[Rejection]:
    here = Here()
    engines = Engines(here.base_url, [forecast], transport=here.transport)
    found = await rejections(here, engines, pace, positions)
    await engines.aclose()
    return found


@pytest.mark.parametrize("pace", PACES.values(), ids=PACES)
async def test_a_model_is_stopped_at_a_wrong_argument_wherever_it_is(pace: Pace) -> None:
    found = await rejected(pace)
    assert spared([it.stopped for it in found]) == 1.0
    assert together(found).share == pytest.approx(1.0)


async def test_wrong_arguments_are_spread_evenly_over_the_reply() -> None:
    found = await rejected(Pace(0.05, 0.005))
    after = [it.stopped.after for it in found]
    assert {one - other for one, other in pairwise(after)} == {50}
    assert after[-1] < 50 < sum(after) / len(after) < 200


# A real server, as far as it can be scripted

ARGUMENTS = {
    "interpret": {"code": "print(sum(range(100)))\n" * 8},
    "search": {"query": "pike " * 40},
    "forecast": {"place": "Atlantis " * 10, "details": "everything " * 40},
}


def obliged(request: ChatCall) -> Reply:
    """Says a little and calls its tool if it has to."""
    if request.body.get("tool_choice") != "required":
        return Reply("That is all.")
    name = request.tools[0]["name"]
    return Reply("Let me see. ", Call(name, ARGUMENTS[name]))


async def real(model: Callable[[ChatCall], Reply], workload: str) -> Runs:
    server = ScriptedServer(model, pace=Pace(0.1, 0.01))
    made, runs = Real("http://scripted/v1", "any", transport=server.transport()), Runs()
    await made.run(workload, runs)
    await made.aclose()
    return runs


@pytest.mark.parametrize("workload", QUESTIONS)
async def test_at_a_real_server_a_run_is_compared_with_its_own_arguments(workload: str) -> None:
    runs = await real(obliged, workload)
    assert len(runs.on) == len(runs.off) == 1
    assert runs.off[0].latency == pytest.approx(runs.off[0].in_turn)
    assert runs.on[0].latency == pytest.approx(runs.on[0].earliest)
    assert runs.on[0].earliest < 0.8 * runs.on[0].in_turn
    assert f"{workload}  " in table({workload: runs})


async def test_a_reply_without_a_whole_call_is_left_out() -> None:
    broken = Reply(Call("interpret", '{"code": "print('), pace=Pace())
    runs = await real(lambda request: broken, INTERPRETER)
    assert (runs.left_out, runs.on) == (1, [])


async def test_a_stopped_reply_that_was_another_one_is_left_out() -> None:
    replies = count()

    def fickle(request: ChatCall) -> Reply:
        arguments = {"place": f"place {next(replies)}", "details": "all"}
        return obliged(request) if request.said_by("tool") else Reply(Call("forecast", arguments))

    runs = await real(fickle, VALIDATION)
    assert (runs.left_out, runs.on) == (1, [])
