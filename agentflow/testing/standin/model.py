"""The stand-in as a model for `ScriptedServer`: plans, joins, tool calls and plain chat."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from agentflow.testing.chat import ChatCall
from agentflow.testing.replies import Call, Pace, Reply
from agentflow.testing.server import ScriptedServer
from agentflow.testing.standin.composing import answer
from agentflow.testing.standin.evidence import Evidence
from agentflow.testing.standin.moves import Move, further, opening, readings
from agentflow.testing.standin.protocol import (
    Kind,
    first_free_id,
    kind_of,
    must_answer,
    observed,
    plan_text,
    question_of,
    this_turn,
)
from agentflow.testing.standin.question import Question, read_question
from agentflow.testing.standin.ranking import missing
from agentflow.testing.standin.summary import summary
from agentflow.testing.standin.toolbox import Toolbox, from_schemas, from_signatures

MODEL = "rule-based-stand-in"
PACE = Pace(first_token=0.05, per_token=0.005, tokens_per_chunk=2)


def standin(call: ChatCall) -> Reply:
    """Answer a request by rules: search for the question's terms, rank what is found, quote it."""
    call = this_turn(call)
    match kind_of(call):
        case Kind.PLAN:
            return Reply(_plan(call))
        case Kind.JOIN:
            return Reply(_join(call))
        case Kind.ACT:
            return _act(call)
        case Kind.CHAT:
            return Reply(summary(call))


@asynccontextmanager
async def serve_standin(*, pace: Pace = PACE) -> AsyncIterator[str]:
    """Serve the stand-in in this process and give its base URL.

    Args:
        pace: How fast it writes, so that streaming can be seen.
    """
    async with ScriptedServer(standin, pace=pace, models=(MODEL,)) as server:
        yield server.base_url


def _plan(call: ChatCall) -> str:
    question, evidence = read_question(question_of(call)), observed(call)
    moves = opening(question)
    if evidence.tried or evidence.read:
        moves = [*further(question, evidence), *readings(question, evidence)] or moves
    toolbox = from_signatures(call.said_by("system"))
    return plan_text(moves, toolbox, first=first_free_id(call))


def _join(call: ChatCall) -> str:
    question, evidence = read_question(question_of(call)), observed(call)
    if not must_answer(call) and further(question, evidence):
        return f"Replan: {_gap(question, evidence)}"
    return f"Answer: {answer(question, evidence)}"


def _gap(question: Question, evidence: Evidence) -> str:
    """What is missing, and how it could be found."""
    if question.counted:
        return f"the list of {question.counted} was cut; list it in parts."
    lost = ", ".join(f"'{term.text}'" for term in missing(question, evidence))
    return f"nothing was found on {lost}; other spellings are left to try."


def _act(call: ChatCall) -> Reply:
    question, evidence = read_question(question_of(call)), observed(call)
    calls = _calls(_next_moves(question, evidence), from_schemas(call.tools))
    return Reply(*calls) if calls else Reply(answer(question, evidence))


def _next_moves(question: Question, evidence: Evidence) -> list[Move]:
    """Search, then other spellings if little was found, then read around the best, then answer."""
    if not (evidence.tried or evidence.values or evidence.read):
        return [move for move in opening(question) if move.of is None]
    if not evidence.read:
        return further(question, evidence) or readings(question, evidence)
    return []


def _calls(moves: list[Move], toolbox: Toolbox) -> list[Call]:
    return [
        Call(toolbox.name(move.role), toolbox.arguments(move.role, move.arguments))
        for move in moves
        if toolbox.offers(move.role)
    ]
