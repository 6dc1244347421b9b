"""The calls of a run that is kept, from its records."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from agentflow.cli.output import gist
from agentflow.errors import JournalError
from agentflow.executor.journal.store import JournalStore

Record = Mapping[str, Any]

_ENDED = {"node_finished": "done", "node_failed": "failed", "node_cancelled": "cancelled"}


@dataclass(slots=True)
class KeptCall:
    """A call of a run that is kept, or a map of calls.

    Attributes:
        step: What names it in every execution of the run.
        line: It in the notation.
        tool: What it calls.
        status: ``waiting``, ``begun`` (it may have been made, and nobody knows), ``asked`` or how
            it ended.
        seconds: How long it took; of a map all elements together.
        told: What it gave, or why it failed, in a few words.
        elements: How many of its elements ended, if it is a map.
        usd: What its model calls cost.
    """

    step: str
    line: str
    tool: str
    status: str = "waiting"
    seconds: float = 0.0
    told: str = ""
    elements: int = 0
    usd: Decimal = Decimal(0)

    @property
    def depth(self) -> int:
        """How many runs lie between it and the one that was started."""
        return max(0, self.step.count("/") - 1)

    def as_dict(self) -> dict[str, Any]:
        """The call as plain data."""
        return {
            "step": self.step,
            "call": self.line,
            "tool": self.tool,
            "status": self.status,
            "seconds": round(self.seconds, 6),
            "elements": self.elements,
            "usd": str(self.usd),
            "told": self.told,
        }


@dataclass(slots=True)
class KeptRun:
    """What the records of a run say.

    Attributes:
        calls: Its calls and those of its nested runs, in the order they were made, by step.
        sessions: How often it was begun or gone on with.
        damage: Why its records could not be read to their end; empty if they were.
    """

    calls: dict[str, KeptCall] = field(default_factory=dict)
    sessions: int = 0
    damage: str = ""
    _stopping: bool = False
    _steps: dict[tuple[str, int], str] = field(default_factory=dict)

    def take(self, record: Record, blob: Callable[[str], bytes]) -> None:
        """Take one more record; what is not about calls is left out."""
        kind = str(record["event"])
        if kind == "session":
            self.sessions += 1
            self._stopping = False
        elif kind == "plan_extended":
            self._planned(record)
        elif kind == "intent":
            self._of(record["step"], record["tool"]).status = "begun"
        elif kind == "question_asked":
            self._of(record["question"], record["tool"]).status = "asked"
        elif kind == "question_answered":
            self._of(record["question"], record["tool"]).status = "waiting"
        elif kind == "stopping":
            self._stopping = True
        elif kind in _ENDED:
            self._ended(kind, record, blob)
        elif kind == "node_skipped" and (step := self._step(record)) in self.calls:
            call = self.calls[step]
            call.status, call.told = "skipped", str(record["reason"])
        elif kind == "model_replied" and (step := self._step(record)) in self.calls:
            self.calls[step].usd += Decimal(record["usd"])

    def _planned(self, record: Record) -> None:
        each = zip(record["nodes"], record["steps"], record["lines"], strict=True)
        for node, step, line in each:
            tool = line.partition(" = ")[2].partition("(")[0]
            self.calls.setdefault(step, KeptCall(step, line, tool))
            self._steps[record["run"], node] = step

    def _ended(self, kind: str, record: Record, blob: Callable[[str], bytes]) -> None:
        call = self._of(record["step"], record["tool"])
        spent = record["at"] - record["began"]
        is_element = record["element"] is not None
        if kind == "node_cancelled" and self._stopping:
            call.status = call.status if call.status in ("asked", "begun") else "waiting"
            return  # it is made when the run goes on
        call.elements += is_element
        call.seconds = call.seconds + spent if is_element else spent
        if call.status != "failed" or not is_element:
            call.status = _ENDED[kind]
        if kind == "node_failed":
            call.told = str(record["error"]["message"])
        elif kind == "node_finished":
            call.told = "" if is_element else _told(record, blob)

    def _of(self, step: str, tool: str) -> KeptCall:
        whole = step.partition("[")[0]  # an element is part of its map
        return self.calls.setdefault(whole, KeptCall(whole, tool, tool))

    def _step(self, record: Record) -> str:
        return self._steps.get((record["run"], record["node"]), "")


def read_kept(store: JournalStore, run: str) -> KeptRun:
    """What is known of a run, as far as its records can be read."""
    kept = KeptRun()
    try:
        _take_all(kept, store.records(run), store)
    except JournalError as error:
        kept.damage = str(error)
    return kept


def _take_all(kept: KeptRun, records: Iterable[Record], store: JournalStore) -> None:
    for number, record in enumerate(records, 1):
        try:
            kept.take(record, store.blob)
        except (KeyError, TypeError, ValueError, ArithmeticError, AttributeError) as error:
            kept.damage = f"record {number} is not one of a run ({type(error).__name__}: {error})"


def _told(record: Record, blob: Callable[[str], bytes]) -> str:
    if "lost" in record:
        return f"not kept: {record['lost']}"
    value = record.get("value")
    if isinstance(value, dict) and value.keys() == {"$blob"}:
        try:
            value = json.loads(blob(value["$blob"]))
        except (JournalError, RecursionError) as error:
            return f"not readable: {error}"
    return gist(value)
