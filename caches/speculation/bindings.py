"""The arguments that recipes find in a trail."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice, product
from typing import Any, NamedTuple

from agentflow.caches.speculation.recipes import Group, Part, Recipe, together
from agentflow.caches.speculation.trail import Offer, Step, Trail, call_key

BINDINGS = 24
"""Values that one group of a recipe may take at a time."""

CHOICES = 6
"""Of these, values that are combined with those of other groups."""

PRODUCTS = 12
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
    """Applies recipes to one trail; what no later step can have changed is kept."""

    def __init__(self) -> None:
        self._groups: dict[Group, tuple[_Stamp, list[Binding]]] = {}
        self._recipes: dict[Recipe, tuple[tuple[_Stamp, ...], dict[str, Binding]]] = {}

    def find(self, recipe: Recipe, trail: Trail) -> dict[str, Binding]:
        """The arguments a recipe finds, those of the youngest steps first, by the call's key."""
        stamps = tuple(_stamp(group, trail) for group in recipe.groups)
        known = self._recipes.get(recipe)
        if known is None or known[0] != stamps:
            found = self._combined(recipe, trail)
            calls = {call_key(recipe.tool, binding.arguments): binding for binding in found}
            known = self._recipes[recipe] = (stamps, calls)
        return known[1]

    def _combined(self, recipe: Recipe, trail: Trail) -> list[Binding]:
        if len(recipe.groups) == 1:
            return self._of(recipe.groups[0], trail)
        choices = [list(enumerate(self._of(group, trail)[:CHOICES])) for group in recipe.groups]
        ranked = sorted(product(*choices), key=lambda chosen: sum(place for place, _ in chosen))
        return [_merged([part for _, part in chosen]) for chosen in ranked[:PRODUCTS]]

    def _of(self, group: Group, trail: Trail) -> list[Binding]:
        stamp = _stamp(group, trail)
        known = self._groups.get(group)
        if known is None or known[0] != stamp:
            known = self._groups[group] = (stamp, list(islice(_distinct(group, trail), BINDINGS)))
        return known[1]


_Stamp = tuple[int, int]
"""Positions of the first and the last step that a group can draw from."""


def _stamp(group: Group, trail: Trail) -> _Stamp:
    steps = trail.offering(group[0].origin)
    return (steps[0].position, steps[-1].position) if steps else (-1, -1)


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
    for step in reversed(trail.offering(first.origin)):
        for offer in step.offers[first.origin]:
            binding = _joined(group, step, offer)
            if binding is not None:
                values = tuple((type(value), value) for value in binding.arguments.values())
                if values not in seen:
                    seen.add(values)
                    yield binding


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
    said = part.origin.kind == "said"
    for offer in step.offers.get(part.origin, ()):
        fits = offer.at[0] - first.at[0] == part.shift if said else together(offer, first)
        if fits:
            return offer
    return None


def _formed(part: Part, offer: Offer) -> Any:
    if part.form.kind == "same" and not part.form.case:
        return offer.value
    return part.form.apply(offer.value) if isinstance(offer.value, str) else None
