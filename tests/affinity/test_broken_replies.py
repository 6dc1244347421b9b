"""A replica that is lost in the middle of a reply loses no task."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from agentflow import Engine, Tool, events, tool
from agentflow.testing import Call, Reply, Serving
from agentflow.testing.chat import ChatCall

pytestmark = pytest.mark.virtual

SERVING = Serving(prefill=10_000.0, step=0.01, capacity=100_000)
PLAN = """Thought: first of all
$1 = look(key="a")
$2 = put(key="b", value=$1)
$3 = look(key="b")"""
TURN = "First of all", Call("look", {"key": "a"}), Call("put", {"key": "b", "value": "apple"})


def planner(call: ChatCall) -> Reply:
    """A plan, and then its answer."""
    joins = "observation" in call.body["messages"][-1]["content"].lower()
    return Reply("Thought: so it is\nAnswer: it is an apple now" if joins else PLAN)


def actor(call: ChatCall) -> Reply:
    """A turn with calls, and then the answer."""
    over = call.body["messages"][-1]["role"] == "tool"
    return Reply("It is an apple now, as it should be.") if over else Reply(*TURN)


MODELS: dict[str, Callable[[ChatCall], Reply]] = {"plan": planner, "react": actor}


@dataclass
class Came:
    """What a task came to.

    Attributes:
        answer: Of the task.
        made: Its calls, in the order they were made.
        seconds: How long it took.
        replies: How many the model was paid for.
        voided: How often text was told in vain.
    """

    answer: str = ""
    made: list[str] = field(default_factory=list)
    seconds: float = 0.0
    replies: int = 0
    voided: int = 0

    def tools(self) -> list[Tool[..., Any]]:
        @tool(reads="stock/{key}")
        async def look(key: str) -> str:
            """What is in stock."""
            self.made.append(f"look {key}")
            return "apple"

        @tool(writes="stock/{key}")
        async def put(key: str, value: str) -> str:
            """Change what is in stock."""
            self.made.append(f"put {key} {value}")
            return "done"

        return [look, put]

    def take(self, event: events.Event) -> None:
        self.replies += isinstance(event, events.ModelReplied)
        self.voided += isinstance(event, events.TextRetracted)


async def come_to(world: Any, strategy: str, harm: tuple[float, str] | None = None) -> Came:
    """What a task comes to if, after so many seconds, harm is done to the replica it is at."""
    for name in "ab":
        world.replica(name, SERVING, MODELS[strategy])
    pool, came, began = world.pool(), Came(), asyncio.get_running_loop().time()

    def do_harm(what: str) -> None:
        for name in "ab":
            if world[name].active:
                getattr(world[name], what)()

    if harm is not None:
        asyncio.get_running_loop().call_later(harm[0], do_harm, harm[1])
    async with Engine(model=pool, tools=came.tools(), subscribers=[came.take]) as engine:
        came.answer = await engine.run("Which?", strategy=strategy)
        came.seconds = asyncio.get_running_loop().time() - began
    for name in "ab":
        world[name].recover()
    return came


@pytest.mark.parametrize("strategy", MODELS)
@pytest.mark.parametrize("what", ["kill", "hang"])
async def test_a_task_comes_to_the_same_whenever_its_replica_is_lost(
    world: Any, strategy: str, what: str
) -> None:
    expected = await come_to(world, strategy)
    assert "put b apple" in expected.made and expected.replies == 2
    broken = 0

    for tenth in range(1, 10):
        came = await come_to(world, strategy, (expected.seconds * tenth / 10, what))

        assert (came.answer, came.made) == (expected.answer, expected.made), tenth
        assert came.voided == 0
        broken += came.replies - expected.replies

    assert broken >= 5  # else hardly any reply had begun when its replica was lost
