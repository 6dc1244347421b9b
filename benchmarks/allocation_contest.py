"""Who takes part in `allocation.py`, in which world, and the episodes of all of them."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cache, cached_property, lru_cache

import allocation_cases
import allocation_pools
from allocation_cases import BUDGETS, DEADLINES, Case, Cell
from allocation_mcpp import Portfolio
from allocation_rivals import retries, uniforms
from allocation_simulator import Beliefs, Episode, Result, Rules, told

from agentflow.budgets.allocation.cascade import CheapestFirst
from agentflow.budgets.allocation.montecarlo import MonteCarlo
from agentflow.budgets.allocation.situation import Allocator, Profile

OURS, CHEAPEST = "ours", "cheapest first"
MCPP, CANCEL, PLANS = "MCPP", "MCPP, cancels", "MCPP, cancels and plans for it"
SMALL = 5  # nodes
CELLS: tuple[Cell, ...] = tuple((usd, seconds) for usd in BUDGETS for seconds in DEADLINES)


@dataclass(frozen=True)
class Error:
    """By how much the estimates are wrong.

    Attributes:
        passes: Of the share of samples that pass: 0.1 is 10 % too high, -0.1 too low.
        size: The same of seconds and USD.
        each: Whether every model at every node has a direction of its own.
    """

    passes: float = 0.0
    size: float = 0.0
    each: bool = False

    def applied(self, beliefs: Beliefs) -> Beliefs:
        """What is believed, where the beliefs are right."""
        return tuple(
            {name: self._wrong(profile, f"{node} {name}") for name, profile in its.items()}
            for node, its in enumerate(beliefs)
        )

    def _wrong(self, profile: Profile, name: str) -> Profile:
        chance = random.Random(name)
        signs = [chance.choice((-1, 1)), chance.choice((-1, 1))] if self.each else [1, 1]
        passes, size = 1 + signs[0] * self.passes, 1 + signs[1] * self.size
        return replace(
            profile,
            probability=min(profile.probability * passes, max(profile.probability, 0.99)),
            won=[(seconds * size, usd * size) for seconds, usd in profile.won],
            lost=[(seconds * size, usd * size) for seconds, usd in profile.lost],
        )


RIGHT = Error()


@dataclass(frozen=True)
class Row:
    """One world.

    Attributes:
        known: Whether every node is known by itself, and its samples are independent.
        refunds: Whether what is cancelled costs only what it had made.
        launch: Whether samples are paid when they begin, as in the published simulator.
        error: By how much the estimates are wrong.
        pools: A file with records of samples, in place of the modelled plans.
        small: Whether only plans of up to 5 nodes are run.
    """

    known: bool = True
    refunds: bool = True
    launch: bool = False
    error: Error = RIGHT
    small: bool = False
    pools: str = ""


@dataclass
class Outcome:
    """An episode, as it is kept: what a `Result` says, and where it was."""

    case: str
    cell: Cell
    seed: int
    passed: bool
    usd: float
    seconds: float
    samples: int
    overdrawn: float
    decisions: list[tuple[int, float]] = field(default_factory=list)


@dataclass(frozen=True)
class Part:
    """Episodes of one case in one cell, for all policies, so that they have the same samples."""

    row: Row
    case: int
    cell: Cell
    seeds: tuple[int, ...]
    policies: tuple[str, ...]


@cache
def cases(known: bool, small: bool = False, pools: str = "") -> Sequence[Case]:
    """The plans of a world."""
    made = allocation_pools.load(pools) if pools else allocation_cases.cases(known)
    return [case for case in made if len(case.after) <= SMALL] if small else made


def cases_of(row: Row) -> Sequence[Case]:
    """The plans of a row."""
    return cases(row.known, row.small, row.pools)


class Stage:
    """A case in a world, with all that its policies need."""

    def __init__(self, row: Row, case: Case) -> None:
        self.row, self.case = row, case
        self._portfolios: dict[bool, Portfolio] = {}

    def rules(self, policy: str) -> Rules:
        """How a policy's work is done and paid."""
        waits = policy == MCPP or policy.endswith(", waits")
        return Rules(cancel=not waits, refunds=self.row.refunds, launch=self.row.launch)

    @cached_property
    def beliefs(self) -> Beliefs:
        """What the policies are told, right or wrong."""
        return self.row.error.applied(told(self.case, self.row.refunds))

    def allocator(self, policy: str, usd: float) -> Allocator:
        """A policy for one episode; the batches that MCPP draws from are kept."""
        if policy == OURS:
            return MonteCarlo()
        if policy == CHEAPEST:
            return CheapestFirst()
        if policy in (MCPP, CANCEL, PLANS):
            return self._portfolios.setdefault(policy == PLANS, Portfolio(cancel=policy == PLANS))
        name = policy.removesuffix(", waits")
        if name.startswith("uniform "):
            return uniforms(self.case, usd)[name.removeprefix("uniform ")]
        return retries(self.case)[name.removeprefix("retry ")]


@lru_cache(maxsize=2)  # the batches of a stage are large, and parts come case by case
def stage(row: Row, case: int) -> Stage:
    """A stage of this process."""
    return Stage(row, cases_of(row)[case])


Runner = Callable[[Stage, str, tuple[float, float], str, float], Result]
"""Plays one episode of a policy: its stage, its name, the limits, the seed, seconds of a step."""


def simulated(
    its: Stage, policy: str, limits: tuple[float, float], seed: str, step: float = 0.0
) -> Result:
    """An episode without an engine."""
    rules = replace(its.rules(policy), step=step)
    allocator = its.allocator(policy, limits[0])
    return Episode(its.case, limits, allocator, rules, seed, its.beliefs).run()


def played(part: Part, runner: Runner = simulated, step: float = 0.0) -> dict[str, list[Outcome]]:
    """The episodes of a part, by policy; only our steps take time."""
    its = stage(part.row, part.case)
    limits = its.case.limits(part.cell)
    found: dict[str, list[Outcome]] = {policy: [] for policy in part.policies}
    for seed in part.seeds:
        for policy in part.policies:
            took = step if policy == OURS else 0.0
            result = runner(its, policy, limits, f"{part.cell} {seed}", took)
            found[policy].append(
                Outcome(
                    its.case.name, part.cell, seed, result.passed, result.usd, result.seconds,
                    result.samples, result.overdrawn, result.decisions,
                )
            )  # fmt: skip
    return found


def parts(row: Row, policies: Iterable[str], episodes: int) -> Iterator[Part]:
    """All parts of a row; every case and cell has so many episodes."""
    for case in range(len(cases_of(row))):
        for cell in CELLS:
            yield Part(row, case, cell, tuple(range(episodes)), tuple(policies))


def fixed(row: Row, episodes: int) -> Iterator[Part]:
    """The same for every policy that keeps to one model, and to one width or its share."""
    for part in parts(row, (), episodes):
        case = cases_of(row)[part.case]
        names = [f"retry {name}" for name in retries(case)]
        names += [f"uniform {name}" for name in uniforms(case, 1.0)]
        yield replace(part, policies=tuple(names))


def together(
    work: Sequence[Part], jobs: int, play: Callable[[Part], Mapping[str, list[Outcome]]] = played
) -> dict[str, list[Outcome]]:
    """Play all parts, in so many processes, and collect the episodes by policy."""
    found: dict[str, list[Outcome]] = {}
    if jobs == 1:
        answers = list(map(play, work))
    else:
        with ProcessPoolExecutor(jobs) as pool:
            answers = list(pool.map(play, work))
    for answer in answers:
        for policy, outcomes in answer.items():
            found.setdefault(policy, []).extend(outcomes)
    return found


def step_seconds() -> float:
    """Processor seconds of one step of our decisions, on average over some episodes."""
    its = stage(Row(small=True), 0), stage(Row(small=True), 2)
    results = [
        simulated(place, OURS, place.case.limits(cell), f"{cell} calibration")
        for place in its
        for cell in CELLS
    ]
    spent = sum(seconds for result in results for _, seconds in result.decisions)
    return spent / max(sum(result.steps for result in results), 1)
