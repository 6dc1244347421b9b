"""Random programs, and how they print: as Python, or in the notation."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Kind = Literal["workflow", "plan", "plan task", "react task"]

KINDS: tuple[Kind, ...] = ("workflow", "workflow", "workflow", "plan", "plan task", "react task")
AREAS, KEYS = "ab", "xyz"
WRITES = ("put", "again", "poke", "wipe")


@dataclass(frozen=True)
class Call:
    """A call. An argument that is a `Before` is the value of an earlier call."""

    tool: str
    args: Mapping[str, Any]

    @property
    def writes(self) -> bool:
        return self.tool in WRITES


@dataclass(frozen=True)
class Before:
    """The value of the call with this number in its plan or chain, or something in it."""

    number: int
    path: str = ""


@dataclass(frozen=True)
class Item:
    """A part of a workflow: `what` it does depends on its kind."""

    kind: str
    calls: tuple[Call, ...] = ()
    blocks: tuple[tuple[Item, ...], ...] = ()
    limit: float | None = None


@dataclass(frozen=True)
class Line:
    """A line of a plan: a call, perhaps for each of several texts, perhaps under a guard."""

    call: Call
    each: str = ""
    guard: str = ""


@dataclass(frozen=True)
class Program:
    """What a run does.

    Attributes:
        kind: What kind of run it is.
        items: Of a workflow.
        lines: Of a plan, written by hand or by a model.
        turns: Of a model that calls tools turn by turn.
        lenient: A workflow goes on after a call that failed.
        result: What a plan returns: a line, or None for a join.
    """

    kind: Kind
    items: tuple[Item, ...] = ()
    lines: tuple[Line, ...] = ()
    turns: tuple[tuple[Call, ...], ...] = ()
    lenient: bool = True
    result: int | None = None
    asks: bool = field(default=False)

    def text(self, owner: str) -> str:
        """The plan in the notation, as the pass with this name makes it."""
        printed = [print_line(n, line, owner) for n, line in enumerate(self.lines, 1)]
        end = "join()" if self.result is None else f"return ${self.result}"
        return "\n".join([*printed, end])

    def show(self, owner: str) -> str:
        """The program as a person reads it."""
        if self.kind == "workflow":
            return "\n".join(["async def program():", *python(self.items, owner, "    ")])
        if self.kind == "react task":
            return "\n".join(f"turn: {print_calls(turn, owner)}" for turn in self.turns)
        return self.text(owner)


def calls_of(items: Sequence[Item]) -> Iterator[Call]:
    """All calls that parts of a workflow may make."""
    for item in items:
        yield from item.calls
        for block in item.blocks:
            yield from calls_of(block)


# Printing


def python(items: Sequence[Item], owner: str, indent: str) -> Iterator[str]:
    """The lines of a workflow."""
    for item in items:
        within = "" if item.limit is None else f".within(Budget(deadline={item.limit}))"
        yield f"{indent}{item.kind}{within}: {print_calls(item.calls, owner)}"
        for block in item.blocks:
            yield f"{indent}  of"
            yield from python(block, owner, f"{indent}    ")


def print_calls(calls: Sequence[Call], owner: str) -> str:
    """Some calls in the notation."""
    return ", ".join(
        f"{call.tool}({', '.join(f'{name}={text}' for name, text in printed(call, owner).items())})"
        for call in calls
    )


def printed(call: Call, owner: str) -> dict[str, str]:
    """The arguments of a call as text."""
    return {
        name: f"${value.number}{value.path}" if isinstance(value, Before) else json.dumps(value)
        for name, value in placed(call, owner).items()
    }


def placed(call: Call, owner: str) -> dict[str, Any]:
    """The arguments of a call, with the tags of a pass, in its areas or those of its group.

    Passes whose names have the same beginning, up to a hyphen, work in the same areas.
    """
    own = {"area": owner.partition("-")[0], "tag": owner}
    return {
        name: f"{own[name]}/{value}" if name in own else value for name, value in call.args.items()
    }


def print_line(number: int, line: Line, owner: str) -> str:
    """A line of a plan."""
    given = printed(line.call, owner)
    if line.each:
        given["text"] = f"each {line.each}"
    written = ", ".join(f"{name}={value}" for name, value in given.items())
    guard = f" if {line.guard}" if line.guard else ""
    return f"${number} = {line.call.tool}({written}){guard}"


# Making


class Maker:
    """Makes programs by chance; each write has a tag of its own.

    Args:
        chance: Where it comes from.
        limits: Whether workflows within may have deadlines of their own.
    """

    def __init__(self, chance: random.Random, *, limits: bool) -> None:
        self._chance = chance
        self._limits = (None, None, 3.0, 100.0) if limits else (None,)
        self._tags = 0

    def program(self, kind: Kind, *, models: bool) -> Program:
        """A program of this kind."""
        chance = self._chance
        if kind == "workflow":
            items = self.block(AREAS, 2, models)
            return Program(kind, items=items, lenient=chance.random() < 0.7, asks=models)
        if kind == "react task":
            turns = [
                tuple(self.call(AREAS) for _ in range(chance.randrange(1, 4)))
                for _ in range(chance.randrange(1, 4))
            ]
            return Program(kind, turns=tuple(turns), asks=True)
        lines = tuple(self._lines())
        plain = [n for n, line in enumerate(lines, 1) if not (line.guard or line.each) and n > 1]
        result = chance.choice(plain) if plain and chance.random() < 0.4 else None
        return Program(kind, lines=lines, result=result, asks=kind == "plan task")

    def call(self, areas: str, *, writes: bool = True) -> Call:
        """A call of some tool."""
        chance = self._chance
        area, key, n = chance.choice(areas), chance.choice(KEYS), chance.randrange(4)
        calls = [
            *[Call("get", {"area": area, "key": key})] * 3,
            Call("peek", {"area": area, "key": key}),
            Call("dump", {"area": area}),
            Call("shout", {"text": f"{key} said {n} times"}),
            Call("double", {"n": n}),
            Call("upto", {"n": n}),
            Call("buy", {"n": n}),
            Call("read_aloud", {"text": "a text of some length " * n}),
        ]
        if chance.random() < 0.02:
            calls = [Call("reverse", {"text": key * n})]
        if writes and chance.random() < 0.35:
            return self.write(area, key)
        return chance.choice(calls)

    def write(self, area: str, key: str) -> Call:
        """A call that changes something."""
        self._tags += 1
        name = self._chance.choice(("put", "put", "again", "wipe"))
        tag = f"w{self._tags}"
        return Call(name, {"area": area, "tag": tag, **({} if name == "wipe" else {"key": key})})

    def poke(self, area: str) -> Call:
        """A call of which nothing is known."""
        self._tags += 1
        return Call("poke", {"area": area, "key": "x", "tag": f"w{self._tags}"})

    def block(self, areas: str, depth: int, models: bool) -> tuple[Item, ...]:
        """Some parts, one after the other."""
        count = self._chance.randrange(1, 5 if depth == 2 else 3)
        return tuple(self._item(areas, depth, models) for _ in range(count))

    def _item(self, areas: str, depth: int, models: bool) -> Item:
        chance = self._chance
        kinds = ["call", "call", "segment", "chain", "map", "first", "quorum", "settled", "alone"]
        kinds += ["if", "nested"] if depth else []
        kinds += ["both"] if depth and len(areas) > 1 else []
        kinds += ["say", "say", "rate", "pick"] if models else []
        kind = chance.choice(kinds)
        count = chance.randrange(2, 5)
        match kind:
            case "segment" | "settled":
                return Item(kind, tuple(self.call(areas) for _ in range(count)))
            case "first" | "quorum":
                return Item(kind, tuple(self.call(areas, writes=False) for _ in range(count)))
            case "alone":
                return Item(kind, (self.poke(chance.choice(areas)),))
            case "chain":
                get = Call("get", {"area": chance.choice(areas), "key": chance.choice(KEYS)})
                return Item(kind, (get, Call("shout", {"text": Before(1)})))
            case "map":
                return Item(kind, (Call("upto", {"n": count}), Call("double", {"n": Before(1)})))
            case "if":
                ways = (self.block(areas, depth - 1, models), self.block(areas, depth - 1, models))
                return Item(kind, (self.call(areas),), ways)
            case "both":
                return Item(kind, blocks=tuple(self.block(a, depth - 1, models) for a in areas))
            case "nested":
                limit = chance.choice(self._limits)
                return Item(kind, blocks=(self.block(areas, depth - 1, models),), limit=limit)
            case "say" | "rate" | "pick":
                return Item(kind, (Call(kind, {"text": f"words {chance.randrange(5)}"}),))
        return Item(kind, (self.call(areas),))

    def _lines(self) -> Iterator[Line]:
        """The lines of a plan."""
        chance = self._chance
        texts: list[int] = []
        known = 0
        for number in range(1, chance.randrange(3, 8)):
            if texts and chance.random() < 0.4:
                text, guard = Before(chance.choice(texts)), ""
                if known and chance.random() < 0.5:
                    guard = f"${known}[0]"
                yield Line(Call("shout", {"text": text}), guard=guard)
            elif chance.random() < 0.15:
                yield Line(Call("shout", {}), each='["one", "two", "three"]')
            else:
                call = self.call(AREAS)
                if call.tool == "get":
                    texts.append(number)
                known = number if call.tool == "peek" else known
                yield Line(call)
