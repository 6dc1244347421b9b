"""What is compared: the settings of the closed loop, and what one run of each is kept as."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

from affinity_agents import Life, Played, Setting, lives, play, serving
from affinity_bounds import Access, belady
from affinity_rivals import POLICIES, TABLE
from affinity_scoring import Figures, figures

FROZEN = "frozen"
ONE = "1 replica"
AMPLE = "KV 150 %"
ACCELERATORS = "70B on four accelerators"

SETTINGS = {
    FROZEN: Setting(),
    "KV 25 %": Setting(memory=0.25),
    "KV 75 %": Setting(memory=0.75),
    "KV 100 %": Setting(memory=1.0),
    AMPLE: Setting(memory=1.5),
    ONE: Setting(replicas=1, agents=16),
    "2 replicas": Setting(replicas=2, agents=32),
    "4 replicas": Setting(replicas=4, agents=64),
    "short contexts": Setting(shared=1000, task=(100, 500), turns=(4, 10), observation=(50, 300)),
    "long contexts": Setting(turns=(30, 60), observation=(500, 3000)),
    "quick tools": Setting(tools=(("file", 1.0),)),
    "slow tools": Setting(slower=30.0),
    "few agents": Setting(agents=32),
    "many agents": Setting(agents=384),
    "spread arrivals": Setting(window=900.0),
    "fast prefill": Setting(prefill=8000.0),
    ACCELERATORS: Setting(step=0.020, per_sequence=0.0005, per_context=0.0, chunk=512),
    "3 tenants": Setting(tenants=(1, 3, 8)),
}
"""The frozen configuration, and others that differ from it in one thing each."""

QUICK = (FROZEN, AMPLE, ONE)


@dataclass(frozen=True)
class Run:
    """A policy in a setting.

    Attributes:
        future: Share of prompt tokens that a cache of the size of all replicas together would
            find if it knew the future, with the requests in the order of this run; computed for
            the table only.
    """

    figures: Figures
    future: float | None = None


Runs = dict[str, list[Run]]
"""By policy, one run for each seed."""


def run(setting: Setting, name: str, seed: int) -> Run:
    """One run of one policy."""
    agents = lives(setting, seed)
    played = play(setting, POLICIES[name], seed)
    future = foreseen(setting, agents, played) if name == TABLE else None
    return Run(figures(setting, agents, played), future)


def foreseen(setting: Setting, agents: list[Life], played: Played) -> float:
    """The share of prompt tokens that a cache finds which knows what will be asked."""
    asked = [its.ask for its in sorted(played.served, key=lambda its: its.arrived)]
    block = setting.block
    accesses = [
        Access(ask.prompt.blocks[: (ask.prompt.tokens - 1) // block], ask.written) for ask in asked
    ]
    blocks = serving(setting, agents).capacity // block * setting.replicas
    return belady(accesses, blocks) * block / sum(ask.prompt.tokens for ask in asked)


def contest(
    pool: Executor, chosen: Mapping[str, tuple[Sequence[str], int]]
) -> Iterator[tuple[str, Runs]]:
    """Settings, one after another, each with its policies and so many seeds."""
    waiting = {
        name: {
            policy: [pool.submit(run, SETTINGS[name], policy, seed) for seed in range(seeds)]
            for policy in policies
        }
        for name, (policies, seeds) in chosen.items()
    }
    for name, rows in waiting.items():
        yield name, {policy: [one.result() for one in runs] for policy, runs in rows.items()}
