"""What a run consists of in time: calls, replies of models, rounds of strategies.

Times are seconds into the run; those between two executions of it are left out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from agentflow.errors import JournalError

Record = Mapping[str, Any]

ENDS = {
    "node_finished": "done",
    "node_failed": "failed",
    "node_skipped": "skipped",
    "node_cancelled": "cancelled",
}
"""How a call ended, by the record that says so."""

_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|\$(\d+)|  # after ([$\d, ]+)$')
_MAP = re.compile(r"[(=, ]each [\[$]")
_STEP = re.compile(r"(.*#\d+)(\[\d+\])?")  # the name of a question begins with one
_BRACED = re.compile(r"(?<!\\)\$\{(\d+)")


@dataclass(slots=True)
class Wait:
    """Time of a call in which it only waited.

    Attributes:
        why: As in `NodeWaited`, or ``answer`` or ``retry``.
        began: Seconds into the run.
        ended: Likewise.
        told: Who answered and how, or what an attempt failed with.
    """

    why: str
    began: float
    ended: float
    told: str = ""

    @property
    def seconds(self) -> float:
        """How long it was."""
        return max(0.0, self.ended - self.began)


@dataclass(slots=True)
class Span:
    """A call, or one element of a map, as it was made last.

    Attributes:
        status: ``waiting``, ``running``, ``asked``, or how it ended.
        began: When it was started, or its value was found; None if that is not known.
        ended: When it ended, or None.
        execution: In which execution of the run, from 1.
        source: Where its value was found if it was not made; see `NodeReused`.
        saved: Seconds that it took when it was made then.
        hidden: Seconds of its work that were done while a model still wrote it.
        waits: What it waited for when it needed nothing more.
        told: What it gave, or why not.
    """

    status: str = "waiting"
    began: float | None = None
    ended: float | None = None
    execution: int = 1
    source: str = ""
    saved: float = 0.0
    hidden: float = 0.0
    waits: list[Wait] = field(default_factory=list)
    told: Any = None

    @property
    def seconds(self) -> float:
        """How long it took, answers and other waiting included."""
        return max(0.0, (self.ended or 0.0) - self.began) if self.began is not None else 0.0


@dataclass(slots=True)
class Step:
    """A call of a plan, or a map of calls.

    Attributes:
        run: Id of its run.
        node: Its plan id.
        number: The id of its line.
        line: It in the notation.
        planned: When it joined the plan.
        writing: A model still wrote the plan then.
        uses: Numbers of the lines whose values it uses.
        after: Numbers of the lines that it only has to come after.
        thread: It works in a thread of its own.
        announced: It may change something, and this was written down before it was called.
        spans: What became of it, by element; None is the call itself.
        runs: Ids of the runs that it started.
        name: Its step in the journal, or empty.
    """

    run: str
    node: int
    number: int
    line: str
    planned: float
    writing: bool = False
    uses: tuple[int, ...] = ()
    after: tuple[int, ...] = ()
    thread: bool = False
    announced: bool = False
    spans: dict[int | None, Span] = field(default_factory=dict)
    runs: list[str] = field(default_factory=list)
    name: str = ""

    @property
    def tool(self) -> str:
        """What it calls."""
        return tool_of(self.line)

    @property
    def label(self) -> str:
        """It, as it is named to people."""
        return f"${self.number} {self.tool}"

    @property
    def mapped(self) -> bool:
        """Whether it is called for each element of a list."""
        return maps(self.line)

    @property
    def joins(self) -> bool:
        """Whether it only gathers values."""
        return self.tool == "gather"

    def span(self, element: int | None = None) -> Span:
        """What became of it, or of one element."""
        return self.spans.setdefault(element, Span())

    def made(self) -> dict[int | None, Span]:
        """What was done for it: itself, or the elements of the map."""
        elements: dict[int | None, Span]
        elements = {element: span for element, span in self.spans.items() if element is not None}
        return elements or self.spans

    @property
    def began(self) -> float | None:
        """When the first of it began."""
        return min((s.began for s in self.made().values() if s.began is not None), default=None)

    @property
    def ended(self) -> float | None:
        """When the last of it ended; None before."""
        if (whole := self.spans.get(None)) is not None and whole.ended is not None:
            return whole.ended
        ends = [span.ended for span in self.made().values()]
        return None if None in ends or not ends else max(filter(None, ends), default=0.0)

    @property
    def status(self) -> str:
        """How it stands: its own word, else that of its elements."""
        if (whole := self.spans.get(None)) is not None and whole.status != "waiting":
            return whole.status
        known = {span.status for span in self.spans.values()}
        order = ("asked", "running", "failed", "done", "skipped", "cancelled")
        return next((status for status in order if status in known), "waiting")


@dataclass(slots=True)
class Speech:
    """One reply of a model.

    Attributes:
        run: Id of the run that asked.
        node: Plan id of the call that asked; None for the run's own strategy.
        role: What it was for: ``plan``, ``join``, ``act`` or empty.
        number: Of the round.
        began: When it was asked.
        ended: When it had replied.
        facts: The record, as it is.
    """

    run: str
    node: int | None
    role: str
    number: int
    began: float
    ended: float
    facts: Record

    @property
    def label(self) -> str:
        """It, as it is named to people."""
        again = f" {self.number}" if self.number > 1 or self.role == "act" else ""
        names = {"plan": "plan", "join": "answer", "act": "turn"}
        return f"{names[self.role]}{again}" if self.role in names else "model"


@dataclass(slots=True)
class Round:
    """A strategy began a round: what for, the how manieth, when and why."""

    run: str
    kind: str
    number: int
    at: float
    reason: str = ""


def tool_of(line: str) -> str:
    """What a line calls."""
    return line.partition(" = ")[2].partition("(")[0]


def maps(line: str) -> bool:
    """Whether a line calls something for each element of a list."""
    return _MAP.search(line) is not None


def uses_of(line: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Numbers of the lines that a line uses, and of those that it only comes after."""
    uses: dict[int, None] = {}
    after: tuple[int, ...] = ()
    for found in _TOKEN.finditer(line.partition(" = ")[2]):
        if found[2]:
            after = tuple(int(number) for number in re.findall(r"\d+", found[2]))
        elif found[1]:
            uses[int(found[1])] = None
        else:
            uses.update((int(number), None) for number in _BRACED.findall(found[0]))
    return tuple(uses), after


def number_of(line: str, node: int) -> int:
    """The id of a line; a model's own where it wrote the plan."""
    number = line.removeprefix("$").partition(" ")[0]
    return int(number) if number.isdecimal() else node + 1


def step_of(name: str) -> tuple[str, str]:
    """The call that a name begins with, and the same with the element of a map."""
    found = _STEP.match(name)
    return (name, name) if found is None else (found[1], found[0])


def value_of(value: Any, blob: Callable[[str], bytes]) -> Any:
    """A value as it was before it was kept, a large one too.

    Args:
        value: As it stands in a record.
        blob: Gives a large value by its digest.

    Raises:
        JournalError: It is missing, damaged, or no JSON.
    """
    if not isinstance(value, dict):
        return value
    if value.keys() == {"$json"}:
        return value["$json"]
    if value.keys() != {"$blob"}:
        return value
    try:
        return json.loads(blob(value["$blob"]))
    except (RecursionError, ValueError) as error:
        what = f"the value {value['$blob']} is no JSON"
        raise JournalError(f"{what}: {error}", path="") from None


def message(error: Any) -> str:
    """What a failure says, in one line."""
    if isinstance(error, Mapping):
        return str(error.get("message", ""))
    return f"{type(error).__name__}: {error}" if isinstance(error, BaseException) else str(error)


def answered(record: Record) -> str:
    """Who said what to a question, and why."""
    because = f" ({record['why']})" if record.get("why") else ""
    return f"{verdict(record.get('verdict', ''))} by {record.get('by') or 'somebody'}{because}"


def verdict(word: str) -> str:
    """What somebody said, as a verb."""
    return {"approve": "approved", "deny": "denied", "done": "said to be done"}.get(word, word)
