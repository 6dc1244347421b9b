"""What an engine has learnt before the day that `agent.py` measures: earlier programs, earlier samples."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

from agent_fleet import HOSTED, SKILLS
from agent_programs import Program, programs, result

from agentflow.budgets.estimates import Estimates, Outcome
from agentflow.caches.speculation.candidates import CandidateSource
from agentflow.caches.speculation.trail import Trail

if TYPE_CHECKING:
    from agent_scene import Scene

EARLIER = 100
"""Programs that were done before, none of those that are measured."""

WORKFLOW = "task"
"""The name under which tasks' calls are learnt."""


def teach(source: CandidateSource, estimates: Estimates, scene: Scene) -> None:
    """Let an engine's memory have the past."""
    for program in programs(EARLIER, scene.seed + 1_000_000, scene.setting.habits):
        _calls(source, program)
    for number in range(EARLIER):
        _samples(estimates, f"p-earlier {scene.seed} {number}")


def _calls(source: CandidateSource, program: Program) -> None:
    trail = Trail(WORKFLOW)
    trail.said(program.question, by="user")
    source.learn(trail)
    for step, given in zip(program.steps, program.arguments, strict=True):
        if step.tool == "estimate":
            continue
        trail.called(step.tool, given, result(step.tool, given), changes=step.tool == "refund")
        source.learn(trail)
    trail.said(program.answer, by="model")
    source.learn(trail)
    source.close(trail)


def _samples(estimates: Estimates, page: str) -> None:
    """One estimate that was tried by all models, until one sample of each passed."""
    counts = {}
    for name, (serving, _) in HOSTED.items():
        skill, random, passed, number = SKILLS[name], Random(f"{page} {name}"), False, 0
        while not passed and number < 3:
            tokens = skill.words(random) + 30
            passed = skill.passes(page, name, number)
            estimates.note("estimate", name, Outcome(passed, tokens * serving.step, 60, tokens))
            number += 1
        counts[name] = (int(passed), number - passed)
    estimates.settled("estimate", counts)
