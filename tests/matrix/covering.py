"""What can be switched on, and rows of settings in which every pair of values meets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from functools import cache
from itertools import combinations, product
from typing import Any, Literal, get_args, get_type_hints

Pair = tuple[tuple[str, str], tuple[str, str]]


@dataclass(frozen=True)
class Row:
    """One setting of every switch; each begins with off.

    Attributes:
        cache: Where results of tools are kept.
        speculation: Who guesses at calls: what was learnt, or chance.
        partial: Whether calls begin while they are written.
        routing: One replica, or how one of several is chosen.
        allocation: Models are tried in turn, without limits, or as an allocator decides.
        durability: Whether runs are kept, and whether they are broken off and gone on with.
    """

    cache: Literal["off", "memory", "disk"] = "off"
    speculation: Literal["off", "learnt", "whims"] = "off"
    partial: Literal["off", "on"] = "off"
    routing: Literal["one", "sticky", "earliest", "least-loaded"] = "one"
    allocation: Literal["in turn", "cheapest", "monte carlo"] = "in turn"
    durability: Literal["off", "journal", "broken off"] = "off"

    @property
    def possible(self) -> bool:
        """Whether an engine can be made of it: guesses are kept in the cache."""
        return self.speculation == "off" or self.cache != "off"

    def pairs(self) -> frozenset[Pair]:
        """The pairs of values that meet here."""
        values = [(field.name, str(getattr(self, field.name))) for field in fields(self)]
        return frozenset(combinations(values, 2))

    def __str__(self) -> str:
        return ", ".join(f"{field.name}={getattr(self, field.name)}" for field in fields(self))


PLAIN = Row()
"""All off, one replica: what every other row is compared with."""


def every_row() -> Iterator[Row]:
    """All rows that are possible."""
    hints: dict[str, Any] = get_type_hints(Row)
    for values in product(*(get_args(hints[field.name]) for field in fields(Row))):
        if (row := Row(*values)).possible:
            yield row


@cache
def covering() -> Sequence[Row]:
    """Few rows in which every pair of values meets: each has the most pairs that are missing."""
    rows = {row: row.pairs() for row in every_row()}
    missing, found = set().union(*rows.values()), []
    while missing:
        best = max(rows, key=lambda row: len(rows[row] & missing))
        found.append(best)
        missing -= rows[best]
    return found


def rows_of(seed: int) -> Sequence[Row]:
    """The rows that a seed is played with: one in turn, and now and then all."""
    rows = covering()
    return rows if seed % 100 == 0 else [rows[seed % len(rows)]]
