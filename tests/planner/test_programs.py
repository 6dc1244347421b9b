"""Random programs: however a plan is rewritten and run, it gives what the lines say in order."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from agentflow.planner.builder import Builder, renumbered, rewired
from agentflow.planner.lower import lower
from agentflow.planner.passes import PASSES, SEGMENT_PASSES, optimise, run_passes
from agentflow.planner.plan import Each, Join, Node, Plan, Ref, Template
from agentflow.planner.script import Line, Return, Script
from agentflow.tools.spec import ToolSpec

Tools = Mapping[str, ToolSpec]
Interpret = Callable[..., Any]
AnyOrder = Callable[[Plan, random.Random], list[int]]

KEYS = ("a", "b", "c")
CALLS = ("upper", "concat", "embed", "fetch", "get", "put", "dump", "wipe", "ask", "gather", "map")
JOINS = (Join(), Join("settled"), Join("first"), Join("quorum", 2))


class Program:
    """Draws the lines of a program; every value is usable wherever it is used."""

    def __init__(self, seed: int, size: int) -> None:
        self.chance = random.Random(seed)
        self.lines: list[Line] = []
        for _ in range(size):
            self.lines.append(self.line(len(self.lines) + 1))

    def line(self, index: int) -> Line:
        tool = self.chance.choice(CALLS)
        guard = self.ref() if self.lines and self.chance.random() < 0.2 else None
        made: Line = getattr(self, tool)(index)
        return replace(made, guard=guard)

    def ref(self) -> Ref:
        return Ref(self.chance.choice(self.lines).id)

    def key(self) -> Any:
        return self.value() if self.chance.random() < 0.3 else self.chance.choice(KEYS)

    def value(self) -> Any:
        if not self.lines or self.chance.random() < 0.4:
            return self.chance.choice([*KEYS, 1, 2])
        ref = self.ref()
        return self.chance.choice([ref, Template(("v ", ref)), [ref, 1], {"x": ref}])

    def upper(self, index: int) -> Line:
        return Line(index, "upper", (self.value(),))

    def concat(self, index: int) -> Line:
        return Line(index, "concat", (self.value(),), (("b", self.value()),))

    def embed(self, index: int) -> Line:
        return Line(index, "embed", (self.value(),))

    def fetch(self, index: int) -> Line:
        return Line(index, "fetch", (), (("url", self.value()),))

    def get(self, index: int) -> Line:
        return Line(index, "get", (self.key(),))

    def put(self, index: int) -> Line:
        return Line(index, "put", (self.key(), self.value()))

    def dump(self, index: int) -> Line:
        return Line(index, "dump")

    def wipe(self, index: int) -> Line:
        return Line(index, "wipe")

    def ask(self, index: int) -> Line:
        return Line(index, "ask", (), (("question", self.value()), ("system", {"b": 1, "a": 2})))

    def gather(self, index: int) -> Line:
        values = tuple(self.value() for _ in range(self.chance.randint(2, 3)))
        return Line(index, "gather", values, join=self.chance.choice(JOINS))

    def map(self, index: int) -> Line:
        return Line(index, "concat", (Each([self.value(), self.value()]), Each(["x", "y"])))

    def script(self) -> Script:
        return Script(tuple(self.lines), Return([Ref(line.id) for line in self.lines]))


def plain(script: Script) -> Plan:
    """The lines as they are: nothing merged, nothing ordered."""

    def ids(ref: Ref) -> Ref:
        return Ref(ref.node - 1, ref.path)

    nodes = tuple(
        Node(
            line.tool,
            tuple(renumbered(v, ids) for v in line.args),
            tuple((k, renumbered(v, ids)) for k, v in line.kwargs),
            None if line.guard is None else ids(line.guard),
            line.join,
            label=line.id,
        )
        for line in script.lines
    )
    return Plan(nodes, [Ref(index) for index in range(len(nodes))])


SEEDS = st.integers(0, 2**32)
SIZES = st.integers(1, 14)
PROPERTY = settings(max_examples=200)


@PROPERTY
@given(seed=SEEDS, size=SIZES)
def test_any_parallel_run_of_a_lowered_plan_gives_the_sequential_result(
    seed: int, size: int, tools: Tools, interpret: Interpret, any_order: AnyOrder
) -> None:
    script = Program(seed, size).script()
    wanted = interpret(plain(script)).run()
    plan = lower(script, tools)
    for attempt in range(3):
        order = any_order(plan, random.Random(seed + attempt))
        got = interpret(plan).run(order)
        assert (got.result, got.world) == (wanted.result, wanted.world)


@PROPERTY
@given(seed=SEEDS, size=SIZES)
def test_passes_keep_the_result_in_any_order(
    seed: int, size: int, tools: Tools, interpret: Interpret, any_order: AnyOrder
) -> None:
    script = Program(seed, size).script()
    wanted = interpret(plain(script)).run()
    for plan in (optimise(plain(script), tools), optimise(lower(script, tools), tools)):
        got = interpret(plan).run(any_order(plan, random.Random(seed)))
        assert (got.result, got.world) == (wanted.result, wanted.world)


@PROPERTY
@given(seed=SEEDS, size=SIZES, data=st.data())
def test_passes_in_any_order_keep_the_result(
    seed: int, size: int, data: st.DataObject, tools: Tools, interpret: Interpret
) -> None:
    """Only together with the order by effects may calls leave program order, so it runs there."""
    script = Program(seed, size).script()
    wanted = interpret(plain(script)).run()
    passes = data.draw(st.permutations(PASSES))
    got = interpret(optimise(plain(script), tools, passes)).run()
    assert (got.result, got.world) == (wanted.result, wanted.world)


@PROPERTY
@given(seed=SEEDS, size=st.integers(2, 16), cuts=st.integers(1, 4))
def test_segments_give_what_the_whole_program_gives(
    seed: int,
    size: int,
    cuts: int,
    tools: Tools,
    interpret: Interpret,
    any_order: AnyOrder,
) -> None:
    """Calls join one builder; segments are rewritten one by one, and handles follow."""
    nodes = plain(Program(seed, size).script()).nodes
    wanted = interpret(Plan(nodes, [Ref(i) for i in range(size)])).run()
    builder = Builder(tools.get)
    homes: dict[int, Ref] = {}
    run: Any = interpret(Plan())
    ends = [*sorted(random.Random(seed).sample(range(1, size), min(cuts, size - 1))), size]
    for start, end in zip([0, *ends], ends, strict=False):
        for index in range(start, end):
            homes[index] = Ref(builder.add(rewired(nodes[index], partial(at, homes))))
        plan = builder.cut()
        olds = [index for index, _ in plan.items()]
        done = run_passes(replace(plan, result=[*map(Ref, olds)]), tools, SEGMENT_PASSES)
        assert isinstance(done.result, list)
        moved = dict(zip(olds, done.result, strict=True))
        if len(done.nodes) < len(plan.nodes):
            builder.moved(moved, plan.base + len(done.nodes))
        homes |= {i: moved.get(homes[i].node, homes[i]) for i in range(start, end)}
        run.plan = done
        run.run(any_order(done, random.Random(seed + start)))
    run.plan = Plan((), [homes[i] for i in range(size)])
    assert (run.result, run.world) == (wanted.result, wanted.world)


def at(homes: Mapping[int, Ref], ref: Ref) -> Ref:
    """Where a value is to be found now."""
    home = homes[ref.node]
    return Ref(home.node, home.path + ref.path)
