"""What is concluded from episodes, and plans made of recorded samples."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from allocation_contest import Error, Outcome, Row, Stage, simulated
from allocation_pools import load
from allocation_scoring import (
    by_group,
    compare,
    hindsight,
    quantiles,
    score,
    sign_test,
    significant,
    wilson,
)


def outcomes(
    passed: str, cell: tuple[float, float] = (1.0, 1.0), usd: float = 2.0
) -> list[Outcome]:
    """One episode for each character; ``+`` passed."""
    return [
        Outcome("a", cell, seed, sign == "+", usd, 1.0, 1, 0.0) for seed, sign in enumerate(passed)
    ]


def test_a_score_counts_all_money_against_the_successes() -> None:
    its = score(outcomes("+-+-"))
    assert (its.success, its.usd, its.usd_per_success) == (0.5, 2.0, 4.0)
    assert score(outcomes("--")).usd_per_success == float("inf")


def test_intervals_are_those_of_wilson() -> None:
    assert wilson(8, 10) == pytest.approx((0.490, 0.943), abs=1e-3)
    assert wilson(0, 10)[0] == 0.0


def test_a_comparison_is_by_pairs() -> None:
    its = compare(outcomes("++-+"), outcomes("+--+"))
    assert (its.difference, its.better, its.worse, its.worse_p) == (0.25, 1, 0, 1.0)
    assert sign_test(9, 10) == pytest.approx(11 / 1024)


def test_only_groups_that_stay_worse_after_holm_count() -> None:
    bad, fair = (1.0, 1.0), (2.0, 2.0)
    ours = outcomes("-" * 12, bad) + outcomes("-+" * 6, fair)
    other = outcomes("+" * 12, bad) + outcomes("+-" * 6, fair)
    groups = by_group(ours, other, lambda outcome: outcome.cell)
    assert significant(groups) == [bad]


def test_hindsight_chooses_in_every_group() -> None:
    one = outcomes("++", (1.0, 1.0)) + outcomes("--", (2.0, 2.0))
    two = outcomes("--", (1.0, 1.0)) + outcomes("++", (2.0, 2.0))
    assert hindsight({"one": one, "two": two}, lambda _: 0) == 0.5
    assert hindsight({"one": one, "two": two}, lambda outcome: outcome.cell) == 1.0


def test_decision_times_can_leave_out_wide_decisions() -> None:
    [its] = outcomes("+")
    its.decisions = [(1, 0.001), (4, 0.002), (8, 0.5)]
    assert quantiles([its], 4) == (1.0, 2.0)
    assert quantiles([its])[1] == 500.0


Line = dict[str, Any]


def line(node: str, success: bool = True, **more: Any) -> Line:
    return {
        "node": node, "model": "m", "latency_s": 2.0, "output_tokens": 100, "success": success, **more
    }  # fmt: skip


def file(folder: Path, lines: Iterable[Line]) -> Path:
    path = folder / "pools.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_nodes_of_a_file_are_chained_four_by_four(tmp_path: Path) -> None:
    one, two = load(file(tmp_path, [line(name) for name in "abcde"]))
    assert one.after == ((), (0,), (1,), (2,)) and two.after == ((),)
    assert one.pools[0]["m"].usd == 100 / 1e6


def test_nodes_of_a_file_wait_as_it_says(tmp_path: Path) -> None:
    [it] = load(file(tmp_path, [line("end", after=["a", "b"]), line("a"), line("b")]))
    assert it.after == ((), (), (0, 1))


def test_an_item_of_a_kind_is_another_in_every_episode_and_only_the_kind_is_known(
    tmp_path: Path,
) -> None:
    lines = [line(f"{n}", success=n % 2 == 0, kind="k", usd=0.5) for n in range(8)]
    it = load(file(tmp_path, lines))[0]
    assert it.pools[0]["m"].probability == 0.5
    seen = {it.draws(str(seed)).sample(0, "m", 0).passed for seed in range(20)}
    assert seen == {True, False}
    same = [it.draws("3").sample(0, "m", index) for index in range(5)]
    assert len(set(same)) == 1 and same[0].usd == 0.5


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        ([{"node": "a"}], "line 1: no record of a sample"),
        ([line("a", after=["b"]), line("b", after=["a"])], "wait for each other"),
        ([line("a", kind="k"), line("b", kind="k") | {"model": "n"}], "by the same models"),
    ],
)
def test_a_file_that_is_none_is_refused(tmp_path: Path, lines: list[Line], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        load(file(tmp_path, lines))


def test_a_file_can_be_played(tmp_path: Path) -> None:
    lines = [line(name, success=n > 3) for name in "ab" for n in range(10)]
    its = Stage(Row(), load(file(tmp_path, lines))[0])
    assert simulated(its, "ours", its.case.limits((4.8, 4.0)), "0").passed


def test_wrong_estimates_are_wrong_by_what_is_said() -> None:
    its = Stage(Row(error=Error(passes=-0.5, size=1.0)), Stage(Row(), _case()).case)
    right = Stage(Row(), its.case).beliefs[0]["m"]
    wrong = its.beliefs[0]["m"]
    assert wrong.probability == right.probability / 2
    assert wrong.won[0] == (2 * right.won[0][0], 2 * right.won[0][1])


def _case() -> Any:
    from allocation_cases import Case, Pool, Record, chain

    records = [Record(1.0, 1000, 1.0, number < 5) for number in range(10)]
    return Case("one", chain(1), ({"m": Pool(records, 1000.0)},))
