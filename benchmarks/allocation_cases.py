"""Plans to finish within money and time: their shapes, their models, and what samples bring.

Samples are drawn from pools of records (seconds, USD, passed). In one row every node has pools
of its own, which all policies know. In the other a node is an item of a kind: what is known is
the mean over the items of the kind; an item is hopeless, or easy or hard for all models alike.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean

from allocation_items import HOPELESS, HOPELESS_P, NORMAL, correlation, fitted, given

from agentflow.budgets.allocation.situation import Profile

WIDTHS = (1, 4, 16, 64)
POOL = 96  # records of a node and model
COMMON = 0.3  # of what decides an outcome, the part that samples of one item share
SPREAD = 0.5  # of the logarithm of an answer's length
EASIER = 0.8  # than the known nodes are the items of a kind, so that long plans are not lost
LONGER = 1.3  # answers that fail, beside those that pass
FIRST_TOKEN = 0.4  # seconds

BUDGETS = (0.6, 1.2, 2.4, 4.8)
DEADLINES = (0.5, 1.0, 2.0, 4.0)
Cell = tuple[float, float]
"""Money and time, as multiples of what a case takes by its `scale`."""


@dataclass(frozen=True)
class Record:
    """What a sample would be if it ran to its end."""

    seconds: float
    tokens: int
    usd: float
    passed: bool


@dataclass(frozen=True)
class Speech:
    """A modelled model: what it costs, how fast, how long and how good its answers are.

    Attributes:
        price: USD for a million output tokens.
        speed: Output tokens a second.
        tokens: Median length of an answer.
        skill: The quantile of difficulty, in standard deviations, at which half of its samples pass.
    """

    price: float
    speed: float
    tokens: float
    skill: float


CODERS = {
    "30b-instruct": Speech(0.80, 120, 1300, 0.5),
    "30b-thinking": Speech(2.40, 120, 4200, 1.3),
    "4b-instruct": Speech(0.42, 200, 1100, -0.3),
    "4b-thinking": Speech(1.26, 200, 3800, 0.6),
}
PROVERS = {
    "goedel-32b": Speech(2.80, 50, 2600, 0.7),
    "goedel-8b": Speech(0.70, 110, 2600, 0.2),
    "kimina-7b": Speech(0.50, 120, 1900, -0.4),
}


class Pool:
    """The records of one model at one node, divided by outcome.

    Args:
        records: All of them.
        price: USD for a million output tokens.
    """

    def __init__(self, records: Sequence[Record], price: float) -> None:
        self.price = price
        self.records = tuple(records)
        self.won = tuple(record for record in records if record.passed)
        self.lost = tuple(record for record in records if not record.passed)
        self.probability = len(self.won) / len(self.records)
        self.usd = fmean(record.usd for record in records)
        self.seconds = fmean(record.seconds for record in records)
        self.longest = max(record.tokens for record in records)

    def profile(self, refunds: bool) -> Profile:
        """What an allocator is told of it."""
        return Profile(
            self.probability,
            [(record.seconds, record.usd) for record in self.won],
            [(record.seconds, record.usd) for record in self.lost],
            refunds=refunds,
        )


@dataclass(frozen=True)
class Case:
    """A plan, its models, and the world that decides what samples bring.

    Attributes:
        name: Names it.
        after: By node, the nodes that must be done first.
        pools: By node and model, the records: of the node itself, or of its kind.
        shared: How much the outcomes of samples of one item have in common; 0 if nothing.
        items: By node, what it may be in an episode, each with pools of its own; if that is known.
        agreement: What an allocator is told of it: the shared part of a normal model.
    """

    name: str
    after: tuple[tuple[int, ...], ...]
    pools: tuple[Mapping[str, Pool], ...]
    shared: float = 0.0
    widths: tuple[int, ...] = WIDTHS
    items: tuple[Sequence[Mapping[str, Pool]], ...] = ()
    agreement: float = 0.0

    @cached_property
    def scale(self) -> tuple[float, float]:
        """USD of one pass of every node by its cheapest model, and seconds of the longest way."""
        usd = sum(min(pool.usd / _chance(pool) for pool in node.values()) for node in self.pools)
        ends: list[float] = []
        for before, node in zip(self.after, self.pools, strict=True):
            took = min(pool.seconds / _chance(pool) for pool in node.values())
            ends.append(took + max((ends[other] for other in before), default=0.0))
        return usd, max(ends)

    @cached_property
    def most_tokens(self) -> tuple[int, ...]:
        """By node, the upper bound of an answer: the same for all models, as tools have it."""
        return tuple(max(pool.longest for pool in node.values()) for node in self.pools)

    @property
    def prices(self) -> dict[str, float]:
        """By model, USD for a million output tokens."""
        return {name: pool.price for node in self.pools for name, pool in node.items()}

    def limits(self, cell: Cell) -> tuple[float, float]:
        """USD and seconds of a cell."""
        usd, seconds = self.scale
        return usd * cell[0], seconds * cell[1]

    def draws(self, seed: str) -> Draws:
        """The samples of one episode."""
        return Draws(self, seed)


def _chance(pool: Pool) -> float:
    return max(pool.probability, 0.02)


class Draws:
    """What the i-th sample of a model at a node is in one episode, whoever asks for it, and when."""

    def __init__(self, case: Case, seed: str) -> None:
        self._case = case
        self._seed = seed
        self._made: dict[tuple[int, str], tuple[random.Random, float, list[Record]]] = {}

    def sample(self, node: int, model: str, index: int) -> Record:
        """The record of one sample."""
        key = (node, model)
        if key not in self._made:
            self._made[key] = (self._chance(node, model), self._passes(node, model), [])
        chance, probability, records = self._made[key]
        pool = self._pools(node)[model]
        while len(records) <= index:
            if not self._case.shared:
                records.append(chance.choice(pool.records))
                continue
            passed = chance.random() < probability
            records.append(chance.choice((pool.won if passed else pool.lost) or pool.records))
        return records[index]

    def _chance(self, node: int, model: str = "") -> random.Random:
        return random.Random(f"{self._case.name} {self._seed} {node} {model}")

    def _pools(self, node: int) -> Mapping[str, Pool]:
        """Of the item that the node is in this episode, where that is known, or of its kind."""
        if not self._case.items:
            return self._case.pools[node]
        return self._chance(node).choice(self._case.items[node])

    def _passes(self, node: int, model: str) -> float:
        """The probability of the item that the node is in this episode."""
        if not (shared := self._case.shared):
            return 0.0
        item = self._chance(node)
        hopeless, latent = item.random() < HOPELESS, item.gauss(0.0, 1.0)
        return given(self._case.pools[node][model].probability, shared, hopeless, latent)


After = tuple[tuple[int, ...], ...]


def chain(nodes: int) -> After:
    return tuple((node - 1,) if node else () for node in range(nodes))


def fan(branches: int) -> After:
    """One node, then branches beside each other, then one that joins them."""
    middle = tuple(range(1, branches + 1))
    return ((), *((0,) for _ in middle), middle)


def dag(nodes: int, seed: int) -> After:
    """A random plan: every node waits for up to three of those shortly before it."""
    chance = random.Random(seed)
    after: list[tuple[int, ...]] = []
    for node in range(nodes):
        near = range(max(0, node - 5), node)
        count = min(len(near), chance.choice((0, 1, 1, 2, 3)))
        after.append(tuple(sorted(chance.sample(near, count))))
    return tuple(after)


SHAPES: dict[str, tuple[After, dict[str, Speech]]] = {
    "chain of 2": (chain(2), CODERS),
    "chain of 4": (chain(4), PROVERS),
    "chain of 8": (chain(8), CODERS),
    "diamond": (fan(2), CODERS),
    "fan of 3": (fan(3), PROVERS),
    "fan of 6": (fan(6), CODERS),
    "wide, 8 at once": (((),) * 8, PROVERS),
    "random, 5": (dag(5, 1), PROVERS),
    "random, 8": (dag(8, 2), CODERS),
    "random, 12": (dag(12, 3), PROVERS),
    "random, 16": (dag(16, 4), CODERS),
}


def _pool(speech: Speech, probability: float, chance: random.Random) -> Pool:
    """Records of a modelled model, as many of them passed as the probability says."""
    won = round(probability * POOL)
    records = []
    for number in range(POOL):
        passed = number < won
        length = speech.tokens * chance.lognormvariate(0.0, SPREAD) * (1 if passed else LONGER)
        tokens = max(1, round(length))
        seconds = FIRST_TOKEN + tokens / (speech.speed * chance.uniform(0.9, 1.1))
        records.append(Record(seconds, tokens, tokens * speech.price / 1e6, passed))
    return Pool(records, speech.price)


def _node(models: Mapping[str, Speech], known: bool, chance: random.Random) -> dict[str, Pool]:
    difficulty = chance.gauss(0.0, 0.6)
    pools = {}
    for name, speech in models.items():
        level = speech.skill - difficulty + chance.gauss(0.0, 0.25)
        probability = NORMAL.cdf(level if known else level + EASIER)
        if not known:
            probability = HOPELESS * HOPELESS_P + (1 - HOPELESS) * probability
        pools[name] = _pool(speech, probability, chance)
    return pools


def _agreement(pools: Sequence[Mapping[str, Pool]]) -> float:
    """The agreement of a normal model without hopeless items that fits best."""
    mean = fmean(pool.probability for node in pools for pool in node.values())
    return fitted(mean, correlation(mean, mean, COMMON))


def cases(known: bool = True, seed: int = 0) -> list[Case]:
    """The plans of one row: with nodes that are known, or with two kinds of correlated items."""
    made = []
    for name, (after, models) in SHAPES.items():
        chance = random.Random(f"{seed} {name}")
        if known:
            pools = [_node(models, known, chance) for _ in after]
            made.append(Case(name, after, tuple(pools)))
        else:
            kinds = [_node(models, known, chance) for _ in range(2)]
            pools = [kinds[node % 2] for node in range(len(after))]
            made.append(Case(name, after, tuple(pools), COMMON, agreement=_agreement(pools)))
    return made
