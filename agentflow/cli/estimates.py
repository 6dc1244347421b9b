"""``agentflow estimates``: what earlier runs have taught of models and workflows."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentflow.budgets.estimates import Beta, Estimates, Outcome, Passes, default_path
from agentflow.budgets.prices import Price
from agentflow.cli import codes
from agentflow.cli.knowledge import prices
from agentflow.cli.output import counted, print_json
from agentflow.cli.screen import Screen, show
from agentflow.errors import DefinitionError
from agentflow.settings import Settings

_MODELS = ("jobs", "success", "90 %", "seconds", "p90", "tokens", "p90", "$/sample", "$/pass")
_WORKFLOWS = ("runs", "passed", "$/run", "$/pass")


@dataclass(frozen=True, slots=True)
class Expected:
    """What is to be expected of a model at a kind of task.

    Attributes:
        jobs: Jobs it is known to have tried.
        success: That a sample passes.
        seconds: What half and nine tenths of the samples that ended took at most, if any did.
        tokens: The same of what they wrote.
        usd: USD of a sample; None without a price.
    """

    jobs: int
    success: Beta
    seconds: tuple[float, float] | None
    tokens: tuple[float, float] | None
    usd: float | None

    @property
    def cost_of_pass(self) -> float | None:
        """USD until a sample passes."""
        return None if self.usd is None else self.usd / self.success.mean

    def as_dict(self) -> dict[str, Any]:
        """The numbers as plain data."""
        return {
            "jobs": self.jobs,
            "success": self.success.mean,
            "interval": list(self.success.interval()),
            "seconds": _percentiles(self.seconds),
            "tokens": _percentiles(self.tokens),
            "usd_per_sample": self.usd,
            "cost_of_pass": self.cost_of_pass,
        }

    def cells(self) -> list[str]:
        """The numbers as a row of a table."""
        low, high = self.success.interval()
        return [
            f"{self.jobs:,}",
            f"{self.success.mean:.2f}",
            f"{low:.2f}-{high:.2f}",
            *([f"{seconds:.3g}" for seconds in self.seconds] if self.seconds else "--"),
            *([f"{tokens:.0f}" for tokens in self.tokens] if self.tokens else "--"),
            _usd(self.usd),
            _usd(self.cost_of_pass),
        ]


def command(options: Any, _screen: Screen) -> int:
    """Show what is known; the exit code."""
    path = Path(options.file).expanduser() if options.file else default_path()
    if path is None:
        raise DefinitionError("no file of estimates is named: use --file or AGENTFLOW_ESTIMATES")
    table, url = prices(options), Settings.load().base_url
    estimates = Estimates(path)
    kinds = {
        kind: {m: expected(estimates, kind, m, table.price(m, url=url)) for m in models}
        for kind, models in sorted(estimates.kinds().items())
    }
    workflows = {name: estimates.passes(name) for name in sorted(estimates.workflows())}
    if options.json:
        print_json(_as_json(path, estimates, kinds, workflows))
    else:
        show("\n".join(_described(path, estimates, kinds, workflows)))
    return codes.FAILED if estimates.problem else codes.OK


def expected(estimates: Estimates, kind: str, model: str, price: Price | None) -> Expected:
    """What is to be expected of a model at a kind of task, at a price."""
    success = estimates.success(kind, model)
    ended = [one for one in estimates.outcomes(kind, model) if one.passed is not None]
    return Expected(
        estimates.known(kind, model),
        success,
        _middle_and_most(one.seconds for one in ended),
        _middle_and_most(one.completion_tokens for one in ended),
        None if price is None else _mean_usd(ended, price),
    )


def _middle_and_most(values: Iterable[float]) -> tuple[float, float] | None:
    """What half of the values, and what nine tenths of them, do not exceed."""
    ordered = sorted(values)
    if not ordered:
        return None
    middle, most = (ordered[math.ceil(share * len(ordered)) - 1] for share in (0.5, 0.9))
    return middle, most


def _mean_usd(ended: Sequence[Outcome], price: Price) -> float | None:
    if not ended:
        return None
    costs = [float(price.cost(one.prompt_tokens, one.completion_tokens)) for one in ended]
    return sum(costs) / len(costs)


def _as_json(
    path: Path,
    estimates: Estimates,
    kinds: dict[str, dict[str, Expected]],
    workflows: dict[str, Passes],
) -> dict[str, Any]:
    return {
        "ok": not estimates.problem,
        "file": str(path),
        "problem": estimates.problem or None,
        "kinds": {
            kind: {
                "agreement": estimates.agreement(kind),
                "models": {model: one.as_dict() for model, one in models.items()},
            }
            for kind, models in kinds.items()
        },
        "workflows": {name: passes.as_dict() for name, passes in workflows.items()},
    }


def _percentiles(values: tuple[float, float] | None) -> dict[str, float] | None:
    return None if values is None else {"p50": values[0], "p90": values[1]}


def _described(
    path: Path,
    estimates: Estimates,
    kinds: dict[str, dict[str, Expected]],
    workflows: dict[str, Passes],
) -> Iterator[str]:
    if not kinds and not workflows:
        yield f"{path}: nothing {'can be read' if estimates.problem else 'is known yet'}"
        return
    yield f"{path}: {counted(len(kinds), 'tool')}, {counted(len(workflows), 'workflow')}"
    rows: list[tuple[str, Sequence[str]]] = []
    for kind, models in kinds.items():
        rows.append((f"{kind}  (agreement {estimates.agreement(kind):.2f})", ()))
        rows += [(f"  {model}", one.cells()) for model, one in models.items()]
    if rows:
        yield from ("", *_table(("tool and model", _MODELS), rows))
    if workflows:
        runs = [(name, _passes(passes)) for name, passes in workflows.items()]
        yield from ("", *_table(("workflow", _WORKFLOWS), runs))


def _passes(passes: Passes) -> list[str]:
    mean = passes.usd / passes.runs
    return [f"{passes.runs:,}", f"{passes.passed:,}", _usd(mean), _usd(passes.cost_of_pass)]


def _table(
    head: tuple[str, Sequence[str]], rows: Sequence[tuple[str, Sequence[str]]]
) -> Iterator[str]:
    """Rows of a name and numbers, in columns; a row without numbers is a heading."""
    name = max(len(name) for name, cells in (head, *rows) if cells)
    full = [cells for _, cells in (head, *rows) if cells]
    widths = [max(map(len, column)) for column in zip(*full, strict=True)]
    for label, cells in (head, *rows):
        if cells:
            numbers = (f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True))
            yield "  ".join([f"{label:<{name}}", *numbers])
        else:
            yield label


def _usd(amount: float | None) -> str:
    """An amount to two digits that say something."""
    if not amount:
        return "-" if amount is None else "0"
    return f"{amount:.{max(2, 1 - math.floor(math.log10(amount)))}f}"
