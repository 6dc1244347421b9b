"""What a run was given, what it spent of that on which samples, and what came of it."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

from agentflow.budgets.ledger import Ledger
from agentflow.cli.account.samples import DEFAULT, OUTCOMES, Samples
from agentflow.cli.account.tally import Tally
from agentflow.cli.output import LEAST_USD, chance, counted, duration, listed
from agentflow.cli.progress import costs, price
from agentflow.executor.run import Run


def tried(tally: Tally) -> Iterator[str]:
    """How many samples ended how, and which model gave how many answers."""
    samples, outcomes = tally.samples, tally.samples.outcomes()
    if not outcomes:
        return
    told = [f"{outcomes[how]:,} {how}{_because(how, samples)}" for how in OUTCOMES if outcomes[how]]
    calls = counted(len(samples.calls), "call")
    yield f"{counted(outcomes.total(), 'sample')} of {calls}: {listed(told)}"
    models = [
        f"{name or DEFAULT} passed {record.outcomes['passed']:,} of "
        f"{record.outcomes.total():,}{costs(record.usd)}"
        for name, record in samples.models.items()
    ]
    paid = sum((record.usd for record in samples.models.values()), Decimal(0))
    others = Decimal(tally.usage()["usd"]) - paid
    if others >= LEAST_USD:
        models.append(f"judges and other model calls {price(others)}")
    if len(models) > 1:
        yield "; ".join(models)


def _because(outcome: str, samples: Samples) -> str:
    if outcome != "cancelled" or not samples.why:
        return ""
    reasons = [f"{count:,} because {why}" for why, count in samples.why.most_common()]
    return f" ({listed(reasons)})"


def within(tally: Tally, ledger: Ledger) -> Iterator[str]:
    """What was used of each limit."""
    limits, spent = ledger.budget, ledger.spent
    used = []
    if limits.usd is not None:
        used.append(f"{price(spent.usd)} of {price(limits.usd)} spent")
    if limits.tokens is not None:
        used.append(f"{spent.tokens:,} of {limits.tokens:,} tokens used")
    if limits.deadline is not None:
        used.append(f"{duration(ledger.elapsed)} of {duration(limits.deadline)} taken")
    saved = tally.samples.saved
    if saved >= LEAST_USD:
        used.append(f"{price(saved)} saved by cancelling samples")
    if used:
        yield "; ".join(used)


def likely(samples: Samples) -> Iterator[str]:
    """How likely success was thought to be."""
    if samples.at_start is None or samples.at_end is None:
        return
    yield (
        f"success within the limits was {chance(samples.at_start)} likely at the start, "
        f"{chance(samples.at_end)} when it was last decided what to begin "
        f"({counted(samples.decisions, 'decision')} in {duration(samples.deciding)})"
    )


def repeated(run: Run[Any]) -> Iterator[str]:
    """What a run that passes costs, going by the last runs of the same name."""
    known = run.host.services.estimates.passes(run.name)
    if known.runs > 1 and known.cost_of_pass is not None:
        yield (
            f"{known.passed:,} of the last {known.runs:,} runs of {run.name} passed, "
            f"at {price(known.cost_of_pass)} each"
        )


def used(ledger: Ledger) -> dict[str, Any]:
    """What was used of each limit, as plain data; None is without limit."""
    limits, spent = ledger.budget, ledger.spent
    return {
        "usd": None if limits.usd is None else f"{limits.usd:f}",
        "usd_spent": f"{spent.usd:f}",
        "tokens": limits.tokens,
        "tokens_spent": spent.tokens,
        "deadline": limits.deadline,
        "seconds": round(ledger.elapsed, 6),
    }


def passes(run: Run[Any]) -> dict[str, Any]:
    """What came of the last runs of the same name, as plain data."""
    return run.host.services.estimates.passes(run.name).as_dict()
