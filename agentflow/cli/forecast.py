"""What ``agentflow plan`` says of a budget and a deadline before anything is spent."""

from __future__ import annotations

import decimal
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from agentflow.budgets.allocation.forecast import WANTED, Forecast, forecast
from agentflow.budgets.allocation.montecarlo import MonteCarlo
from agentflow.budgets.budget import Budget
from agentflow.budgets.prices import Prices
from agentflow.cli.jobs import tighter
from agentflow.cli.knowledge import estimates, prices
from agentflow.cli.output import chance, duration, listed
from agentflow.cli.progress import price
from agentflow.cli.targets import Member, Target
from agentflow.errors import DefinitionError
from agentflow.executor.allocation.outlook import UNKNOWN, Outlook, jobs_of_plan
from agentflow.planner.plan import GATHER, Plan
from agentflow.settings import Settings
from agentflow.tools.sampling import Sampling
from agentflow.tools.tool import Tool
from agentflow.workflows import Workflow

Tools = Mapping[str, Tool[..., Any]]


@dataclass(frozen=True)
class Prospects:
    """What is to be expected of a plan within a budget.

    Attributes:
        budget: The limits.
        forecast: The probability that they suffice, and what would.
        known: How many calls of which model it rests on, by tool.
        assumed: Tools that ask no model, of which no latency is known.
        in_tokens: It is told in tokens: nothing else is limited, or prices are not known.
    """

    budget: Budget
    forecast: Forecast
    known: Mapping[str, Mapping[str, int]]
    assumed: tuple[str, ...]
    in_tokens: bool = False

    def lines(self) -> Iterator[str]:
        """It in words."""
        told, deadline = self.forecast, self.budget.deadline
        money = self.budget.tokens if self.in_tokens else self.budget.usd
        limits = [] if money is None else [self._amount(money)]
        limits += [] if deadline is None else [duration(deadline)]
        yield (
            f"within {listed(limits)} it is finished with a probability of "
            f"{chance(told.probability)}, for {self._amount(_about(told.usd))} on average"
        )
        if told.cheapest is None:
            yield f"no budget makes that {WANTED:.0%}"
        else:
            time = "" if deadline is None else f" within {duration(deadline)}"
            enough = _about(told.cheapest, decimal.ROUND_CEILING)
            yield f"{WANTED:.0%}{time} takes a budget of {self._amount(enough)}"
        yield from self._basis()

    @property
    def tokens_counted(self) -> bool:
        """Whether a limit of tokens, if there is one, is part of the probability."""
        return self.in_tokens or self.budget.tokens is None

    def _basis(self) -> Iterator[str]:
        """What it rests on."""
        if not self.tokens_counted:
            yield (
                f"the limit of {self.budget.tokens:,} tokens is not counted in that: to have it "
                "told, leave --budget out"
            )
        for tool, models in self.known.items():
            if any(models.values()):
                known = [f"{count:,} by {model}" for model, count in models.items()]
                yield f"{tool}: calls known are {listed(known)}"
            else:
                yield f"{tool}: no call is known, which makes this a guess"
        for tool in self.assumed:
            yield f"{tool}: {duration(UNKNOWN)} a call is assumed"

    def _amount(self, money: Decimal | int) -> str:
        return f"{float(money):,.0f} tokens" if self.in_tokens else price(money)

    def as_dict(self) -> dict[str, Any]:
        """It as plain data."""
        usd = self.budget.usd
        unit = "tokens" if self.in_tokens else "usd"
        return {
            "usd": None if usd is None else f"{usd:f}",
            "tokens": self.budget.tokens,
            "tokens_counted": self.tokens_counted,
            "deadline": self.budget.deadline,
            "probability": self.forecast.probability,
            f"{unit}_expected": self.forecast.usd,
            f"{unit}_for_90_percent": self.forecast.cheapest,
            "calls_known": {tool: dict(models) for tool, models in self.known.items()},
        }


def limits(target: Target, options: Any) -> Budget:
    """The limits that are asked about, those of a workflow itself included.

    Raises:
        DefinitionError: They cannot be read, or not be told in the form that is asked for.
    """
    if options.format in ("mermaid", "dot"):
        raise DefinitionError(
            f"--format {options.format} has no place for what --budget and --deadline come to: "
            "use --format text or json"
        )
    if options.tools_json is not None:
        raise DefinitionError(
            "what a call takes is known of tools, not of --tools-json: name them with --tools"
        )
    given = Budget(options.budget, options.budget_tokens, options.deadline)
    if isinstance(target, Member) and isinstance(target.tool, Workflow):
        return tighter(target.tool.budget, given)
    return given


def prospects(plan: Plan, tools: Tools, budget: Budget, options: Any) -> Prospects:
    """What is to be expected of a plan.

    Raises:
        DefinitionError: A tool, a model or its price is not known.
    """
    settings = Settings.load(base_url=options.base_url, model=options.model)
    models = _Models(prices(options), settings)
    learnt, called = estimates(options), _called(plan, tools)
    tried = dict(pair for tool in called for pair in _tried(tool))
    asked = {
        tool: [models(name or None) for name in sampling.models] for tool, sampling in tried.items()
    }
    in_tokens = _in_tokens(budget, [model for some in asked.values() for model in some])
    money = budget.tokens if in_tokens else budget.usd
    told = forecast(
        jobs_of_plan(plan, tools, Outlook(learnt, models, in_tokens)),
        usd=None if money is None else float(money),
        seconds=budget.deadline,
        allocator=MonteCarlo,
    )
    known = {
        tool: {model.name: learnt.known(tool, model.name) for model in some}
        for tool, some in asked.items()
    }
    assumed = tuple(tool.name for tool in called if tool.sampling is None)
    return Prospects(budget, told, known, assumed, in_tokens)


def _tried(tool: Tool[..., Any]) -> Iterator[tuple[str, Sampling]]:
    """How models try a tool, and how they judge what it gives, by the name of the tool."""
    if tool.sampling is not None:
        yield tool.name, tool.sampling
        if tool.sampling.judge is not None:
            yield tool.sampling.judge


def _in_tokens(budget: Budget, models: list[_Priced]) -> bool:
    """Whether tokens take the place of money.

    Raises:
        DefinitionError: Money is limited, and the price of a model is not known.
    """
    unknown = [m for m in models if m.prices.price(m.name, url=m.url) is None]
    if budget.usd is None:
        return budget.tokens is not None or bool(unknown)
    if unknown:
        raise DefinitionError(
            f"the price of model {unknown[0].name!r} is not known: give it with --prices FILE, "
            "in USD per million tokens, or limit --budget-tokens instead"
        )
    return False


class _Models:
    """Models by name, as far as a price needs them: nothing is connected to.

    Args:
        prices: Of models.
        settings: Which model is the default one, and where models are.
    """

    def __init__(self, prices: Prices, settings: Settings) -> None:
        self._prices = prices
        self._settings = settings

    def __call__(self, name: str | None) -> Any:
        name = name or self._settings.model
        if not name:
            raise DefinitionError("the default model has no name: use --model or AGENTFLOW_MODEL")
        return _Priced(name, self._prices, self._settings.base_url)


@dataclass(frozen=True)
class _Priced:
    """A model that is not asked."""

    name: str
    prices: Prices
    url: str


def _called(plan: Plan, tools: Tools) -> list[Tool[..., Any]]:
    """The tools that a plan calls, each once."""
    names = dict.fromkeys(node.tool for node in plan.nodes if node.tool != GATHER)
    if unknown := [name for name in names if name not in tools]:
        raise DefinitionError(
            f"{unknown[0]!r} is no tool of the module, so what it takes is not known: import it "
            "there by its name"
        )
    return [tools[name].origin for name in names]


def _about(amount: float, rounding: str = decimal.ROUND_HALF_EVEN) -> Decimal:
    """An estimate in two digits, which is all that it is good for."""
    return decimal.Context(prec=2, rounding=rounding).create_decimal_from_float(amount)
