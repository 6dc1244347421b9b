"""One run of `agent.py`: many agents at once, one way to drive them, the same servers and tools."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from random import Random
from typing import Any

import agent_world
from agent_bounds import by_hand, critical, distinct, price_of, usd_by_hand
from agent_fleet import FAST, SERVERS, SKILLS, Balance, Fleet, serving, usd
from agent_model import NOT_FOUND, Script
from agent_programs import POLICY, Habits, Program, programs
from agent_recorded import Recorded, recorded
from agent_time import FAILED, PROGRAM, Times
from agent_world import Tool, World

from agentflow import _http
from agentflow.clock import now
from agentflow.testing import Serving, VirtualLoop

Drive = Callable[[Program], Awaitable[str]]
"""Has an agent do its program; gives the answer, or raises."""

Row = Callable[["Scene"], AbstractAsyncContextManager[Drive]]
"""A way to drive agents."""

SPARE_USD, SPARE_SECONDS = (2.0, 6.0), (1.5, 4.0)
"""Least and most of what each may cost and take, as multiples of a loop's on an idle server."""


@dataclass(frozen=True)
class Setting:
    """How many agents there are, and what serves them.

    Attributes:
        agents: How many work at the same time.
        each: Programs of each, one after the other.
        replicas: How many serve them.
        memory: KV of all replicas over the distinct tokens of the conversations at one time.
        window: Seconds within which the agents begin.
        habits: How models of loops make calls.
        servers: Rates of the replicas; a name in `SERVERS`.
        sessions: Recorded sessions that are played instead of programs, or None.
    """

    agents: int = 64
    each: int = 2
    replicas: int = 4
    memory: float = 0.5
    window: float = 20.0
    habits: Habits = field(default_factory=Habits)
    servers: str = FAST
    sessions: Path | None = None


@dataclass(frozen=True)
class Outcome:
    """What came of a program.

    Attributes:
        id: Of the program.
        kind: Of the program.
        seconds: Until the answer, or until it was given up.
        right: Whether the answer is the right one.
        deadline: Seconds that it had.
        usd: What its models and tools cost; guesses are nobody's.
        most: What they might have cost.
        why: What went wrong; empty if nothing did.
        answered: Whether it gave an answer, be it right or not.
        parts: Seconds of each part of its time, as `agent_time` has them.
    """

    id: str
    kind: str
    seconds: float
    right: bool
    deadline: float
    usd: float
    most: float
    why: str = ""
    answered: bool = False
    parts: Mapping[str, float] = field(default_factory=dict)

    @property
    def success(self) -> bool:
        """Whether the right answer came within budget and deadline."""
        return self.right and self.usd <= self.most and self.seconds <= self.deadline

    @property
    def completion(self) -> float:
        """Seconds until the right answer; who has none counts its deadline."""
        return min(self.seconds, self.deadline) if self.right else self.deadline


@dataclass(frozen=True)
class Played:
    """One run.

    Attributes:
        outcomes: Of all programs, in order.
        usd: All that models and tools cost.
        usd_tools: What tools cost of it.
        started: Calls of tools that began.
        wasted: Those that nobody had asked for, or that broke off.
        cached: Share of prompt tokens that replicas had.
        equivalents: Prefill token equivalents of all requests, a program.
        requests: Of models.
        cpu: Processor seconds, servers and all.
        bound: Seconds of the critical path, in the mean.
    """

    outcomes: list[Outcome]
    usd: float
    usd_tools: float
    started: int
    wasted: int
    cached: float
    equivalents: float
    requests: int
    cpu: float
    bound: float

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Played:
        """From JSON."""
        outcomes = [Outcome(**one) for one in data["outcomes"]]
        return cls(**{**data, "outcomes": outcomes})


class Scene:
    """What a way to drive agents finds.

    Attributes:
        programs: What is to be done.
        world: What tools do.
        fleet: All servers.
        http: A client that reaches them.
        times: What was under way when.
        seed: Of the run.
    """

    def __init__(self, setting: Setting, balance: Balance, seed: int) -> None:
        self.setting, self.seed = setting, seed
        count = setting.agents * setting.each
        if setting.sessions is None:
            made = programs(count, seed, setting.habits)
        else:
            made = recorded(setting.sessions, count, seed)
        self.serving = _serving(setting, made)
        self.programs = [_limited(program, self.serving) for program in made]
        self._by_id = {program.id: program for program in self.programs}
        self.times = Times()
        self.world = World(self.times)
        script = Script(self.programs, SKILLS)
        self.fleet = Fleet(self.serving, setting.replicas, script, balance, self.times)
        self.http = _http.client(transport=self.fleet)
        self._tools: Mapping[str, Tool] = agent_world.tools(self.world)

    def tools(self, program: Program) -> Mapping[str, Tool]:
        """The tools of a program as plain functions, without the one that makes estimates."""
        return program.tools(self.world) if isinstance(program, Recorded) else self._tools

    async def play(self, row: Row) -> Played:
        """All agents, driven in one way."""
        gc.collect()
        began = time.process_time()
        async with row(self) as drive:
            lives = [self._life(number, drive) for number in range(self.setting.agents)]
            outcomes = [one for life in await asyncio.gather(*lives) for one in life]
        cpu = time.process_time() - began
        await self.http.aclose()
        await self.fleet.close()
        return self._played(outcomes, cpu)

    def _played(self, outcomes: list[Outcome], cpu: float) -> Played:
        bills, count = self.fleet.bills, len(self.programs)
        return Played(
            [self._billed(outcome) for outcome in outcomes],
            float(usd(bills) + self.world.usd),
            float(self.world.usd),
            self.world.started,
            self.world.wasted(self.programs),
            self.fleet.cached,
            sum(bill.equivalents for bill in bills) / count,
            len(bills),
            cpu,
            sum(critical(program, self.serving) for program in self.programs) / count,
        )

    def _billed(self, outcome: Outcome) -> Outcome:
        mine = [bill for bill in self.fleet.bills if bill.owner == outcome.id]
        its = self._by_id[outcome.id]
        tools = sum(float(price_of(its, number)) for number in range(len(its.steps)))
        return replace(outcome, usd=float(usd(mine)) + tools)

    async def _life(self, agent: int, drive: Drive) -> list[Outcome]:
        await asyncio.sleep(Random(f"{self.seed} {agent}").uniform(0.0, self.setting.window))
        mine = self.programs[agent :: self.setting.agents]
        return [await self._outcome(program, drive) for program in mine]

    async def _outcome(self, program: Program, drive: Drive) -> Outcome:
        PROGRAM.set(program.id)
        began = now()
        its = await _outcome(program, drive)
        parts = self.times.shares(program.id, began, now())
        return replace(its, parts={**parts, FAILED: its.completion - its.seconds})


async def _outcome(program: Program, drive: Drive) -> Outcome:
    loop = asyncio.get_running_loop()
    began, answer, why = loop.time(), "", ""
    try:
        async with asyncio.timeout(program.deadline + program.waits):
            answer = await drive(program)
    except Exception as error:  # noqa: BLE001  # that it failed is what is measured
        why = f"{type(error).__name__}: {error}"
    took = loop.time() - began - program.waits
    took = max(took, 0.0)
    right = answer.strip() == program.answer.strip()
    answered = bool(answer.strip()) and answer.strip() != NOT_FOUND
    if not right and not why:
        why = f"said {answer[:80]!r}"
    return Outcome(
        program.id, program.kind, took, right, program.deadline, 0.0, program.usd, why, answered
    )


def _serving(setting: Setting, made: Sequence[Program]) -> Serving:
    sizes = [distinct(program) for program in made]
    at_once = setting.agents * sum(sizes) // len(sizes)
    its = SERVERS[setting.servers]
    return serving(its, setting.memory, at_once + POLICY, setting.replicas, POLICY + max(sizes))


def _limited(program: Program, its: Serving) -> Program:
    """The program with what it may cost and take."""
    random = Random(f"limits {program.id}")
    money = usd_by_hand(program) * random.uniform(*SPARE_USD)
    return replace(
        program,
        usd=round(money, 6),
        deadline=round(by_hand(program, its) * random.uniform(*SPARE_SECONDS), 3),
    )


def play(row: Row, setting: Setting, balance: Balance, seed: int) -> Played:
    """One run on virtual time."""

    async def run() -> Played:
        return await Scene(setting, balance, seed).play(row)

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(run())
