"""The arguments that recipes find in a trail."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import islice
from typing import Any, NamedTuple

from agentflow.caches.speculation.recipes import Group, Part, Recipe
from agentflow.caches.speculation.trail import Offer, Origin, Step, Trail, call_key

BINDINGS = 12
"""Values that one group of a recipe may take at a time."""

SCANNED = 96
"""Values that are looked at for them: many are equal."""

CHOICES = 6
"""Of these, values that are combined with those of other groups."""

PRODUCTS = 8
"""Calls that one recipe of several groups may name at a time."""


class Binding(NamedTuple):
    """Arguments that a recipe finds.

    Attributes:
        arguments: Value by parameter.
        places: Where they stand, constants left out.
    """

    arguments: Mapping[str, Any]
    places: tuple[tuple[Step, Offer], ...] = ()


class Finder:
    """Applies recipes to one trail; what no later step can have changed is kept.

    Args:
        known: That of a trail this one supposes more of; it is not touched.
    """

    def __init__(self, known: Finder | None = None) -> None:
        self._groups: dict[Group, tuple[_Stamp, list[Binding]]] = {}
        self._recipes: dict[Recipe, tuple[tuple[_Stamp, ...], dict[str, Binding]]] = {}
        if known is not None:
            self._groups.update(known._groups)
            self._recipes.update(known._recipes)

    def find(self, recipe: Recipe, trail: Trail) -> dict[str, Binding]:
        """The arguments a recipe finds, those of the youngest steps first, by the call's key."""
        stamps = tuple([_stamp(group, trail) for group in recipe.groups])
        known = self._recipes.get(recipe)
        if known is None or known[0] != stamps:
            found = self._combined(recipe, stamps, trail)
            calls = {call_key(recipe.tool, binding.arguments): binding for binding in found}
            known = self._recipes[recipe] = (stamps, calls)
        return known[1]

    def _combined(
        self, recipe: Recipe, stamps: Sequence[_Stamp], trail: Trail
    ) -> Sequence[Binding]:
        choices = [
            self._of(group, stamp, trail)
            for group, stamp in zip(recipe.groups, stamps, strict=True)
        ]
        if len(choices) == 1:
            return choices[0]
        orders = _orders(tuple([min(len(found), CHOICES) for found in choices]))
        return [
            _merged([found[place] for found, place in zip(choices, order, strict=True)])
            for order in orders
        ]

    def _of(self, group: Group, stamp: _Stamp, trail: Trail) -> list[Binding]:
        known = self._groups.get(group)
        if known is None or known[0] != stamp:
            known = self._groups[group] = (stamp, list(islice(_distinct(group, trail), BINDINGS)))
        return known[1]


_Stamp = tuple[Step, Step] | None
"""The first and the last step that a group can draw from: the same, and so are all between."""


def _stamp(group: Group, trail: Trail) -> _Stamp:
    steps = trail.offering(group[0].origin)
    return (steps[0], steps[-1]) if steps else None


@lru_cache(maxsize=1_024)
def _orders(counts: tuple[int, ...]) -> Sequence[tuple[int, ...]]:
    """Which of several choices to combine: the first `PRODUCTS`, those of the best first."""
    found: list[tuple[int, ...]] = []
    for total in range(sum(counts) - len(counts) + 1):
        found += islice(_summing(counts, total), PRODUCTS - len(found))
    return found


def _summing(counts: tuple[int, ...], total: int) -> Iterator[tuple[int, ...]]:
    """Places among so many choices that add up to a number, in order."""
    if not counts:
        if total == 0:
            yield ()
        return
    for place in range(min(counts[0], total + 1)):
        for rest in _summing(counts[1:], total - place):
            yield (place, *rest)


def _merged(parts: Sequence[Binding]) -> Binding:
    arguments: dict[str, Any] = {}
    for part in parts:
        arguments.update(part.arguments)
    return Binding(arguments, tuple(place for part in parts for place in part.places))


def _distinct(group: Group, trail: Trail) -> Iterator[Binding]:
    first = group[0]
    if first.origin.kind == "constant":
        yield Binding({first.parameter: json.loads(first.origin.what)})
        return
    seen: set[tuple[Any, ...]] = set()
    for step, offer in islice(_offered(first.origin, trail), SCANNED):
        binding = _joined(group, step, offer)
        if binding is not None:
            values = tuple([(type(value), value) for value in binding.arguments.values()])
            if values not in seen:
                seen.add(values)
                yield binding


def _offered(origin: Origin, trail: Trail) -> Iterator[tuple[Step, Offer]]:
    for step in reversed(trail.offering(origin)):
        for offer in step.offers[origin]:
            yield step, offer


def _joined(group: Group, step: Step, first: Offer) -> Binding | None:
    arguments: dict[str, Any] = {}
    places: list[tuple[Step, Offer]] = []
    for part in group:
        offer = first if part is group[0] else _fitting(part, step, first)
        value = None if offer is None else _formed(part, offer)
        if offer is None or value is None:
            return None
        arguments[part.parameter] = value
        places.append((step, offer))
    return Binding(arguments, tuple(places))


def _fitting(part: Part, step: Step, first: Offer) -> Offer | None:
    if part.origin.kind == "said":
        return step.first(part.origin, (first.at[0] + part.shift,))
    return step.first(part.origin, first.at)


def _formed(part: Part, offer: Offer) -> Any:
    if part.form.kind == "same" and not part.form.case:
        return offer.value
    return part.form.apply(offer.value) if isinstance(offer.value, str) else None
