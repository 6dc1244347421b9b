"""What is begun at once where the money for all of it cannot be set aside."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace

from agentflow.budgets.allocation.options import Choice
from agentflow.budgets.allocation.search import Search
from agentflow.budgets.allocation.situation import Start


def shared(search: Search) -> Generator[float, None, tuple[Start, ...]]:
    """The samples that are begun, those first for which least is set aside.

    The jobs that take least come first. One for which not enough is left begins with what there
    is, or waits until money comes back, whichever is better.
    """
    found: list[tuple[float, Start]] = []
    left, others = search.hand, any(search.running[number] for number in search.choices)
    for needed, number, choice in sorted(_wanted(search)):
        if needed > left and others and not (yield from _cut(search, number, choice, left)):
            continue
        job, bounds = search.jobs[number], search.tables[number].bounds
        found += [(bounds[model], Start(job.id, model, count)) for model, count in choice.new]
        left, others = max(left - needed, 0.0), True
    return tuple(start for _, start in sorted(found, key=lambda pair: pair[0]))


def _wanted(search: Search) -> list[tuple[float, int, Choice]]:
    """What is to be set aside for a job, the job, and its choice."""
    wanted = []
    for number, choice in search.choices.items():
        if choice.new and search.jobs[number].ready:
            bounds = search.tables[number].bounds
            needed = sum(bounds[model] * count for model, count in choice.new)
            wanted.append((needed, number, choice))
    return wanted


def _cut(search: Search, number: int, choice: Choice, left: float) -> Generator[float, None, bool]:
    """Whether a job is better begun with what is left than when something else has ended."""
    search.wait(number, choice)
    yield from search.board.update()
    waiting = search.worth()
    search.take(number, replace(choice, hand=left))
    yield from search.board.update()
    if search.worth() >= waiting:
        return True
    search.wait(number, choice)
    yield from search.board.update()
    return False
