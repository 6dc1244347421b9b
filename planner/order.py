"""Order by effects: which earlier calls a call must come after.

Writes to a resource stay in program order and reads see the writes before them; everything
else stays parallel. Resources are paths; a write touches ancestors and descendants.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from agentflow.tools.effects import Resource


@dataclass(slots=True)
class _Place:
    """A resource path and what last happened there.

    The first `passed` of its readers come before some write, and so before every later reader.
    """

    children: dict[str, _Place] = field(default_factory=dict)
    writer: int | None = None
    readers: list[int] = field(default_factory=list)
    passed: int = 0

    def below(self) -> Iterator[_Place]:
        for child in self.children.values():
            yield child
            yield from child.below()


class EffectOrder:
    """Remembers the calls that touched each resource, in program order.

    What it returns is a relation whose transitive closure orders every two calls that conflict:
    it relies on a call never being settled before the calls it comes after, not even when it is
    skipped or cancelled.
    """

    def __init__(self) -> None:
        self._root = _Place()

    def read(self, node: int, resources: Iterable[Resource]) -> tuple[int, ...]:
        """Note a call that reads; the writers it must come after."""
        after: dict[int, None] = {}
        for resource in resources:
            for place in self._touching(resource):
                if place.writer is not None:
                    after[place.writer] = None
            place = self._at(resource)
            del place.readers[: place.passed]  # the writes found above come after them
            place.passed = 0
            place.readers.append(node)
        return tuple(sorted(after))

    def write(self, node: int, resources: Iterable[Resource]) -> tuple[int, ...]:
        """Note a call that writes; the writers and readers it must come after."""
        after: dict[int, None] = {}
        resources = tuple(resources)
        for resource in resources:
            for place in self._touching(resource):
                if place.writer is not None:
                    after[place.writer] = None
                after.update(dict.fromkeys(place.readers))
                place.passed = len(place.readers)
        for resource in resources:
            self._forget(resource)
            self._at(resource).writer = node
        return tuple(sorted(after))

    def moved(self, homes: Mapping[int, int]) -> None:
        """Calls have new ids: `homes` gives the new one for each old one that changed."""
        for place in self._root.below():
            place.readers = list(dict.fromkeys(homes.get(node, node) for node in place.readers))
            if place.writer is not None:
                place.writer = homes.get(place.writer, place.writer)

    def _at(self, resource: Resource) -> _Place:
        place = self._root
        for segment in resource:
            place = place.children.setdefault(segment, _Place())
        return place

    def _forget(self, resource: Resource) -> None:
        """Drop the places a write covers: whoever meets one of them later meets the write."""
        *way, last = resource
        parents = [self._root]
        for segment in way:
            parents = [place for parent in parents for place in _covered(parent, segment)]
        for parent in parents:
            if last == "*":
                parent.children.clear()
            else:
                parent.children.pop(last, None)

    def _touching(self, resource: Resource) -> Iterator[_Place]:
        """Places on the way to the resource, at it, and below it; ``*`` matches any segment."""
        frontier = [self._root]
        for segment in resource:
            frontier = [place for parent in frontier for place in _matching(parent, segment)]
            yield from frontier
        for place in frontier:
            yield from place.below()


def _matching(parent: _Place, segment: str) -> Iterable[_Place]:
    if segment == "*":
        return parent.children.values()
    return [parent.children[name] for name in (segment, "*") if name in parent.children]


def _covered(parent: _Place, segment: str) -> Iterable[_Place]:
    if segment == "*":
        return parent.children.values()
    return [parent.children[segment]] if segment in parent.children else []
