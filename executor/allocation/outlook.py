"""What is expected of calls: the jobs of a plan, before any of them is tried."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeAlias

from agentflow.budgets.allocation.situation import Job, Profile
from agentflow.budgets.prices import FREE, MILLION, Price, Prices
from agentflow.executor.allocation.trial import MOST
from agentflow.executor.calls.hedging import ENOUGH
from agentflow.executor.metering import IN_FLIGHT
from agentflow.planner.plan import GATHER, Each, Node, Plan
from agentflow.tools.sampling import Sampling
from agentflow.tools.tool import Tool

if TYPE_CHECKING:
    from agentflow.budgets.estimates import Estimates
    from agentflow.executor.models.base import Model

AT_ONCE = Profile(1.0, ((0.0, 0.0),), ())
"""Of what takes no time and always succeeds."""

A_TOKEN = Price(MILLION, MILLION)
"""Tokens as money: where only they are limited, one costs 1."""

PROMPT_STEP = 1.25
"""Prompts whose sizes differ by less than this factor count as equally long."""

UNKNOWN = 1.0
"""Seconds that a call of a tool is taken to need when none is known."""

Models: TypeAlias = "Callable[[str | None], Model]"
"""A model by name, or the default one."""

Latencies: TypeAlias = Callable[[Tool[..., Any]], Sequence[float]]
"""Seconds that the last calls of a tool took."""


def _none_known(_tool: Tool[..., Any]) -> Sequence[float]:
    return ()


_Key: TypeAlias = "tuple[str, Sampling, int | None]"  # a tool, and about how long the prompt is


def _key(tool: str, sampling: Sampling, prompt_tokens: int | None) -> _Key:
    step = None if not prompt_tokens else round(math.log(prompt_tokens, PROMPT_STEP))
    return tool, sampling, step


@dataclass(slots=True)
class Outlook:
    """What is expected of the calls of one run, from what was learnt before it and in it.

    Attributes:
        estimates: What earlier runs have taught.
        models: A model by name, or the default one.
        counts_tokens: Only tokens are limited: they take the place of money.
        latencies: Of tools that ask no model.
        needs_prices: Money is limited, so that a model without a price cannot be asked.
    """

    estimates: Estimates
    models: Models
    counts_tokens: bool = False
    latencies: Latencies = _none_known
    needs_prices: bool = False
    _profiles: dict[_Key, dict[str, Profile]] = field(default_factory=dict)
    _agreement: dict[str, float] = field(default_factory=dict)
    _automatic: dict[Tool[..., Any], Profile] = field(default_factory=dict)
    _heard: Counter[str] = field(default_factory=Counter)  # calls settled in this run, by tool
    _stale: set[_Key] = field(default_factory=set)

    def profiles(
        self, tool: str, sampling: Sampling, prompt_tokens: int | None = None
    ) -> Mapping[str, Profile]:
        """What to expect of each model at a tool, if the size of the prompt is known for it."""
        key = _key(tool, sampling, prompt_tokens)
        if key not in self._profiles:
            self._learn(key)
        return self._profiles[key]

    async def look_up(
        self, tool: str, sampling: Sampling, prompt_tokens: int | None = None
    ) -> None:
        """Find out what to expect, if that is not known or has changed; others run after it.

        Raises:
            DefinitionError: A model is not there, or has no price, and money is limited.
        """
        self.check(sampling)
        key = _key(tool, sampling, prompt_tokens)
        if key not in self._profiles or key in self._stale:
            self._learn(key)
            await asyncio.sleep(0)

    def check(self, sampling: Sampling) -> None:
        """See that models can be asked.

        Raises:
            DefinitionError: One is not there, or has no price, and money is limited.
        """
        for model in self._models(sampling).values():
            if self.needs_prices and _price(model) is None:
                _prices(model).require(model.name)
        if sampling.judge is not None:
            self.check(sampling.judge[1])

    def in_time(self, tool: str, sampling: Sampling, name: str, seconds: float) -> float:
        """The share of samples of a model that end within so many seconds; 1 if few are known."""
        if self.estimates.known(tool, self.models(name or None).name) < ENOUGH:
            return 1.0
        profile = self.profiles(tool, sampling)[name]
        took = [took for took, _ in profile.won or profile.lost]
        return sum(t <= seconds for t in took) / len(took) if took else 1.0

    def heard(self, tool: str) -> None:
        """One more call of a tool is settled; what is expected is looked up ever more seldom."""
        self._heard[tool] += 1
        if self._heard[tool].bit_count() == 1:
            self._stale.update(key for key in self._profiles if key[0] == tool)

    def _models(self, sampling: Sampling) -> dict[str, Model]:
        return {name: self.models(name or None) for name in sampling.models}

    def _learn(self, key: _Key) -> None:
        tool, sampling, step = key
        tokens = None if step is None else round(PROMPT_STEP**step)
        judging = 0.0 if sampling.judge is None else self._judging(*sampling.judge)
        found = {
            name: _dearer(self._profile(tool, model, sampling.max_tokens, tokens), judging)
            for name, model in self._models(sampling).items()
        }
        if step is not None:
            usual = self.profiles(tool, sampling)
            if all(_alike(usual[name], profile) for name, profile in found.items()):
                found = dict(usual)
        self._profiles[key] = found
        self._stale.discard(key)

    def agreement(self, tool: str) -> float:
        """How much the outcomes of samples of one call of a tool have in common."""
        if tool not in self._agreement:
            self._agreement[tool] = self.estimates.agreement(tool)
        return self._agreement[tool]

    def automatic(self, tool: Tool[..., Any]) -> Profile:
        """What to expect of a call that is tried once, by itself."""
        if tool not in self._automatic:
            self._automatic[tool] = self._once(tool)
        return self._automatic[tool]

    def _once(self, tool: Tool[..., Any]) -> Profile:
        if tool.sampling is not None:
            [known] = self.profiles(tool.name, tool.sampling).values()
            # Nothing can be decided for it, so that it may fail is left out.
            return replace(known, probability=1.0, won=known.won or known.lost, lost=(), doubt=0.0)
        usd = 0.0 if self.counts_tokens else float(tool.policy.usd)
        took = self.latencies(tool) or (UNKNOWN,)
        return Profile(1.0, [(seconds, usd) for seconds in took], ())

    def _judging(self, tool: str, sampling: Sampling) -> float:
        """USD that it costs to have an answer judged, if the first model asked can tell."""
        return self.profiles(tool, sampling)[sampling.models[0]].usd

    def _profile(
        self, tool: str, model: Model, max_tokens: int, prompt_tokens: int | None
    ) -> Profile:
        price = _price(model) or FREE
        charged = A_TOKEN if self.counts_tokens else price
        known = self.estimates.profile(
            tool,
            model.name,
            charged,
            prompt_tokens=prompt_tokens,
            max_tokens=max_tokens,
            refunds=price.refunds,
        )
        # What is under way when a sample is cancelled is paid, as if it had come.
        return replace(known, start=known.start + float(charged.cost(0, IN_FLIGHT)))


def _prices(model: Model) -> Prices:
    return getattr(model, "prices", None) or Prices()


def _price(model: Model) -> Price | None:
    return _prices(model).price(model.name, url=getattr(model, "url", ""))


def _dearer(profile: Profile, usd: float) -> Profile:
    """A profile of samples that cost so much more when they have ended."""
    if not usd:
        return profile
    won, lost = ([(t, cost + usd) for t, cost in pool] for pool in (profile.won, profile.lost))
    return replace(profile, won=won, lost=lost)


def _alike(one: Profile, other: Profile) -> bool:
    """Whether what the input costs makes no difference worth another look."""
    return abs(one.start - other.start) <= 0.05 * one.usd


def jobs_of_plan(
    plan: Plan, tools: Mapping[str, Tool[..., Any]], outlook: Outlook
) -> tuple[Job, ...]:
    """The jobs of a plan before anything of it runs.

    Of a map over a list that is not known yet, one stands for all.
    """
    jobs: list[Job] = []
    stand_for: dict[int, tuple[int, ...]] = {}
    for id, node in plan.items():
        tool = None if node.tool == GATHER else tools[node.tool].origin
        after = tuple(job for dep in node.waits_for() for job in stand_for.get(dep, ()))
        elements = _elements(node)
        first = plan.base + len(plan.nodes) + len(jobs)
        stand_for[id] = (id,) if elements == 1 else tuple(range(first, first + elements))
        jobs += [job_of(job, tool, after, outlook) for job in stand_for[id]]
    return tuple(jobs)


def _elements(node: Node) -> int:
    """How often a node is called, as far as that is known."""
    sources = [value.source for value in node.values() if isinstance(value, Each)]
    known = [len(source) for source in sources if isinstance(source, list | tuple)]
    return known[0] if known else 1


def job_of(id: int, tool: Tool[..., Any] | None, after: tuple[int, ...], outlook: Outlook) -> Job:
    """A call that no model tries yet; without a tool it only gathers."""
    ready = not after
    if tool is None:
        return Job(id, after, {"": AT_ONCE}, (), ready=ready)
    sampling = tool.sampling
    if sampling is None or not sampling.chooses:
        return Job(id, after, {"": outlook.automatic(tool)}, (), ready=ready)
    profiles, agreement = outlook.profiles(tool.name, sampling), outlook.agreement(tool.name)
    return Job(id, after, profiles, sampling.widths, agreement, ready=ready, room=MOST)
