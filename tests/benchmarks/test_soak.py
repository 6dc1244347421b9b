"""The soak benchmark: its runs give what they must, its faults are told apart, growth is seen."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import soak
import soak_subject
import soak_work
from soak_server import Scripted
from soak_subject import Soak

from agentflow import Engine, _http
from agentflow.executor.models.client import OpenAIBackend
from agentflow.testing import ScriptedServer

pytestmark = pytest.mark.virtual


@asynccontextmanager
async def engine(*, faults: float) -> AsyncIterator[Engine]:
    server = ScriptedServer(Scripted(faults))
    async with _http.client(transport=server.transport()) as http:
        model = OpenAIBackend("http://scripted/v1", "scripted", http=http)
        async with Engine(model=model, tools=soak_work.TOOLS, speculation=True, seed=1) as made:
            yield made


@pytest.mark.parametrize("number", range(10))
async def test_a_run_without_faults_gives_the_answer_that_is_known_beforehand(number: int) -> None:
    async with engine(faults=0.0) as made:
        what, fields, expected = soak_work.target(made, number)
        assert await made.run(what, **fields) == expected


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads /proc")
async def test_faults_explain_every_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(soak_work.faults, "share", 0.1)
    monkeypatch.setattr(soak_work, "HANG", 0.05)
    async with engine(faults=0.1) as made:
        work = Soak(made, 50, at_once=10)
        await work.run()
    tally = work.tally
    assert (tally.wrong, tally.unexplained) == ([], [])
    assert sum(tally.ended.values()) == 60
    assert len(tally.ended) > 3 and tally.ended["answered"] > 15
    assert len(tally.samples) == 50 and min(work.seconds) > 0


async def test_a_wrong_answer_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(soak_work, "shop_expected", lambda _number: [])
    async with engine(faults=0.0) as made:
        work = Soak(made, 1, at_once=1)
        await work.run()
    assert len(work.tally.wrong) == 2


def process(**growing: float) -> dict[str, Any]:
    """What a process says in which some figures grow by so much with each run."""
    names = ("rss", "blocks", "traced", "descriptors", "threads", "tasks", "pace")
    samples = []
    for run in range(1, 101):
        held = {name: 100.0 + growing.get(name, 0.0) * run for name in names}
        samples.append({**held, "runs": run, "cpu": run + growing.get("work", 0.0) * run**2})
    seconds = [1.0 + growing.get("seconds", 0.0) * run for run in range(100)]
    return {
        "samples": samples, "seconds": seconds, "wrong": [], "unexplained": [],
        "left": {"descriptors": 0}, "journal_bytes": 0, "ended": {}, "struck": {}, "grown": {},
    }  # fmt: skip


def missed(**processes: dict[str, Any]) -> list[str]:
    return [goal.name for goal in soak.goals(processes) if not goal.holds]


def test_what_is_flat_holds() -> None:
    assert missed(plain=process(), traced=process()) == []


@pytest.mark.parametrize(
    ("figure", "goal"),
    [
        ("rss", "resident memory, growth, plain"),
        ("blocks", "blocks that Python holds, growth, plain"),
        ("descriptors", "descriptors, more of them, plain"),
        ("seconds", "p99 of latency, growth, plain"),
        ("work", "work of a run by pace, growth, plain"),
    ],
)
def test_what_grows_is_missed(figure: str, goal: str) -> None:
    assert missed(plain=process(**{figure: 0.5})) == [goal]


def test_growth_of_the_tenths_is_that_between_the_second_and_the_last() -> None:
    found = process(rss=1.0)
    assert soak.growth(found, "rss") == pytest.approx(100 * (195.5 / 115.5 - 1))
    assert soak.tenths(found)[3]["cpu_ms"] == pytest.approx(1e3)


def test_the_lines_that_hold_more_are_told_largest_first() -> None:
    early, late = {"a:1": 5, "b:2": 10}, {"a:1": 7, "b:2": 10, "c:3": 9}
    assert list(soak_subject.grown(early, late).items()) == [("c:3", 9), ("a:1", 2)]
