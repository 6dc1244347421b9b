"""How much waiting for tools it saves to start calls before they are asked for.

    python benchmarks/speculation.py --sessions FILE [--train FILE] [--domain D] [--quick] [--json]

Recorded tool-calling sessions are replayed by the engine on virtual time. Recorded: the calls,
their order and arguments, what they gave, which were made at once (they are here too), and the
time of the model and the user; where it was not, it is drawn from the sessions of the domain in
which it was. Simulated: the time tools take (`replay.LATENCY_MS`) and cost (`replay.USD`).

Without ``--train`` every session is scored by sources trained on sessions of other groups, in
`FOLDS` parts. Either way nothing is learnt from the sessions that are scored.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import harness
from contest import (
    DECEIVED,
    DEFAULT,
    FAR,
    MARKOV,
    NONE,
    ORACLE,
    OURS,
    PLAIN,
    RANDOM,
    Found,
    Part,
    measure,
)
from harness import Goal
from scoring import calibration_error
from sessions import Session, folds, read, timed
from tally import Figures, ceiling, ceiling_by_calls

FOLDS = 5
QUICK = 6
"""Every so many sessions of one part are used in a quick run."""

SHOWN = (NONE, PLAIN, RANDOM, MARKOV, OURS, ORACLE, FAR)

TOP3 = {"airline": 70.0, "retail": 75.0, "telecom": 78.0}  # %
OF_ORACLE, WASTE, ERROR = 75.0, 2.0, 5.0
SPEEDUP, CEILING = 3.2, 4.5


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


def measured(work: Sequence[Part], jobs: int) -> dict[str, Found]:
    """What was measured, by domain."""
    domains: dict[str, Found] = {}
    with ProcessPoolExecutor(jobs) as pool:
        for part, found in zip(work, pool.map(measure, work), strict=True):
            print(f"{part.domain}: {len(part.test)} sessions done", file=sys.stderr, flush=True)
            domains.setdefault(part.domain, Found()).add(found)
    return domains


def foretelling(found: Found) -> str:
    """The table of accuracy and calibration."""
    rows = []
    for name, score in found.scores.items():
        call, reply = score.before_call.as_dict(), score.before_reply.as_dict()
        data = score.as_dict()
        ranks = (call["top1"], call["top3"], reply["top1"], reply["top3"])
        rows.append((name, *ranks, f"{data['ece']:.4f}", f"{data['ece_best_three']:.4f}"))
    headings = (
        "next read foretold", "call: top-1", "top-3", "reply: top-1", "top-3", "ECE", "of best 3",
    )  # fmt: skip
    return harness.table(headings, rows)


def waiting(figures: Mapping[str, Figures], first: str) -> str:
    """The table of policies, or of points of the curve."""
    rows = []
    for name, its in figures.items():
        shares = (f"{share:z.1%}" for share in (its.at_once, its.removed, its.of_oracle))
        usd = f"{its.it.usd_wasted:.3f}"
        rows.append((name, *shares, its.faster, its.it.started, its.waste, usd, its.differences))
    headings = (
        first, "reads at once", "read wait gone", "of oracle's", "all wait, x less", "started",
        "wasted/useful", "USD wasted", "differences",
    )  # fmt: skip
    return harness.table(headings, rows)


def story(domain: str, found: Found) -> str:
    """What is printed of a domain."""
    base, figures = found.tallies[NONE], found.figures
    by_time, by_calls = ceiling(base), ceiling_by_calls(base)
    summary = (
        f"\n{domain}: {found.sessions} sessions, {base.calls} calls, {base.reads} of them reads; "
        f"without a cache {base.wait:,.0f} s are waited for calls, {base.read_wait:,.0f} s for "
        f"reads: at most {by_time:.1f}x less (by number of calls {by_calls:.1f}x)\n"
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
        best_within(found, WASTE),
    )
    return "\n".join((summary, *tables, control))


def best_within(found: Found, waste: float) -> str:
    """The point of the curve, or ours, that removes most among those that waste no more."""
    points = found.curve | {"by default": found.figures[OURS]}
    kept = [(its.of_oracle, name) for name, its in points.items() if its.waste <= waste]
    if not kept:
        return f"no point wastes {waste:g} calls or less for each useful one"
    share, name = max(kept)
    return (
        f"the best that wastes at most {waste:g}: {share:.1%} of what the oracle removes ({name})"
    )


def goals(domain: str, found: Found) -> list[Goal]:
    """The limits that agentflow sets itself."""
    ours, score = found.figures[OURS], found.scores[OURS]
    kept = [its for name, its in found.figures.items() if name != DECEIVED]
    top3 = score.before_call.as_dict()["top3"]
    out = [
        Goal(f"{domain}: of the oracle's removal", 100 * ours.of_oracle, OF_ORACLE, "%", False),
        Goal(f"{domain}: wasted for each useful call", ours.waste, WASTE, ""),
        Goal(f"{domain}: calibration error", 100 * calibration_error(score.scored), ERROR, "%"),
        Goal(f"{domain}: differences in committed calls", sum(f.differences for f in kept), 0, ""),
    ]
    if domain in TOP3:
        out.insert(0, Goal(f"{domain}: top-3, next read", 100 * top3, TOP3[domain], "%", False))
    if max(ceiling(ours.base), ceiling_by_calls(ours.base)) >= CEILING:
        out.append(Goal(f"{domain}: all waiting, times less", ours.faster, SPEEDUP, "x", False))
    return out


def results(found: Mapping[str, Found]) -> dict[str, Any]:
    """Everything, as it stands in the JSON object."""
    return {
        domain: {
            "sessions": its.sessions,
            "ceiling": ceiling(its.tallies[NONE]),
            "ceiling_by_calls": ceiling_by_calls(its.tallies[NONE]),
            "policies": {name: figures.as_dict() for name, figures in its.figures.items()},
            "curve": {price: figures.as_dict() for price, figures in its.curve.items()},
            "foretelling": {name: score.as_dict() for name, score in its.scores.items()},
        }
        for domain, its in found.items()
    }


def options() -> argparse.Namespace:
    """The command line."""
    made = harness.parser((__doc__ or "").partition("\n")[0])
    made.add_argument(
        "--sessions", type=harness.existing, required=True, help="recorded sessions to score"
    )
    made.add_argument(
        "--train", type=harness.existing, help="train on these only (default: on other parts)"
    )
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
    found = measured(work, given.jobs)
    print(f"starting calls before they are asked for; {harness.environment()}")
    print("tool times and prices are simulated, model times recorded or drawn from recorded ones")
    print(
        f"at most {DEFAULT.breadth} guesses under way, {DEFAULT.depth} deep, {DEFAULT.waste:g} in "
        f"vain for each that comes true; a second of waiting is worth {DEFAULT.wait_price:g} USD, "
        f"one of a tool's work {DEFAULT.load_price:g} USD"
    )
    for domain, its in found.items():
        print(story(domain, its))
    made = [goal for domain, its in found.items() for goal in goals(domain, its)]
    deceived = sum(its.figures[DECEIVED].differences for its in found.values())
    made.append(Goal("control: differences if no epoch rises", deceived, 1, "", at_most=False))
    harness.report("speculation", results(found), made, given.json)


if __name__ == "__main__":
    main()
