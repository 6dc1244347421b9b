"""A model can be told what is left of its limits, and what requests share stays as it was."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from agentflow import Budget, Engine, workflow
from agentflow.budgets.ledger import Ledger
from agentflow.context import remaining as seconds_left
from agentflow.errors import BackendBusy
from agentflow.executor.models.ratelimit import RateLimiter
from agentflow.executor.strategies.remaining import Remaining
from agentflow.testing import Call, Fault, Reply
from agentflow.testing.replies import Usage
from agentflow.tools.builtin import default_tools, remaining_tool

pytestmark = pytest.mark.virtual

PRICES = {"tiny": {"input": "1", "output": "10"}}  # USD per million tokens
LOOK = Reply(Call("look", {"key": "a"}), usage=Usage(1_000, 100))
PLAN = Reply('$1 = look(key="a")\njoin()', usage=Usage(1_000, 100))
SLOW = {"look": 4.0, "search": 4.0}


def sent(lab: Any) -> list[list[dict[str, Any]]]:
    """The messages of every request."""
    return [request.body["messages"] for request in lab.server.requests]


# In requests


async def test_the_last_message_says_what_is_left(lab: Any) -> None:
    lab.takes = SLOW
    limits = Budget(usd="0.05", tokens=9_000, deadline=30)

    await lab.run(
        LOOK, "Done.", strategy="react", budget=limits, show_remaining=True, prices=PRICES
    )

    first, second = sent(lab)
    said = "Remaining: 30 s, $0.050, 9000 tokens. Finish within it."
    assert first[-1] == {"role": "user", "content": f"Which?\n\n{said}"}
    assert second[-1] == {
        "role": "user",
        "content": "Remaining: 26 s, $0.048, 7900 tokens. Finish within it.",
    }


@pytest.mark.parametrize("strategy", ["plan", "react"])
async def test_what_requests_have_in_common_stays_as_it_was(lab: Any, strategy: str) -> None:
    lab.takes = SLOW
    script = [LOOK, LOOK, "Done."]
    if strategy == "plan":
        script = [PLAN, "Replan: b", PLAN, "Replan: c", PLAN, "Answer: done"]
    conversations = []
    for shown in (False, True):
        await lab.run(*script, strategy=strategy, budget=Budget(deadline=60), show_remaining=shown)
        conversations.append(sent(lab))
    plain, told = conversations

    assert len(plain) == len(told) == len(script)
    for without, having in zip(plain, told, strict=True):
        last = len(without) - 1
        assert having[:last] == without[:last]
        if having[last] != without[last]:  # only its end is new
            assert having[last]["content"].startswith(without[last]["content"] + "\n\nRemaining: ")
        else:
            assert having[last + 1 :] and having[-1]["content"].startswith("Remaining: ")
    assert not any("Remaining: " in str(message) for message in plain[-1])
    kept = [message for request in told for message in request[:-1]]
    assert not any("Remaining: " in str(message) for message in kept)


async def test_unless_asked_for_it_is_said_once_half_of_a_limit_is_gone(lab: Any) -> None:
    lab.takes = SLOW

    looks = [Reply(Call("search", {"query": text})) for text in ("a", "b", "c")]
    await lab.run(*looks, "Done.", strategy="react", budget=Budget(deadline=16))

    said = [request[-1]["content"] for request in sent(lab)]
    assert ["Remaining: " in text for text in said] == [False, False, True, True]
    assert said[-1] == "Remaining: 4.0 s. Finish within it."


async def test_without_limits_nothing_is_said(lab: Any) -> None:
    await lab.run(LOOK, "Done.", strategy="react", show_remaining=True)

    assert "Remaining" not in str(sent(lab))


def test_the_limits_of_the_engine_count() -> None:
    engines = Ledger(Budget(usd="0.10"))
    engines.reserve("0.04")
    told = Remaining(engines.child(Budget(tokens=10)), shown=True).told(
        [{"role": "user", "content": "Which?"}]
    )

    assert told[-1]["content"] == "Which?\n\nRemaining: $0.060, 10 tokens. Finish within it."


@pytest.mark.parametrize(
    ("usd", "shown"),
    [
        ("0", "$0.00"),
        ("12.345", "$12.34"),
        ("0.999", "$0.99"),
        ("0.0316", "$0.031"),
        ("0.00000123456", "$0.0000012"),
    ],
)
def test_money_is_rounded_down(usd: str, shown: str) -> None:
    told = Remaining(Ledger(Budget(usd=usd)), shown=True).told([{"role": "tool", "content": ""}])

    assert told[-1]["content"] == f"Remaining: {shown}. Finish within it."


# As a tool


async def test_a_model_can_ask_what_is_left(lab: Any) -> None:
    limits = Budget(usd="0.05", tokens=9_000, deadline=30)
    lab.takes = SLOW
    ask = Reply(Call("remaining", {}), usage=Usage(1_000, 100))

    await lab.run(
        LOOK, ask, "Done.", strategy="react", budget=limits, prices=PRICES,
        tools=[*lab.tools, remaining_tool],
    )  # fmt: skip

    [told] = [
        m["content"] for m in sent(lab)[-1] if m["role"] == "tool" and "elapsed" in m["content"]
    ]
    left = json.loads(told)
    assert (left["elapsed"], left["seconds"]) == (4.0, 26.0)
    # The reply that asks is still under way, and what is set aside for it is not left.
    asked = lab.server.requests[1].body["max_tokens"]
    assert left["tokens"] <= 9_000 - 1_100 - asked and left["usd"] <= 0.05 - asked * 10e-6


async def test_what_is_left_is_looked_up_every_time() -> None:
    @workflow(budget=Budget(deadline=10, tokens=100))
    async def flow() -> list[Any]:
        before = await remaining_tool()
        await asyncio.sleep(4)
        return [before, await remaining_tool()]

    async with Engine() as engine:
        before, after = await engine.run(flow)

    assert (before.elapsed, before.seconds) == (0.0, 10.0)
    assert (after.elapsed, after.seconds, after.tokens, after.usd) == (4.0, 6.0, 100, None)


async def test_outside_of_a_run_there_are_no_limits() -> None:
    found = await remaining_tool()

    assert (found.elapsed, found.seconds, found.usd, found.tokens) == (0.0, None, None, None)
    assert seconds_left() is None


def test_it_is_among_the_default_tools_if_asked_for() -> None:
    assert "remaining" not in [made.name for made in default_tools()]
    assert "remaining" in [made.name for made in default_tools(remaining=True)]


# What a model client waits for


async def test_an_endpoint_that_says_when_is_not_waited_for_beyond_the_deadline(lab: Any) -> None:
    failed = await lab.fails(
        Fault.status(429, retry_after=7), "never", strategy="react", budget=Budget(deadline=6)
    )

    assert isinstance(failed.__cause__, BackendBusy)
    assert len(lab.server.requests) == 1 and asyncio.get_running_loop().time() == 0.0


async def test_a_turn_that_comes_after_the_deadline_is_not_waited_for(lab: Any) -> None:
    limiter = RateLimiter(6, burst=1)  # one in ten seconds

    failed = await lab.fails(LOOK, LOOK, "never", strategy="react", budget=Budget(deadline=15),
                             limiter=limiter)  # fmt: skip

    assert isinstance(failed.__cause__, BackendBusy) and "rate limit" in str(failed)
    assert asyncio.get_running_loop().time() == 10.0 and len(lab.server.requests) == 2
    assert limiter.delay(10.0) == 10.0  # its turn was given back
