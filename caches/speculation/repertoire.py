"""The recipes a predictor knows: by tool, the most useful first, bounded."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from zlib import crc32

from agentflow.caches.speculation.forms import Form
from agentflow.caches.speculation.recipes import Part, Recipe, mine
from agentflow.caches.speculation.trail import Origin, Step

TOOLS = 256
"""Tools that are remembered."""

KEPT = 24
"""Recipes of one tool that are remembered; as many again may be on trial."""

USED = 8
"""Recipes of one tool that are applied."""

SHARE = 0.01
"""Share of the credit of its tool below which a recipe is not applied."""

_OTHERS = 0.25
"""Credit of the recipes that explain a call beside the one that is known best."""


@dataclass(slots=True)
class Known:
    """A recipe with what it is worth.

    Attributes:
        recipe: The recipe.
        number: Stands for it in features, the same in every process.
        credit: Calls it explained; those another one explains better count less.
        share: Part of the credit of its tool.
    """

    recipe: Recipe
    number: int
    credit: float
    share: float = 0.0


class Repertoire:
    """What is known about how calls are put together."""

    def __init__(self) -> None:
        self._tools: dict[str, dict[Recipe, Known]] = {}
        self._used: dict[str, list[Known]] = {}
        self._workflows: dict[str, dict[str, None]] = {}

    def learn(self, workflow: str, step: Step, before: Sequence[Step]) -> None:
        """Learn how a call could have been put together from the steps before it."""
        tool = step.actor
        known = self._tools.pop(tool, {})
        self._tools[tool] = known  # the last one used is the last one forgotten
        self._note_use(workflow, tool)
        explanations = [_known(recipe, known) for recipe in mine(tool, step.arguments, before)]
        explanations.sort(key=lambda entry: -entry.credit)
        for place, entry in enumerate(explanations):
            entry.credit += _OTHERS if place else 1.0
            known[entry.recipe] = entry
        if len(known) > 2 * KEPT:
            self._tools[tool] = {entry.recipe: entry for entry in _best(known.values(), KEPT)}
        if len(self._tools) > TOOLS:
            forgotten = next(iter(self._tools))
            del self._tools[forgotten], self._used[forgotten]
        self._used[tool] = self._worth_using(tool)

    def used_in(self, workflow: str) -> Collection[str]:
        """The tools that a workflow has called; all there are for one that is not known."""
        return self._workflows.get(workflow) or self._tools

    def _note_use(self, workflow: str, tool: str) -> None:
        tools = self._workflows.pop(workflow, {})
        self._workflows[workflow] = tools
        tools.pop(tool, None)
        tools[tool] = None
        for used in (tools, self._workflows):
            if len(used) > TOOLS:
                del used[next(iter(used))]

    def __iter__(self) -> Iterator[tuple[str, list[Known]]]:
        """The tools, in the order of their names, with the recipes to apply."""
        return iter(sorted(self._used.items()))

    def dump(self) -> dict[str, Any]:
        """The recipes, and who uses them, as JSON."""
        workflows = [[workflow, list(tools)] for workflow, tools in self._workflows.items()]
        recipes = [
            [
                [tool, [[list(part) for part in group] for group in entry.recipe.groups]],
                entry.credit,
            ]
            for tool, known in self._tools.items()
            for entry in known.values()
        ]
        return {"workflows": workflows, "recipes": recipes}

    @classmethod
    def load(cls, dumped: Any) -> Repertoire:
        """The repertoire that `dump` gave.

        Raises:
            TypeError, ValueError: It did not give this.
        """
        repertoire = cls()
        for workflow, tools in dumped["workflows"]:
            repertoire._workflows[str(workflow)] = dict.fromkeys(map(str, tools))
        for (tool, groups), credit in dumped["recipes"]:
            recipe = Recipe(str(tool), tuple(tuple(map(_part, group)) for group in groups))
            if not 0 < credit < float("inf"):
                raise ValueError(f"a credit of {credit}")
            known = repertoire._tools.setdefault(recipe.tool, {})
            known[recipe] = Known(recipe, _number(recipe), float(credit))
        repertoire._used = {tool: repertoire._worth_using(tool) for tool in repertoire._tools}
        return repertoire

    def _worth_using(self, tool: str) -> list[Known]:
        known = self._tools[tool].values()
        total = sum(entry.credit for entry in known)
        best = _best(known, USED)
        for entry in best:
            entry.share = entry.credit / total
        return [
            entry
            for entry in best
            if entry.share >= SHARE and (entry.credit > 1 or not _fixed(entry.recipe))
        ]


def _known(recipe: Recipe, known: Mapping[Recipe, Known]) -> Known:
    return known.get(recipe) or Known(recipe, _number(recipe), 0.0)


def _best(known: Iterable[Known], count: int) -> list[Known]:
    return sorted(known, key=lambda entry: -entry.credit)[:count]


def _fixed(recipe: Recipe) -> bool:
    """Whether a recipe names one call only, with arguments that came from nowhere."""
    parts = [part for group in recipe.groups for part in group]
    return bool(parts) and all(part.origin.kind == "constant" for part in parts)


def _number(recipe: Recipe) -> int:
    return crc32(repr(recipe).encode("utf-8", "backslashreplace"))


def _part(dumped: Sequence[Any]) -> Part:
    parameter, (kind, who, what), form, shift = dumped
    origin = Origin(str(kind), str(who), str(what))
    if origin.kind == "constant":
        json.loads(origin.what)
    return Part(str(parameter), origin, Form.load(form), int(shift))
