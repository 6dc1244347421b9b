"""The plans of `planning.py`: what each says, how long its tools take, and its ideal latency."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

END = "join()"
ANSWER = "done"


@dataclass(frozen=True)
class Step:
    """One line of a plan: a call whose arguments are texts and, as numbers, values of lines."""

    tool: str
    arguments: tuple[str | int, ...]

    @property
    def uses(self) -> list[int]:
        """The lines whose values it uses, from 1."""
        return [argument for argument in self.arguments if isinstance(argument, int)]

    @property
    def writes(self) -> bool:
        """Whether it waits for the end of the plan."""
        return self.tool == "keep"

    def __str__(self) -> str:
        spelt = (f"${a}" if isinstance(a, int) else f'"{a}"' for a in self.arguments)
        return f"{self.tool}({', '.join(spelt)})"


@dataclass(frozen=True)
class Case:
    """A plan whose tools take equally long; the value of a call is its text, with values put in.

    Attributes:
        name: In tables.
        seconds: What each tool sleeps.
        steps: Its lines.
    """

    name: str
    seconds: float
    steps: tuple[Step, ...]

    @cached_property
    def lines(self) -> list[str]:
        """The lines as a model writes them."""
        return [f"${number} = {step}" for number, step in enumerate(self.steps, 1)]

    @cached_property
    def values(self) -> list[str]:
        """The value of each line; no two are equal."""
        values: list[str] = []
        for step in self.steps:
            inputs = (values[a - 1] if isinstance(a, int) else a for a in step.arguments)
            values.append(value_of(step.tool, *inputs))
        return values

    @property
    def plan(self) -> str:
        """The whole text."""
        return "\n".join([*self.lines, END])


def value_of(tool: str, *arguments: str) -> str:
    """What a call gives."""
    return f"{tool}[{' '.join(arguments)}]"


@dataclass(frozen=True)
class Served:
    """What the server did about one request; seconds of the clock that all processes share.

    Attributes:
        started: When the request had been read.
        chunks: When which text was sent.
        ended: When the last byte was handed over.
    """

    started: float
    chunks: Sequence[tuple[float, str]]
    ended: float

    def sent(self, text: str) -> float:
        """Seconds from the request until `text` had been sent to its last character."""
        so_far = ""
        for at, chunk in self.chunks:
            so_far += chunk
            if text in so_far:
                return at - self.started
        raise AssertionError(f"{text!r} was never sent, only {so_far!r}")


def ideal(case: Case, planner: Served, joiner: Served, took: Mapping[str, float]) -> float:
    """Seconds along the critical path, if whatever is known is acted upon at once.

    A call can start when the chunk with its closing bracket has been sent (a write: with the
    end of the plan) and its inputs are there; the joiner can be asked when all calls and
    the plan have ended; its reply takes what the server took to send it.

    Args:
        case: The plan.
        planner: The request for it.
        joiner: The request for the answer.
        took: Seconds that each call really took, by its value.
    """
    end = planner.sent(case.plan)
    finished: list[float] = []
    for line, value, step in zip(case.lines, case.values, case.steps, strict=True):
        known = end if step.writes else planner.sent(line)
        start = max([known, *(finished[used - 1] for used in step.uses)])
        finished.append(start + took[value])
    return max([end, *finished]) + joiner.ended - joiner.started


def _parallel(count: int) -> Case:
    steps = (Step("search", (f"population of country {n}",)) for n in range(1, count + 1))
    return Case(f"{count} in parallel", 0.5, tuple(steps))


def _case(name: str, seconds: float, *steps: tuple[str | int, ...]) -> Case:
    calls = (Step(str(tool), tuple(arguments)) for tool, *arguments in steps)
    return Case(name, seconds, tuple(calls))


CASES = (
    *(_parallel(count) for count in (2, 4, 8, 16)),
    _case(
        "chain of 4", 0.2,
        ("search", "who wrote it"), ("read", 1), ("read", 2), ("read", 3),
    ),
    _case(
        "diamond", 0.3,
        ("search", "who wrote it"), ("read", 1), ("merge", 1, "the other half"), ("merge", 2, 3),
    ),
    _case(
        "graph of 7", 0.3,
        ("search", "mass of the first"), ("read", 1), ("search", "mass of the second"),
        ("read", 3), ("search", "mass of the third"), ("merge", 2, 4), ("merge", 6, 5),
    ),
    _case(
        "write between reads", 0.2,
        ("search", "who wrote it"), ("keep", "that was asked"), ("search", "where and when"),
    ),
)  # fmt: skip
"""The cases of LLMCompiler's measurements, and one with a write."""
