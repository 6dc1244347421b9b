"""A recorded session as a workflow, in an environment that its writes change.

Tools give what was recorded, after a time drawn from declared distributions: it is simulated,
and the same for every policy. The environment has a version, which every write raises. A call is
answered with what was recorded for it at the current version; if it was recorded at another
version only, with that text and a note of the current one, so that a stale result is never equal
to the right one; and if it was never recorded, with a text that nothing was found.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import Any

from sessions import Call, Outside, Said, Session, Turn, call_key, chance

from agentflow import Engine, said, tool, workflow
from agentflow.tools.handle import Handle
from agentflow.tools.tool import Tool

DATABASE = "session-db"
"""What tools that read read, and tools that write write."""

ELSEWHERE = "elsewhere"
"""What writes are declared to touch when they deceive the engine."""

LATENCY_MS = {"web": (850.0, 4_500.0), "database": (120.0, 890.0), "file": (45.0, 320.0)}
"""Median and 95th percentile of a log-normal distribution, by class of tool."""

USD = {"web": "0.001", "database": "0.0001", "file": "0"}
"""Price of a call, by class of tool."""

_P95 = NormalDist().inv_cdf(0.95)

AnyTool = Tool[..., Any]


class ToolFailed(Exception):
    """A call failed in the recording; the message is what came back."""


def latency_class(name: str, kind: str) -> str:
    """Searches are answered by the web, pure functions by local files, the rest by a database."""
    if kind == "pure":
        return "file"
    return "web" if name.startswith("search_") else "database"


def latency(kind: str, *names: object) -> float:
    """Seconds that a call takes; the same for the same names."""
    middle, high = LATENCY_MS[kind]
    sigma = math.log(high / middle) / _P95
    return middle / 1e3 * math.exp(sigma * NormalDist().inv_cdf(chance(*names)))


@dataclass(frozen=True, slots=True)
class Record:
    """A call of the recording: the step it belongs to, and the version it was made at."""

    step: int
    version: int
    call: Call


class World:
    """The environment of one session.

    Attributes:
        session: The recording.
        version: Writes so far, by anybody.
        step: The step of the session that is going on.
        issued: Calls that the agent has made.
        writing: Writes under way.
    """

    def __init__(self, session: Session) -> None:
        self.session = session
        self.version = 0
        self.step = 0
        self.issued = 0
        self.writing = 0
        self._records = _records(session)

    async def perform(self, name: str, kind: str, arguments: Mapping[str, Any]) -> str:
        """What a tool does.

        Raises:
            ToolFailed: The call failed in the recording.
        """
        key = call_key(name, arguments)
        version = 0 if kind == "pure" else self.version
        failed, text = self._answer(key, version)
        changes = kind not in ("read", "pure")
        self.writing += changes
        try:
            await asyncio.sleep(latency(latency_class(name, kind), self.session.id, key, version))
        finally:
            self.writing -= changes
            self.version += changes
        if failed:
            raise ToolFailed(text)
        return text

    def next_reply(self) -> Sequence[Call]:
        """The calls of the reply that the model is about to give; none if the user is to speak."""
        after = self.session.steps[self.step + 1 : self.step + 2]
        return after[0].calls if after and isinstance(after[0], Turn) else ()

    def until_the_end(self) -> Sequence[Call]:
        """All calls that have not been made yet."""
        return list(self.session.calls)[self.issued :]

    def _answer(self, key: str, version: int) -> tuple[bool, str]:
        """Whether a call fails, and the text it gives.

        What succeeded before at this version gives the same; otherwise the next of the
        recorded calls counts, so that a fault that passes does.
        """
        known = self._records.get(key, ())
        here = [record for record in known if record.version == version]
        good = [record for record in here if record.step < self.step and not record.call.failed]
        coming = [record for record in here if record.step >= self.step]
        for record in (*good, *coming, *here):
            return record.call.failed, record.call.result
        if known:
            return False, f"{known[0].call.result} (at version {version})"
        return False, json.dumps({"found": None, "version": version})


def _records(session: Session) -> dict[str, list[Record]]:
    """The recorded calls by key, in order."""
    records: dict[str, list[Record]] = {}
    version = 0
    for number, step in enumerate(session.steps):
        version += isinstance(step, Outside)
        for call in step.calls if isinstance(step, Turn) else ():
            at = 0 if call.kind == "pure" else version
            records.setdefault(call.key, []).append(Record(number, at, call))
            version += call.changes
    return records


@dataclass(slots=True)
class Answer:
    """How a committed call ended."""

    call: Call
    failed: bool
    text: str
    wait: float


@dataclass(slots=True)
class Replay:
    """What came of a session.

    Attributes:
        answers: The committed calls, in the order of the program.
        waited: Seconds in which the agent waited for tools.
    """

    answers: list[Answer] = field(default_factory=list)
    waited: float = 0.0


class Stage:
    """The tools of a domain, and the workflow that plays the session that is on.

    Args:
        kinds: The kind of every tool, by name.
        deceitful: Whether writes are declared to touch what nobody reads.

    Attributes:
        world: The environment of the session that is on.
        tools: The tools by name.
    """

    world: World

    def __init__(self, kinds: Mapping[str, str], *, deceitful: bool = False) -> None:
        target = ELSEWHERE if deceitful else DATABASE
        self.tools = {name: self._tool(name, kind, target) for name, kind in kinds.items()}
        self._deceitful = deceitful

    def next_reply(self) -> Sequence[Call]:
        """The calls of the reply that the model is about to give."""
        return self.world.next_reply()

    def until_the_end(self) -> Sequence[Call]:
        """All calls that the model has not made yet."""
        return self.world.until_the_end()

    def moment(self) -> tuple[str, int]:
        """What results depend on: the session, and what has been written in it."""
        return self.world.session.id, self.world.version

    def ready(self) -> bool:
        """Whether no write is under way."""
        return not self.world.writing

    async def play(self, engine: Engine, session: Session) -> Replay:
        """Run one session."""
        self.world = World(session)
        replay = Replay()

        @workflow
        async def agent() -> None:
            for number, step in enumerate(session.steps):
                await asyncio.sleep(step.seconds or 0.0)
                self.world.step = number
                if isinstance(step, Turn):
                    await self._reply(step, replay)
                elif isinstance(step, Said):
                    self._heard(step.text, "user")
                else:
                    await self._changed(engine)

        await engine.run(agent)
        return replay

    async def _reply(self, turn: Turn, replay: Replay) -> None:
        """The calls of a reply, all at once, and then its text."""
        began = asyncio.get_running_loop().time()
        self.world.issued += len(turn.calls)
        handles = [self.tools[call.tool](**call.arguments) for call in turn.calls]
        ends = await asyncio.gather(*map(_end, handles))
        asked = _asked(turn.calls, began, [at for *_, at in ends])
        for call, (failed, text, at), start in zip(turn.calls, ends, asked, strict=True):
            replay.answers.append(Answer(call, failed, text, at - start))
        replay.waited += asyncio.get_running_loop().time() - began
        self._heard(turn.text, "model")

    def _heard(self, text: str, by: str) -> None:
        if text:
            said(text, by=by)

    async def _changed(self, engine: Engine) -> None:
        self.world.version += 1
        if not self._deceitful:
            await engine.changed(DATABASE)

    def _tool(self, name: str, kind: str, target: str) -> AnyTool:
        async def perform(**arguments: Any) -> str:
            """A tool of the recording."""
            return await self.world.perform(name, kind, arguments)

        usd = USD[latency_class(name, kind)]
        if kind == "pure":
            return tool(name=name, pure=True, usd=usd)(perform)
        if kind == "read":
            return tool(name=name, reads=DATABASE, usd=usd)(perform)
        return tool(name=name, writes=target, usd=usd)(perform)


async def _end(handle: Handle[str]) -> tuple[bool, str, float]:
    """Whether a call failed, what it gave, and when."""
    try:
        failed, text = False, await handle
    except ToolFailed as error:
        failed, text = True, str(error)
    return failed, text, asyncio.get_running_loop().time()


def _asked(calls: Sequence[Call], began: float, ends: Sequence[float]) -> list[float]:
    """When each call of a reply could begin: reads wait for writes before them, writes for all."""
    asked = []
    written = done = began
    for call, end in zip(calls, ends, strict=True):
        asked.append(done if call.changes else began if call.kind == "pure" else written)
        if call.changes:
            written = max(written, end)
        if call.kind != "pure":
            done = max(done, end)
    return asked


def kinds_of(sessions: Iterable[Session]) -> dict[str, str]:
    """The kind of every tool that is called, by name."""
    return {call.tool: call.kind for session in sessions for call in session.calls}
