"""All calls that known recipes can put together now."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from heapq import nlargest
from typing import NamedTuple

from agentflow.caches.speculation.bindings import BINDINGS, Binding, Finder
from agentflow.caches.speculation.history import History
from agentflow.caches.speculation.repertoire import Known, Repertoire

FAR = 4
"""Calls in between from which on it does not matter how many."""

APPLIED = 128
"""Recipes that are applied at a time."""

WEIGHED = 32
"""Calls that are weighed at a time."""

_UNUSED = 1e-6
"""What a recipe counts whose tool the workflow has not called."""


@dataclass(frozen=True, slots=True)
class Support:
    """A recipe that gives a call, and the place of that call among those it gives.

    Attributes:
        known: The recipe.
        fresh: Calls not yet made that it gives from younger steps, or before it in its step;
            -1 if this call has been made.
        ahead: Calls not yet made between this one and the last that was made, in the order in
            which their values came up; `FAR` if it came up earlier, or none was made.
    """

    known: Known
    fresh: int
    ahead: int


@dataclass(slots=True)
class Guess:
    """A call that may come next, and what speaks for it."""

    tool: str
    binding: Binding
    key: str
    supports: list[Support] = field(default_factory=list)
    features: list[int] = field(default_factory=list)
    logit: float = 0.0
    later: float = 0.0


_FRESH = tuple([(min(place, FAR), FAR) for place in range(BINDINGS)])
"""Ranks of the calls that a recipe gives if none of them was made."""


def gather(repertoire: Repertoire, history: History, finder: Finder) -> list[Guess]:
    """The calls that the recipes of a repertoire find, each once; the most promising ones."""
    likely = repertoire.used_in(history.trail.workflow)
    applied = []
    for tool, known in _applicable(repertoire, likely):
        if found := finder.find(known.recipe, history.trail):
            applied.append(_Applied(tool, known, found, _ranks(found, history.made)))
    promising = _promising(applied, likely)
    guesses: dict[str, Guess] = {}
    for tool, known, calls, ranks in applied:
        for (key, binding), (fresh, ahead) in zip(calls.items(), ranks, strict=False):
            if key in promising:
                if (guess := guesses.get(key)) is None:
                    guess = guesses[key] = Guess(tool, binding, key)
                guess.supports.append(Support(known, fresh, ahead))
    return list(guesses.values())


def _applicable(repertoire: Repertoire, likely: Collection[str]) -> Sequence[tuple[str, Known]]:
    """The recipes to apply; of too many, the best of the tools that the workflow uses."""
    recipes = [(tool, known) for tool, its in repertoire for known in its]
    if len(recipes) <= APPLIED:
        return recipes
    return nlargest(APPLIED, recipes, key=lambda entry: (entry[0] in likely, entry[1].share))


class _Applied(NamedTuple):
    """What a recipe gives, and the `fresh` and `ahead` of each call."""

    tool: str
    known: Known
    found: Mapping[str, Binding]
    ranks: Sequence[tuple[int, int]]


def _promising(applied: Iterable[_Applied], likely: Collection[str]) -> Collection[str]:
    """The keys to weigh: those of tools that the workflow uses, of good recipes, not far off."""
    promises: dict[str, float] = {}
    for tool, known, found, ranks in applied:
        worth = known.share if tool in likely else known.share * _UNUSED
        for key, (fresh, ahead) in zip(found, ranks, strict=False):
            promise = worth / (1 + min(fresh % (FAR + 1), ahead))
            if promise > promises.get(key, 0.0):
                promises[key] = promise
    if len(promises) <= WEIGHED:
        return promises
    return set(nlargest(WEIGHED, promises, key=promises.__getitem__))


def _ranks(found: Mapping[str, Binding], made: Mapping[str, int]) -> Sequence[tuple[int, int]]:
    if found.keys().isdisjoint(made):
        return _FRESH
    ahead = _ahead(found, made)
    ranks = []
    fresh = 0
    for key in found:
        ranks.append((-1 if key in made else min(fresh, FAR), ahead.get(key, FAR)))
        fresh += key not in made
    return ranks


def _ahead(found: Mapping[str, Binding], made: Mapping[str, int]) -> dict[str, int]:
    """How far behind the call that was made last the others come."""
    latest = max((key for key in found if key in made), key=made.__getitem__, default=None)
    if latest is None:
        return {}
    order = sorted(found, key=lambda key: _came_up(found[key]))
    unmade = [key for key in order[order.index(latest) :] if key not in made]
    return {key: place for place, key in enumerate(unmade[:FAR])}


def _came_up(binding: Binding) -> list[tuple[int, tuple[int, ...]]]:
    return [(step.position, offer.at) for step, offer in binding.places]
