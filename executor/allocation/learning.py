"""What runs teach the estimates."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from agentflow.budgets.estimate_records import Outcome
from agentflow.clock import now
from agentflow.errors import ModelError, RunCancelled, RunPaused

if TYPE_CHECKING:
    from agentflow.executor.metering import MeteredModel
    from agentflow.executor.run import Run


@contextmanager
def noted(run: Run[Any], tool: str, model: MeteredModel) -> Iterator[None]:
    """Note how a model fares at a tool, unless it was not asked or is cancelled."""
    began = now()
    try:
        yield
    except ModelError:
        note(run, tool, model, passed=False, seconds=now() - began)
        raise
    note(run, tool, model, passed=True, seconds=now() - began)


def note(
    run: Run[Any], tool: str, model: MeteredModel, *, passed: bool | None, seconds: float
) -> None:
    """Note how a model fared at a tool; of a sample that was cancelled that is None."""
    outcome = Outcome(passed, seconds, *model.used)
    run.host.services.estimates.note(tool, model.name, outcome)


def ran(run: Run[Any], error: BaseException | None) -> None:
    """Note what a run of a workflow that asked models has come to.

    One that was cancelled, or is paused, says nothing. Plans and questions are not told apart by their names.
    """
    services, spent = run.host.services, run.ledger.spent
    if run.parent is not None or isinstance(error, RunCancelled | RunPaused) or not spent.tokens:
        return
    if run.repeats:
        services.estimates.ran(run.name, error is None, spent.usd)
    services.keep_estimates()
