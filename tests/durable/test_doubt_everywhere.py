"""Wherever a run breaks off, and however often: no effect comes twice without somebody's word."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from agentflow import Answer, Done, NotDone, Question, Workflow, gather, tool, workflow
from agentflow.errors import RunError
from tests.durable.conftest import Desk, Record, records

Effect = tuple[str, int | None]
"""The tool that had it, and the element of a map."""

REPEATS = ("again",)
"""Tools whose calls may be made again unasked."""

FALLBACKS = {"fails": "instead"}


class World:
    """What the calls of a program did outside, over all its executions.

    Attributes:
        effects: How often each was had.
        words: For which calls somebody said that they are to be made again.
    """

    def __init__(self) -> None:
        self.effects: Counter[Effect] = Counter()
        self.words: Counter[str] = Counter()

    def program(self) -> Workflow[[], Any]:
        """Writes of all kinds, one after another, side by side, in maps and nested."""

        def done(name: str, element: int | None = None) -> str:
            self.effects[name, element] += 1
            return f"{name} {element}"

        async def verify() -> Any:
            return Done("told None") if self.effects["told", None] else NotDone()

        @tool(writes="bank/one")
        async def once() -> str:
            return done("once")

        @tool(writes="bank/two", idempotent=True)
        async def again() -> str:
            return done("again")

        @tool
        async def bare(number: int) -> str:
            return done("bare", number)

        @tool(writes="bank/three", verify=verify)
        async def told() -> str:
            return done("told")

        @tool(writes="bank/four", approve=True)
        async def asked() -> str:
            return done("asked")

        @tool(reads="web")
        async def fails() -> str:
            raise ConnectionError

        @tool(writes="bank/five")
        async def instead() -> str:
            return done("instead")

        @workflow
        async def inner() -> str:
            return await told() + await asked()

        @workflow
        async def outer() -> list[Any]:
            first = await once()
            both = await gather(again(), inner(), fails.with_(fallback=instead)())
            return [first, both, await bare.map([0, 1, 2])]

        return outer

    def broke_off(self, kept: Sequence[Record]) -> None:
        """Forget the effects whose intent was not written: there cannot have been any."""
        begun = {(r["tool"], r["element"]) for r in kept if r["event"] == "intent"}
        self.effects = Counter({effect: 1 for effect in self.effects if effect in begun})

    def answerer(self, choose: Callable[[Question], Answer]) -> Callable[[Question], Answer]:
        """Answers doubts as `choose` does, and approves what is to be approved."""

        def answer(question: Question) -> Answer:
            if question.kind == "approval":
                return Answer("approve")
            given = choose(question)
            if given.verdict == "approve":
                self.words[FALLBACKS.get(question.tool, question.tool)] += 1
            return given

        return answer

    def check(self, allowed: int) -> None:
        """See that no effect came more often than somebody wanted."""
        for (name, element), count in self.effects.items():
            most = 99 if name in REPEATS else 1 + allowed + self.words[name]
            assert count <= most, f"{name} {element} was done {count} times, not {most}"


ANSWERS = {"approve": Answer("approve"), "deny": Answer("deny"), "done": Answer("done", value="x")}


@pytest.mark.parametrize("policy", ["retry", "fail", *ANSWERS])
def test_a_run_that_broke_off_anywhere_has_no_effect_twice(desk: Desk, policy: str) -> None:
    world = World()
    whole = start(desk, world)
    kept = records(whole)
    had = Counter(world.effects)
    assert set(had.values()) == {1}
    for count in range(1, len(kept)):
        world.effects, world.words = Counter(had), Counter()
        world.broke_off(kept[:count])

        resume(desk, world, desk.cut(whole, count), policy)

        world.check(allowed=policy == "retry")


@pytest.mark.parametrize("seed", range(8))
def test_a_run_that_breaks_off_again_and_again_has_no_effect_twice(desk: Desk, seed: int) -> None:
    chance, world = random.Random(seed), World()
    path, allowed = start(desk, world), 0
    for _ in range(4):
        kept = records(path)
        count = chance.randrange(1, len(kept))
        before = Counter(world.effects)
        world.broke_off(kept[:count])
        world.effects = Counter({e: before[e] for e in world.effects})
        policy = chance.choice(["retry", "fail", *ANSWERS])
        allowed += policy == "retry"

        path = desk.cut(path, count)
        resume(desk, world, path, policy)

        world.check(allowed)


def start(desk: Desk, world: World) -> Path:
    path = desk.path()
    desk.run(world.program(), path=path, approve=world.answerer(lambda _question: ANSWERS["deny"]))
    return path


def resume(desk: Desk, world: World, path: Path, policy: Any) -> None:
    answer = world.answerer(lambda _question: ANSWERS[policy])
    given = {"in_doubt": policy} if policy in ("retry", "fail") else {}
    with suppress(RunError):
        desk.resume(world.program(), path=path, engine={"approve": answer}, **given)
