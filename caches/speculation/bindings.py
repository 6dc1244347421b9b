"""The arguments that recipes find in a trail."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice, product
from typing import Any, NamedTuple

from agentflow.caches.speculation.recipes import Group, Part, Recipe, together
from agentflow.caches.speculation.trail import Offer, Step, Trail

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
    """Applies recipes to one trail; what they share is looked up once."""

    def __init__(self, trail: Trail) -> None:
        self._trail = trail
        self._found: dict[Group, list[Binding]] = {}

    def bindings(self, recipe: Recipe) -> list[Binding]:
        """The arguments a recipe finds now, those of the youngest steps first."""
        if len(recipe.groups) == 1:
            return self._of(recipe.groups[0])
        choices = [list(enumerate(self._of(group)[:CHOICES])) for group in recipe.groups]
        ranked = sorted(product(*choices), key=lambda chosen: sum(place for place, _ in chosen))
        return [_merged([part for _, part in chosen]) for chosen in ranked[:PRODUCTS]]

    def _of(self, group: Group) -> list[Binding]:
        if (found := self._found.get(group)) is None:
            found = self._found[group] = list(islice(_distinct(group, self._trail), BINDINGS))
        return found


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
