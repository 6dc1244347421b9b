"""Random programs, and everything that can go wrong: the laws hold."""

from __future__ import annotations

from tests.chaos.cases import Case
from tests.chaos.play import report


def test_the_laws_hold_whatever_happens(seeds: range) -> None:
    for seed in seeds:
        case = Case.draw(seed)
        found = report(case)
        if case.mood == "bearable" and not found.wrong:
            found.wrong += filter(None, [found.differs(report(case.calm()))])
        assert not found.wrong, found.story()
