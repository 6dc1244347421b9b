"""Performs a program as a workflow, and looks at every value it is given."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable, Sequence
from typing import Any

from agentflow import Budget, first, gather, llm, quorum, settled, workflow
from agentflow.workflows import Workflow
from tests.chaos.programs import Before, Call, Item, Program, calls_of, placed
from tests.chaos.world import World

ANY = "any of them"
"""Stands for a value that depends on which call was the quickest."""


@llm(max_tokens=40)
async def say(text: str) -> str:
    """Say {text}."""
    raise AssertionError


@llm(max_tokens=40, repairs=1)
async def rate(text: str) -> int:
    """Rate {text}."""
    raise AssertionError


def passes(answer: str) -> bool:
    return answer == "yes"


@llm(model=["small", "large"], check=passes, max_tokens=20)
async def pick(text: str) -> str:
    """Pick {text}."""
    raise AssertionError


PROMPTS: dict[str, Any] = {"say": say, "rate": rate, "pick": pick}


def heard(name: str, text: str) -> Any:
    """What a model answers to a prompt."""
    return {"say": f"heard {text}", "rate": len(text), "pick": "yes"}[name]


def flow(world: World, program: Program, owner: str, budget: Budget | None) -> Workflow[..., Any]:
    """A workflow that makes the calls of a program, with the areas and tags of a pass."""
    stage = Stage(world, owner, lenient=program.lenient)

    @workflow(budget=budget)
    async def play() -> list[Any]:
        return await stage.perform(program.items)

    return play


class Stage:
    """One pass of a program."""

    def __init__(self, world: World, owner: str, *, lenient: bool) -> None:
        self._world = world
        self._owner = owner
        self._lenient = lenient

    async def perform(self, items: Sequence[Item]) -> list[Any]:
        """Do what some parts of a program say."""
        return [await getattr(self, f"_{item.kind}")(item) for item in items]

    # Single calls and their values

    def _make(self, call: Call, **given: Any) -> Any:
        """Call a tool, or ask a model."""
        arguments = placed(call, self._owner) | given
        if call.writes:
            self._world.issued[arguments["tag"]] += 1
        return {**self._world.tools, **PROMPTS}[call.tool](**arguments)

    async def _outcome(self, work: Awaitable[Any]) -> Any:
        if not self._lenient:
            return await work
        try:
            return await work
        except Exception as error:  # noqa: BLE001  # a program that goes on whatever happens
            return f"lost: {type(error).__name__}"

    def _expect(self, what: str, value: Any, expected: Any) -> None:
        if value != expected and not str(value).startswith("lost: "):
            self._world.wrong.append(f"{what} gave {value!r} and not {expected!r}")

    def _foresee(self, calls: Sequence[Call]) -> list[Any]:
        """What calls are to give that are made now, in this order; None if nobody can tell."""
        after = _Copy(self._world)
        found = [after.value(call, placed(call, self._owner)) for call in calls]
        areas = {placed(call, self._owner).get("area") for call in calls}
        return [None] * len(calls) if areas & self._world.doubtful else found

    def _compare(self, calls: Sequence[Call], values: Sequence[Any], expected: list[Any]) -> None:
        lost = [c for c, value in zip(calls, values, strict=True) if c.writes and _lost(value)]
        if lost:
            self._doubt(lost)
            return
        for call, value, right in zip(calls, values, expected, strict=True):
            if right is not None:
                self._expect(f"{call.tool}{placed(call, self._owner)}", value, right)

    # Parts of programs

    async def _call(self, item: Item) -> Any:
        expected = self._foresee(item.calls)
        value = await self._outcome(self._make(item.calls[0]))
        self._compare(item.calls, [value], expected)
        return value

    _alone = _say = _rate = _pick = _call

    async def _segment(self, item: Item) -> list[Any]:
        expected = self._foresee(item.calls)
        handles = [self._make(call) for call in item.calls]
        values = [await self._outcome(handle) for handle in handles]
        self._compare(item.calls, values, expected)
        return values

    async def _settled(self, item: Item) -> list[Any]:
        expected = self._foresee(item.calls)
        ends = await settled(*(self._make(call) for call in item.calls))
        values = [end.value if end.ok else "lost: settled" for end in ends]
        self._compare(item.calls, values, expected)
        return values

    async def _first(self, item: Item) -> Any:
        expected = self._foresee(item.calls)
        value = await self._outcome(first(*(self._make(call) for call in item.calls)))
        if None not in expected and value not in expected:
            self._expect("first", value, expected)
        return value if _lost(value) else ANY

    async def _quorum(self, item: Item) -> Any:
        expected = self._foresee(item.calls)
        values = await self._outcome(quorum(2, *(self._make(call) for call in item.calls)))
        if None not in expected and not _lost(values) and any(v not in expected for v in values):
            self._expect("quorum", values, expected)
        return values if _lost(values) else ANY

    async def _chain(self, item: Item) -> list[Any]:
        get, shout = item.calls
        expected = self._foresee([get])
        begun = self._make(get)
        values = [
            await self._outcome(self._make(shout, text=begun.ref)), await self._outcome(begun),
        ]  # fmt: skip
        if expected[0] is not None:
            self._expect("a chain", values[0], expected[0].upper())
        return values

    async def _map(self, item: Item) -> Any:
        count, double = item.calls
        numbers = self._make(count)
        made = self._world.tools[double.tool].map(numbers.each)
        values = await self._outcome(gather(numbers, made))
        right = list(range(count.args["n"]))
        self._expect("a map", values, [right, [2 * n for n in right]])
        return values

    async def _if(self, item: Item) -> list[Any]:
        value = await self._call(item)
        way = item.blocks[len(str(value)) % 2]
        return [value, await self.perform(way)]

    async def _both(self, item: Item) -> list[Any]:
        return list(await asyncio.gather(*(self.perform(block) for block in item.blocks)))

    async def _nested(self, item: Item) -> Any:
        limit = None if item.limit is None else Budget(deadline=item.limit)

        @workflow(budget=limit)
        async def within() -> list[Any]:
            return await self.perform(item.blocks[0])

        value = await self._outcome(within())
        if _lost(value):
            self._doubt(call for call in calls_of(item.blocks[0]) if call.writes)
        return value

    def _doubt(self, calls: Iterable[Call]) -> None:
        """Writes may have been made or not, and may be made yet."""
        self._world.doubtful |= {placed(call, self._owner)["area"] for call in calls}


class _Copy:
    """What the tree becomes when calls are made in the order written, and all goes well."""

    def __init__(self, world: World) -> None:
        self._world = World.__new__(World)
        self._world.cells, self._world.honest = dict(world.cells), world.honest

    def value(self, call: Call, args: dict[str, Any]) -> Any:
        """What a call gives."""
        tree = self._world
        match call.tool:
            case "get":
                return tree.leaf(**args)
            case "peek":
                return [tree.leaf(**args)]
            case "dump":
                return tree.leaves(**args)
            case "put" | "again" | "poke":
                return tree.set(**args)
            case "wipe":
                return tree.wiped(**args)
            case "shout":
                return args["text"].upper() if not isinstance(args["text"], Before) else None
            case "reverse":
                return args["text"][::-1]
            case "double":
                return 2 * args["n"]
            case "upto":
                return list(range(args["n"]))
            case "buy":
                return args["n"]
            case "read_aloud":
                return len(args["text"])
        return heard(call.tool, args["text"]) if tree.honest else None


def _lost(value: Any) -> bool:
    return isinstance(value, str) and value.startswith("lost: ")
