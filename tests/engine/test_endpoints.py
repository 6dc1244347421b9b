"""Which model clients an engine makes for the endpoints it is given."""

from __future__ import annotations

from typing import Any

import pytest

from agentflow import Engine
from agentflow.caches.affinity.completion import EarliestCompletion
from agentflow.caches.affinity.policies import LeastLoaded, Sticky
from agentflow.errors import BackendError, DefinitionError
from agentflow.executor.affinity.pool import Pool
from agentflow.executor.models.base import ChatRequest
from agentflow.executor.models.client import OpenAIBackend

TWO = ["http://a:8000/v1", "http://b:8000/v1"]


async def test_one_endpoint_is_a_plain_client() -> None:
    async with Engine(base_url=TWO[:1], model="tiny") as engine:
        assert isinstance(engine.model(), OpenAIBackend)


@pytest.mark.parametrize("urls", [TWO, ",".join(TWO)])
async def test_several_endpoints_are_one_pool_for_each_model(urls: str | list[str]) -> None:
    async with Engine(base_url=urls, model="small") as engine:
        small, large = engine.model(), engine.model("large")

        assert isinstance(small, Pool) and isinstance(large, Pool)
        assert engine.model("small") is small is not large
        assert [replica.url for replica in small.replicas] == TWO
        assert (small.name, large.name) == ("small", "large")


@pytest.mark.parametrize(
    ("routing", "policy"),
    [
        ("earliest", EarliestCompletion),
        ("sticky", Sticky),
        ("least-loaded", LeastLoaded),
        (Sticky, Sticky),
    ],
)
async def test_a_pool_has_a_policy_of_its_own(routing: Any, policy: type) -> None:
    made: list[object] = []

    def note(pool: Any) -> None:
        made.append(pool._desk.dispatcher.policy)

    async with Engine(base_url=TWO, model="small", routing=routing) as engine:
        for name in ("small", "large"):
            note(engine.model(name))

    assert [type(one) for one in made] == [policy, policy]
    assert made[0] is not made[1]


def test_a_routing_that_does_not_exist_is_named() -> None:
    with pytest.raises(DefinitionError, match=r"no routing 'stick'\. Did you mean 'sticky'"):
        Engine(base_url=TWO, model="small", routing="stick")


async def test_an_engine_closes_the_pools_it_made_and_no_others() -> None:
    own = Pool(TWO, "own")
    async with Engine(base_url=TWO, model="small", models={"own": own}) as engine:
        made = engine.model()
        assert isinstance(made, Pool)
        await made.connect()
    request = ChatRequest(messages=[{"role": "user", "content": "?"}])

    with pytest.raises(BackendError, match="closed"):
        await made.complete(request)

    await own.connect()
    await own.aclose()
