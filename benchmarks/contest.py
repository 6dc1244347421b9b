"""The ways to run recorded sessions that `speculation.py` compares, each on its own engine."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace

import scoring
from replay import Stage, kinds_of
from rivals import Asked, Frozen, Markov, Oracle, Random
from scoring import Score
from sessions import Session
from tally import Figures, Tally

from agentflow import Engine, Speculation
from agentflow.caches.speculation.candidates import Candidate, CandidateSource
from agentflow.caches.speculation.predictor import Predictor
from agentflow.testing import run_virtual

NONE, PLAIN, RANDOM, MARKOV, OURS = "no cache", "plain cache", "random", "Markov", "ours"
ORACLE, FAR = "oracle, next reply", "oracle, next write"
DECEIVED = "Markov, deceived"

DEFAULT = Speculation()
"""The limits and prices that all policies share."""

PRICES = (0.001, 0.003, 0.01, 0.03, 0.1)
"""USD that a second of waiting is worth, for the curve; waste is not limited there."""

UNLIMITED = 1e6
"""Guesses in vain for each one that comes true."""


@dataclass(frozen=True)
class Policy:
    """A way to run the sessions.

    Attributes:
        cache: Whether results are kept.
        source: Makes what names the candidates, if anything is started early.
        limits: The limits and prices it keeps.
        deceitful: Whether writes do not say what they write.
    """

    cache: bool = True
    source: Callable[[Stage], CandidateSource] | None = None
    limits: Speculation = DEFAULT
    deceitful: bool = False


@dataclass(frozen=True)
class Part:
    """Sessions of one domain to score, and those to train on, of other groups."""

    domain: str
    train: Sequence[Session]
    test: Sequence[Session]


@dataclass
class Found:
    """What was measured in one domain.

    Attributes:
        sessions: How many were scored.
        tallies: By policy, the points of the curve among them.
        scores: By source.
    """

    sessions: int = 0
    tallies: dict[str, Tally] = field(default_factory=dict)
    scores: dict[str, Score] = field(default_factory=dict)

    def add(self, other: Found) -> None:
        """Add what was measured with other sessions of the domain."""
        self.sessions += other.sessions
        for name, tally in other.tallies.items():
            self.tallies.setdefault(name, Tally()).add(tally)
        for name, score in other.scores.items():
            self.scores.setdefault(name, Score()).add(score)

    @property
    def figures(self) -> dict[str, Figures]:
        """The policies beside no cache and the oracle."""
        base, oracle = self.tallies[NONE], self.tallies[ORACLE]
        return {name: Figures(tally, base, oracle) for name, tally in self.tallies.items()}

    @property
    def curve(self) -> dict[str, Figures]:
        """Ours without a limit of waste, by the price of waiting."""
        figures = self.figures
        return {f"{price:g}": figures[at_price(price)] for price in PRICES}


def at_price(price: float) -> str:
    """The name of our policy at a price of waiting."""
    return f"{OURS}, {price:g} USD a second"


def policies(trained: Mapping[str, CandidateSource]) -> dict[str, Policy]:
    """The ways to run the sessions, by name."""

    def known(name: str) -> Callable[[Stage], CandidateSource]:
        return lambda _stage: Frozen(trained[name])

    answers: dict[Hashable, Sequence[Candidate]] = {}
    ours = Policy(source=lambda stage: Asked(trained[OURS], answers, stage.moment))
    made = {
        NONE: Policy(cache=False),
        PLAIN: Policy(),
        RANDOM: Policy(source=known(RANDOM)),
        MARKOV: Policy(source=known(MARKOV)),
        OURS: ours,
        ORACLE: Policy(source=lambda stage: Oracle(stage.next_reply, stage.ready)),
        FAR: Policy(source=lambda stage: Oracle(stage.until_the_end, stage.ready)),
        DECEIVED: Policy(source=known(MARKOV), deceitful=True),
    }
    for price in PRICES:
        limits = replace(DEFAULT, waste=UNLIMITED, wait_price=price)
        made[at_price(price)] = replace(ours, limits=limits)
    return made


def engine(policy: Policy, stage: Stage, tally: Tally) -> Engine:
    """An engine that works by a policy."""
    speculation = policy.source is not None and replace(policy.limits, source=policy.source(stage))
    return Engine(
        tools=stage.tools.values(),
        cache=policy.cache,
        speculation=speculation,
        subscribers=[tally.hear],
        seed=0,
    )


async def play(
    ways: Mapping[str, Policy], kinds: Mapping[str, str], sessions: Sequence[Session]
) -> dict[str, Tally]:
    """Run sessions one after the other, each by every policy; each policy has its own engine."""
    tallies = {name: Tally() for name in ways}
    stages = {name: Stage(kinds, deceitful=policy.deceitful) for name, policy in ways.items()}
    async with AsyncExitStack() as stack:
        engines = {
            name: await stack.enter_async_context(engine(policy, stages[name], tallies[name]))
            for name, policy in ways.items()
        }
        for session in sessions:
            for name, tally in tallies.items():
                tally.note(await stages[name].play(engines[name], session))
    return tallies


def measure(part: Part) -> Found:
    """Train, score and replay."""
    sources: dict[str, CandidateSource] = {
        RANDOM: Random(),
        MARKOV: Markov(),
        OURS: Predictor(),
    }
    for source in sources.values():
        scoring.teach(source, part.train)
    scores = {name: scoring.score(sources[name], part.test) for name in (MARKOV, OURS)}
    kinds = kinds_of([*part.train, *part.test])
    tallies = run_virtual(play(policies(sources), kinds, part.test))
    return Found(len(part.test), tallies, scores)
