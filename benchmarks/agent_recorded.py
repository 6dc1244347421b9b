"""Recorded tool-calling sessions as programs of `agent.py`.

What was called in each turn, with which arguments and results, is as recorded (`sessions.py`), in
an environment that writes change (`replay.World`). What the model told the customer is a call of
`ask_customer`, whose result is what the customer said next, after as long as recorded; that time is
no agent's, and is left out of completion times. Nothing in a recording says what could have been
foreseen, so nothing is planned, and nothing is estimated: without planning, or without allocation,
agentflow is what it is with both.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from random import Random
from typing import Any

from agent_programs import Program, Step, policy
from agent_world import Tool
from agent_world import World as Counts
from replay import DATABASE, USD, ToolFailed, World, latency, latency_class
from sessions import Outside, Said, Session, Turn, call_key, folds, read, timed

from agentflow.testing.tokens import tokens

ASK = "ask_customer"
PARTS = 5
"""Sessions of one part are played, those of the others are the past; no group is in both."""

MARK = 40
"""Characters of a result by which it is known again."""


@dataclass(frozen=True)
class Recorded(Program):
    """A session as a program.

    Attributes:
        session: The recording.
        world: Its environment.
        results: Of each call.
        groups: The calls of each turn.
        places: The step of the recording that each turn was.
        spoken: What the customer says to each text, and after how many seconds.
    """

    session: Session = field(kw_only=True)
    world: World = field(kw_only=True)
    results: tuple[str, ...] = field(kw_only=True)
    groups: tuple[tuple[int, ...], ...] = field(kw_only=True)
    places: tuple[int, ...] = field(kw_only=True)
    spoken: Mapping[str, tuple[str, float]] = field(kw_only=True)

    @property
    def waits(self) -> float:
        """Seconds in which the customer is waited for."""
        asked = (str(step.arguments["text"]) for step in self.steps if step.tool == ASK)
        return sum(self.spoken[text][1] for text in asked)

    @cached_property
    def arguments(self) -> tuple[Mapping[str, Any], ...]:
        """Of each call."""
        return tuple(step.arguments for step in self.steps)

    @cached_property
    def marks(self) -> tuple[str, ...]:
        """The beginning of each result."""
        return tuple(text[:MARK] for text in self.results)

    def ready(self, done: set[int], made: set[int]) -> list[int]:
        """The calls of the turn that comes."""
        for number, group in enumerate(self.groups):
            if not made.issuperset(group):
                self.world.step = self.places[number]
                return list(group)
        return []

    def takes(self, number: int) -> float:
        """Seconds of a call."""
        step = self.steps[number]
        if step.tool == ASK:
            return 0.0
        kind = latency_class(step.tool, self.kinds[step.tool])
        return latency(kind, self.session.id, call_key(step.tool, step.arguments), 0)

    def price(self, number: int) -> str:
        """USD of a call."""
        step = self.steps[number]
        if step.tool == ASK:
            return "0"
        return USD[latency_class(step.tool, self.kinds[step.tool])]

    @cached_property
    def kinds(self) -> dict[str, str]:
        """The kind of each tool."""
        return {call.tool: call.kind for call in self.session.calls}

    def effects(self, name: str) -> Mapping[str, Any]:
        """What a tool does, as agentflow is told; a customer who has tools may change anything."""
        if name == ASK:
            return {} if self.session.domain == "telecom" else {"writes": "customer"}
        kind = self.kinds[name]
        usd = USD[latency_class(name, kind)]
        if kind == "pure":
            return {"pure": True, "usd": usd}
        return {"reads" if kind == "read" else "writes": DATABASE, "usd": usd}

    def tools(self, counts: Counts) -> dict[str, Tool]:
        """The tools as plain functions."""
        made = {name: self._tool(name, counts) for name in self.kinds}

        async def ask_customer(text: str) -> str:
            """Tell the customer something, and hear what is said."""
            said, seconds = self.spoken[text]
            with counts.call(ASK, lambda: {"text": text}):
                await asyncio.sleep(seconds)
            if any(isinstance(step, Outside) for step in self.session.steps):
                self.world.version += 1
            return said

        return {**made, ASK: ask_customer}

    def _tool(self, name: str, counts: Counts) -> Tool:
        async def perform(**arguments: Any) -> str:
            """A tool of the recording."""
            with counts.call(name, lambda: arguments, self.effects(name).get("usd", "0")):
                try:
                    return await self.world.perform(name, self.kinds[name], arguments)
                except ToolFailed as failed:
                    return str(failed)

        return perform


def recorded(path: Path, count: int, seed: int) -> list[Program]:
    """So many sessions, of all domains in turn."""
    made: list[Program] = []
    for number, session in enumerate(_chosen(path, count, seed)):
        made.append(_program(session, f"session-{seed}-{number}"))
    return made


def past(path: Path, seed: int) -> list[Session]:
    """The sessions that were there before."""
    return [session for known, _ in _parts(path, seed) for session in known]


def _chosen(path: Path, count: int, seed: int) -> Iterator[Session]:
    by_domain = [sorted(played, key=lambda s: Random(f"{seed} {s.id}").random())
                 for _, played in _parts(path, seed)]  # fmt: skip
    for number in range(count):
        sessions = by_domain[number % len(by_domain)]
        yield sessions[number // len(by_domain) % len(sessions)]


def _parts(path: Path, seed: int) -> list[tuple[list[Session], list[Session]]]:
    return [folds(its, PARTS)[seed % PARTS] for its in _domains(path)]


@cache
def _domains(path: Path) -> list[list[Session]]:
    by_domain: dict[str, list[Session]] = {}
    for session in timed(read(path)):
        if _is_playable(session):
            by_domain.setdefault(session.domain, []).append(session)
    return [its for _, its in sorted(by_domain.items())]


def _is_playable(session: Session) -> bool:
    """Whether somebody asks for something, and no result depends on the order within a turn."""
    asked = any(isinstance(step, Said) for step in session.steps)
    mixed = any(len(t.calls) > 1 and any(c.changes for c in t.calls) for t in session.turns)
    return asked and any(session.calls) and not mixed


def _program(session: Session, name: str) -> Recorded:
    steps: list[Step] = []
    results: list[str] = []
    groups: list[tuple[int, ...]] = []
    places: list[int] = []
    thoughts: list[int] = []
    spoken: dict[str, tuple[str, float]] = {}
    first = next(n for n, step in enumerate(session.steps) if isinstance(step, Said))
    for number, turn, said in _turns(session.steps, first):
        calls = [(call.tool, call.arguments, call.result) for call in turn.calls]
        if not calls and said is not None:
            text = turn.text if turn.text and turn.text not in spoken else f"{turn.text} ({number})"
            spoken[text] = (said.text, said.seconds or 0.0)
            calls = [(ASK, {"text": text}, said.text)]
        if calls:
            groups.append(tuple(range(len(steps), len(steps) + len(calls))))
            places.append(number)
            thoughts.append(0 if calls[0][0] == ASK else len(tokens(turn.text)))
            steps += [Step(tool, dict(arguments)) for tool, arguments, _ in calls]
            results += [text for *_, text in calls]
    opening = session.steps[first]
    assert isinstance(opening, Said)
    return Recorded(
        name, session.domain, f"{policy()}\n\nThis is {name}. {opening.text}", tuple(steps),
        tuple(thoughts) or (0,), (99,), 40, session=session, world=World(session),
        results=tuple(results), groups=tuple(groups), places=tuple(places), spoken=spoken,
    )  # fmt: skip


def _turns(steps: Sequence[object], first: int) -> Iterator[tuple[int, Turn, Said | None]]:
    """The turns of the model after the first words of the user, and what was said next."""
    for number in range(first + 1, len(steps)):
        turn = steps[number]
        if isinstance(turn, Turn):
            rest = steps[number + 1 :]
            after = next((s for s in rest if isinstance(s, Said | Turn)), None)
            yield number, turn, after if isinstance(after, Said) else None
