"""Records of real samples, from a file, as plans for `allocation.py`.

A line is a JSON object ``{"node", "model", "latency_s", "output_tokens", "success"}``: one sample.
``"price"`` is USD for a million output tokens (1 if it is not given), or ``"usd"`` what the sample
cost. Nodes wait for those in ``"after"``; without any in the file they are chained, four by four.
With ``"kind"`` a node is an item of a kind: plans are made of items drawn anew for each episode,
and what is known is the mean over the kind.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from statistics import fmean
from typing import Any

from allocation_cases import Case, Pool, Record, chain, fan
from allocation_items import fitted

SHAPES = {"chain of 2": chain(2), "chain of 4": chain(4), "fan of 3": fan(3)}
CHAINED = 4
Pools = dict[str, Pool]


@dataclass
class Lines:
    """The records of one node."""

    after: tuple[str, ...] = ()
    kind: str = ""
    by_model: dict[str, list[Record]] = field(default_factory=dict)
    prices: dict[str, float] = field(default_factory=dict)

    def add(self, line: Mapping[str, Any]) -> None:
        model, price = str(line["model"]), float(line.get("price", 1.0))
        tokens = int(line["output_tokens"])
        if "usd" in line:  # in tokens of the price of 1
            price, tokens = 1.0, round(1e6 * float(line["usd"]))
        tokens = max(tokens, 1)
        record = Record(
            max(float(line["latency_s"]), 1e-3), tokens, tokens * price / 1e6, bool(line["success"])
        )
        self.by_model.setdefault(model, []).append(record)
        self.prices[model] = price
        self.kind = str(line.get("kind", self.kind))
        self.after = tuple(map(str, line.get("after", self.after)))

    def pools(self) -> Pools:
        return {name: Pool(records, self.prices[name]) for name, records in self.by_model.items()}


def load(path: str | Path) -> list[Case]:
    """The plans of a file.

    Raises:
        ValueError: A line is no record; nodes wait for each other; a kind has items with
            different models.
    """
    nodes: dict[str, Lines] = {}
    with Path(path).open(encoding="utf-8") as file:
        for number, text in enumerate(file, 1):
            try:
                line = json.loads(text)
                nodes.setdefault(str(line["node"]), Lines()).add(line)
            except (KeyError, TypeError, ValueError) as error:
                raise ValueError(f"{path}, line {number}: no record of a sample: {error}") from None
    if any(node.kind for node in nodes.values()):
        return _of_kinds(nodes.values())
    if any(node.after for node in nodes.values()):
        return [_as_said(nodes)]
    return list(_chained(nodes))


def _as_said(nodes: Mapping[str, Lines]) -> Case:
    """One plan, in the order in which its nodes can be done."""
    order: list[str] = []
    while len(order) < len(nodes):
        ready = [n for n in nodes if n not in order and set(nodes[n].after) <= set(order)]
        if not ready:
            raise ValueError("some nodes wait for each other, or for nodes that have no records")
        order += ready
    after = tuple(tuple(order.index(other) for other in nodes[name].after) for name in order)
    return Case("as said", after, tuple(nodes[name].pools() for name in order))


def _chained(nodes: Mapping[str, Lines]) -> Iterable[Case]:
    names = list(nodes)
    for at in range(0, len(names), CHAINED):
        some = names[at : at + CHAINED]
        pools = tuple(nodes[name].pools() for name in some)
        yield Case(f"from {some[0]}", chain(len(some)), pools)


def _of_kinds(nodes: Iterable[Lines]) -> list[Case]:
    """Plans whose nodes are items of one kind."""
    kinds: dict[str, list[Pools]] = {}
    for node in nodes:
        kinds.setdefault(node.kind, []).append(node.pools())
    made = []
    for kind, items in kinds.items():
        models = set(items[0])
        if any(set(item) != models for item in items):
            raise ValueError(f"kind {kind!r}: its items were not all tried by the same models")
        told = {name: _joined([item[name] for item in items]) for name in items[0]}
        agreement = common(items)
        for shape, after in SHAPES.items():
            count = len(after)
            made.append(
                Case(
                    f"{kind}, {shape}", after, (told,) * count, items=(items,) * count,
                    agreement=agreement,
                )
            )  # fmt: skip
    return made


def _joined(pools: Sequence[Pool]) -> Pool:
    """The records of all items, each item with the same weight if they have as many."""
    return Pool([record for pool in pools for record in pool.records], pools[0].price)


def common(items: Sequence[Pools]) -> float:
    """The agreement that the outcomes of different models at the same items show."""
    models = list(items[0])
    found = [
        _correlation([(item[one].probability, item[other].probability) for item in items])
        for one, other in combinations(models, 2)
    ]
    known = [one for one in found if one is not None]
    if not known:
        return 0.0
    mean = fmean(item[name].probability for item in items for name in models)
    return fitted(min(max(mean, 0.05), 0.95), max(fmean(known), 0.0))


def _correlation(rates: Sequence[tuple[float, float]]) -> float | None:
    """Of the outcomes of one sample of each of two models, by their rates at the same items."""
    p, q = fmean(a for a, _ in rates), fmean(b for _, b in rates)
    if not (0 < p < 1 and 0 < q < 1):
        return None
    joint = fmean(a * b for a, b in rates)
    return float((joint - p * q) / (p * (1 - p) * q * (1 - q)) ** 0.5)
