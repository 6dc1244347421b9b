"""Rows with a label, columns of seconds and dollars, and a text, as they stand below a run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import NamedTuple

from agentflow.cli.output import LEAST_SECONDS, LEAST_USD, duration
from agentflow.cli.progress import price
from agentflow.cli.screen import columns

LABEL = 8
"""Columns of the widest label."""


class Row(NamedTuple):
    """One row.

    Attributes:
        label: What it is about; rows below it with the same one do not repeat it.
        text: What it says.
        seconds: A duration, or empty.
        usd: A price, or empty.
    """

    label: str
    text: str
    seconds: str = ""
    usd: str = ""


def amounts(seconds: float, usd: Decimal = Decimal(0), *, about: bool = False) -> tuple[str, str]:
    """Seconds and dollars as they stand in a row, where they are worth telling."""
    shown = duration(seconds) if seconds >= LEAST_SECONDS else ""
    paid = price(usd) if usd >= LEAST_USD else ""
    mark = "~" if about else ""
    return shown and f"{mark}{shown}", paid and f"{mark}{paid}"


def heads(rows: Sequence[Row]) -> Iterator[tuple[str, str]]:
    """Of each row what stands in columns, label first, and its text."""
    measured = [row for row in rows if row.seconds or row.usd]
    widths = [max((columns(row[place]) for row in measured), default=0) for place in (2, 3)]
    before = ""
    for row in rows:
        label, before = "" if row.label == before else row.label, row.label
        head = f"{label:<{LABEL}}  "
        if row in measured:
            cells = (
                f"{cell:>{width}}  "
                for cell, width in zip((row.seconds, row.usd), widths, strict=True)
                if width
            )
            head += "".join(cells)
        yield head, row.text
