"""Where the arguments of a call come from: recipes, mined from calls that were made."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple

from agentflow.caches.speculation.forms import LONGEST, SAME, SHORTEST, Form, forms
from agentflow.caches.speculation.trail import Offer, Origin, Step

SEEDS = 4
"""Steps from which the arguments of one call are explained."""

ANCHORS = 3
"""Places in one such step from which they are."""

REWRITTEN = 12
"""The last steps in which a text is looked for that was rewritten."""

PLACES = 64
"""Places where such a text is found."""

NEAR = 3
"""Tokens between two words that were said together."""

CONSTANT = 80
"""Characters of the longest constant that is worth remembering."""


class Part(NamedTuple):
    """One argument: its parameter, where it comes from, in which form.

    `shift` is how many tokens it stands behind the first part of its group.
    """

    parameter: str
    origin: Origin
    form: Form = SAME
    shift: int = 0


Group = tuple[Part, ...]
"""Arguments that come from one step: fields of one record, or words said together."""


class Recipe(NamedTuple):
    """How the arguments of a tool are put together."""

    tool: str
    groups: tuple[Group, ...]

    def __str__(self) -> str:
        parts = (part for group in self.groups for part in group)
        return "; ".join(f"{part.parameter} = {part.origin}" for part in parts)


def mine(tool: str, arguments: Mapping[str, Any], steps: Sequence[Step]) -> list[Recipe]:
    """The recipes that explain a call from what came before it, the closest first."""
    if not arguments:
        return [Recipe(tool, ())]
    found = {
        parameter: list(_places(value, steps)) for parameter, value in sorted(arguments.items())
    }
    if any(not found[name] and len(_json(arguments[name])) > CONSTANT for name in found):
        return []
    recipes: dict[Recipe, None] = {}
    anchors: Sequence[_Place | None] = [*_anchors(found)] or [None]
    for anchor in anchors:
        chosen = {
            parameter: min(places, key=lambda place: _distance(place, anchor))
            for parameter, places in found.items()
            if places
        }
        recipes[Recipe(tool, tuple(_groups(arguments, chosen)))] = None
    return list(recipes)


def together(one: Offer, other: Offer) -> bool:
    """Whether two leaves of a value belong to one record of it."""
    return all(a == b for a, b in zip(one.at, other.at, strict=False))


class _Place(NamedTuple):
    """Where the value of an argument was found."""

    step: Step
    origin: Origin
    offer: Offer
    form: Form


def _places(value: Any, steps: Sequence[Step]) -> Iterator[_Place]:
    if value == "" or isinstance(value, bool) or not isinstance(value, str | int | float):
        return
    exact = False
    for step in reversed(steps):
        for origin, offer in step.sources.get((type(value), value), ()):
            exact = True
            yield _Place(step, origin, offer, SAME)
    if not exact and isinstance(value, str) and SHORTEST <= len(value) <= LONGEST:
        yield from islice(_rewritten(value, steps), PLACES)


def _rewritten(value: str, steps: Sequence[Step]) -> Iterator[_Place]:
    folded = value.lower()
    for step in islice(reversed(steps), REWRITTEN):
        texts = [text for text in step.folded if text in folded or folded in text]
        for source in [source for text in texts for source in step.folded[text]]:
            for form in forms(source, value):
                for origin, offer in step.sources[str, source]:
                    yield _Place(step, origin, offer, form)


def _anchors(found: Mapping[str, list[_Place]]) -> list[_Place]:
    """The places from which a call is explained: in steps that give much of it, or young ones."""
    covered: dict[int, int] = {}
    for places in found.values():
        for position in {place.step.position for place in places}:
            covered[position] = covered.get(position, 0) + 1
    seeds = sorted(covered, key=lambda position: (-covered[position], -position))[:SEEDS]
    everywhere = [place for places in found.values() for place in places]
    return [
        place
        for seed in seeds
        for place in [place for place in everywhere if place.step.position == seed][:ANCHORS]
    ]


def _distance(place: _Place, anchor: _Place | None) -> tuple[bool, bool, int, int]:
    age = -place.step.position
    if anchor is None or place.step is not anchor.step:
        return (True, True, 0, age)
    if place.origin.kind != anchor.origin.kind:
        return (False, True, 0, age)
    if place.origin.kind == "said":
        return (False, False, abs(place.offer.at[0] - anchor.offer.at[0]), age)
    same_record = place.offer.at == anchor.offer.at
    return (False, not together(place.offer, anchor.offer), int(not same_record), age)


def _groups(arguments: Mapping[str, Any], chosen: Mapping[str, _Place]) -> Iterator[Group]:
    groups: list[list[tuple[str, _Place]]] = []
    for parameter in sorted(arguments):
        place = chosen.get(parameter)
        if place is None:
            yield (Part(parameter, Origin("constant", "", _json(arguments[parameter]))),)
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
    first = group[0][1].offer.at
    for parameter, place in group:
        shift = place.offer.at[0] - first[0] if place.origin.kind == "said" else 0
        yield Part(parameter, place.origin, place.form, shift)


def _related(one: _Place, other: _Place) -> bool:
    if one.step is not other.step or one.origin.kind != other.origin.kind:
        return False
    if one.origin.kind == "said":
        return abs(one.offer.at[0] - other.offer.at[0]) <= NEAR
    return together(one.offer, other.offer)


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=repr)
