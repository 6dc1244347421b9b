"""All calls that known recipes can put together now."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from agentflow.caches.speculation.bindings import Binding, Finder
from agentflow.caches.speculation.history import History
from agentflow.caches.speculation.repertoire import Known, Repertoire

FAR = 4
"""Calls in between from which on it does not matter how many."""

WEIGHED = 32
"""Calls that are weighed at a time."""


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


def gather(repertoire: Repertoire, history: History, finder: Finder) -> list[Guess]:
    """The calls that the recipes of a repertoire find, each once; the most promising ones."""
    guesses: dict[str, Guess] = {}
    for tool, recipes in repertoire:
        for known in recipes:
            found = finder.find(known.recipe, history.trail)
            supports = _supports(known, found, history.made)
            for (key, binding), support in zip(found.items(), supports, strict=True):
                if (guess := guesses.get(key)) is None:
                    guess = guesses[key] = Guess(tool, binding, key)
                guess.supports.append(support)
    if len(guesses) <= WEIGHED:
        return list(guesses.values())
    likely = repertoire.used_in(history.trail.workflow)
    ranked = sorted(
        guesses.values(), key=lambda guess: (guess.tool not in likely, -_promise(guess))
    )
    return ranked[:WEIGHED]


def _promise(guess: Guess) -> float:
    return max(s.known.share / (1 + min(s.fresh % FAR, s.ahead)) for s in guess.supports)


def _supports(
    known: Known, found: Mapping[str, Binding], made: Mapping[str, int]
) -> Iterator[Support]:
    ahead = _ahead(found, made)
    fresh = 0
    for key in found:
        yield Support(known, -1 if key in made else min(fresh, FAR), ahead.get(key, FAR))
        fresh += key not in made


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
