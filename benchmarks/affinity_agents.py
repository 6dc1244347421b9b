"""Agents in a closed loop: each asks, runs a tool, and asks again with all that was said before."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from random import Random

from affinity_simulator import Ask, Maker, Served, Simulation

from agentflow.caches.affinity.jobs import Pause
from agentflow.caches.affinity.prompts import Prompt
from agentflow.testing.serving import Serving

TOOLS = {
    "code": Pause(0.180, 2.400),
    "file": Pause(0.045, 0.320),
    "web": Pause(0.850, 4.500),
    "database": Pause(0.120, 0.890),
}
"""How long tools take: the quantiles published with SAGA (Guo et al., 2026)."""

_Z95 = 1.6448536269514722
_SHARED = 1_000_000  # keys of a session's blocks begin at a multiple of this


@dataclass(frozen=True)
class Setting:
    """A fleet and the agents that use it.

    The defaults are the configuration whose figures are compared with published ones. Sizes are
    those of coding agents: SWE-agent begins with instructions, tools and an example of some 3,000
    tokens that all sessions share, goes on for 12 to 30 turns, shows at most a page of a file or
    the end of a test's output, and writes a thought and a call. Rates are those of a real llama.cpp
    server, as `affinity_llama.py --calibrate` measures them; each replica is home to 16 agents.

    Attributes:
        agents: How many there are.
        replicas: How many serve them.
        memory: KV of all replicas over the distinct tokens of all sessions.
        window: Seconds within which the agents start.
        shared: Tokens that all prompts begin with.
        task: Least and most tokens of what a session is to do.
        turns: Least and most replies of a session.
        observation: Least and most tokens of what a tool returns.
        output: Least and most tokens of a reply.
        tools: How often each tool is called.
        slower: By what all tools' times are multiplied.
        tenants: Of so many agents in turn, how many are whose.
        prefill: Prompt tokens a second.
        step: Seconds of a decode step.
        per_sequence: Seconds more for each further sequence.
        per_context: Seconds more for each token of context.
        chunk: Tokens of a prompt that are computed in one step.
        block: Tokens of a block.
    """

    agents: int = 128
    replicas: int = 8
    memory: float = 0.5
    window: float = 60.0
    shared: int = 3000
    task: tuple[int, int] = (300, 2000)
    turns: tuple[int, int] = (12, 30)
    observation: tuple[int, int] = (300, 1500)
    output: tuple[int, int] = (80, 400)
    tools: tuple[tuple[str, float], ...] = (
        ("code", 5.0), ("file", 4.0), ("web", 0.5), ("database", 0.5),
    )  # fmt: skip
    slower: float = 1.0
    tenants: tuple[int, ...] = (1,)
    prefill: float = 2000.0
    step: float = 0.0022
    per_sequence: float = 0.001
    per_context: float = 0.65e-6
    chunk: int = 128
    block: int = 64


@dataclass(frozen=True)
class Turn:
    """A reply, and the tool that follows it.

    Attributes:
        prompt: Tokens of the prompt.
        output: Tokens of the reply.
        tool: Name of the tool; its result is part of the next prompt.
        pause: Seconds that it takes.
    """

    prompt: int
    output: int
    tool: str
    pause: float


@dataclass(frozen=True)
class Life:
    """What an agent will do, whoever serves it."""

    index: int
    start: float
    tenant: str
    turns: tuple[Turn, ...]
    block: int
    shared: int

    @property
    def tokens(self) -> int:
        """All that its last prompt and reply hold."""
        return self.turns[-1].prompt + self.turns[-1].output

    @cached_property
    def blocks(self) -> tuple[int, ...]:
        """Keys of all its blocks; those of the shared beginning are everybody's."""
        own = (self.index + 1) * _SHARED
        common = self.shared // self.block
        return tuple(i if i < common else own + i for i in range(self.tokens // self.block))

    def ask(self, number: int, name: str) -> Ask:
        """The request of a turn."""
        turn = self.turns[number]
        full = turn.prompt // self.block
        after = (turn.prompt + turn.output) // self.block
        return Ask(
            name, Prompt(self.blocks[:full], turn.prompt), turn.output, self.blocks[full:after],
            self.start, self.tenant, returns=number + 1 < len(self.turns),
        )  # fmt: skip


def lives(setting: Setting, seed: int) -> list[Life]:
    """What all agents will do."""
    return [_life(setting, index, Random(f"{seed} {index}")) for index in range(setting.agents)]


def _life(setting: Setting, index: int, random: Random) -> Life:
    names, weights = zip(*setting.tools, strict=True)
    prompt, turns = setting.shared + _between(setting.task, random), []
    start = random.uniform(0.0, setting.window)
    for _ in range(random.randint(*setting.turns)):
        output = _between(setting.output, random)
        tool = random.choices(names, weights)[0]
        pause = setting.slower * _lasts(TOOLS[tool], random)
        turns.append(Turn(prompt, output, tool, pause))
        prompt += output + _between(setting.observation, random)
    whose = [tenant for tenant, share in enumerate(setting.tenants) for _ in range(share)]
    tenant = f"t{whose[index % len(whose)]}"
    return Life(index, start, tenant, tuple(turns), setting.block, setting.shared)


def _between(limits: tuple[int, int], random: Random) -> int:
    """Most are short, some are long: uniform in the logarithm."""
    low, high = map(math.log, limits)
    return round(math.exp(random.uniform(low, high)))


def _lasts(pause: Pause, random: Random) -> float:
    sigma = math.log(pause.p95 / pause.p50) / _Z95
    return pause.p50 * math.exp(random.gauss(0.0, sigma))


def capacity(setting: Setting, agents: list[Life]) -> int:
    """Tokens of KV of one replica: its part, but room for two of the longest sessions."""
    distinct = setting.shared + sum(life.tokens - setting.shared for life in agents)
    each = setting.memory * distinct / setting.replicas
    return max(round(each), 2 * max(life.tokens for life in agents))


@dataclass
class Played:
    """One run: what the sessions took, and what was served.

    Attributes:
        took: Seconds of each session from its start to its last reply, by index.
        served: All requests.
        busy: Seconds in which replicas had something to do, all together.
        preemptions: Requests that lost their room.
    """

    took: dict[int, float] = field(default_factory=dict)
    served: list[Served] = field(default_factory=list)
    busy: float = 0.0
    makespan: float = 0.0
    preemptions: int = 0


def serving(setting: Setting, agents: list[Life]) -> Serving:
    """What each replica is."""
    return Serving(
        setting.prefill, setting.step, setting.per_sequence, setting.per_context,
        chunk=setting.chunk, capacity=capacity(setting, agents), block=setting.block,
    )  # fmt: skip


def play(setting: Setting, maker: Maker, seed: int) -> Played:
    """All agents of a setting, with one policy."""
    agents, played = lives(setting, seed), Played()
    simulation = Simulation(maker, serving(setting, agents), setting.replicas)
    for life in agents:
        agent = Agent(life, setting, simulation, played)
        simulation.at(life.start, agent.turn)
    simulation.run()
    if len(played.took) != len(agents):
        raise RuntimeError(f"{len(agents) - len(played.took)} sessions have not ended")
    played.served, played.busy, played.makespan = simulation.served, simulation.busy, simulation.now
    played.preemptions = sum(s.model.preemptions for s in simulation.stations.values())
    return played


class Agent:
    """One agent on its way through its life."""

    def __init__(self, life: Life, setting: Setting, simulation: Simulation, to: Played) -> None:
        self.life = life
        self.setting = setting
        self.simulation = simulation
        self.to = to
        self.name = f"s{life.index}"
        self.number = 0

    def turn(self) -> None:
        self.simulation.ask(self.life.ask(self.number, self.name), self.answered)

    def answered(self, served: Served) -> None:
        turn = self.life.turns[self.number]
        self.number += 1
        if self.number == len(self.life.turns):
            self.to.took[self.life.index] = self.simulation.now - self.life.start
            self.simulation.ended(self.name)
            return
        known, slower = TOOLS[turn.tool], self.setting.slower
        self.simulation.away(self.name, Pause(known.p50 * slower, known.p95 * slower))
        self.simulation.at(self.simulation.now + turn.pause, self.turn)
