"""The programs that every engine runs, and what each of them must give.

A shape is a list of nodes; each names the earlier nodes whose values it takes. What a
node does is nothing: it gives its number when it takes no value, else the sum of what it
takes and one. So a result shows that every node ran, and what is measured is the engine.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

NAP = 0.05  # seconds


@dataclass(frozen=True)
class Shape:
    """A program.

    Attributes:
        name: As in the tables.
        needs: For each node, the earlier nodes whose values it takes: none, one or three.
        nap: Whether each node sleeps for `NAP` seconds.
    """

    name: str
    needs: tuple[tuple[int, ...], ...]
    nap: bool = False

    @cached_property
    def followers(self) -> tuple[tuple[int, ...], ...]:
        """For each node, the nodes that take its value."""
        found: list[list[int]] = [[] for _ in self.needs]
        for node, needed in enumerate(self.needs):
            for other in needed:
                found[other].append(node)
        return tuple(map(tuple, found))

    @cached_property
    def levels(self) -> tuple[tuple[int, ...], ...]:
        """The nodes by the length of the longest way to them: waves that can run at once."""
        depth: list[int] = []
        for needed in self.needs:
            depth.append(1 + max((depth[other] for other in needed), default=-1))
        waves: list[list[int]] = [[] for _ in range(max(depth) + 1)]
        for node, level in enumerate(depth):
            waves[level].append(node)
        return tuple(map(tuple, waves))

    @cached_property
    def ends(self) -> tuple[int, ...]:
        """The nodes whose values nobody takes."""
        return tuple(node for node, after in enumerate(self.followers) if not after)

    @cached_property
    def expected(self) -> int:
        """The sum of the values of the ends."""
        values: list[int] = []
        for node, needed in enumerate(self.needs):
            values.append(1 + sum(values[other] for other in needed) if needed else node)
        return sum(values[node] for node in self.ends)


def chain(nodes: int = 1_000) -> Shape:
    """Each node takes the value of the one before."""
    return Shape("chain", ((), *((node,) for node in range(nodes - 1))))


def fan_out(nodes: int = 1_000) -> Shape:
    """No node needs another."""
    return Shape("fan-out", ((),) * nodes)


def layers(depth: int = 10, width: int = 100) -> Shape:
    """Each node takes three values of the layer before."""
    needs: list[tuple[int, ...]] = [()] * width
    for layer in range(depth - 1):
        for column in range(width):
            needs.append(tuple(layer * width + (column + 7 * k) % width for k in range(3)))
    return Shape("layers", tuple(needs))


def sleeps(nodes: int = 200) -> Shape:
    """No node needs another, and each sleeps."""
    return Shape("sleeps", ((),) * nodes, nap=True)


def standard() -> tuple[Shape, ...]:
    """The four shapes of the tables."""
    return chain(), fan_out(), layers(), sleeps()


Run: TypeAlias = Callable[[], Awaitable[int]]
"""Runs a prepared program once and gives the sum of the values of its ends."""

Engine: TypeAlias = Callable[[Shape], AbstractAsyncContextManager[Run]]
"""Prepares a shape (not measured); the context closes what it opened."""


async def source(number: int) -> int:
    """A node that takes no value."""
    return number


async def step(value: int) -> int:
    """A node that takes one value."""
    return value + 1


async def merge(one: int, two: int, three: int) -> int:
    """A node that takes three values."""
    return one + two + three + 1


async def nap(number: int) -> int:
    """A node that takes no value, and its time."""
    await asyncio.sleep(NAP)
    return number


def call(shape: Shape, node: int, values: Sequence[int]) -> Coroutine[Any, Any, int]:
    """The call of a node, with the values it takes."""
    if not values:
        return nap(node) if shape.nap else source(node)
    tool: Callable[..., Coroutine[Any, Any, int]] = step if len(values) == 1 else merge
    return tool(*values)
