"""What an engine has learnt before the day that `agent.py` measures: earlier programs, earlier samples."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

from agent_fleet import HOSTED, SKILLS
from agent_programs import Program, programs, result
from agent_recorded import past
from sessions import Said, Session, Turn

from agentflow.budgets.estimates import Estimates, Outcome
from agentflow.caches.speculation.candidates import CandidateSource
from agentflow.caches.speculation.trail import Trail

if TYPE_CHECKING:
    from agent_scene import Scene

EARLIER = 100
"""Programs that were done before, none of those that are measured."""

LESS = 3
"""Of so many recorded sessions of the past one is learnt from."""

WORKFLOW = "task"
"""The name under which tasks' calls are learnt."""


def teach_calls(source: CandidateSource, scene: Scene) -> None:
    """Let a predictor have the calls of the past."""
    if scene.setting.sessions is not None:
        for session in past(scene.setting.sessions, scene.seed)[::LESS]:
            _session(source, session)
        return
    for program in programs(EARLIER, scene.seed + 1_000_000, scene.setting.habits):
        _calls(source, program)


def teach_samples(estimates: Estimates, scene: Scene) -> None:
    """Let estimates have the samples of the past."""
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


def _session(source: CandidateSource, session: Session) -> None:
    trail = Trail(WORKFLOW)
    for step in session.steps:
        for call in step.calls if isinstance(step, Turn) else ():
            trail.called(call.tool, call.arguments, call.result, changes=call.changes)
            source.learn(trail)
        if isinstance(step, Said | Turn) and step.text:
            trail.said(step.text, by="user" if isinstance(step, Said) else "model")
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
