"""Models at one modelled replica or several, which fail and die, and what they served."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from random import Random
from typing import Any

from agentflow import Pool, Prices, _http
from agentflow.caches.affinity.completion import EarliestCompletion
from agentflow.caches.affinity.policies import LeastLoaded, Sticky
from agentflow.executor.models.client import OpenAIBackend
from agentflow.testing import ModelledReplica, Serving
from agentflow.testing.chat import ChatCall, Exchange
from agentflow.testing.replies import Answer, Reply
from tests.affinity.conftest import Hosts
from tests.chaos.endpoint import Author, broken, digested
from tests.chaos.faults import Fate
from tests.matrix.covering import Row

SERVING = Serving(prefill=5_000.0, step=0.01, capacity=40_000)

PRICES = Prices({"tiny": (1, 2), "small": (1, 2), "large": (10, 20)})

MODELS = ("tiny", "small", "large")

POLICIES: dict[str, Any] = {
    "sticky": Sticky,
    "earliest": EarliestCompletion,
    "least-loaded": LeastLoaded,
}


class Servers:
    """Replicas that all serve the same models.

    Args:
        row: Whether there is one, or several.
        author: What the models say.
        fate: What happens to requests.
    """

    def __init__(self, row: Row, author: Author, fate: Fate) -> None:
        self._author = author
        self._fate = fate
        self._hosts = Hosts()
        names = ["a"] if row.routing == "one" else ["a", "b", "c"]
        for name in names:
            self._hosts.replicas[name] = ModelledReplica(SERVING, self._answer, size=6)
        self._urls = [f"http://{name}/v1" for name in names]
        self._policy = POLICIES.get(row.routing)
        self._closing: list[Any] = []
        self._http = _http.client(transport=self._hosts)
        self._dying: asyncio.Task[None] | None = None

    def models(self) -> dict[str, Any]:
        """Clients of the models, by name."""
        made = {name: self._model(name) for name in MODELS}
        self._closing += made.values()
        return made

    def _model(self, name: str) -> Any:
        if self._policy is None:
            return OpenAIBackend(self._urls[0], name, http=self._http, prices=PRICES)
        return Pool(
            self._urls, name, http=self._http, prices=PRICES, policy=self._policy(), dialect=None
        )

    def _answer(self, call: ChatCall) -> Answer:
        pieces = self._author.pieces(call)
        digest = digested(repr(call.body["messages"]))
        fault, chance = self._fate.of_model(f"{call.body.get('model')} {digest}")
        return Reply(*pieces) if fault is None else broken(fault, pieces, chance)

    def decay(self, chance: Random) -> None:
        """One of several replicas dies at some time, and may come back."""
        if len(self._urls) > 1 and self._fate.mood != "calm":
            replica = self._hosts.replicas[chance.choice("abc")]
            times = chance.choice((0.3, 1.0, 3.0)), chance.choice((0.2, 0.5, 20.0, None))
            self._dying = asyncio.get_running_loop().create_task(_die(replica, *times))

    @property
    def exchanges(self) -> Iterator[Exchange]:
        """All that was asked and answered."""
        for replica in self._hosts.replicas.values():
            yield from replica.requests

    async def aclose(self) -> list[str]:
        """Close everything; what was under way still."""
        if self._dying is not None:
            self._dying.cancel()
            with suppress(asyncio.CancelledError):
                await self._dying
        for model in self._closing:
            await model.aclose()
        await self._http.aclose()
        replicas = self._hosts.replicas.items()
        open_ = [f"{name} still serves {one.active}" for name, one in replicas if one.active]
        for _, replica in replicas:
            await replica.aclose()
        return open_


async def _die(replica: ModelledReplica, after: float, back: float | None) -> None:
    await asyncio.sleep(after)
    replica.kill()
    if back is not None:
        await asyncio.sleep(back)
        await replica.restart()
