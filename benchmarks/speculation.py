"""How much waiting for tools it saves to start calls before they are asked for.

    python benchmarks/speculation.py --sessions FILE [--train FILE] [--domain D] [--quick] [--json]

Recorded tool-calling sessions are replayed by the engine on virtual time. Real: the calls, their order and
arguments, what they gave, which were made at once, and the time the model took (where it was not
recorded, it is drawn from the sessions of the domain in which it was). Simulated: the time tools
take (`replay.LATENCY_MS`) and what they cost (`replay.USD`). The calls of a reply are made at once, as the model
gave them. Without ``--train`` every session is scored by sources that were trained on others, of other
groups (`FOLDS` parts); in both cases nothing is learnt from the sessions that are scored.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import harness
import scoring
from harness import Goal
from replay import Stage, kinds_of
from rivals import Asked, Frozen, Markov, Oracle, Random
from scoring import Score, calibration_error
from sessions import Session, folds, read, timed
from tally import Figures, Tally, ceiling

from agentflow import Engine, Speculation
from agentflow.caches.speculation.candidates import Candidate, CandidateSource
from agentflow.caches.speculation.predictor import Predictor
from agentflow.testing import run_virtual

FOLDS = 5
QUICK = 6
"""Every so many sessions are scored in a quick run."""

NONE, PLAIN, RANDOM, MARKOV, OURS = "no cache", "plain cache", "random", "Markov", "ours"
ORACLE, FAR = "oracle, next reply", "oracle, next write"
SHOWN = (NONE, PLAIN, RANDOM, MARKOV, OURS, ORACLE, FAR)
DECEIVED = "ours, deceived"

PRICES = (0.001, 0.003, 0.01, 0.03, 0.1)
"""USD that a second of waiting is worth, for the curve; the default is one of them."""

TOP3 = {"airline": 0.70, "retail": 0.75, "telecom": 0.78}
SHARE_OF_ORACLE, WASTE, ERROR = 0.75, 2.0, 0.05
SPEEDUP, CEILING = 3.2, 4.5


@dataclass(frozen=True)
class Policy:
    """A way to run the sessions.

    Attributes:
        cache: Whether results are kept.
        source: Makes what names the candidates, if anything is started early.
        price: USD that a second of waiting is worth.
        deceitful: Whether writes do not say what they write.
    """

    cache: bool = True
    source: Callable[[Stage], CandidateSource] | None = None
    price: float = Speculation().wait_price
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
        """Ours, by the price of waiting."""
        figures = self.figures
        return {f"{price:g}": figures[at_price(price)] for price in PRICES}


def at_price(price: float) -> str:
    """The name of our policy at a price of waiting."""
    return OURS if price == Policy.price else f"{OURS}, {price:g} USD a second"


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
        ORACLE: Policy(source=lambda stage: Oracle(stage.next_reply, stage.ready)),
        FAR: Policy(source=lambda stage: Oracle(stage.until_the_end, stage.ready)),
        DECEIVED: Policy(source=known(OURS), deceitful=True),
    }
    return made | {at_price(price): dataclasses.replace(ours, price=price) for price in PRICES}


def engine(policy: Policy, stage: Stage, tally: Tally) -> Engine:
    """An engine that works by a policy."""
    speculation = policy.source is not None and Speculation(
        source=policy.source(stage), wait_price=policy.price
    )
    return Engine(
        tools=stage.tools.values(),
        cache=policy.cache,
        speculation=speculation,
        subscribers=[tally.hear],
        seed=0,
    )


async def replay(
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
    tallies = run_virtual(replay(policies(sources), kinds, part.test))
    return Found(len(part.test), tallies, scores)


def parts(
    sessions: Sequence[Session], train: Sequence[Session] | None, quick: bool
) -> Iterator[Part]:
    """What to score, in parts, the longest first."""
    by_domain: dict[str, list[Session]] = {}
    for session in sessions:
        by_domain.setdefault(session.domain, []).append(session)
    for domain, its in sorted(by_domain.items(), key=lambda item: -len(item[1])):
        if train is None:
            pairs = folds(its, FOLDS)
        else:
            groups = {session.group for session in its}
            pairs = [([s for s in train if s.domain == domain and s.group not in groups], its)]
        for known, scored in pairs[:1] if quick else pairs:
            yield Part(domain, *((known[::QUICK], scored[::QUICK]) if quick else (known, scored)))


def measured(found: Iterable[tuple[str, Found]]) -> dict[str, Found]:
    """What was measured, by domain."""
    domains: dict[str, Found] = {}
    for domain, part in found:
        domains.setdefault(domain, Found()).add(part)
    return domains


def foretelling(found: Found) -> str:
    """The table of accuracy and calibration."""
    rows = []
    for name, score in found.scores.items():
        call, reply = score.before_call.as_dict(), score.before_reply.as_dict()
        data = score.as_dict()
        ranks = (call["top1"], call["top3"], reply["top1"], reply["top3"])
        rows.append((name, *ranks, data["ece"], data["ece_best_three"]))
    headings = (
        "next read foretold",
        "call: top-1",
        "top-3",
        "reply: top-1",
        "top-3",
        "ECE",
        "of best 3",
    )
    return harness.table(headings, rows)


def waiting(figures: Mapping[str, Figures], first: str) -> str:
    """The table of policies, or of points of the curve."""
    rows = []
    for name, its in figures.items():
        tally = its.it
        rows.append(
            (name, f"{its.at_once:z.1%}", f"{its.removed:z.1%}", f"{its.of_oracle:z.1%}", its.faster,
             tally.started, its.waste, f"{tally.usd_wasted:.3f}", its.differences)
        )  # fmt: skip
    headings = (
        first, "reads at once", "read wait gone", "of oracle's", "all wait, x less", "started",
        "wasted/useful", "USD wasted", "differences",
    )  # fmt: skip
    return harness.table(headings, rows)


def story(domain: str, found: Found) -> str:
    """What is printed of a domain."""
    base, figures = found.tallies[NONE], found.figures
    share = base.reads / max(1, base.calls)
    summary = (
        f"\n{domain}: {found.sessions} sessions, {base.calls} calls, {share:.0%} of them reads; "
        f"without a cache {base.wait:,.0f} s are waited for calls, {base.read_wait:,.0f} s for "
        f"reads: at most {ceiling(base):.1f}x less (by number of calls {1 / (1 - share):.1f}x)\n"
    )
    control = (
        f"\nif writes do not say what they write, {figures[DECEIVED].differences} committed "
        "calls end differently"
    )
    tables = (
        foretelling(found),
        "",
        waiting({name: figures[name] for name in SHOWN}, "policy"),
        "",
        waiting(found.curve, "a second is worth, USD"),
    )
    return "\n".join((summary, *tables, control))


def goals(domain: str, found: Found) -> list[Goal]:
    """The limits that agentflow sets itself."""
    ours, score = found.figures[OURS], found.scores[OURS]
    kept = [its for name, its in found.figures.items() if name != DECEIVED]
    top3 = score.before_call.as_dict()["top3"]
    out = [
        Goal(f"{domain}: of the oracle's removal", ours.of_oracle, SHARE_OF_ORACLE, "", False),
        Goal(f"{domain}: wasted for each useful call", ours.waste, WASTE, ""),
        Goal(f"{domain}: calibration error", calibration_error(score.scored), ERROR, ""),
        Goal(f"{domain}: differences in committed calls", sum(f.differences for f in kept), 0, ""),
    ]
    if domain in TOP3:
        out.insert(0, Goal(f"{domain}: top-3, next read", top3, TOP3[domain], "", False))
    if ceiling(ours.base) >= CEILING:
        out.append(Goal(f"{domain}: all waiting, times less", ours.faster, SPEEDUP, "x", False))
    return out


def results(found: Mapping[str, Found]) -> dict[str, Any]:
    """Everything, as it stands in the JSON object."""
    return {
        domain: {
            "sessions": its.sessions,
            "ceiling": ceiling(its.tallies[NONE]),
            "policies": {name: figures.as_dict() for name, figures in its.figures.items()},
            "curve": {price: figures.as_dict() for price, figures in its.curve.items()},
            "foretelling": {name: score.as_dict() for name, score in its.scores.items()},
        }
        for domain, its in found.items()
    }


def options() -> argparse.Namespace:
    """The command line."""
    made = harness.parser((__doc__ or "").partition("\n")[0])
    made.add_argument("--sessions", type=Path, required=True, help="recorded sessions to score")
    made.add_argument("--train", type=Path, help="train on these only (default: on other parts)")
    made.add_argument("--domain", action="append", help="score these domains only")
    made.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    return made.parse_args()


def main() -> None:
    """Measure, print the tables and the goals."""
    given = options()
    sessions = timed(read(given.sessions))
    train = timed(read(given.train)) if given.train else None
    chosen = [s for s in sessions if not given.domain or s.domain in given.domain]
    work = list(parts(chosen, train, given.quick))
    with ProcessPoolExecutor(given.jobs) as pool:
        found = measured(zip([part.domain for part in work], pool.map(measure, work), strict=True))
    print(f"starting calls before they are asked for; {harness.environment()}")
    print("tool times and prices are simulated, model times recorded or drawn from recorded ones")
    for domain, its in found.items():
        print(story(domain, its))
    made = [goal for domain, its in found.items() for goal in goals(domain, its)]
    deceived = sum(its.figures[DECEIVED].differences for its in found.values())
    made.append(Goal("control: differences if no epoch rises", deceived, 1, "", at_most=False))
    harness.report("speculation", results(found), made, given.json)


if __name__ == "__main__":
    main()
