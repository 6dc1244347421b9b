"""The benchmark of whole agents: its programs, its model, its servers, and a look at all of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import agent_hand
import agent_ours
import pytest
from agent_bounds import by_hand, critical
from agent_fleet import FAST, PRICES, SERVERS, SKILLS, serving
from agent_model import NOT_FOUND, Script
from agent_past import teach_samples
from agent_programs import ALL, Habits, Program, mark, programs, result
from agent_report import Figures, answers
from agent_rows import OURS, Case, played, played_by
from agent_scene import Outcome, Row, Scene, Setting, play
from agent_time import Times, shares
from agent_world import World, keys, tools

from agentflow import Estimates
from agentflow.testing import Call, ChatCall, run_virtual

EAGER = Habits(ALL)


def of_kind(kind: str) -> Program:
    return next(program for program in programs(60, 0, EAGER) if program.kind == kind)


def asked(program: Program, *more: dict[str, object]) -> ChatCall:
    messages = [{"role": "user", "content": program.question}, *more]
    return ChatCall(0, {"model": "main", "messages": messages})


def test_programs_are_the_same_for_the_same_seed() -> None:
    assert programs(8, 3, EAGER) == programs(8, 3, EAGER)
    assert programs(8, 3, EAGER) != programs(8, 4, EAGER)


def test_what_is_judged_cannot_be_planned_before_its_needs_are_read() -> None:
    program = of_kind("desk")

    assert program.foreseen(set()) == [0]
    assert program.foreseen({0}) == [1]


def test_what_stands_in_earlier_results_can_be_planned() -> None:
    program = of_kind("review")

    assert program.foreseen(set()) == list(range(len(program.steps)))


def test_the_model_answers_only_from_results_that_are_right() -> None:
    program = of_kind("desk")
    script = Script([program], SKILLS)
    first = script(asked(program))
    (call,) = [piece for piece in first.pieces if isinstance(piece, Call)]
    said: dict[str, object] = {
        "role": "assistant",
        "tool_calls": [{"id": call.id, "function": {"name": call.name, "arguments": "{}"}}],
    }
    stale: dict[str, object] = {
        "role": "tool",
        "tool_call_id": call.id,
        "content": "something else",
    }

    assert call.name == "find_customer"
    assert script(asked(program, said, stale)).pieces == (NOT_FOUND,)


def test_calls_that_nobody_wants_are_wasted() -> None:
    program = of_kind("desk")
    world = World(Times())
    its = tools(world)

    async def use() -> None:
        await its["find_customer"](**program.arguments[0])
        await its["find_customer"](**program.arguments[0])
        await its["search"](query="nobody asked")

    run_virtual(use())

    assert world.wasted([program]) == 2
    assert len(keys(program)) == len(program.steps)


def test_a_program_that_is_run_as_it_comes_gives_what_it_gives_whole() -> None:
    world = World(Times())
    code = "a = 1\nb = 2\nc = 3"

    async def pieces() -> AsyncIterator[str]:
        for letter in code:
            yield letter

    assert run_virtual(world.execute(pieces())) == result("run", {"code": code})
    assert mark("run", {"code": code}) != mark("run", {"code": code + "\n"})


def test_planned_programs_have_a_shorter_critical_path_than_loops() -> None:
    rates = serving(SERVERS[FAST], 0.5, 100_000, 1, 10_000)
    program = next(p for p in programs(60, 0, Habits({1: 1})) if p.kind == "research")

    assert critical(program, rates) < by_hand(program, rates)
    code = of_kind("code")
    assert critical(code, rates) == by_hand(code, rates)


def test_who_has_no_answer_counts_its_deadline() -> None:
    right = Outcome("a", "desk", 3.0, True, 10.0, 0.01, 0.02)
    none = Outcome("b", "desk", 1.0, False, 10.0, 0.01, 0.02, "gave up")
    dear = Outcome("c", "desk", 3.0, True, 10.0, 0.03, 0.02)

    assert [one.completion for one in (right, none, dear)] == [3.0, 10.0, 3.0]
    assert [one.success for one in (right, none, dear)] == [True, False, False]


def test_a_wrong_answer_is_counted_and_none_is_not() -> None:
    right = Outcome("a", "desk", 3.0, True, 10.0, 0.01, 0.02, answered=True)
    wrong = Outcome("b", "desk", 1.0, False, 10.0, 0.01, 0.02, "said '7'", answered=True)
    none = Outcome("c", "desk", 1.0, False, 10.0, 0.01, 0.02, f"said {NOT_FOUND!r}")
    run = play(agent_hand.loop, Setting(agents=1, each=1, replicas=1, window=1.0), "least", 1)

    assert answers({"row": [replace(run, outcomes=[right, wrong, none])]}) == (2, 1)


def test_every_moment_of_a_program_belongs_to_one_part() -> None:
    spans = [("tools", 0.0, 4.0), ("decode", 1.0, 2.0), ("held", 3.0, 9.0)]

    found = shares(spans, 0.5, 10.0)

    assert found["decode"] == 1.0
    assert found["tools"] == 1.5
    assert found["held"] == 6.0
    assert found["between"] == 1.0
    assert sum(found.values()) == 9.5


@pytest.mark.parametrize(
    "row", [agent_hand.loop, lambda s: agent_ours.engine(s, agent_ours.Mechanisms())]
)
def test_all_ways_give_the_right_answers_on_virtual_time(row: Row) -> None:
    run = play(row, Setting(agents=2, each=1, replicas=1, window=1.0), "least", 1)

    assert [one.why for one in run.outcomes] == [""] * 2
    assert Figures.of([run]).success == 1.0
    assert 0 < run.usd_tools < run.usd
    assert all(sum(o.parts.values()) == pytest.approx(o.completion) for o in run.outcomes)
    assert all(o.parts["decode"] > 0 for o in run.outcomes)


def test_a_peer_that_is_not_installed_is_left_out(tmp_path: Path) -> None:
    assert "does not exist" in str(played_by(tmp_path / "python", Case("LangGraph")))


def test_runs_are_the_same_for_the_same_seed() -> None:
    case = Case(OURS, agents=1, replicas=1)

    assert played(case).outcomes == played(case).outcomes


def test_the_past_teaches_which_model_is_better() -> None:
    async def learnt() -> dict[str, float]:
        estimates = Estimates()
        teach_samples(estimates, Scene(Setting(agents=1, each=1), "least", 0))
        return {
            name: estimates.profile("estimate", name, PRICES.require(name)).probability
            for name in ("small", "large")
        }

    found = run_virtual(learnt())
    assert found["small"] < found["large"]
