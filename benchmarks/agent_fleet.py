"""The servers of `agent.py`: replicas of one model, three hosted models, and who pays for what.

Replicas are modelled (`agentflow.testing.serving`) with the rates of a 70B model on four
accelerators. Everybody reaches them through HTTP clients whose transport is this fleet: by name, as
agentflow's pool does, or by the one address of a proxy, as is done today, which sends a request
where the fewest are under way or where its session's hash says.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from decimal import Decimal
from hashlib import blake2b
from typing import Any, Literal, Self

from affinity_agents import Setting
from affinity_contest import ACCELERATORS, FROZEN, SETTINGS
from agent_model import Script, Skill
from agent_time import MAIN, Times

from agentflow.budgets.prices import Price, Prices
from agentflow.budgets.pte import prefill_equivalents
from agentflow.clock import now
from agentflow.testing import ModelledReplica, Serving
from agentflow.testing.answering import Given, Service
from agentflow.testing.chat import Exchange

MODEL = MAIN
PROXY = "http://proxy/v1"
HOSTED_URL = "http://hosted/v1"
SESSION = "x-session"
"""The header by which a sticky proxy tells sessions apart."""

Balance = Literal["least", "sticky"]

PRICES = Prices(
    {
        MODEL: {"input": "0.40", "cached_input": "0.10", "output": "1.60"},
        "small": {"input": "0.10", "cached_input": "0.025", "output": "0.40"},
        "medium": {"input": "0.40", "cached_input": "0.10", "output": "1.60"},
        "large": {"input": "2.00", "cached_input": "0.50", "output": "8.00"},
    }
)
"""USD per million tokens: those of three sizes of a hosted family."""

HOSTED = {
    "small": (Serving(20_000, 1 / 180, slots=100_000, capacity=10**8), Skill(-0.1, (60, 200))),
    "medium": (Serving(20_000, 1 / 100, slots=100_000, capacity=10**8), Skill(0.7, (60, 200))),
    "large": (Serving(10_000, 1 / 60, slots=100_000, capacity=10**8), Skill(1.6, (60, 200))),
}
"""Rates and skills of the models that make estimates; there is always room."""

SKILLS = {name: skill for name, (_, skill) in HOSTED.items()}
FAST = "70B, fast prefill"
SERVERS = {
    FAST: replace(SETTINGS[ACCELERATORS], prefill=SETTINGS["fast prefill"].prefill),
    ACCELERATORS: SETTINGS[ACCELERATORS],
    FROZEN: SETTINGS[FROZEN],
}
"""Rates of replicas: those of settings of `affinity.py`. With its 70B as it is, most deadlines are
out of a loop's reach: they are set by what an idle server takes that has all prompts."""

CHUNK = 8
"""Tokens of a reply that are sent together."""


@dataclass(frozen=True)
class Bill:
    """What one request was."""

    owner: str
    model: str
    prompt: int
    cached: int
    completion: int

    @property
    def price(self) -> Price:
        """Of its model."""
        return PRICES.require(self.model)

    @property
    def usd(self) -> Decimal:
        """What it cost."""
        return self.price.cost(self.prompt, self.completion, self.cached)

    @property
    def equivalents(self) -> float:
        """What it cost the server, in tokens of prompt."""
        return prefill_equivalents(self.prompt, self.completion, self.cached, self.price.gamma)


class Replica(ModelledReplica):
    """A modelled replica that writes bills: of replies that were broken off, for what was made."""

    def __init__(
        self, serving: Serving, script: Script, name: str, bills: list[Bill], times: Times
    ) -> None:
        super().__init__(serving, script, name=name, size=CHUNK)
        self._named, self._bills, self._times = name, bills, times
        self._owner = script.owner

    def _serve(self, exchange: Exchange, given: Given) -> AbstractContextManager[Service]:
        self.requests.clear()  # what was sent is not looked at
        owner, warms = self._owner(exchange.call), exchange.call.max_tokens == 1
        return self._billed(super()._serve(exchange, given), owner, warms)

    @contextmanager
    def _billed(
        self, served: AbstractContextManager[Service], owner: str, warms: bool
    ) -> Iterator[Service]:
        came = now()
        with served as turn:
            try:
                yield turn
            finally:
                if not warms:  # nobody waits for what only warms
                    self._times.served(owner, self._named, came, getattr(turn, "moments", {}))
                said = getattr(turn, "said", 0)
                usage = turn.usage(said)
                if said:
                    cached = usage.cached_tokens or 0
                    bill = Bill(owner, self._named, usage.prompt_tokens, cached, said)
                    self._bills.append(bill)


class Fleet:
    """All servers, as the transport of HTTP clients.

    Args:
        serving: Of each replica.
        count: How many there are.
        script: What models say.
        balance: How the proxy chooses.
        times: Is told when requests wait, are begun and are answered.
    """

    def __init__(
        self, serving: Serving, count: int, script: Script, balance: Balance, times: Times
    ) -> None:
        self.bills: list[Bill] = []
        self.serving = serving

        def replica(rates: Serving, name: str) -> Replica:
            return Replica(rates, script, name, self.bills, times)

        self.replicas = {f"r{number}": replica(serving, MODEL) for number in range(count)}
        self.hosted = {name: replica(rates, name) for name, (rates, _) in HOSTED.items()}
        self._balance = balance
        self._under_way: Counter[str] = Counter(dict.fromkeys(self.replicas, 0))
        self._turn = 0
        self._transports = {
            n: r.transport() for n, r in [*self.replicas.items(), *self.hosted.items()]
        }

    @property
    def urls(self) -> list[str]:
        """Of the replicas."""
        return [f"http://{name}/v1" for name in self.replicas]

    @property
    def cached(self) -> float:
        """Share of the prompt tokens of replicas that these had."""
        engines = [replica.engine for replica in self.replicas.values()]
        return sum(e.hits for e in engines) / max(1, sum(e.queries for e in engines))

    async def handle_async_request(self, request: Any) -> Any:
        """Send a request where it is meant to go."""
        host = request.url.host
        if host == "hosted":
            return await self._transports[_model(request)].handle_async_request(request)
        if host != "proxy":
            return await self._transports[host].handle_async_request(request)
        return await self._through_the_proxy(request)

    async def _through_the_proxy(self, request: Any) -> Any:
        name = self._chosen(request.headers.get(SESSION, ""))
        self._under_way[name] += 1
        try:
            response = await self._transports[name].handle_async_request(request)
        except BaseException:
            self._under_way[name] -= 1
            raise
        response.stream = _counted(response.stream, lambda: self._left(name))
        return response

    def _left(self, name: str) -> None:
        self._under_way[name] -= 1

    def _chosen(self, session: str) -> str:
        names = list(self.replicas)
        if self._balance == "sticky" and session:
            return names[blake2b(session.encode(), digest_size=4).digest()[0] % len(names)]
        self._turn += 1  # who is equal takes turns
        turned = names[self._turn % len(names) :] + names[: self._turn % len(names)]
        return min(turned, key=self._under_way.__getitem__)

    async def aclose(self) -> None:
        """A client that closes leaves the servers as they are."""

    async def close(self) -> None:
        """End all servers."""
        for replica in [*self.replicas.values(), *self.hosted.values()]:
            await replica.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_exc: object) -> None:
        return None


def _model(request: Any) -> str:
    import json

    return str(json.loads(request.content)["model"])


def _counted(stream: Any, left: Any) -> Any:
    """A body that says when it has been read or left."""
    base = next(c for c in type(stream).__mro__ if c.__name__ == "AsyncByteStream")

    class Counted(base):  # type: ignore[misc, valid-type]  # httpx's or httpx2's
        async def __aiter__(self) -> AsyncIterator[bytes]:
            async for data in stream:
                yield data

        async def aclose(self) -> None:
            left()
            await stream.aclose()

    return Counted()


def serving(its: Setting, memory: float, distinct: int, count: int, longest: int) -> Serving:
    """Each replica: its part of the KV, but room for two of the longest prompts."""
    capacity = max(round(memory * distinct / count), 2 * longest)
    return Serving(
        its.prefill, its.step, its.per_sequence, its.per_context,
        chunk=its.chunk, capacity=capacity, block=its.block,
    )  # fmt: skip


def usd(bills: list[Bill]) -> Decimal:
    """What all requests cost."""
    return sum((bill.usd for bill in bills), Decimal(0))
