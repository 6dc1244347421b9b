"""Whatever is switched on, together: the same calls are committed, and give the same."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

import pytest

from tests.matrix.cases import Case
from tests.matrix.covering import PLAIN, Row, covering, rows_of
from tests.matrix.play import Setting


def differences(seed: int, tally: Counter[str], *rows: Row) -> list[str]:
    """What is wrong in any configuration, or not as it is with all switched off."""
    setting = Setting(Case.draw(seed))
    plain = replace(setting, calm=True).play()
    found = [f"with {PLAIN}:\n{what}" for what in plain.wrong]
    for row in rows:
        at = 0
        if row.durability == "broken off":
            at = random.Random(f"{seed} {row}").randrange(1, max(2, plain.heard))
        record = replace(setting, row=row, at=at).play()
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
