"""How long programs take on an idle server that has every prompt: by loops, and at the least.

The critical path: each call begins when its line has been written and its inputs are there, or, of
a loop, when its turn has. Nothing waits for prompts or for other agents. Calls that begin before
they are written can be quicker still.
"""

from __future__ import annotations

import json
from decimal import Decimal
from random import Random

import agent_world
from agent_fleet import HOSTED, PRICES, SKILLS
from agent_programs import Program, result
from agent_recorded import Recorded

from agentflow.testing import Serving
from agentflow.testing.tokens import tokens

ESTIMATE = "medium"
"""The model that loops have estimates made by."""

SYSTEM = 300
"""Tokens of instructions and tools, about."""


def critical(program: Program, serving: Serving) -> float:
    """Seconds of the critical path."""
    if program.strategy == "react":
        return by_hand(program, serving)
    done: set[int] = set()
    ends: dict[int, float] = {}
    at = 0.0
    while len(done) < len(program.steps):
        planned = program.foreseen(done)
        for number in planned:
            at += serving.step * (_written(program, number) + 8)
            ready = max([at, *(ends[need] for need in program.steps[number].needs)])
            ends[number] = ready + _takes(program, number)
        done.update(planned)
        at = max([at, *ends.values()])
        if len(done) < len(program.steps):
            at += serving.step * 12  # that another plan is needed
    return at + serving.step * len(tokens(program.answer))


def by_hand(program: Program, serving: Serving) -> float:
    """Seconds of a loop of tool calls."""
    at = 0.0
    for thought, calls in _turns(program):
        written = thought + sum(_written(program, number) for number in calls)
        at += serving.step * written + max(_takes(program, number) for number in calls)
    return at + serving.step * len(tokens(program.answer))


def usd_by_hand(program: Program) -> float:
    """USD of the same, with half of each prompt cached."""
    price = PRICES.require("main")
    prompt = len(tokens(program.question)) + SYSTEM
    usd = Decimal(0)
    for thought, calls in _turns(program):
        written = thought + sum(_written(program, number) for number in calls)
        usd += price.cost(prompt, written, prompt // 2)
        prompt += written + sum(_observed(program, number) for number in calls)
        usd += sum(Decimal(price_of(program, number)) for number in calls)
    usd += price.cost(prompt, len(tokens(program.answer)), prompt // 2)
    return float(usd) + 0.0008 * sum(step.tool == "estimate" for step in program.steps)


def distinct(program: Program) -> int:
    """Tokens of its whole conversation, without what all share."""
    called = range(len(program.steps))
    written = sum(_written(program, number) + _observed(program, number) for number in called)
    return written + sum(program.thoughts) // 2 + len(tokens(program.answer))


def price_of(program: Program, number: int) -> str:
    """USD of a call."""
    if isinstance(program, Recorded):
        return program.price(number)
    return agent_world.price(program.steps[number].tool)


def _turns(program: Program) -> list[tuple[int, list[int]]]:
    """The turns of a loop: tokens that are thought, and the calls."""
    done: set[int] = set()
    turns: list[tuple[int, list[int]]] = []
    while len(done) < len(program.steps):
        thought, most = program.turn(len(turns))
        calls = program.ready(done, done)[:most]
        turns.append((thought, calls))
        done.update(calls)
    return turns


def _written(program: Program, number: int) -> int:
    return len(tokens(json.dumps(program.arguments[number]))) + 2


def _observed(program: Program, number: int) -> int:
    if isinstance(program, Recorded):
        return len(tokens(program.results[number]))
    step, given = program.steps[number], program.arguments[number]
    return len(tokens(json.dumps(result(step.tool, given))))


def _takes(program: Program, number: int) -> float:
    """Seconds of a call; of an estimate, those of the first sample that is right."""
    if isinstance(program, Recorded):
        return program.takes(number)
    step, given = program.steps[number], program.arguments[number]
    if step.tool != "estimate":
        return agent_world.seconds(step.tool, given)
    serving, random = HOSTED[ESTIMATE][0], Random(program.id)
    at, sample = 0.0, 0
    while True:
        at += serving.step * SKILLS[ESTIMATE].words(random)
        if sample > 6 or SKILLS[ESTIMATE].passes(given["page"], ESTIMATE, sample):
            return at
        sample += 1
