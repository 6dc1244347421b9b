"""A run that breaks off after any of its records goes on as if it had not."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tests.durable.conftest import Desk, Record, records
from tests.durable.programs import Programs

NAMES = ("chain", "branches", "races", "maps", "failures", "nested", "waits", "queues")


def ends(kept: Sequence[Record]) -> set[str]:
    """Steps that ended by themselves."""
    return {r["step"] for r in kept if r["event"] in ("node_finished", "node_failed")}


@pytest.mark.parametrize("name", NAMES)
def test_a_run_that_broke_off_anywhere_ends_as_it_would_have(desk: Desk, name: str) -> None:
    program = Programs(desk.made, desk.ended).all()[name]
    whole = desk.path()
    value = desk.run(program, path=whole)
    kept = records(whole)
    for count in range(1, len(kept)):
        desk.made.clear()
        desk.ended.clear()
        cut = desk.cut(whole, count)
        where = f"after {count} records, the last of them {kept[count - 1]}"

        assert desk.resume(program, path=cut, in_doubt="retry") == value, where

        before, after = ends(kept[:count]), ends(records(cut)[count:])
        assert not before & after, where
        assert before | after >= ends(kept), where

        assert len(desk.ended) == len(
            [s for s in after if not s.rpartition("/")[2].startswith("inner:")]
        ), where
