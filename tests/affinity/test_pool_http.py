"""A pool over real sockets: what a client sees of a server that dies."""

from __future__ import annotations

import asyncio

from agentflow.executor.affinity.pool import Pool
from agentflow.executor.models.base import ChatRequest, SessionTag
from agentflow.executor.models.persistent import Persistent
from agentflow.testing import ModelledReplica, Serving

FAST = Serving(prefill=1_000_000.0, step=0.001, capacity=100_000)


def ask(words: int = 20) -> ChatRequest:
    messages = [{"role": "user", "content": "hello"}]
    return ChatRequest(messages=messages, max_tokens=words, session=SessionTag("s"))


async def test_a_server_that_dies_in_mid_stream_loses_no_reply() -> None:
    async with ModelledReplica(FAST) as a, ModelledReplica(FAST) as b:
        pool = Pool([a.base_url, b.base_url], "modelled")
        first = await pool.complete(ask())
        dying = a if first.replica in a.base_url else b
        asking = asyncio.create_task(Persistent(pool).complete(ask(words=200)))
        while not (dying.requests[-1].sent and len(dying.requests) == 2):
            await asyncio.sleep(0)
        dying.kill()

        reply = await asking
        after = await pool.complete(ask())

        assert reply.text == " ".join(["word"] * 200)
        assert reply.replica == after.replica != first.replica
        assert reply.moved == "lost"
        await pool.aclose()


async def test_a_server_that_is_not_there_costs_one_attempt() -> None:
    async with ModelledReplica(FAST) as replica:
        pool = Pool(["http://127.0.0.1:9/v1", replica.base_url], "modelled")

        replies = [await pool.complete(ask()) for _ in range(3)]

        assert [reply.attempts for reply in replies] == [2, 1, 1]
        assert pool.replicas[0].condition == "down"
        assert "refused the connection" in pool.replicas[0].complaint
        await pool.aclose()
