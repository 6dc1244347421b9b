"""The durability benchmark: what the world counts, where logs are cut, and a look at all of it."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import durability_cuts as cuts
import durability_program as program
from durability_effects import World

from agentflow import Engine

FOLDER = Path(__file__).parents[2] / "benchmarks"


def asked(step: int, kind: str = "write", key: str = "k") -> dict[str, Any]:
    return {"run": "r", "step": step, "kind": kind, "key": key}


def test_the_world_counts_executions_and_not_keys() -> None:
    world = World()
    for _ in range(3):
        world.do(1, asked(7))
    [work] = world.report("r") or []
    assert (work["executions"], work["keys"], work["repeated"]) == (3, 1, 0)


def test_the_world_does_idempotent_work_once_for_each_key() -> None:
    world = World()
    for key in ("k", "k", "other"):
        world.do(1, asked(7, "idempotent", key))
    [work] = world.report("r") or []
    assert (work["executions"], work["keys"], work["repeated"]) == (2, 2, 1)


def test_work_is_lost_if_it_is_done_again_in_a_later_session_than_it_was_seen_in() -> None:
    world = World()
    for step in (1, 2):
        world.do(1, asked(step, "read"))
    world.seen(1, asked(1))
    world.do(1, asked(1, "read"))
    for step in (1, 2):
        world.do(2, asked(step, "read"))
    assert [work["lost"] for work in world.report("r") or []] == [1, 0]


def test_the_world_says_nothing_while_a_process_is_there_and_forgets_what_it_said() -> None:
    world = World()
    world.do(1, asked(1))
    world.entered(1)
    assert world.report("r") is None
    world.entered(-1)
    assert len(world.report("r") or []) == 1
    assert world.report("r") == []


async def test_the_program_gives_what_is_expected_as_a_workflow_and_as_a_plan() -> None:
    program.connected.set(program.Agreeable())
    async with Engine(tools=program.TOOLS.values()) as engine:
        assert await engine.run(program.program, "r") == program.SHAPE.expected
        plan = engine.plan(program.plan_text("r"))
        assert sum(await engine.run(plan)) == program.SHAPE.expected
    assert len(plan.nodes) == len(program.SHAPE.needs) == 200
    assert sum(program.VALUES[end] for end in program.SHAPE.ends) == program.SHAPE.expected


def test_frames_of_a_log_end_where_the_format_says() -> None:
    page = 512
    header = b"\0" * 8 + page.to_bytes(4, "big") + b"\0" * 20
    frame, last = (b"\0" * 4 + n.to_bytes(4, "big") + b"\0" * 16 + b"x" * page for n in (0, 9))
    assert cuts.frames(header + frame + last + frame) == {
        32: False, 568: False, 1104: True, 1640: False
    }  # fmt: skip


def test_a_log_that_gives_fewer_records_when_more_of_it_is_left_is_told(tmp_path: Path) -> None:
    asyncio.run(cuts.write(tmp_path / "whole.db", tmp_path / "taken.db", least=50))
    cutter = cuts.Cutter(tmp_path, tmp_path / "taken.db")
    ends = list(cuts.frames((tmp_path / "taken.db-wal").read_bytes()))
    cutter.one(ends[len(ends) // 2])
    assert cutter.cuts.broken == []
    cutter.one(ends[0])
    assert len(cutter.cuts.broken) == 1


def test_all_of_it_is_measured_and_nothing_is_lost() -> None:
    command = [sys.executable, str(FOLDER / "durability.py"), "--quick", "--kills", "4", "--json"]
    environ = {**os.environ, "PYTHONWARNINGS": "error"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environ)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    goals = {goal["name"]: goal["holds"] for goal in found["goals"]}
    timed = [name for name in goals if name.startswith(("a journal", "the same"))]
    assert all(holds for name, holds in goals.items() if name not in timed), done.stdout
