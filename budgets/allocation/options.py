"""What can be begun for a job now."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from agentflow.budgets.allocation.batches import Group
from agentflow.budgets.allocation.situation import Job
from agentflow.budgets.allocation.tables import NOBODY, Tail

_AGES = 2.0  # ages are told apart that differ by a factor of e to the inverse of this
_LEADERS, _FOLLOWERS = 3, 6  # ranked options that are tried together

New = tuple[Tail, ...]
"""Models, each with a number of samples, to begin together."""


@dataclass(frozen=True, slots=True)
class Choice:
    """Who tries a job.

    Attributes:
        tail: Whose batches follow, one after the other, until a sample passes.
        new: What is begun now.
        hand: USD that it can take, or None for all that are at hand.
    """

    tail: Tail
    new: New = ()
    hand: float | None = None


def tails(job: Job) -> list[Tail]:
    """Every model with every width, the smallest widths first, or `NOBODY`."""
    most = math.inf if job.room is None else job.room
    widths = [width for width in sorted(job.widths) if 0 < width <= most]
    return [(model, width) for width in widths for model in job.models] or [NOBODY]


def kind(job: Job) -> object:
    """What jobs have in common whose samples pass as often, take as long and cost as much."""
    models = tuple((name, id(profile)) for name, profile in job.models.items())
    return models, job.widths, job.agreement, job.room, tuple(job.failed.items())


def single(job: Job) -> list[New]:
    """What can be begun of one model; nothing only if something is under way."""
    news: list[New] = [()] if running(job) else []
    if job.ready:
        news += [(tail,) for tail in tails(job) if tail != NOBODY]
    return news or [()]


def mixed(job: Job, ranked: Sequence[New]) -> Iterator[New]:
    """Pairs of the best options, of two models."""
    best = [new[0] for new in ranked if new]
    for number, one in enumerate(best[:_LEADERS]):
        for other in best[number + 1 : _FOLLOWERS]:
            if one[0] != other[0] and (job.room is None or one[1] + other[1] <= job.room):
                yield (one, other)


def groups(new: New, hand: float, bounds: Mapping[str, float]) -> tuple[Group, ...]:
    """The same as groups: what takes least is first to take its equal part of what is at hand."""
    made, left, parts = [], hand, sum(width for _, width in new)
    for model, width in sorted(new, key=lambda tail: bounds[tail[0]]):
        most = left / parts
        made.append(Group(model, width, most=most))
        left -= width * min(most, bounds[model])
        parts -= width
    return tuple(made)


def running(job: Job) -> tuple[Group, ...]:
    """Samples under way, those of one model and about the same age together."""
    ages: dict[tuple[str, int], list[float]] = {}
    for sample in (sample for sample in job.running if sample.model in job.models):
        near = round(math.log1p(sample.age) * _AGES)
        ages.setdefault((sample.model, near), []).append(sample.age)
    return tuple(
        Group(model, len(same), sum(same) / len(same)) for (model, _), same in ages.items()
    )
