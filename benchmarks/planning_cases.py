"""The plans of `planning.py`: what each says, how long its tools take, and its ideal latency."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

END = "join()"
ANSWER = "done"


@dataclass(frozen=True)
class Step:
    """One line of a plan: what it calls, and which lines it uses (from 1)."""

    call: str
    uses: tuple[int, ...] = ()
    writes: bool = False


@dataclass(frozen=True)
class Case:
    """A plan whose tools take equally long.

    Attributes:
        name: In tables.
        seconds: What each tool takes.
        steps: Its lines.
    """

    name: str
    seconds: float
    steps: tuple[Step, ...]

    @property
    def lines(self) -> list[str]:
        """The lines as a model writes them."""
        return [f"${number} = {step.call}" for number, step in enumerate(self.steps, 1)]

    @property
    def plan(self) -> str:
        """The whole text."""
        return "\n".join([*self.lines, END])


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


def ideal(case: Case, planner: Served, joiner: Served) -> float:
    """Seconds along the critical path, if whatever is known is acted upon at once.

    A call can start when the chunk with its closing bracket has been sent (a write: with the
    end of the plan) and its inputs are there; the joiner can be asked when all calls and
    the plan have ended; its reply takes what the server took to send it.
    """
    end = planner.sent(case.plan)
    finished: list[float] = []
    for line, step in zip(case.lines, case.steps, strict=True):
        known = end if step.writes else planner.sent(line)
        start = max([known, *(finished[used - 1] for used in step.uses)])
        finished.append(start + case.seconds)
    return max([end, *finished]) + joiner.ended - joiner.started


def _parallel(count: int) -> Case:
    steps = (Step(f'search(query="population of country {n}")') for n in range(1, count + 1))
    return Case(f"{count} in parallel", 0.5, tuple(steps))


CASES = (
    *(_parallel(count) for count in (2, 4, 8, 16)),
    Case(
        "chain of 4",
        0.2,
        (
            Step('search(query="who wrote it")'),
            Step("read(source=$1)", (1,)),
            Step("read(source=$2)", (2,)),
            Step("read(source=$3)", (3,)),
        ),
    ),
    Case(
        "diamond",
        0.3,
        (
            Step('search(query="who wrote it")'),
            Step("read(source=$1)", (1,)),
            Step('merge(a=$1, b="the second half of it")', (1,)),
            Step("merge(a=$2, b=$3)", (2, 3)),
        ),
    ),
    Case(
        "graph of 7",
        0.3,
        (
            Step('search(query="mass of the first")'),
            Step("read(source=$1)", (1,)),
            Step('search(query="mass of the second")'),
            Step("read(source=$3)", (3,)),
            Step('search(query="mass of the third")'),
            Step("merge(a=$2, b=$4)", (2, 4)),
            Step("merge(a=$6, b=$5)", (5, 6)),
        ),
    ),
    Case(
        "write between reads",
        0.2,
        (
            Step('search(query="who wrote it")'),
            Step('keep(text="that was asked")', writes=True),
            Step('search(query="where and when")'),
        ),
    ),
)
"""The cases of LLMCompiler's measurements, and one with a write."""
