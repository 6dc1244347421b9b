"""All calls that known recipes can put together now."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from agentflow.caches.speculation.bindings import Binding, Finder
from agentflow.caches.speculation.history import History
from agentflow.caches.speculation.repertoire import Known, Repertoire
from agentflow.caches.speculation.trail import call_key

FAR = 4
"""Places in a list beyond which it does not matter how far."""


@dataclass(frozen=True, slots=True)
class Support:
    """A recipe that gives a call.

    Attributes:
        known: The recipe.
        fresh: Calls not yet made that the recipe names before it; -1 if it has been made.
        ahead: Places behind the call of the recipe that was made last, 0 being that call;
            `FAR` when it is further, or before it, or none was made.
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
            supports = _supports(known, keys, history)
            for binding, key, support in zip(found, keys, supports, strict=True):
                if (guess := guesses.get(key)) is None:
                    guess = guesses[key] = Guess(tool, binding, key)
                guess.supports.append(support)
    return list(guesses.values())


def _supports(known: Known, keys: Sequence[str], history: History) -> list[Support]:
    made = history.made
    latest = max((key for key in keys if key in made), key=lambda k: made[k], default=None)
    start = len(keys) if latest is None else keys.index(latest)
    supports = []
    fresh = 0
    for place, key in enumerate(keys):
        ahead = min(place - start, FAR) if place >= start else FAR
        supports.append(Support(known, -1 if key in made else min(fresh, FAR), ahead))
        fresh += key not in made
    return supports
