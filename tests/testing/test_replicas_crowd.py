"""Whoever comes and goes: all who stay are answered, and nothing of the others is left."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
from hypothesis import given
from hypothesis import strategies as st

from agentflow.testing import Fault, ModelledReplica, Serving, run_virtual
from agentflow.testing.replicas import Make

SERVING = Serving(
    prefill=1000, step=0.1, per_sequence=0.01, chunk=64, capacity=240, block=10, slots=2
)

visitors = st.tuples(
    st.sampled_from([0.0, 0.1, 0.7]),  # seconds after the one before
    st.text("ab", min_size=1, max_size=4),  # what the prompt says, ten times each
    st.integers(1, 30),  # tokens wanted
    st.sampled_from([None, None, 0.0, 0.05, 1.3]),  # seconds until it leaves
)
makes = st.sampled_from([None, "vllm", "llama.cpp"])


async def ask(replica: ModelledReplica, words: str, tokens: int) -> dict[str, Any]:
    content = "".join(f"{word}{word}{word} " * 10 for word in words)
    body = {"messages": [{"role": "user", "content": content}], "max_tokens": tokens}
    async with httpx.AsyncClient(transport=replica.transport(), timeout=None) as client:
        response = await client.post("http://replica/v1/chat/completions", json=body)
    answer: dict[str, Any] = response.json()
    return answer


async def visit(replica: ModelledReplica, words: str, tokens: int, leaves: float | None) -> None:
    try:
        async with asyncio.timeout(leaves):
            usage = (await ask(replica, words, tokens))["usage"]
    except TimeoutError:
        return
    assert usage["completion_tokens"] == tokens
    assert usage["prompt_tokens_details"]["cached_tokens"] < usage["prompt_tokens"]


def is_empty(replica: ModelledReplica) -> bool:
    engine = replica.engine
    return (replica.active, engine.running, engine.waiting, engine.used) == (0, 0, 0, 0)


@given(makes, st.lists(visitors, max_size=12))
def test_all_who_stay_are_answered(
    make: Make | None, crowd: list[tuple[float, str, int, float | None]]
) -> None:
    async def main() -> None:
        replica = ModelledReplica(SERVING, server=make)
        async with asyncio.TaskGroup() as visits:
            for gap, words, tokens, leaves in crowd:
                await asyncio.sleep(gap)
                visits.create_task(visit(replica, words, tokens, leaves))
        assert is_empty(replica)
        await visit(replica, "ab", 3, None)

    run_virtual(main())


@given(makes, st.lists(visitors, max_size=8), st.sampled_from([0.0, 0.15, 1.0, 3.0]))
def test_a_restart_leaves_nothing_of_what_was_there(
    make: Make | None, crowd: list[tuple[float, str, int, float | None]], after: float
) -> None:
    async def main() -> None:
        replica = ModelledReplica(SERVING, server=make)
        replica.fail(Fault.cut(after=2), times=1)
        visits = [asyncio.create_task(ask(replica, words, n)) for _, words, n, _ in crowd]
        await asyncio.sleep(after)
        await replica.restart()
        assert is_empty(replica)
        assert replica.engine.resident == 0
        replica.recover()
        await visit(replica, "ab", 3, None)
        await asyncio.gather(*visits, return_exceptions=True)

    run_virtual(main())
