"""Whatever is switched on, together: the same calls are committed, and give the same."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from agentflow import Caching, Commit
from agentflow.caches.epochs import Epochs
from agentflow.caches.memory import MemoryStore
from agentflow.caches.tool_cache import ToolCache
from agentflow.executor.journal.recall import Recall
from agentflow.executor.models.persistent import _Handed
from tests.matrix.cases import Case
from tests.matrix.covering import Row, covering, every_row, rows_of
from tests.matrix.play import Setting

ENOUGH = 400
"""Seeds among which everything that can happen has happened."""

EXPECTED = {
    "NodeReused", "NodeRetrying", "NodeFailed", "NodeSkipped", "SpeculationUsed",
    "SpeculationWasted", "PartialCommitted", "PartialRetracted", "PartialWarmed", "SampleStarted",
    "ReplicaDown", "ReplicaUp", "ReplyStopped", "RunFailed", "went on",
}  # fmt: skip


def differences(seed: int, tally: Counter[str], *rows: Row, **changed: Any) -> list[str]:
    """What is wrong in any configuration, or not as it is with all switched off.

    Args:
        seed: Of the case.
        tally: Is told what has happened.
        *rows: The configurations.
        **changed: Fields of their `Setting`.
    """
    setting = Setting(Case.draw(seed))
    plain = replace(setting, calm=True).play()
    found = [f"calmly, with all switched off:\n{what}" for what in plain.wrong]
    for row in rows:
        at = 0
        if row.durability == "broken off":
            at = random.Random(f"{seed} {row}").randrange(1, max(2, plain.heard))
        record = replace(setting, row=row, at=at, **changed).play()
        wrong = list(record.wrong)
        if not setting.case.binds:
            wrong += record.differences(plain)
        found += [f"with {row}:\n{what}" for what in wrong]
        tally.update(record.used)
    return [setting.case.show(), *found] if found else []


@pytest.fixture(scope="session")
def tally() -> Counter[str]:
    """What has happened in all seeds so far."""
    return Counter()


@pytest.mark.usefixtures("nothing_left")
def test_nothing_that_is_switched_on_changes_what_is_done(
    seeds: range, tally: Counter[str]
) -> None:
    for seed in seeds:
        rows = rows_of(seed) if len(seeds) > 1 else covering()
        wrong = differences(seed, tally, *rows)
        assert not wrong, "\n\n".join(wrong)
        tally["seeds"] += 1


def test_everything_that_can_happen_did(tally: Counter[str]) -> None:
    if tally["seeds"] < ENOUGH:
        pytest.skip("too few seeds were played")

    assert {what for what in EXPECTED if tally[what] < 3} == set()


def test_every_pair_of_values_meets_within_a_few_seeds() -> None:
    pairs = {pair for row in every_row() for pair in row.pairs()}
    few = range(1, 1 + len(covering()))

    assert {pair for row in covering() for pair in row.pairs()} == pairs
    assert {row for seed in few for row in rows_of(seed)} == set(covering())


# What it notices


class Still(Epochs):
    """Epochs that no write raises."""

    def begin(self, resources: Iterable[Any]) -> None: ...

    def end(self, resources: Iterable[Any]) -> None: ...

    async def raised(self, resources: Iterable[Any]) -> None: ...


class Forgetful(Caching):
    """A cache that does not notice writes."""

    def build(self, spawn: Any, chance: random.Random) -> ToolCache:
        return ToolCache(MemoryStore(), None, Still(), spawn, chance)


def noticed(row: Row, **changed: Any) -> Iterator[bool]:
    """Whether seeds go otherwise, one after the other."""
    for seed in range(100):
        yield bool(differences(seed, Counter(), row, **changed))


@pytest.mark.parametrize("speculation", ["off", "whims"])
def test_without_the_epochs_of_writes_it_would_fail(speculation: Any) -> None:
    row = Row(cache="memory", speculation=speculation)

    assert any(noticed(row, caching=Forgetful))


async def at_once(self: Commit) -> None:
    """A commit that waits for nothing."""


async def unknown(self: Recall, step: str, *, hold: bool = True) -> None:
    """Nothing is known of any call."""


def not_replied(self: Recall, ask: str) -> None:
    """Nothing is known of any reply."""


def all_of_it(self: _Handed, channel: Any, text: str) -> str:
    """All of an attempt is new, also what was handed out before."""
    self._seen.setdefault(channel, []).append(text)
    return text


@pytest.mark.parametrize(
    ("row", "owner", "name", "instead"),
    [
        (Row(partial="on"), Commit, "__call__", at_once),
        (Row(durability="broken off"), Recall, "outcome", unknown),
        (Row(durability="broken off"), Recall, "reply", not_replied),
        (Row(routing="earliest"), _Handed, "_new", all_of_it),
    ],
    ids=[
        "writes did not wait until they are certain",
        "runs that go on made all calls anew",
        "runs that go on asked models anew",
        "replies that broke off were handed out twice",
    ],
)
def test_it_would_fail_if(
    monkeypatch: pytest.MonkeyPatch, row: Row, owner: type, name: str, instead: Any
) -> None:
    monkeypatch.setattr(owner, name, instead)

    assert any(noticed(row))
