"""The account of a run that has ended: what it saved, wasted and waited for, each figure once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from agentflow.cli.account.gains import Gains, gains
from agentflow.cli.account.losses import Link, Loss, links, losses, shares
from agentflow.cli.account.path import Stretch, critical_path
from agentflow.cli.account.spans import Speech
from agentflow.cli.account.tally import Tally
from agentflow.errors import BudgetExceeded, DeadlineExceeded, RunError
from agentflow.executor.run import Run
from agentflow.wording import root_cause


@dataclass(frozen=True, slots=True)
class Account:
    """What a run came to.

    Attributes:
        usd: It spent, earlier executions of it included.
        gains: What it saved in seconds.
        usd_saved: In USD, by what saved it.
        losses: What was in vain.
        path: The critical path.
        reached: The limit that ended it, or empty.
    """

    usd: Decimal
    gains: Gains
    usd_saved: dict[str, Decimal]
    losses: Sequence[Loss]
    path: Sequence[Stretch]
    reached: str

    @property
    def shares(self) -> Counter[str]:
        """Seconds of the critical path by kind."""
        return shares(self.path)

    @property
    def links(self) -> list[Link]:
        """The chain that took the time."""
        return links(self.path)

    def as_dict(self) -> dict[str, Any]:
        """What was saved, wasted and waited for, as plain data."""
        mechanisms = {**dict.fromkeys(self.usd_saved), **dict.fromkeys(self.gains.by)}
        return {
            "saved": {
                "seconds": round(self.gains.sequential - self.gains.taken, 6),
                "seconds_sequential": round(self.gains.sequential, 6),
                "at_once": self.gains.at_once,
                "by": {name: self._saved(name) for name in sorted(mechanisms)},
            },
            "wasted": {
                loss.kind: {
                    "number": loss.number,
                    "seconds": round(loss.seconds, 6),
                    "usd": f"{loss.usd:f}",
                }
                for loss in self.losses
            },
            "limited": {
                "by": {kind: round(spent, 6) for kind, spent in self.shares.most_common()},
                "path": [stretch_dict(stretch) for stretch in self.path],
                "reached": self.reached or None,
            },
        }

    def _saved(self, mechanism: str) -> dict[str, Any]:
        seconds, usd = self.gains.by.get(mechanism, 0.0), self.usd_saved.get(mechanism, Decimal(0))
        return {"seconds": round(seconds, 6), "usd": f"{usd:f}"}


def account_of(tally: Tally, run: Run[Any], error: RunError | None = None) -> Account:
    """The account of a run.

    Args:
        tally: Has counted its events.
        run: The run, which has ended.
        error: What it ended with, or None.
    """
    found = gains(tally.timeline)
    path = critical_path(tally.timeline)
    usd = _usd_saved(tally, run)
    return Account(run.ledger.spent.usd, found, usd, list(losses(tally)), path, _reached(error))


def stretch_dict(stretch: Stretch) -> dict[str, Any]:
    """A part of the critical path as plain data."""
    what = stretch.what
    known: dict[str, Any] = {"kind": stretch.kind}
    if what is not None:
        known |= {"run": what.run, "what": what.label}
        if not isinstance(what, Speech):
            known |= {"id": what.number}
    if stretch.element is not None:
        known["element"] = stretch.element
    return {**known, "began": round(stretch.began, 6), "ended": round(stretch.ended, 6)}


def _usd_saved(tally: Tally, run: Run[Any]) -> dict[str, Decimal]:
    """USD that were not spent, by why: prices of tools, and of prompt tokens, as they are known."""
    cache = resume = Decimal(0)
    for call in tally.calls.values():
        tool = run.tools.get(call.tool)
        for why, number in call.reused.items():
            price = Decimal(0) if tool is None else tool.policy.usd * number
            cache += price if why in ("memory", "disk", "shared") else 0
            resume += price if why == "journal" else 0
    if run.notes is not None and run.notes.recall is not None:
        resume = max(resume, run.notes.recall.history.usd)
    prompts = sum((Decimal(reply.saved) for reply in tally.models), Decimal(0))
    return {"cache": cache, "resume": resume, "prompts": prompts, "samples": tally.samples.saved}


def _reached(error: RunError | None) -> str:
    """The limit that ended a run, in words; empty if none did."""
    cause = None if error is None else root_cause(error)
    if isinstance(cause, DeadlineExceeded):
        return "the deadline"
    if isinstance(cause, BudgetExceeded):
        return "the deadline" if cause.unit == "seconds" else "the budget"
    return ""
