"""Small plans, and the highest probability with which anybody could do them within both limits.

Samples of a model all take the same whole number of seconds and the same money, so that an exact
dynamic program over seconds has every state there can be: it may begin any samples of any models
in any second, beside those under way, and knows nothing that an allocator does not know.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations_with_replacement, product

from allocation_cases import After, Case, Pool, Record, chain, fan
from allocation_contest import CANCEL, CHEAPEST, MCPP, OURS, PLANS, Row, Stage, simulated

TOKENS = 1000  # of every sample, so that each reserves what it costs
UNIT = 1e-3  # USD
WIDEST = 4  # samples of one node at once
POLICIES = (OURS, CHEAPEST, MCPP, CANCEL, PLANS)


@dataclass(frozen=True)
class Exact:
    """A model whose samples are all alike, but for whether they pass: seconds, units, a share."""

    seconds: int
    cost: int
    probability: float


@dataclass(frozen=True)
class Small:
    """A plan with exact models and limits."""

    name: str
    after: After
    models: Mapping[str, Exact]
    units: int
    seconds: int

    @property
    def limits(self) -> tuple[float, float]:
        return self.units * UNIT + 1e-9, self.seconds + 1e-6

    @property
    def case(self) -> Case:
        """The plan as the others know it."""
        pools = {name: _pool(model) for name, model in self.models.items()}
        return Case(self.name, self.after, tuple(pools for _ in self.after), widths=(1, 2, 4))


def _pool(model: Exact) -> Pool:
    won = round(20 * model.probability)
    usd = model.cost * UNIT
    records = [Record(float(model.seconds), TOKENS, usd, number < won) for number in range(20)]
    return Pool(records, usd * 1e6 / TOKENS)


WEAK, STRONG = Exact(1, 1, 0.35), Exact(2, 4, 0.75)
QUICK, SLOW = Exact(1, 3, 0.6), Exact(3, 3, 0.8)
TWO = {"weak": WEAK, "strong": STRONG}
THREE = {"weak": WEAK, "quick": QUICK, "slow": SLOW}
SMALL = (
    Small("1 node, tight", chain(1), TWO, 6, 3),
    Small("chain of 2, little money", chain(2), TWO, 9, 7),
    Small("chain of 2, little time", chain(2), TWO, 14, 4),
    Small("chain of 2, three models", chain(2), THREE, 11, 6),
    Small("chain of 3", chain(3), TWO, 14, 8),
    Small("2 beside each other", ((), ()), TWO, 10, 4),
    Small("diamond", fan(2), {"weak": WEAK, "quick": QUICK}, 14, 6),
)

Running = tuple[tuple[str, int], ...]
"""The samples under way of a node: models, and seconds until they end."""
State = tuple[Running | None, ...]
"""By node; None if it is done."""


class Optimum:
    """The best probability of a small plan.

    Args:
        its: The plan.
        widest: Samples of one node that may be under way at once.
    """

    def __init__(self, its: Small, widest: int = WIDEST) -> None:
        self._its, self._widest = its, widest
        self._value = cache(self._best)

    def probability(self) -> float:
        return self._value(self._its.seconds, self._its.units, ((),) * len(self._its.after))

    def _best(self, seconds: int, units: int, state: State) -> float:
        """The value of a moment, before anything is begun in it."""
        if all(node is None for node in state):
            return 1.0
        if seconds == 0:
            return 0.0
        return max(
            self._outcome(seconds, left, begun) for left, begun in self._choices(units, state)
        )

    def _choices(self, units: int, state: State) -> Iterator[tuple[int, State]]:
        """What can be begun: money left, and what is under way then."""
        options = [self._options(node, running, state) for node, running in enumerate(state)]
        for choice in product(*options):
            cost = sum(cost for cost, _ in choice)
            if cost <= units:
                yield units - cost, tuple(running for _, running in choice)

    def _options(
        self, node: int, running: Running | None, state: State
    ) -> list[tuple[int, Running | None]]:
        if running is None or any(state[other] is not None for other in self._its.after[node]):
            return [(0, running)]
        found: list[tuple[int, Running | None]] = []
        for count in range(self._widest - len(running) + 1):
            for names in combinations_with_replacement(sorted(self._its.models), count):
                begun = [(name, self._its.models[name].seconds) for name in names]
                cost = sum(self._its.models[name].cost for name in names)
                found.append((cost, tuple(sorted([*running, *begun]))))
        return found

    def _outcome(self, seconds: int, units: int, state: State) -> float:
        """The value on average after one second."""
        after = [self._after_a_second(running) for running in state]
        total = 0.0
        for outcome in product(*after):
            chance, back, nodes = 1.0, 0, []
            for share, refund, running in outcome:
                chance *= share
                back += refund
                nodes.append(running)
            total += chance * self._value(seconds - 1, units + back, tuple(nodes))
        return total

    def _after_a_second(self, running: Running | None) -> list[tuple[float, int, Running | None]]:
        """Probabilities of what a node can be, and the units that come back."""
        if not running:
            return [(1.0, 0, running)]
        fails = 1.0
        for name, left in running:
            if left == 1:
                fails *= 1 - self._its.models[name].probability
        goes_on = tuple((name, left - 1) for name, left in running if left > 1)
        found: list[tuple[float, int, Running | None]] = [(fails, 0, goes_on)]
        if fails < 1.0:
            found.append((1.0 - fails, self._back(goes_on), None))
        return found

    def _back(self, cancelled: Running) -> int:
        """What is not spent of samples that are cancelled; their seconds divide their cost."""
        models = self._its.models
        return sum(models[name].cost * left // models[name].seconds for name, left in cancelled)


@dataclass(frozen=True)
class Gap:
    """A small plan: the optimum, and what the policies came to."""

    name: str
    optimum: float
    shares: Mapping[str, float]
    episodes: int


def gap(its: Small, episodes: int, policies: Sequence[str] = POLICIES) -> Gap:
    """Play a small plan."""
    stage = Stage(Row(), its.case)
    shares = {}
    for policy in policies:
        results = [simulated(stage, policy, its.limits, f"{seed}") for seed in range(episodes)]
        shares[policy] = sum(result.passed for result in results) / episodes
    return Gap(its.name, Optimum(its).probability(), shares, episodes)
