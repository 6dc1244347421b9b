"""What a joiner's reply means, however it is written and however it is cut."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Any

import pytest

from agentflow import events
from agentflow.errors import AnswerInvalid, ModelRefusal
from agentflow.executor.strategies.verdict import UNDECIDED, Verdict, VerdictReader
from agentflow.testing.replies import Pace, Reply

READINGS = [
    ("Answer: 42", "answer", "42"),
    ("answer: 42", "answer", "42"),
    ("ANSWER:42", "answer", "42"),
    ("**Answer:** 42", "answer", "42"),
    ("**Answer**: 42", "answer", "42"),
    ("## Answer: 42", "answer", "42"),
    ("\n\n  Answer:\n\n42\n", "answer", "42"),
    ("Answer: one\n\ntwo\n- three", "answer", "one\n\ntwo\n- three"),
    ("Answer: First for Women (magazine)", "answer", "First for Women (magazine)"),
    ("Answer: (a) b (c)", "answer", "(a) b (c)"),
    ("Answer: the Replanning Committee", "answer", "the Replanning Committee"),
    ("Answer: they said\nReplan: no", "answer", "they said\nReplan: no"),
    ("Answer: *very* good", "answer", "*very* good"),
    ("Thought: I know enough.\nAnswer: 42", "answer", "42"),
    ("**Thought:** I know.\nReally.\n\n**Answer:** 42", "answer", "42"),
    ("Thought: " + "hm " * 300 + "\nAnswer: 42", "answer", "42"),
    ("I have what I need.\nAnswer: 42", "answer", "42"),
    ("Forty-two.", "answer", "Forty-two."),
    ("The answer is: 42", "answer", "The answer is: 42"),
    ("Answering: no", "answer", "Answering: no"),
    ("x" * 500, "answer", "x" * 500),
    ("Replan: look for b", "replan", "look for b"),
    ("replan:\nlook for b", "replan", "look for b"),
    ("**Replan:** look for b", "replan", "look for b"),
    ("Thought: not there.\nReplan: look for b", "replan", "look for b"),
    ("Nothing was found.\n\nReplan: the Answer: page", "replan", "the Answer: page"),
]


def read(text: str, size: int) -> tuple[Verdict, list[tuple[str, str]]]:
    said: list[tuple[str, str]] = []
    reader = VerdictReader(lambda text, role: said.append((role, text)))
    for start in range(0, len(text), size):
        reader.feed(text[start : start + size])
    return reader.finish(), said


@pytest.mark.parametrize("size", [1, 3, 7, 10_000])
@pytest.mark.parametrize(("text", "kind", "content"), READINGS)
def test_a_verdict_is_read_however_it_is_written(
    text: str, kind: str, content: str, size: int
) -> None:
    verdict, said = read(text, size)

    assert (verdict.kind, verdict.text) == (kind, content)
    told = "".join(text for role, text in said if role == "answer")
    assert told.strip() == (content if kind == "answer" else "")


@pytest.mark.parametrize("size", [1, 5])
def test_an_answer_is_passed_on_as_it_comes(size: int) -> None:
    _, said = read("Answer: one two three", size)

    assert len(said) > 2
    assert all(role == "answer" for role, text in said if text)


def test_a_reply_without_a_verdict_is_passed_on_once_it_cannot_be_anything_else() -> None:
    said: list[str] = []
    reader = VerdictReader(lambda text, role: said.append(text))

    reader.feed("x" * UNDECIDED)
    assert said == []
    reader.feed("y")
    assert said == ["x" * UNDECIDED + "y"]
    reader.feed("z")
    assert said[1:] == ["z"]


@pytest.mark.virtual
async def test_the_answer_streams_token_by_token(lab: Any) -> None:
    answer = "It is about forty-eight million people."

    assert await lab.run("join()", f"Answer: {answer}", pace=Pace(0.3, 0.02)) == answer

    told = [e for e in lab.told(events.TextDelta) if e.role == "answer"]
    assert "".join(event.text for event in told) == answer
    assert len(told) > 5
    gaps = {round(b.at - a.at, 6) for a, b in pairwise(told)}
    assert gaps == {0.02}


@pytest.mark.virtual
async def test_nothing_of_a_replan_is_told_as_an_answer(lab: Any) -> None:
    await lab.run("join()", "Thought: hm\nReplan: the rest", "join()", "Answer: yes")

    assert "".join(lab.said("answer")) == "yes"
    assert re.sub(r"\s+", " ", "".join(lab.said("thought"))) == "Thought: hm the rest"


@pytest.mark.virtual
async def test_a_replan_without_a_reason_still_has_one(lab: Any) -> None:
    await lab.run("join()", "Replan:", 'return "x"')

    assert "Why another plan is needed: the joiner did not say why" in lab.asked(2)


@pytest.mark.virtual
@pytest.mark.parametrize("reply", ["Answer:", "", "\n\n"])
async def test_an_empty_answer_fails_the_task(lab: Any, reply: str) -> None:
    failed = await lab.fails("join()", reply)

    assert isinstance(failed.__cause__, AnswerInvalid)
    assert "empty answer" in str(failed)


@pytest.mark.virtual
async def test_an_answer_that_is_cut_off_fails_the_task_and_is_kept(lab: Any) -> None:
    failed = await lab.fails("join()", "Answer: " + "so on " * 50, max_tokens=20)

    cause = failed.__cause__
    assert isinstance(cause, AnswerInvalid)
    assert "cut off after 20 tokens (Task(max_tokens=...) allows more)" in str(cause)
    assert cause.answer.startswith("so on so on")


@pytest.mark.virtual
async def test_a_joiner_that_declines_fails_the_task(lab: Any) -> None:
    failed = await lab.fails('$1 = look(key="a")\njoin()', Reply(refusal="No."))

    assert isinstance(failed.__cause__, ModelRefusal)
    assert failed.results == {0: "apple"}
