"""Several models, samples and checks of a prompt, over HTTP and without limits."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from agentflow import events
from agentflow.budgets.budget import Budget
from agentflow.errors import AnswerInvalid, BackendRejected, DefinitionError, RunFailed
from agentflow.llms import llm
from agentflow.testing import Fault
from agentflow.testing.replies import Pace, Reply
from agentflow.workflows import workflow

pytestmark = pytest.mark.virtual


def is_yes(text: str) -> bool:
    return text == "yes"


@llm(model=["tiny", "huge"], check=is_yes)
async def decide() -> str:
    """Yes or no?"""
    raise AssertionError


@llm(model="tiny", samples=3, check=is_yes)
async def thrice() -> str:
    """Yes or no?"""
    raise AssertionError


async def ask(scripted: Any, prompted: Any, budget: Budget | None = None) -> Any:
    @workflow(budget=budget)
    async def one() -> Any:
        return await prompted()

    return await scripted.engine.run(one)


async def failure(scripted: Any, prompted: Any) -> BaseException:
    with pytest.raises(RunFailed) as caught:
        await ask(scripted, prompted)
    assert caught.value.__cause__ is not None
    return caught.value.__cause__


@pytest.mark.parametrize("samples", [0, -1, 65, (), (1, 0), True, "2", 1.5, (2, None)])
def test_numbers_of_samples_that_make_no_sense_are_refused(samples: Any) -> None:
    with pytest.raises((DefinitionError, TypeError), match=r"samples|iterable"):

        @llm(samples=samples)
        async def odd() -> str:
            """Say yes."""
            raise AssertionError


def test_a_model_is_named_once() -> None:
    with pytest.raises(DefinitionError, match="named twice: tiny, huge, tiny"):

        @llm(model=["tiny", "huge", "tiny"])
        async def odd() -> str:
            """Say yes."""
            raise AssertionError


def test_a_check_is_something_to_call() -> None:
    with pytest.raises(DefinitionError, match="check is a function"):

        @llm(check="yes")  # type: ignore[call-overload, untyped-decorator]  # that is the point
        async def odd() -> str:
            """Say yes."""
            raise AssertionError


async def test_the_next_model_is_asked_when_the_answer_of_the_first_does_not_pass(
    scripted: Any,
) -> None:
    made = scripted("no", huge=["yes"])

    assert await ask(made, decide) == "yes"
    assert (len(made.bodies("tiny")), len(made.bodies("huge"))) == (1, 1)


async def test_the_next_model_is_asked_when_the_first_is_not_there(scripted: Any) -> None:
    made = scripted(Fault.status(404), huge=["yes"])

    assert await ask(made, decide) == "yes"


async def test_the_last_model_says_what_was_wrong_and_before_it(scripted: Any) -> None:
    made = scripted("no", huge=[Fault.status(404, "no huge here")])

    error = await failure(made, decide)

    assert isinstance(error, BackendRejected)
    assert "before that tiny failed" in " ".join(error.__notes__)


async def test_connections_of_samples_that_are_overtaken_are_closed_at_once(
    scripted: Any,
) -> None:
    slow = Reply("yes", pace=Pace(first_token=9.0))
    made = scripted(Reply("yes", pace=Pace(first_token=1.0)), slow, slow)

    assert await ask(made, thrice) == "yes"
    ended = [(request.ended, request.disconnected) for request in made.servers["tiny"].requests]
    assert ended == [(1.0, False), (1.0, True), (1.0, True)]


async def test_what_samples_say_is_not_streamed(scripted: Any) -> None:
    """Several talk at once, and most of it is dropped."""
    made = scripted("yes", "yes", "yes")

    await ask(made, thrice)

    assert not [event for event in made.events if isinstance(event, events.TextDelta)]


async def test_an_async_check(scripted: Any) -> None:
    async def later(text: str) -> bool | str:
        return text == "yes" or f"{text} is not yes"

    @llm(model=["tiny", "huge"], check=later)
    async def checked() -> str:
        """Yes or no?"""
        raise AssertionError

    made = scripted("no", huge=["no"])

    error = await failure(made, checked)

    assert isinstance(error, AnswerInvalid)
    assert error.problems == "no is not yes"


async def test_one_model_is_told_what_the_check_did_not_accept(scripted: Any) -> None:
    @llm(check=lambda text: text == "yes" or "say yes")
    async def checked() -> str:
        """Yes or no?"""
        raise AssertionError

    made = scripted("no", "yes")

    assert await ask(made, checked) == "yes"
    assert "say yes" in made.messages(1)[-1][1]


async def test_another_prompt_may_judge(scripted: Any) -> None:
    @llm(model="huge")
    async def judge(answer: str) -> bool:
        """Is {answer} right?"""
        raise AssertionError

    @llm(model=["tiny", "other"], check=judge)
    async def judged() -> str:
        """Which?"""
        raise AssertionError

    made = scripted("one", other=["two"], huge=["false", "true"])

    assert await ask(made, judged) == "two"
    assert [made.messages(n, "huge")[-1][1] for n in (0, 1)] == ["Is one right?", "Is two right?"]


async def test_outside_a_run_it_is_called_like_any_other(
    scripted: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without an engine there is no such model, and that is what is said."""
    scripted()
    with pytest.raises(DefinitionError, match="no model endpoint"):
        await decide()


async def test_within_limits_the_answer_is_as_long_as_can_be_paid(scripted: Any) -> None:
    made = scripted("yes", "yes", "yes", prices={"tiny": (0, 1000)})

    await ask(made, thrice, Budget(usd="0.1"))

    assert sum(body["max_tokens"] for body in made.bodies()) <= 100
    assert made.engine.ledger.spent.usd <= Decimal("0.1")
