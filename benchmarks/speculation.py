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
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import harness
import scoring
from harness import Goal
from replay import Stage, kinds_of
from rivals import Frozen, Markov, Oracle, Random
from scoring import Score, calibration_error
from sessions import Session, folds, read, timed
from tally import Figures, Tally, ceiling

from agentflow import Engine, Speculation
from agentflow.caches.speculation.candidates import CandidateSource
from agentflow.caches.speculation.predictor import Predictor
from agentflow.testing import run_virtual

FOLDS = 5
QUICK = 6
"""Every so many sessions are scored in a quick run."""

NONE, PLAIN, RANDOM, MARKOV, OURS = "no cache", "plain cache", "random", "Markov", "ours"
ORACLE, FAR = "oracle, next reply", "oracle, next write"
DECEIVED = "deceived"

PRICES = (0.001, 0.002, 0.005, 0.02, 0.05)
"""USD that a second of waiting is worth, for the curve; the default is a point of it too."""

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
        tallies: By policy.
        curve: By the price of waiting.
        scores: By source.
    """

    sessions: int = 0
    tallies: dict[str, Tally] = field(default_factory=dict)
    curve: dict[float, Tally] = field(default_factory=dict)
    scores: dict[str, Score] = field(default_factory=dict)

    def add(self, other: Found) -> None:
        """Add what was measured with other sessions of the domain."""
        self.sessions += other.sessions
        for name, tally in other.tallies.items():
            self.tallies.setdefault(name, Tally()).add(tally)
        for price, tally in other.curve.items():
            self.curve.setdefault(price, Tally()).add(tally)
        for name, score in other.scores.items():
            self.scores.setdefault(name, Score()).add(score)

    def figures(self, tally: Tally) -> Figures:
        """A tally beside no cache and the oracle."""
        return Figures(tally, self.tallies[NONE], self.tallies[ORACLE])


def policies(trained: Mapping[str, CandidateSource]) -> dict[str, Policy]:
    """The ways to run the sessions, by name."""

    def known(name: str) -> Callable[[Stage], CandidateSource]:
        return lambda _stage: Frozen(trained[name])

    return {
        NONE: Policy(cache=False),
        PLAIN: Policy(),
        RANDOM: Policy(source=known(RANDOM)),
        MARKOV: Policy(source=known(MARKOV)),
        OURS: Policy(source=known(OURS)),
        ORACLE: Policy(source=lambda stage: Oracle(stage.next_reply, stage.ready)),
        FAR: Policy(source=lambda stage: Oracle(stage.until_the_end, stage.ready)),
        DECEIVED: Policy(source=known(OURS), deceitful=True),
    }


async def replay(policy: Policy, kinds: Mapping[str, str], sessions: Sequence[Session]) -> Tally:
    """Run sessions one after the other on one engine."""
    tally = Tally()
    stage = Stage(kinds, deceitful=policy.deceitful)
    speculation = policy.source is not None and Speculation(
        source=policy.source(stage), wait_price=policy.price
    )
    async with Engine(
        tools=stage.tools.values(),
        cache=policy.cache,
        speculation=speculation,
        subscribers=[tally.hear],
        seed=0,
    ) as engine:
        for session in sessions:
            tally.note(await stage.play(engine, session))
    return tally


def measure(part: Part) -> Found:
    """Train, score and replay."""
    found = Found(len(part.test))
    sources: dict[str, CandidateSource] = {RANDOM: Random(), MARKOV: Markov(), OURS: Predictor()}
    for name, source in sources.items():
        scoring.teach(source, part.train)
        if name != RANDOM:
            found.scores[name] = scoring.score(source, part.test)
    kinds = kinds_of([*part.train, *part.test])
    ways = policies(sources)
    for name, policy in ways.items():
        found.tallies[name] = run_virtual(replay(policy, kinds, part.test))
    for price in PRICES:
        policy = dataclasses.replace(ways[OURS], price=price)
        found.curve[price] = run_virtual(replay(policy, kinds, part.test))
    found.curve[ways[OURS].price] = found.tallies[OURS]
    return found


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


def waiting(found: Found, names: Mapping[str, Tally], first: str) -> str:
    """The table of policies, or of points of the curve."""
    rows = []
    for name, tally in names.items():
        it = found.figures(tally)
        rows.append(
            (name, f"{it.at_once:.1%}", f"{it.removed:.1%}", f"{it.of_oracle:.1%}", it.faster,
             tally.started, it.waste, f"{tally.usd_wasted:.3f}", it.differences)
        )  # fmt: skip
    headings = (
        first, "reads at once", "read wait gone", "of oracle's", "all wait, x less", "started",
        "wasted/useful", "USD wasted", "differences",
    )  # fmt: skip
    return harness.table(headings, rows)


def story(domain: str, found: Found) -> str:
    """What is printed of a domain."""
    base = found.tallies[NONE]
    share = base.reads / max(1, base.calls)
    shown = {name: tally for name, tally in found.tallies.items() if name != DECEIVED}
    deceived = found.figures(found.tallies[DECEIVED])
    summary = (
        f"\n{domain}: {found.sessions} sessions, {base.calls} calls, {share:.0%} of them reads; "
        f"without a cache {base.wait:,.0f} s are waited for calls, {base.read_wait:,.0f} s for "
        f"reads: at most {ceiling(base):.1f}x less (by number of calls {1 / (1 - share):.1f}x)\n"
    )
    control = (
        f"\nif writes do not say what they write, {deceived.differences} committed calls end "
        "differently: there is something to go wrong"
    )
    curve = {str(price): tally for price, tally in sorted(found.curve.items())}
    tables = (
        foretelling(found),
        "",
        waiting(found, shown, "policy"),
        "",
        waiting(found, curve, "a second is worth, USD"),
    )
    return "\n".join((summary, *tables, control))


def goals(domain: str, found: Found) -> list[Goal]:
    """The limits that agentflow sets itself."""
    base, ours = found.tallies[NONE], found.figures(found.tallies[OURS])
    score = found.scores[OURS]
    top3 = score.before_call.as_dict()["top3"]
    kept = [name for name in found.tallies if name != DECEIVED]
    differences = sum(found.figures(found.tallies[name]).differences for name in kept)
    differences += sum(found.figures(tally).differences for tally in found.curve.values())
    out = [
        Goal(f"{domain}: of the oracle's removal", ours.of_oracle, SHARE_OF_ORACLE, "", False),
        Goal(f"{domain}: wasted for each useful call", ours.waste, WASTE, ""),
        Goal(f"{domain}: calibration error", calibration_error(score.scored), ERROR, ""),
        Goal(f"{domain}: differences in committed calls", differences, 0, ""),
    ]
    if domain in TOP3:
        out.insert(0, Goal(f"{domain}: top-3, next read", top3, TOP3[domain], "", False))
    if ceiling(base) >= CEILING:
        out.append(Goal(f"{domain}: all waiting, times less", ours.faster, SPEEDUP, "x", False))
    return out


def results(found: Mapping[str, Found]) -> dict[str, Any]:
    """Everything, as it stands in the JSON object."""
    return {
        domain: {
            "sessions": its.sessions,
            "ceiling": ceiling(its.tallies[NONE]),
            "policies": {name: its.figures(t).as_dict() for name, t in its.tallies.items()},
            "curve": {str(p): its.figures(t).as_dict() for p, t in sorted(its.curve.items())},
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
    deceived = sum(its.figures(its.tallies[DECEIVED]).differences for its in found.values())
    made.append(Goal("control: differences if no epoch rises", deceived, 1, "", at_most=False))
    harness.report("speculation", results(found), made, given.json)


if __name__ == "__main__":
    main()
