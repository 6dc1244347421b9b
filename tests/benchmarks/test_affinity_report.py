"""Tables and goals of `affinity.py`, from a small measurement."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from pathlib import Path

import affinity
import affinity_report as report
import pytest
from affinity_agents import Setting
from affinity_cells import Cell, cell
from affinity_contest import AMPLE, FROZEN, ONE, run
from affinity_decisions import thinking
from affinity_fairness import fairness
from affinity_rivals import HASH, LEAST, OURS, POLICIES, TABLE
from affinity_wire import Way
from harness import Goal

SMALL = Setting(agents=16, replicas=2, window=10.0, turns=(3, 6))


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve conversations of four turns."""
    lines = [
        {"id": str(n), "t_ms": 500 * n, "input": 512 * (3 + n // 12) + 1, "output": 80,
         "session": n % 12, "hash_ids": [0, *(100 * (n % 12) + i for i in range(1, 7))]}
        for n in range(48)
    ]  # fmt: skip
    path = tmp_path_factory.mktemp("traces") / "chat.jsonl.gz"
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)
    return path


@pytest.fixture(scope="module")
def crowded(trace: Path) -> Cell:
    return cell(trace, 2, 0.5, moves=20)


@pytest.fixture(scope="module")
def found(crowded: Cell) -> report.Found:
    tenants = replace(SMALL, replicas=1, tenants=(1, 3, 8), memory=0.2)
    closed = {
        name: {policy: [run(SMALL, policy, 1)] for policy in (HASH, TABLE, OURS)}
        for name in (FROZEN, ONE, AMPLE)
    }
    fair = {OURS: fairness(OURS, tenants)}
    wire = {OURS: (Way(10.0, 1000, 0.9), Way(9.5, 1000, 0.9))}
    return report.Found(closed, [crowded], fair, wire, thinking(24, 4))


def by_name(found: report.Found) -> dict[str, Goal]:
    return {goal.name: goal for goal in report.goals(found)}


def test_every_part_has_its_goals(found: report.Found) -> None:
    goals = by_name(found)
    assert set(goals) >= {
        "agents, frozen: faster than sticky",
        f"agents, {AMPLE}: cached, of the ceiling",
        "chat: throughput when saturated, of least loaded",
        "a tenant ahead of another, of the bound",
        "the simulator's sessions, off the pool's at most",
        "a decision, p99",
    }
    gain = report.speedups(found.closed[FROZEN], report.sticky(found.closed[FROZEN]))
    assert goals["agents, frozen: faster than sticky"].value == gain[0]
    assert goals["the simulator's sessions, off the pool's at most"].value == pytest.approx(
        5.26, 0.01
    )


def test_the_goal_that_nothing_is_worse_names_where_it_is_worst(found: report.Found) -> None:
    (goal,) = (goal for name, goal in by_name(found).items() if name.startswith("traces: slower"))
    its = found.cells[0]
    others = [sent.whole.mean for name, sent in its.sent.items() if name != OURS]
    assert goal.value == pytest.approx(100 * (its.sent[OURS].whole.mean / min(others) - 1))
    assert "chat, 2 replicas, KV 50 %" in goal.name


def test_all_of_it_can_be_printed(found: report.Found, capsys: pytest.CaptureFixture[str]) -> None:
    report.show(found)
    shown = capsys.readouterr().out
    assert all(name in shown for name in (*POLICIES, FROZEN, ONE, "hindsight", "bound"))
    json.dumps(report.results(found))


def test_what_is_cached_lies_between_nothing_and_the_ceiling(crowded: Cell) -> None:
    for its in crowded.sent.values():
        assert 0 <= its.cached <= crowded.ceiling
    assert crowded.belady <= crowded.ceiling
    assert crowded.sent[OURS].lru <= crowded.sent[OURS].own
    assert crowded.best >= max(its.cached for its in crowded.sent.values())
    assert set(crowded.ends) == {OURS, LEAST, TABLE}


def test_fleets_that_are_the_same_are_measured_once(trace: Path) -> None:
    fleets = affinity.fleets(trace, quick=False)
    assert (2, 1.0) in fleets
    assert [fleet for fleet in fleets if fleet[0] == 16] == [(16, 0.1)]
