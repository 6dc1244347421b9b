"""Random programs whose outcome does not depend on time: every conflict has an order."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from typing import Any

from tests.chaos.programs import (
    AREAS,
    KEYS,
    Before,
    Call,
    Item,
    Kind,
    Line,
    Maker,
    Program,
    calls_of,
    placed,
)

WRITES = ("put", "wipe", "again", "half", "refuse", "poke")

FAIL = ("risky", "half", "refuse")
"""Calls that may fail: which calls beside them have ended by then is a matter of time."""

KINDS: Sequence[Kind] = (
    "workflow", "workflow", "plan", "plan task", "react task", "react task",
)  # fmt: skip

WORDS = ("x", " Yes\nand NO ", "ü\u20ac and more", "a text of some length " * 3)


class Weaver(Maker):
    """Makes programs of the tools of the matrix."""

    def __init__(self, chance: random.Random) -> None:
        super().__init__(chance, limits=False)
        self._fragile = True

    def program(self, kind: Kind, *, models: bool) -> Program:
        """A program of this kind."""
        chance, self._fragile = self._chance, kind != "plan"
        if kind == "workflow":
            items = self.block(AREAS, 2, models)
            fall = (Item("fall", (self.write("a", "x", FAIL[-2:]),)),)
            return Program(kind, items=(*items, *(fall if chance.random() < 0.1 else ())))
        if kind == "react task":
            turns = tuple(self._turn() for _ in range(chance.randrange(1, 4)))
            return Program(kind, turns=turns)
        return super().program(kind, models=models)

    def call(self, areas: str, *, writes: bool = True) -> Call:
        """A call of some tool."""
        chance = self._chance
        if writes and chance.random() < 0.4:
            return self.write(chance.choice(areas), chance.choice(KEYS))
        area, key, n = chance.choice(areas), chance.choice(KEYS), chance.randrange(4)
        leaf, word = {"area": area, "key": key}, chance.choice(WORDS)
        calls = [
            *[Call("get", leaf)] * 4,
            *[Call("peek", leaf), Call("peek", {**leaf, "hint": word})],
            *[Call("dump", {"area": area}), Call("dump", {"area": area, "style": word})],
            Call("flaky", leaf),
            Call("broken", leaf),
            *([Call("risky", leaf)] * 2 if self._fragile else []),
            Call("shout", {"text": word}),
            Call("double", {"n": n}),
            Call("upto", {"n": n}),
            Call("times", {"text": word, "n": n}),
        ]
        if chance.random() < 0.02:
            calls = [Call("reverse", {"text": word})]
        return chance.choice(calls)

    def write(self, area: str, key: str, names: Sequence[str] = ()) -> Call:
        """A call that changes something, or fails to."""
        self._tags += 1
        chance, tag = self._chance, f"w{self._tags}"
        known = ("put", "put", "put", "again", "wipe", *(FAIL[1:] if self._fragile else ()))
        name = chance.choice(names or known)
        leaf = {"area": area, "key": key, "tag": tag}
        if name == "wipe":
            return Call(name, {"area": area, "tag": tag, "why": chance.choice(WORDS)})
        if name == "put":
            return Call(name, {**leaf, "n": chance.randrange(9), "memo": chance.choice(WORDS)})
        return Call(name, {**leaf, "n": chance.randrange(9)} if name == "again" else leaf)

    def _item(self, areas: str, depth: int, models: bool) -> Item:
        """Like any maker's, without races: who wins them is a matter of time."""
        while (item := super()._item(areas, depth, models)).kind in ("first", "quorum"):
            pass
        if item.kind == "pick" and self._chance.random() < 0.5:
            return Item("sift", item.calls)
        if item.kind == "chain":
            place = {"area": item.calls[0].args["area"], "key": Before(1, ".next")}
            return Item("chain", (item.calls[0], Call("flaky", place)))
        return item

    def _turn(self) -> tuple[Call, ...]:
        """Calls that a model makes at once; one of which nothing is known is alone."""
        chance = self._chance
        if chance.random() < 0.1:
            return (self.poke(chance.choice(AREAS)),)
        calls = [self.call(AREAS) for _ in range(chance.randrange(1, 5))]
        if chance.random() < 0.5:  # a read that could begin before the write that it comes after
            area, key, hint = chance.choice(AREAS), chance.choice(KEYS), WORDS[-1]
            calls.append(self.write(area, key, ("put", "wipe")))
            calls.append(Call("peek", {"area": area, "key": key, "hint": hint}))
        if chance.random() < 0.1:
            calls.append(Call("double", {"n": 13}))
        return tuple(calls)

    def _lines(self) -> Iterator[Line]:
        """The lines of a plan, with references, guards and maps."""
        chance = self._chance
        known: list[int] = []
        for number in range(1, chance.randrange(3, 8)):
            call, guard = self.call(AREAS), ""
            given = dict(call.args)
            if known and chance.random() < 0.3:
                guard = f"${chance.choice(known)}.even"
            if known and "key" in given and chance.random() < 0.4:
                given["key"] = Before(chance.choice(known), ".next")
            if known and call.tool in ("double", "again") and chance.random() < 0.5:
                given["n"] = Before(chance.choice(known), ".n")
            if call.tool == "get" and not guard:
                known.append(number)
            if call.tool == "shout" and chance.random() < 0.5:
                yield Line(Call("shout", {}), each=json.dumps(["one", "two", "three"]))
            else:
                yield Line(Call(call.tool, given), guard=guard)


def likely(programs: dict[str, Program]) -> list[tuple[str, dict[str, Any]]]:
    """Calls that programs make, for somebody who guesses."""
    found = []
    for owner, program in programs.items():
        calls = [*calls_of(program.items), *(line.call for line in program.lines)]
        calls += [call for turn in program.turns for call in turn]
        for call in calls:
            given = placed(call, owner)
            if not any(isinstance(value, Before) for value in given.values()):
                found.append((call.tool, given))
    return found
