"""All calls that known recipes can put together now."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from agentflow.caches.speculation.bindings import Binding, Finder
from agentflow.caches.speculation.history import History
from agentflow.caches.speculation.repertoire import Known, Repertoire
from agentflow.caches.speculation.trail import call_key

FAR = 4
"""Calls in between from which on it does not matter how many."""


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


def gather(repertoire: Repertoire, history: History) -> list[Guess]:
    """The calls that the recipes of a repertoire find, each once."""
    finder = Finder(history.trail)
    guesses: dict[str, Guess] = {}
    for tool, recipes in repertoire:
        for known in recipes:
            found = finder.bindings(known.recipe)
            keys = [call_key(tool, binding.arguments) for binding in found]
            supports = _supports(known, found, keys, history.made)
            for binding, key, support in zip(found, keys, supports, strict=True):
                if (guess := guesses.get(key)) is None:
                    guess = guesses[key] = Guess(tool, binding, key)
                guess.supports.append(support)
    return list(guesses.values())


def _supports(
    known: Known, found: Sequence[Binding], keys: Sequence[str], made: Mapping[str, int]
) -> Iterator[Support]:
    ahead = _ahead(found, keys, made)
    fresh = 0
    for place, key in enumerate(keys):
        yield Support(known, -1 if key in made else min(fresh, FAR), ahead.get(place, FAR))
        fresh += key not in made


def _ahead(
    found: Sequence[Binding], keys: Sequence[str], made: Mapping[str, int]
) -> dict[int, int]:
    """How far behind the call that was made last the others come, by their index."""
    latest = max((made[key] for key in keys if key in made), default=None)
    if latest is None:
        return {}
    order = sorted(range(len(found)), key=lambda index: _came_up(found[index]))
    start = next(place for place, index in enumerate(order) if made.get(keys[index]) == latest)
    unmade = [index for index in order[start + 1 :] if keys[index] not in made]
    return {index: place for place, index in enumerate(unmade[:FAR])}


def _came_up(binding: Binding) -> list[tuple[int, tuple[int, ...]]]:
    return [(step.position, offer.at) for step, offer in binding.places]
