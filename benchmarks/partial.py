"""What it saves to begin calls while a model still writes their arguments.

    python benchmarks/partial.py [--quick] [--json] [--rounds N] [--llama URL [--model NAME]]

The model is a script, in a process of its own: 5 ms a token. Tools sleep: half as long as their
arguments take to write, as long, and twice as long; one, which the table calls real, is a Python
process whose statements sleep. Everything else is real: HTTP over sockets, reading, checking,
calling, the next turn. Runs with partial execution and without take turns.

With ``--llama`` some of it is repeated with the model of a real server, such as llama.cpp's.
"""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import argument_cpu
import harness
import partial_llama
from harness import Goal
from partial_bound import Pair, spared
from partial_runs import Found, measure

CONVEYOR = 38.8  # %, the most that was saved there
OF_BOUND, NEVER_BELOW, SPARED = 90.0, 80.0, 95.0  # %
LIGHT = 1.0  # ms


def figures(pairs: Sequence[Pair]) -> dict[str, float]:
    """Medians of one workload, and the worst; seconds and percent."""
    median, worst = statistics.median, max
    return {
        "decoding_s": median(pair.on.decoded for pair in pairs),
        "tool_s": median(pair.on.work for pair in pairs),
        "off_s": median(pair.off.latency for pair in pairs),
        "off_worst_s": worst(pair.off.latency for pair in pairs),
        "on_s": median(pair.on.latency for pair in pairs),
        "on_worst_s": worst(pair.on.latency for pair in pairs),
        "saving": 100 * median(pair.saving for pair in pairs),
        "bound": 100 * median(pair.on.bound for pair in pairs),
        "of_bound": 100 * median(pair.share for pair in pairs),
        "of_bound_worst": 100 * min(pair.share for pair in pairs),
        "min_over_sum": 100 * median(pair.on.ceiling for pair in pairs),
    }


def least(pairs: Sequence[Pair]) -> dict[str, float]:
    """Of the two runs that had the least of their bound all that is known, to explain it."""
    pair = min(pairs, key=lambda pair: pair.share)
    return {
        "off_s": pair.off.latency,
        "off_decoding_s": pair.off.decoded,
        "on_s": pair.on.latency,
        "on_decoding_s": pair.on.decoded,
        "bound": 100 * pair.on.bound,
    }


def saved(found: Found) -> str:
    """The table of latencies."""
    rows = [
        [f"{name}, {setting}", *(cell or None for cell in figures(pairs).values())]
        for (name, setting), pairs in found.pairs.items()
    ]
    headings = (
        "workload, E/D", "D, s", "E, s", "off, s", "worst", "on, s", "worst",
        "saving, %", "bound, %", "of bound, %", "worst", "min(D,E)/(D+E), %",
    )  # fmt: skip
    return harness.table(headings, rows)


def stopped(found: Found) -> dict[str, dict[str, float]]:
    """By pace, what became of the tokens after a wrong argument."""
    out = {}
    for pace, its in found.rejections.items():
        replies = [rejection.stopped for rejection in its]
        out[pace] = {
            "replies": len(replies),
            "after": sum(reply.after for reply in replies),
            "decoded": sum(reply.decoded for reply in replies),
            "in_flight": sum(reply.in_flight for reply in replies),
            "most_decoded": max(reply.decoded for reply in replies),
            "spared": 100 * spared(replies),
        }
    return out


def light(found: Found) -> dict[str, dict[str, float]]:
    """By turn, milliseconds that partial execution adds."""
    return {
        name: {
            "median_ms": 1e3 * statistics.median(added),
            "mean_ms": 1e3 * statistics.fmean(added),
            "worst_ms": 1e3 * max(added),
        }
        for name, added in found.light.items()
    }


def goals(found: Found) -> Iterator[Goal]:
    """The limits; of a workload the worst of its ratios counts."""
    every = {key: figures(pairs) for key, pairs in found.pairs.items()}
    for workload in dict.fromkeys(name for name, _ in every):
        lowest = min(its["of_bound"] for (name, _), its in every.items() if name == workload)
        yield Goal(f"{workload}: of the bound (least median)", lowest, OF_BOUND, "%", False)
    worst = min(its["of_bound_worst"] for its in every.values())
    yield Goal("of the bound, worst of all runs", worst, NEVER_BELOW, "%", False)
    most = [its["saving"] for its in every.values() if its["bound"] > CONVEYOR]
    yield Goal("saving where the bound allows it (least)", min(most), CONVEYOR, "%", False)
    for pace, its in stopped(found).items():
        yield Goal(f"tokens spared, {pace}", its["spared"], SPARED, "%", False)
    for name, added in light(found).items():
        yield Goal(f"added to a light turn, {name}", added["median_ms"], LIGHT, "ms")
    yield from argument_cpu.goals(found.readers)


def show(found: Found) -> None:
    """Print the tables."""
    print(harness.environment())
    print(
        "\nlatency of a turn and its tool, from the first token to the next request; tool times "
        "are modelled\nE of a warm-up is its own time and the call's; it is a step that needs no "
        "argument, and the call one that needs all"
    )
    print(saved(found))
    print("\nreplies that were stopped at a wrong argument, uniform over the reply")
    rows = [[pace, *its.values()] for pace, its in stopped(found).items()]
    headings = (
        "pace", "replies", "tokens after it", "decoded", "in flight", "most decoded", "spared, %",
    )  # fmt: skip
    print(harness.table(headings, rows))
    print("\nms that partial execution adds to a turn of light tools")
    added = [[name, *its.values()] for name, its in light(found).items()]
    print(harness.table(("turn", "median", "mean", "worst"), added))
    print("\nprocessor time of a long argument, 16 characters at a time, through the engine")
    print(harness.table(("", "µs a character"), list(found.through.items())))
    print("\n" + argument_cpu.table(found.readers))


def results(found: Found, rounds: int) -> dict[str, Any]:
    """Everything, as it stands in the JSON object."""
    latency: dict[str, dict[str, Mapping[str, Any]]] = {}
    for (name, setting), pairs in found.pairs.items():
        latency.setdefault(name, {})[setting] = {**figures(pairs), "least": least(pairs)}
    return {
        "rounds": rounds,
        "latency": latency,
        "stopped": stopped(found),
        "light": light(found),
        "cpu_us_a_character": found.readers,
        "cpu_us_a_character_through_the_engine": found.through,
    }


def main() -> None:
    """Read the command line, measure, and report."""
    options = harness.parser((__doc__ or "").partition("\n")[0])
    options.add_argument("--rounds", type=int, help="runs of each workload (5; with --quick 1)")
    options.add_argument("--llama", metavar="URL", help="base URL of a real server, too")
    options.add_argument("--model", default="tiny", help="name of its model (tiny)")
    given = options.parse_args()
    rounds = given.rounds or (1 if given.quick else 5)
    found = asyncio.run(measure(rounds, quick=given.quick))
    show(found)
    shown = results(found, rounds)
    if given.llama:
        real = asyncio.run(partial_llama.measure(given.llama, given.model, 4 * rounds))
        print("\n" + partial_llama.table(real))
        shown["real"] = {workload: runs.figures() for workload, runs in real.items()}
    harness.report("partial", shown, list(goals(found)), given.json)


if __name__ == "__main__":
    main()
