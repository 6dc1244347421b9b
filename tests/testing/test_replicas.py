"""Modelled replicas: what a client of one sees, in time and in counts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from agentflow.clock import now
from agentflow.testing import Call, ChatCall, Fault, ModelledReplica, Reply, Serving, Usage
from agentflow.testing.replicas_prompts import message_tokens, prompt_tokens
from agentflow.testing.wire import Message

SERVING = Serving(prefill=1000, step=0.1, chunk=100, capacity=2000, block=10)
LONG: Mapping[str, Any] = {"role": "system", "content": "word " * 200}
ASK: Mapping[str, Any] = {"role": "user", "content": "Go on."}


@dataclass
class Heard:
    """An answer as it was streamed."""

    tokens: list[str] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    usage: dict[str, Any] = field(default_factory=dict)
    message: Message = field(default_factory=Message)
    finish_reason: str | None = None


async def ask(
    replica: ModelledReplica, messages: Sequence[Mapping[str, Any]] = (LONG, ASK), **fields: Any
) -> Heard:
    """Ask in memory, streaming."""
    body = {"model": "m", "messages": list(messages), "stream": True, **fields}
    body["stream_options"] = {"include_usage": True}
    answer = Heard()
    url = "http://replica/v1/chat/completions"
    async with (
        httpx.AsyncClient(transport=replica.transport(), timeout=None) as client,
        client.stream("POST", url, json=body) as response,
    ):
        assert response.status_code == 200, await response.aread()
        async for line in response.aiter_lines():
            if line.startswith("data: {"):
                take(answer, httpx.Response(200, content=line.removeprefix("data: ")).json())
    return answer


def take(answer: Heard, event: Mapping[str, Any]) -> None:
    answer.usage.update(event.get("usage") or {})
    for choice in event["choices"]:
        answer.message.add(choice["delta"])
        answer.finish_reason = choice["finish_reason"]
        if text := choice["delta"].get("content"):
            answer.tokens.append(text)
            answer.times.append(now())


def cached(answer: Heard) -> int:
    count: int = answer.usage["prompt_tokens_details"]["cached_tokens"]
    return count


pytestmark = pytest.mark.virtual


async def test_tokens_come_when_the_engine_has_made_them() -> None:
    answer = await ask(ModelledReplica(SERVING), max_tokens=5)
    first = answer.usage["prompt_tokens"] / 1000
    assert answer.times == pytest.approx([first + step * 0.1 for step in range(5)])
    assert "".join(answer.tokens) == "word word word word word"
    assert answer.usage["completion_tokens"] == 5


async def test_tokens_that_are_sent_together_come_with_the_last_of_them() -> None:
    answer = await ask(ModelledReplica(SERVING, size=3), max_tokens=6)
    first = answer.usage["prompt_tokens"] / 1000
    assert answer.tokens == ["word word word", " word word word"]
    assert answer.times == pytest.approx([first + 0.2, first + 0.5])


async def test_an_answer_that_is_not_streamed_comes_when_all_of_it_is_made() -> None:
    replica = ModelledReplica(SERVING)
    async with httpx.AsyncClient(transport=replica.transport()) as client:
        body = {"messages": [LONG, ASK], "max_tokens": 5}
        response = await client.post("http://replica/v1/chat/completions", json=body)
    usage = response.json()["usage"]
    assert now() == pytest.approx(usage["prompt_tokens"] / 1000 + 4 * 0.1)


async def test_clients_slow_each_other_as_the_engine_says() -> None:
    replica = ModelledReplica(SERVING)
    other = asyncio.create_task(ask(replica, max_tokens=30))
    await asyncio.sleep(1.0)
    late = await ask(replica, [{"role": "user", "content": "word " * 100}], max_tokens=1)
    prompt = late.usage["prompt_tokens"]
    assert late.times == pytest.approx([1.0 + prompt / 1000 + prompt / 100 * 0.1])
    alone = (await other).usage["prompt_tokens"] / 1000 + 29 * 0.1
    assert now() == pytest.approx(alone + prompt / 1000)


async def test_a_conversation_finds_all_of_its_past_but_the_last_block() -> None:
    search = Call("search", {"query": "how many people live in Spain, and where do they live"})
    script = [Reply("Let me see what there is to find.", search), Reply("About 48 million people.")]
    replica = ModelledReplica(SERVING, script)
    first = await ask(replica)
    said = first.message.json()
    result = {"role": "tool", "tool_call_id": "call_0_0", "content": "48,592,909"}
    second = await ask(replica, [LONG, ASK, said, result])
    known = first.usage["prompt_tokens"] + len([*message_tokens(said)]) - 2 - 1
    assert cached(first) == 0
    assert cached(second) == known // 10 * 10  # its frame was not made, its last token not kept
    assert replica.engine.hits == cached(second)


async def test_an_answer_shortened_by_its_limit_is_found_as_far_as_it_came() -> None:
    replica = ModelledReplica(SERVING, ["one two " * 50] * 2)
    first = await ask(replica, max_tokens=33)
    said = first.message.json()
    second = await ask(replica, [LONG, ASK, said, ASK])
    assert first.finish_reason == "length"
    assert first.usage["completion_tokens"] == 33
    assert cached(second) == (first.usage["prompt_tokens"] + 32) // 10 * 10


async def test_a_prompt_that_was_changed_in_the_middle_is_found_up_to_there() -> None:
    replica = ModelledReplica(SERVING)
    await ask(replica, [LONG, ASK], max_tokens=1)
    changed = {"role": "system", "content": "word " * 100 + "other " + "word " * 99}
    assert cached(await ask(replica, [changed, ASK], max_tokens=1)) == 100


async def test_tools_come_first_in_a_prompt() -> None:
    tool = {"type": "function", "function": {"name": "f", "description": "word " * 50}}
    replica = ModelledReplica(SERVING)
    await ask(replica, tools=[tool], max_tokens=1)
    assert cached(await ask(replica, max_tokens=1)) == 0
    again = await ask(replica, [ASK], tools=[tool], max_tokens=1)
    assert cached(again) >= 50


async def test_a_client_that_leaves_frees_its_room() -> None:
    replica = ModelledReplica(SERVING)
    task = asyncio.create_task(ask(replica, max_tokens=100))
    await asyncio.sleep(1.0)
    assert (replica.active, replica.engine.running) == (1, 1)
    task.cancel()
    await asyncio.wait([task])
    assert (replica.active, replica.engine.running, replica.engine.used) == (0, 0, 0)
    assert replica.requests[0].disconnected


async def test_a_request_that_waits_for_room_waits_for_its_first_token() -> None:
    replica = ModelledReplica(Serving(prefill=1000, step=0.1, chunk=100, capacity=300, block=10))
    first, second = await asyncio.gather(
        ask(replica, max_tokens=20),
        ask(replica, [{"role": "user", "content": "other " * 100}], max_tokens=1),
    )
    assert second.times[0] > first.times[-1]


async def test_a_preempted_answer_pauses_and_goes_on() -> None:
    replica = ModelledReplica(Serving(prefill=1000, step=0.1, chunk=100, capacity=500, block=10))
    answers = await asyncio.gather(
        ask(replica, max_tokens=60),
        ask(replica, [{"role": "user", "content": "other " * 90}], max_tokens=60),
    )
    assert replica.engine.preemptions == 1
    pauses = [max(b - a for a, b in zip(x.times, x.times[1:], strict=False)) for x in answers]
    assert pauses[0] < 0.5 < pauses[1]
    assert [len(answer.tokens) for answer in answers] == [60, 60]


async def test_an_async_model_is_heard_out_before_the_engine_begins() -> None:
    async def slowly(call: ChatCall) -> AsyncIterator[str]:
        yield "one "
        await asyncio.sleep(5)
        yield call.said_by("user")

    answer = await ask(ModelledReplica(SERVING, slowly))
    assert "".join(answer.tokens) == "one Go on."
    assert answer.times[0] == pytest.approx(5 + answer.usage["prompt_tokens"] / 1000)


async def test_a_model_may_answer_with_a_page_or_usage_of_its_own() -> None:
    replica = ModelledReplica(SERVING, [Fault.status(503), Reply("a", usage=Usage(1, 2, 3))])
    async with httpx.AsyncClient(transport=replica.transport()) as client:
        url, body = "http://replica/v1/chat/completions", {"messages": [LONG]}
        assert (await client.post(url, json=body)).status_code == 503
        assert now() == 0.0
        assert (await client.post(url, json=body)).json()["usage"]["prompt_tokens"] == 1


async def test_a_prompt_that_never_fits_is_refused_and_a_long_answer_is_cut() -> None:
    replica = ModelledReplica(Serving(prefill=1000, step=0.1, capacity=100, block=10))
    answer = await ask(replica, [ASK], max_tokens=500)
    assert len(answer.tokens) == 100 - answer.usage["prompt_tokens"]
    assert answer.finish_reason == "length"
    async with httpx.AsyncClient(transport=replica.transport()) as client:
        body = {"messages": [LONG]}
        response = await client.post("http://replica/v1/chat/completions", json=body)
    assert response.status_code == 400
    assert "maximum context length is 100 tokens" in response.text


async def test_models_and_health_are_those_of_a_scripted_server() -> None:
    replica = ModelledReplica(SERVING, name="tiny")
    async with httpx.AsyncClient(transport=replica.transport()) as client:
        assert (await client.get("http://replica/v1/models")).json()["data"][0]["id"] == "tiny"
        assert (await client.get("http://replica/health")).status_code == 200
        assert (await client.get("http://replica/metrics")).status_code == 404


def test_a_prompt_grows_by_what_is_appended() -> None:
    said = {"role": "assistant", "content": "(", "tool_calls": [{"function": {"name": "f"}}]}
    messages = [LONG, {"role": "user", "content": ' "What?"\n'}, said, ASK]
    [*whole, turn] = prompt_tokens(ChatCall(0, {"messages": messages}))
    assert turn == "<assistant>"
    for length in range(len(messages)):
        part = prompt_tokens(ChatCall(0, {"messages": messages[:length]}))[:-1]
        assert whole[: len(part)] == part
