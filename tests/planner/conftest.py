"""A little set of tools and a reference interpreter: sequential, or in any legal order."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from agentflow.planner.builder import renumbered
from agentflow.planner.plan import Answer, Arg, Each, Node, Plan, Ref, Template
from agentflow.planner.reader import read_script
from agentflow.planner.script import JoinMark, Line, Return
from agentflow.tools.effects import PURE, SAMPLES, UNDECLARED, Effect
from agentflow.tools.paths import resolve
from agentflow.tools.spec import Parameter, ToolSpec

SKIPPED = object()
"""The value of a call that was not made."""


@dataclass
class World:
    """What tools read and write, and what was asked of it."""

    store: dict[str, Any] = field(default_factory=dict)
    log: list[Any] = field(default_factory=list)


def _put(world: World, key: Any, value: Any) -> int:
    world.store[str(key)] = value
    return len(str(value))


def _wipe(world: World) -> int:
    size = len(world.store)
    world.store.clear()
    return size


def _note(world: World, text: Any) -> int:
    world.log.append(text)
    return len(world.log)


def _embed(text: Any, model: str) -> dict[str, Any]:
    return {"text": text, "size": len(str(text)), "model": model}


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "upper": lambda world, text: str(text).upper(),
    "concat": lambda world, a, b="": f"{a}{b}",
    "split": lambda world, text: [{"word": word} for word in str(text).split()],
    "embed": lambda world, text, model="small": _embed(text, model),
    "embed_many": lambda world, texts, model="small": [_embed(text, model) for text in texts],
    "fetch": lambda world, url: f"<{url} {world.store.get('web')}>",
    "fetch_many": lambda world, urls: [f"<{url} {world.store.get('web')}>" for url in urls],
    "get": lambda world, key: world.store.get(str(key)),
    "put": _put,
    "dump": lambda world: sorted(world.store.items()),
    "wipe": _wipe,
    "ask": lambda world, *args, **kwargs: json.dumps([args, kwargs], sort_keys=True, default=str),
    "note": _note,
}


def _spec(name: str, text: str, effect: Effect, **more: Any) -> ToolSpec:
    parameters = (Parameter(p.rstrip("?"), not p.endswith("?")) for p in text.split())
    return ToolSpec(name, tuple(parameters), effect=effect, **more)


TOOLS: dict[str, ToolSpec] = {
    spec.name: spec
    for spec in (
        _spec("upper", "text", PURE),
        _spec("concat", "a b?", PURE),
        _spec("split", "text", PURE),
        _spec("embed", "text model?", PURE, batch="embed_many"),
        _spec("embed_many", "texts model?", PURE),
        _spec("fetch", "url", Effect("reads", ("web",)), batch="fetch_many"),
        _spec("fetch_many", "urls", Effect("reads", ("web",))),
        _spec("get", "key", Effect("reads", ("store/{key}",))),
        _spec("put", "key value", Effect("writes", ("store/{key}",))),
        _spec("dump", "", Effect("reads", ("store",))),
        _spec("wipe", "", Effect("writes", ("store",))),
        _spec("ask", "system question", SAMPLES, open=True),
        _spec("note", "text", UNDECLARED),
    )
}


class Interpreter:
    """Runs a plan one call at a time."""

    def __init__(self, plan: Plan, earlier: Mapping[int, Any] | None = None) -> None:
        self.plan = plan
        self.world = World()
        self.values: dict[int, Any] = dict(earlier or {})

    def run(self, order: Iterable[int] | None = None) -> Interpreter:
        """Make every call: in program order, or in the order given."""
        for index in order if order is not None else (i for i, _ in self.plan.items()):
            self.values[index] = self._call(self.plan.nodes[index - self.plan.base])
        return self

    @property
    def result(self) -> Any:
        """What the plan returns; without `return` all values by label."""
        if isinstance(self.plan.result, Answer):
            return {node.label: self.values[index] for index, node in self.plan.items()}
        return self._value(self.plan.result)

    def _call(self, node: Node) -> Any:
        if node.guard is not None:
            guard = self._value(node.guard)
            if guard is SKIPPED or not guard:
                return SKIPPED
        if node.tool == "gather":
            return self._gather(node)
        used = [self.values[index] for index in node.uses()]
        if any(value is SKIPPED for value in used):
            return SKIPPED
        eaches = [self._value(v.source) for v in node.values() if type(v) is Each]
        if not eaches:
            return self._invoke(node, {})
        return [self._invoke(node, dict(enumerate(row))) for row in zip(*eaches, strict=True)]

    def _gather(self, node: Node) -> Any:
        values = [self._value(value) for value in node.args]
        if node.join.kind == "settled":
            return ["skipped" if value is SKIPPED else value for value in values]
        there = [value for value in values if value is not SKIPPED]
        if node.join.kind == "all":
            return values if len(there) == len(values) else SKIPPED
        wanted = 1 if node.join.kind == "first" else node.join.count
        if len(there) < wanted:
            return SKIPPED
        return there[0] if node.join.kind == "first" else there[:wanted]

    def _invoke(self, node: Node, row: dict[int, Any]) -> Any:
        rows = iter(range(len(row)))

        def value(arg: Arg) -> Any:
            return row[next(rows)] if type(arg) is Each else self._value(arg)

        args = [value(arg) for arg in node.args]
        kwargs = {name: value(arg) for name, arg in node.kwargs}
        return FUNCTIONS[node.tool](self.world, *args, **kwargs)

    def _value(self, arg: Arg) -> Any:
        if type(arg) is Ref:
            value = self.values[arg.node]
            return value if value is SKIPPED else resolve(value, arg.path)
        if type(arg) is Template:
            return "".join(
                part if type(part) is str else str(self._value(part)) for part in arg.parts
            )
        if isinstance(arg, list | tuple):
            return type(arg)(self._value(item) for item in arg)
        if isinstance(arg, dict):
            return {key: self._value(item) for key, item in arg.items()}
        return arg


def legal_order(plan: Plan, chance: random.Random) -> list[int]:
    """An order that a parallel run may take: whatever may start next, at random."""
    left = {i: {d for d in node.waits_for() if d >= plan.base} for i, node in plan.items()}
    order: list[int] = []
    while left:
        ready = [index for index, deps in left.items() if deps.isdisjoint(left)]
        order.append(chance.choice(ready))
        del left[order[-1]]
    return order


@pytest.fixture(scope="session")
def tools() -> dict[str, ToolSpec]:
    return TOOLS


@pytest.fixture(scope="session")
def interpret() -> type[Interpreter]:
    return Interpreter


@pytest.fixture(scope="session")
def any_order() -> Callable[[Plan, random.Random], list[int]]:
    return legal_order


@pytest.fixture(scope="session")
def read() -> Callable[[str], Plan]:
    """Reads a plan line by line, without merging or ordering anything."""

    def plan(text: str) -> Plan:
        script = read_script(text)
        ids = {line.id: index for index, line in enumerate(script.lines)}
        nodes = (_node(line, lambda ref: Ref(ids[ref.node], ref.path)) for line in script.lines)
        result: Any = Answer.JOIN if isinstance(script.end, JoinMark) else Answer.NOTHING
        if isinstance(script.end, Return):
            result = renumbered(script.end.value, lambda ref: Ref(ids[ref.node], ref.path))
        return Plan(tuple(nodes), result)

    return plan


def _node(line: Line, ids: Callable[[Ref], Ref]) -> Node:
    return Node(
        line.tool,
        tuple(renumbered(value, ids) for value in line.args),
        tuple((name, renumbered(value, ids)) for name, value in line.kwargs),
        None if line.guard is None else ids(line.guard),
        line.join,
        label=line.id,
    )
