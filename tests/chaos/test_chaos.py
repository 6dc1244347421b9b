"""Random programs, and everything that can go wrong: the laws hold."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tests.chaos.cases import Case
from tests.chaos.faults import BLOWS, MODEL_FAULTS, STORE_FAULTS, TOOL_FAULTS
from tests.chaos.killing import killed
from tests.chaos.play import report
from tests.chaos.programs import KINDS

ENOUGH = 1000
"""Seeds among which everything that can happen has happened."""

EVERY = 10
"""One seed in so many is killed, which takes four runs of it."""


@pytest.fixture(scope="session")
def tally() -> Counter[str]:
    """What has happened in all seeds so far."""
    return Counter()


@pytest.mark.usefixtures("nothing_left")
def test_the_laws_hold_whatever_happens(seeds: range, tally: Counter[str]) -> None:
    for seed in seeds:
        case = Case.draw(seed)
        found = report(case)
        if case.mood == "bearable" and not found.wrong:
            found.wrong += filter(None, [found.differs(report(case.calm()))])
        assert not found.wrong, found.story()
        tally.update(found.counts)
        tally["seeds"] += 1


@pytest.mark.usefixtures("nothing_left")
def test_a_process_that_is_killed_leaves_runs_that_go_on(seeds: range, tmp_path: Path) -> None:
    for seed in seeds if len(seeds) == 1 else seeds[seeds[0] // len(seeds) % EVERY :: EVERY]:
        folder = tmp_path / str(seed)
        folder.mkdir()
        case = Case.draw(seed)
        wrong = killed(case, folder)
        assert not wrong, "\n\n".join([case.show(), *wrong])


def test_everything_that_can_happen_did(tally: Counter[str]) -> None:
    if tally["seeds"] < ENOUGH:
        pytest.skip("too few seeds were played")
    kinds = {
        "tool": TOOL_FAULTS,
        "model": MODEL_FAULTS,
        "store": STORE_FAULTS,
        "blow": BLOWS,
    }
    expected = {f"{kind}: {what}" for kind, faults in kinds.items() for what in faults}
    expected |= {f"{kind}: {end}" for kind in KINDS for end in ("finished", "DeadlineExceeded")}
    expected |= {"SpeculationUsed", "PartialCommitted", "NodeHedged", "NodeReused", "RunCancelled"}

    assert {what for what in expected if tally[what] < 3} == set()
