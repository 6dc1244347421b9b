"""What the agents of `agent.py` are to do: programs of tool calls whose truth is known.

A program is a graph of calls. Some of them can be foreseen: their arguments stand in the question,
or are parts of earlier results. The others are judged: who writes them has to have read the
results that they need. Kinds of programs, as often as `MIX` says:

- ``research``: 3 to 5 searches, a page of each; every fourth has one more search that is judged.
- ``review``: 2 or 3 searches, a typed estimate by a model from each page.
- ``desk``: a customer, an order, a parcel, the rule, a write: each judged after the one before it.
- ``code``: files that are judged, and two programs that the model writes and a sandbox runs.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from random import Random
from typing import Any, Literal

from sessions import chance

MIX = (("research", 0.3), ("review", 0.25), ("desk", 0.25), ("code", 0.2))
PLANNED = ("research", "review")
"""The kinds whose calls can mostly be foreseen."""

POLICY = 1500
"""Tokens of instructions with which every question begins, the same for all."""

JUDGED = 0.25
"""Share of the ``research`` programs that go on after their results have been read."""

Result = Mapping[str, Any]


@dataclass(frozen=True)
class Part:
    """An argument that is a part of an earlier result."""

    step: int
    name: str


@dataclass(frozen=True)
class Step:
    """A call of a program.

    Attributes:
        tool: Its name.
        arguments: By name: a text, or a part of an earlier result.
        needs: The calls whose results it needs.
        judged: Whether these have to be read before it can be written.
    """

    tool: str
    arguments: Mapping[str, Any]
    needs: tuple[int, ...] = ()
    judged: bool = False


@dataclass(frozen=True)
class Program:
    """What one agent is to do.

    Attributes:
        id: Names it, in its question too.
        kind: See above.
        question: What is asked.
        steps: The calls, those that others need first.
        thoughts: How many tokens are thought before each turn.
        habits: How many calls are made in each turn, at most.
        words: Tokens of the answer.
        usd: What it may cost.
        deadline: Seconds that it may take.
    """

    id: str
    kind: str
    question: str
    steps: tuple[Step, ...]
    thoughts: tuple[int, ...]
    habits: tuple[int, ...]
    words: int
    usd: float = math.inf
    deadline: float = math.inf

    @property
    def waits(self) -> float:
        """Seconds of it in which somebody is waited for who is no tool."""
        return 0.0

    @property
    def strategy(self) -> Literal["plan", "react"]:
        """How a user would have it done: planned if its calls can be foreseen."""
        return "plan" if self.kind in PLANNED else "react"

    @cached_property
    def arguments(self) -> tuple[Mapping[str, Any], ...]:
        """Of each call, with the parts put in."""
        results: list[Result] = []
        listed = []
        for step in self.steps:
            given = {
                name: results[value.step][value.name] if isinstance(value, Part) else value
                for name, value in step.arguments.items()
            }
            listed.append(given)
            results.append(result(step.tool, given))
        return tuple(listed)

    @cached_property
    def marks(self) -> tuple[str, ...]:
        """Of each call what tells its result from all others."""
        pairs = zip(self.steps, self.arguments, strict=True)
        return tuple(mark(step.tool, given) for step, given in pairs)

    @property
    def answer(self) -> str:
        """What is said when all results have been seen."""
        random = Random(f"answer {self.id}")
        figure = round(1e9 * chance(*self.marks))
        return f"The figure for {self.id} is {figure}. {text(random, self.words)}"

    def turn(self, number: int) -> tuple[int, int]:
        """Tokens that are thought, and calls that are made at most, in a turn."""
        thought = self.thoughts[number % len(self.thoughts)]
        return thought, self.habits[number % len(self.habits)]

    def ready(self, done: set[int], made: set[int]) -> list[int]:
        """The calls that can be made by who has read these results."""
        return [
            number
            for number, step in enumerate(self.steps)
            if number not in made and done.issuperset(step.needs)
        ]

    def foreseen(self, done: set[int]) -> list[int]:
        """The calls that can be planned by who has read these results, in order."""
        planned: list[int] = []
        for number, step in enumerate(self.steps):
            read = done if step.judged else done.union(planned)
            if number not in done and read.issuperset(step.needs):
                planned.append(number)
        return planned


# What tools give


def mark(tool: str, arguments: Mapping[str, str]) -> str:
    """A figure that stands in the result of this call and of no other."""
    return str(100_000_000 + round(899_999_999 * chance(tool, json.dumps(arguments))))


def result(tool: str, arguments: Mapping[str, str]) -> Result:
    """What a tool gives: the mark, what other calls need of it, and a text."""
    its = mark(tool, arguments)
    random = Random(its)
    found: dict[str, Any] = {"figure": int(its)}
    if tool == "search":
        found["page"] = f"p-{its[:7]}"
    elif tool == "find_customer":
        count = random.randint(1, 3)
        found["orders"] = [{"order": f"o-{its[:6]}{n}", "item": item(random)} for n in range(count)]
    elif tool == "find_order":
        found["parcel"] = f"t-{its[:7]}"
    elif tool == "list_files":
        found["files"] = [f"src/{word(random)}/{word(random)}.py" for _ in range(12)]
    found["text"] = text(random, between(*SIZES[tool], random))
    return found


SIZES = {
    "search": (100, 300),
    "open_page": (300, 700),
    "find_customer": (40, 120),
    "find_order": (60, 250),
    "track": (40, 100),
    "rule": (200, 500),
    "refund": (20, 40),
    "list_files": (50, 150),
    "read_file": (300, 700),
    "run": (100, 500),
    "estimate": (60, 240),
}
"""Least and most tokens of what each gives."""


def word(random: Random) -> str:
    """A word of one token."""
    return f"{random.getrandbits(16):04x}"


def text(random: Random, tokens: int) -> str:
    """So many words."""
    return " ".join(word(random) for _ in range(tokens))


def item(random: Random) -> str:
    """Something that was ordered."""
    colours, things = ("red", "blue", "green", "black"), ("lamp", "chair", "kettle", "rug", "desk")
    return f"{random.choice(colours)} {random.choice(things)}"


def between(low: float, high: float, random: Random) -> int:
    """Most are short, some are long: uniform in the logarithm."""
    return round(math.exp(random.uniform(math.log(low), math.log(high))))


# Programs


RECORDED = {1: 4508, 2: 199, 3: 83, 4: 42, 5: 55, 6: 40, 7: 14, 8: 2, 9: 6, 12: 17}
"""Of 764 recorded sessions of help desks by 16 models, turns that made so many calls."""

EAGER = {1: 85, 2: 11, 3: 29}
"""Of the recorded model that made most calls at once."""

ALL = {99: 1}
"""Whatever can be made is made at once."""


@dataclass(frozen=True)
class Habits:
    """How the models of react loops make calls.

    Attributes:
        counts: How often a turn with calls had so many.
    """

    counts: Mapping[int, int] = field(default_factory=lambda: RECORDED)

    def draw(self, random: Random, turns: int) -> tuple[int, ...]:
        """Of so many turns, how many calls each makes at most."""
        numbers, weights = zip(*self.counts.items(), strict=True)
        return tuple(random.choices(numbers, weights, k=turns))


def programs(count: int, seed: int, habits: Habits) -> list[Program]:
    """So many programs, the same for the same seed."""
    return [_program(f"task-{seed}-{number}", habits) for number in range(count)]


def _program(name: str, habits: Habits) -> Program:
    random = Random(name)
    kind = random.choices([name for name, _ in MIX], [share for _, share in MIX])[0]
    asked, steps = _KINDS[kind](random)
    return Program(
        name,
        kind,
        f"{policy()}\n\nThis is {name}. {asked}",
        tuple(steps),
        tuple(random.randint(0, 40) for _ in range(16)),
        habits.draw(random, 16),
        between(40, 150, random),
    )


def policy() -> str:
    """The instructions with which every question begins."""
    return f"Instructions: {text(Random('policy'), POLICY)}"


def _research(random: Random) -> tuple[str, list[Step]]:
    subjects = [f"{word(random)} {word(random)}" for _ in range(random.randint(3, 5))]
    steps = list(_looked_up(subjects))
    if random.random() < JUDGED:
        needs = tuple(range(len(steps)))
        steps.append(Step("search", {"query": f"more {text(random, 4)}"}, needs, judged=True))
        steps.append(Step("open_page", {"page": Part(len(steps) - 1, "page")}, (len(steps) - 1,)))
    return f"Compare the figures of {'; '.join(subjects)}.", steps


def _looked_up(subjects: Sequence[str]) -> Iterator[Step]:
    for number, subject in enumerate(subjects):
        yield Step("search", {"query": f"figure of {subject}"})
        yield Step("open_page", {"page": Part(2 * number, "page")}, (2 * number,))


def _review(random: Random) -> tuple[str, list[Step]]:
    subjects = [f"{word(random)} {word(random)}" for _ in range(random.randint(2, 3))]
    steps: list[Step] = []
    for subject in subjects:
        found = len(steps)
        steps.append(Step("search", {"query": f"figure of {subject}"}))
        steps.append(Step("estimate", {"page": Part(found, "page")}, (found,)))
    return f"Estimate how large each of these is: {'; '.join(subjects)}.", steps


def _desk(random: Random) -> tuple[str, list[Step]]:
    email = f"{word(random)}@{word(random)}.example"
    customer = result("find_customer", {"email": email})
    wanted = random.choice(customer["orders"])
    order = wanted["order"]
    topic = random.choice(("returns", "damage", "delay"))
    parcel = result("find_order", {"order": order})["parcel"]
    steps = [
        Step("find_customer", {"email": email}),
        Step("find_order", {"order": order}, (0,), judged=True),
        Step("track", {"parcel": parcel}, (1,), judged=True),
        Step("rule", {"topic": topic}, (2,), judged=True),
    ]
    if random.random() < 0.5:
        steps.append(Step("refund", {"order": order}, (3,), judged=True))
    return f"I am {email}. What about my {wanted['item']}? It is a case of {topic}.", steps


def _code(random: Random) -> tuple[str, list[Step]]:
    folder = f"src/{word(random)}"
    files = result("list_files", {"folder": folder})["files"]
    chosen = random.sample(files, random.randint(4, 7))
    half = len(chosen) // 2
    steps = [Step("list_files", {"folder": folder})]
    steps += [Step("read_file", {"path": path}, (0,), judged=True) for path in chosen[:half]]
    steps.append(Step("run", {"code": code(random)}, tuple(range(len(steps))), judged=True))
    after = (len(steps) - 1,)
    steps += [Step("read_file", {"path": path}, after, judged=True) for path in chosen[half:]]
    steps.append(Step("run", {"code": code(random)}, tuple(range(len(steps))), judged=True))
    return f"Why do the tests in {folder} fail?", steps


def code(random: Random) -> str:
    """A program, a statement a line."""
    return "\n".join(
        f"{word(random)} = check({text(random, 6)})" for _ in range(random.randint(10, 25))
    )


_KINDS = {"research": _research, "review": _review, "desk": _desk, "code": _code}
