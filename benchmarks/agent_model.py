"""The model of `agent.py`: it does what the programs say, as far as it has been shown results.

It knows which program a request belongs to, and reads from the conversation which calls were made
and which results came, so the same program gives the same calls and the same answer to whatever
drives it: a loop of tool calls, a planner that writes the notation and a joiner, or a question for
an estimate. An answer is given only if every result stands in the conversation as it has to be.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterable
from random import Random

from agent_programs import Part, Program, mark, text

from agentflow.testing import Call, ChatCall, Reply

NOT_FOUND = "That cannot be said."

_NAME = re.compile(r"This is (\S+)\.")
_ESTIMATED = re.compile(r"page (p-\d+)")
_FOLLOWING = re.compile(r"Number its lines from \$(\d+) on")


class Script:
    """What the models of a run say.

    Args:
        programs: What agents do.
        skills: By model, how well it estimates.
    """

    def __init__(self, programs: Iterable[Program], skills: dict[str, Skill]) -> None:
        self._programs = {program.id: program for program in programs}
        self._skills = skills
        self._samples: Counter[tuple[str, str]] = Counter()
        self._pages = {
            given["page"]: program.id
            for program in self._programs.values()
            for given in program.arguments
            if "page" in given
        }

    def owner(self, call: ChatCall) -> str:
        """The program that a request belongs to."""
        asked = call.said_by("user")
        if (found := _NAME.search(asked)) is not None:
            return found[1]
        return self._pages[_ESTIMATED.findall(asked)[0]]

    def __call__(self, call: ChatCall) -> Reply:
        """The answer to a request."""
        asked, told = call.said_by("user"), call.said_by("system")
        if (found := _ESTIMATED.search(asked)) and not told:
            return self._estimate(found[1], str(call.body["model"]))
        program = self._programs[self.owner(call)]
        if "the notation" in told:
            return _plan(program, call)
        if "from the observations" in told:
            return _join(program, asked)
        return _turn(program, call)

    def _estimate(self, page: str, model: str) -> Reply:
        """The next sample of a model; the n-th is the same whoever asks."""
        number = self._samples[page, model]
        self._samples[page, model] += 1
        skill, random = self._skills[model], Random(f"{page} {model} {number}")
        right = skill.passes(page, model, number)
        value = int(mark("estimate", {"page": page})) if right else 0
        reason = text(random, skill.words(random))
        return Reply(json.dumps({"reason": reason, "figure": value}))


class Skill:
    """How well a model estimates: outcomes at one page have something in common.

    Args:
        level: The quantile of difficulty, in standard deviations, at which half of its samples pass.
        tokens: Least and most tokens of its reasons.
    """

    COMMON = 0.3

    def __init__(self, level: float, tokens: tuple[int, int]) -> None:
        self._level, self._tokens = level, tokens

    def passes(self, page: str, model: str, number: int) -> bool:
        """Whether its n-th sample is right."""
        hard = Random(f"hard {page}").gauss(0.0, 1.0) * math.sqrt(self.COMMON)
        luck = Random(f"luck {page} {model} {number}").gauss(0.0, 1.0) * math.sqrt(1 - self.COMMON)
        return hard + luck < self._level

    def words(self, random: Random) -> int:
        """Tokens of a reason."""
        return random.randint(*self._tokens)


# A loop of tool calls


def _turn(program: Program, call: ChatCall) -> Reply:
    """The next calls, or the answer."""
    made, done, wrong = _progress(program, call)
    turn = sum(message["role"] == "assistant" for message in call.messages)
    thought, most = program.turn(turn)
    said = text(Random(f"{program.id} {turn}"), thought)
    ready = program.ready(done, made)[:most]
    if ready and not wrong:
        pieces = [
            Call(program.steps[n].tool, program.arguments[n], f"{program.id}.{n}") for n in ready
        ]
        return Reply(*([said] if said else []), *pieces)
    whole = len(done) == len(program.steps) and not wrong
    return Reply(program.answer if whole else NOT_FOUND)


def _progress(program: Program, call: ChatCall) -> tuple[set[int], set[int], bool]:
    """The calls that were made, those whose results came, and whether one is not what it is."""
    made: set[int] = set()
    done: set[int] = set()
    wrong = False
    for message in call.messages:
        for asked in message.get("tool_calls") or ():
            made.add(_number(asked["id"]))
        if message["role"] == "tool":
            number = _number(message["tool_call_id"])
            right = program.marks[number] in str(message["content"])
            done |= {number} if right else set()
            wrong = wrong or not right
    return made, done, wrong


def _number(identity: str) -> int:
    return int(identity.rpartition(".")[2])


# A planner and a joiner


def _seen(program: Program, shown: str) -> set[int]:
    return {number for number, its in enumerate(program.marks) if its in shown}


def _plan(program: Program, call: ChatCall) -> Reply:
    """All calls that can be foreseen, a line each."""
    shown = call.said_by("user")
    done = _seen(program, shown)
    following = _FOLLOWING.findall(shown)
    first = int(following[-1]) if following else 1
    planned = program.foreseen(done)
    lines = {step: line for line, step in enumerate(planned, first)}
    plans = sum(message["role"] == "assistant" for message in call.messages)
    thought, _ = program.turn(plans)
    said = text(Random(f"{program.id} plan {plans}"), thought)
    written = [f"Thought: {said}"] if said else []
    written += [_line(program, step, lines) for step in planned]
    return Reply("\n".join([*written, "join()"]))


def _line(program: Program, number: int, lines: dict[int, int]) -> str:
    step, known = program.steps[number], program.arguments[number]
    given = []
    for name, value in step.arguments.items():
        if isinstance(value, Part) and value.step in lines:
            given.append(f"{name}=${lines[value.step]}.{value.name}")
        else:
            given.append(f"{name}={json.dumps(known[name])}")
    return f"${lines[number]} = {step.tool}({', '.join(given)})"


def _join(program: Program, shown: str) -> Reply:
    """The answer, or what is missing."""
    done = _seen(program, shown)
    if len(done) == len(program.steps):
        return Reply(f"Answer: {program.answer}")
    if any(program.steps[number].judged for number in program.foreseen(done)):
        return Reply("Replan: the results say where to look further.")
    return Reply(f"Answer: {NOT_FOUND}")
