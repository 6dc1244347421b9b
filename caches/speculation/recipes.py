"""Where the arguments of a call come from: mined from calls that were made, applied to others."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, product
from typing import Any

from agentflow.caches.speculation.trail import Offer, Origin, Step

SEEDS = 4
"""Steps from which the arguments of one call are explained."""

BINDINGS = 16
"""Values that one part of a recipe can take at a time."""

PRODUCTS = 24
"""Calls that one recipe can name at a time."""

NEAR = 3
"""Tokens between two words that were said together."""


@dataclass(frozen=True, slots=True)
class Part:
    """One argument: its parameter, where it comes from, and how far from the first of its group."""

    parameter: str
    origin: Origin
    shift: int = 0


Group = tuple[Part, ...]
"""Arguments that come from one step: fields of one record, or words said together."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to put together the arguments of a tool."""

    tool: str
    groups: tuple[Group, ...]


@dataclass(frozen=True, slots=True)
class Binding:
    """Arguments that a recipe finds.

    Attributes:
        arguments: Value by parameter.
        position: Of the youngest step that gave one; -1 when all are constants.
        offers: The places they stand in.
    """

    arguments: Mapping[str, Any]
    position: int
    offers: tuple[Offer, ...]


def mine(tool: str, arguments: Mapping[str, Any], steps: Sequence[Step]) -> list[Recipe]:
    """The recipes that explain a call from what came before it, the closest first."""
    if not arguments:
        return [Recipe(tool, ())]
    found = {
        parameter: list(_places(value, steps)) for parameter, value in sorted(arguments.items())
    }
    seeds = sorted(
        {place[0].position for places in found.values() for place in places},
        key=lambda position: (-_covered(found, position), -position),
    )
    recipes: dict[Recipe, None] = {}
    for seed in seeds[:SEEDS] or [-1]:
        for recipe in _explained(tool, arguments, found, seed):
            recipes.setdefault(recipe)
    return list(recipes)


def bindings(recipe: Recipe, steps: Sequence[Step]) -> Iterator[Binding]:
    """The arguments a recipe finds now, from the youngest step to the oldest."""
    groups = [list(islice(_bound(group, steps), BINDINGS)) for group in recipe.groups]
    for chosen in islice(product(*groups), PRODUCTS):
        arguments: dict[str, Any] = {}
        for binding in chosen:
            arguments.update(binding.arguments)
        position = max((binding.position for binding in chosen), default=-1)
        yield Binding(arguments, position, tuple(o for b in chosen for o in b.offers))


_Place = tuple[Step, Origin, Offer]


def _places(value: Any, steps: Sequence[Step]) -> Iterator[_Place]:
    if value is None or value == "" or isinstance(value, bool | list | dict):
        return
    for step in reversed(steps):
        for origin, offers in step.offers.items():
            for offer in offers:
                if offer.value == value and type(offer.value) is type(value):
                    yield step, origin, offer
                    break


def _covered(found: Mapping[str, list[_Place]], position: int) -> int:
    return sum(any(p[0].position == position for p in places) for places in found.values())


def _explained(
    tool: str, arguments: Mapping[str, Any], found: Mapping[str, list[_Place]], seed: int
) -> Iterator[Recipe]:
    first = [p for places in found.values() for p in places if p[0].position == seed]
    anchors = first[:3] or [None]
    for anchor in anchors:
        chosen: dict[str, _Place] = {}
        for parameter, places in found.items():
            if places:
                chosen[parameter] = min(places, key=lambda place: _distance(place, anchor))
        yield Recipe(tool, tuple(_grouped(arguments, chosen)))


def _distance(place: _Place, anchor: _Place | None) -> tuple[bool, bool, int, int]:
    step, origin, offer = place
    if anchor is None:
        return (False, False, 0, -step.position)
    same = step is anchor[0]
    if origin.kind == "said":
        gap = abs(offer.at[0] - anchor[2].at[0]) if same and anchor[1].kind == "said" else 99
        return (not same, origin.kind != anchor[1].kind, gap, -step.position)
    return (not same, not (same and _together(offer, anchor[2])), 0, -step.position)


def _grouped(arguments: Mapping[str, Any], chosen: Mapping[str, _Place]) -> Iterator[Group]:
    groups: list[list[tuple[str, _Place]]] = []
    for parameter in sorted(arguments):
        place = chosen.get(parameter)
        if place is None:
            text = json.dumps(arguments[parameter], sort_keys=True, default=repr)
            yield (Part(parameter, Origin("constant", "", text)),)
            continue
        for group in groups:
            if _related(group[0][1], place):
                group.append((parameter, place))
                break
        else:
            groups.append([(parameter, place)])
    for group in groups:
        yield tuple(_parts(group))


def _parts(group: list[tuple[str, _Place]]) -> Iterator[Part]:
    first = group[0][1][2].at
    for parameter, (_, origin, offer) in group:
        yield Part(parameter, origin, offer.at[0] - first[0] if origin.kind == "said" else 0)


def _related(one: _Place, other: _Place) -> bool:
    if one[0] is not other[0] or one[1].kind != other[1].kind:
        return False
    if one[1].kind == "said":
        return abs(one[2].at[0] - other[2].at[0]) <= NEAR
    return _together(one[2], other[2])


def _together(one: Offer, other: Offer) -> bool:
    return all(a == b for a, b in zip(one.at, other.at, strict=False))


def _bound(group: Group, steps: Iterable[Step]) -> Iterator[Binding]:
    first = group[0]
    if first.origin.kind == "constant":
        yield Binding({first.parameter: json.loads(first.origin.what)}, -1, ())
        return
    seen: list[Mapping[str, Any]] = []
    for step in reversed(tuple(steps)):
        for offer in step.offers.get(first.origin, ()):
            joined = _joined(group, step, offer)
            if joined is not None and joined.arguments not in seen:
                seen.append(joined.arguments)
                yield joined


def _joined(group: Group, step: Step, offer: Offer) -> Binding | None:
    arguments = {group[0].parameter: offer.value}
    used = [offer]
    for part in group[1:]:
        for other in step.offers.get(part.origin, ()):
            if _fits(part, other, offer):
                arguments[part.parameter] = other.value
                used.append(other)
                break
        else:
            return None
    return Binding(arguments, step.position, tuple(used))


def _fits(part: Part, other: Offer, first: Offer) -> bool:
    if part.origin.kind == "said":
        return other.at[0] - first.at[0] == part.shift
    return _together(other, first)
