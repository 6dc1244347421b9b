"""The same agents through the real pool: HTTP, streams and all, on virtual time.

It shows that what `affinity_simulator` leaves out changes little.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from random import Random
from statistics import fmean
from typing import Any, Self

from affinity_agents import TOOLS, Life, Setting, lives, play, serving
from affinity_rivals import LEAST, OURS, POLICIES, TABLE

from agentflow import _http
from agentflow.executor.affinity.pool import Pool
from agentflow.executor.affinity.replica import ReplicaSpec
from agentflow.executor.models.base import ChatRequest, Message, SessionTag
from agentflow.testing import ModelledReplica, VirtualLoop

SETTING = Setting(agents=24, replicas=2, window=20.0, turns=(6, 12))
COMPARED = (LEAST, TABLE, OURS)


@dataclass(frozen=True)
class Way:
    """A policy by the simulator or through the pool.

    Attributes:
        seconds: Of a session, in the mean.
        prompts: Tokens of all prompts.
        cached: Share of these that servers had.
    """

    seconds: float
    prompts: int
    cached: float


class Hosts:
    """An HTTP client's transport that reaches replicas by the host in the URL."""

    def __init__(self, replicas: dict[str, ModelledReplica]) -> None:
        self.transports = {name: replica.transport() for name, replica in replicas.items()}

    async def handle_async_request(self, request: Any) -> Any:
        return await self.transports[request.url.host].handle_async_request(request)

    async def aclose(self) -> None:
        """Nothing to close."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_exc: object) -> None:
        return None


def agreement(name: str, setting: Setting = SETTING) -> tuple[Way, Way]:
    """One policy by the simulator, and through the pool."""
    played = play(setting, POLICIES[name], 0)
    prompts = sum(its.ask.prompt.tokens for its in played.served)
    cached = sum(its.cached for its in played.served) / prompts
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        real = runner.run(_through_the_pool(name, setting))
    return Way(fmean(played.took.values()), prompts, cached), real


async def _through_the_pool(name: str, setting: Setting) -> Way:
    agents = lives(setting, 0)
    each = serving(setting, agents)
    replicas = {f"r{index}": ModelledReplica(each, size=8) for index in range(setting.replicas)}
    async with AsyncExitStack() as stack:
        http = _http.client(transport=Hosts(replicas))
        stack.push_async_callback(http.aclose)
        specs = [ReplicaSpec(f"http://{n}/v1", n, each.slots, each.capacity) for n in replicas]
        policy = POLICIES[name]({n: replica.engine for n, replica in replicas.items()})
        pool = Pool(specs, "modelled", http=http, policy=policy)
        stack.push_async_callback(pool.aclose)
        for replica in replicas.values():
            stack.push_async_callback(replica.aclose)
        took = await asyncio.gather(*(_session(pool, life) for life in agents))
        engines = [replica.engine for replica in replicas.values()]
    prompts = sum(its.queries for its in engines)
    return Way(fmean(took), prompts, sum(its.hits for its in engines) / prompts)


async def _session(pool: Pool, life: Life) -> float:
    await asyncio.sleep(life.start)
    clock = asyncio.get_running_loop()
    began = clock.time()
    own = _words(f"{life.index}")
    messages: list[Message] = [{"role": "system", "content": _text(_words("shared"), life.shared)}]
    known = life.shared
    for number, turn in enumerate(life.turns):
        messages.append({"role": "user", "content": _text(own, turn.prompt - known)})
        tag = SessionTag(f"s{life.index}", life.tenant, began)
        request = ChatRequest(messages=list(messages), max_tokens=turn.output, session=tag)
        reply = await pool.complete(request)
        messages.append({"role": "assistant", "content": reply.text})
        known = turn.prompt + turn.output
        if number + 1 < len(life.turns):
            pool.away(tag.id, TOOLS[turn.tool])
            await asyncio.sleep(turn.pause)
    pool.ended(tag.id)
    return clock.time() - began


def _words(name: str) -> Iterator[str]:
    """Words of one token each, never the same."""
    random = Random(name)
    while True:
        yield f"{random.getrandbits(16):04x}"


def _text(words: Iterator[str], tokens: int) -> str:
    return " ".join(next(words) for _ in range(tokens))
