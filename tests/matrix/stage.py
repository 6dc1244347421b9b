"""Performs a program as a workflow, with prompts that models answer."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from agentflow import Budget, llm, workflow
from agentflow.workflows import Workflow
from tests.chaos.programs import Call, Item, Program, placed
from tests.chaos.stage import Stage
from tests.matrix.world import tools


@llm(max_tokens=40)
async def say(text: str) -> str:
    """Say {text}."""
    raise AssertionError


@llm(max_tokens=40, repairs=1)
async def rate(text: str) -> int:
    """Rate {text}."""
    raise AssertionError


def passes(answer: str) -> bool | str:
    return answer.startswith("yes") or "only a yes will do"


@llm(model=["small", "large"], samples=(1, 2), check=passes, max_tokens=20)
async def pick(text: str) -> str:
    """Pick {text}."""
    raise AssertionError


@llm(max_tokens=10)
async def judge(answer: str) -> bool:
    """Judge {answer}."""
    raise AssertionError


@llm(model=["small", "large"], samples=(1, 3), check=judge, max_tokens=20, repairs=1)
async def sift(text: str) -> int:
    """Sift {text}."""
    raise AssertionError


PROMPTS: dict[str, Any] = {"say": say, "rate": rate, "pick": pick, "sift": sift}


def prompted(asked: str, model: str) -> str:
    """What models answer to these prompts: some are wrong at first, or always."""
    found = re.search(r"(Say|Rate|Pick|Sift|Judge) (words )?([\w ]+)\.", asked)
    assert found is not None, asked
    name, text = found[1], found[3]
    mends = "could not be used" in asked
    if name == "Say":
        return f"heard {text}"
    if name == "Rate":
        return f"{len(text)}" if mends or text > "2" else "many"
    if name == "Judge":
        return "true" if int(text) > 100 else "false"
    able = model == "large" or int(text) % 2 == 0
    if name == "Pick":
        return f"yes, {text}" if able else "no"
    return f"{int(text) + (101 if able else 1)}"


def flow(owner: str, program: Program, budget: Budget | None) -> Workflow[..., Any]:
    """A workflow that makes the calls of a program, in the areas and with the tags of a pass."""
    scene = Scene(None, owner, lenient=True)  # type: ignore[arg-type]  # it expects nothing

    @workflow(budget=budget)
    async def play() -> list[Any]:
        return await scene.perform(program.items)

    return play


class Scene(Stage):
    """One pass of a program. What it is to give, another configuration says."""

    def _make(self, call: Call, **given: Any) -> Any:
        return {**tools(), **PROMPTS}[call.tool](**placed(call, self._owner) | given)

    def _foresee(self, calls: Sequence[Call]) -> list[Any]:
        return [None] * len(calls)

    def _compare(self, calls: Sequence[Call], values: Sequence[Any], expected: list[Any]) -> None:
        """Nothing is expected."""

    def _expect(self, what: str, value: Any, expected: Any) -> None:
        """Nothing is expected."""

    def _doubt(self, calls: Any) -> None:
        """Nothing is in doubt."""

    _sift = Stage._call

    async def _chain(self, item: Item) -> list[Any]:
        get, flaky = item.calls
        begun = self._make(get)
        after = self._make(flaky, key=begun.ref["next"])
        return [await self._outcome(after), await self._outcome(begun)]

    async def _map(self, item: Item) -> Any:
        count, double = item.calls
        numbers = self._make(count)
        return [await numbers, await self._outcome(tools()[double.tool].map(numbers.each))]

    async def _fall(self, item: Item) -> Any:
        return await self._make(item.calls[0])
