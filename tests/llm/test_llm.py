"""Prompt templates with typed answers."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from pydantic import BaseModel

from agentflow import events
from agentflow.budgets.budget import Budget
from agentflow.errors import (
    AnswerInvalid,
    ArgumentError,
    BackendRejected,
    BudgetExceeded,
    DefinitionError,
    ModelRefusal,
    RunFailed,
)
from agentflow.llms import llm
from agentflow.testing import Fault, ScriptedServer
from agentflow.testing.replies import Pace, Reply, Usage
from agentflow.tools.tool import tool
from agentflow.workflows import workflow

pytestmark = pytest.mark.virtual


class City(BaseModel):
    name: str
    people: int


MADRID = '{"name": "Madrid", "people": 3}'


@llm
async def summarise(text: str, style: str = "short") -> str:
    """Summarise the text in a {style} style.

    {text}
    """
    raise AssertionError("the body is not run")


@llm
async def city(of: str) -> City:
    """Which is the capital of {of}? Answer as JSON: {{"name": ..., "people": ...}}."""
    raise AssertionError("the body is not run")


async def ask(scripted: Any, prompted: Any, *args: Any, **options: Any) -> Any:
    """Call it in a workflow of its own."""

    @workflow(**options)
    async def one() -> Any:
        return await prompted(*args)

    return await scripted.engine.run(one)


async def failure(scripted: Any, prompted: Any, *args: Any, **options: Any) -> BaseException:
    with pytest.raises(RunFailed) as caught:
        await ask(scripted, prompted, *args, **options)
    assert caught.value.__cause__ is not None
    return caught.value.__cause__


# The prompt


async def test_the_docstring_is_the_prompt(scripted: Any) -> None:
    made = scripted("Brief.")

    assert await ask(made, summarise, "A long text.") == "Brief."
    assert made.messages(0) == [
        ("user", "Summarise the text in a short style.\n\nA long text."),
    ]


async def test_text_is_asked_for_without_a_schema(scripted: Any) -> None:
    made = scripted("Brief.")

    await ask(made, summarise, "A long text.")

    assert "response_format" not in made.bodies()[0]


def test_braces_are_written_twice_and_values_are_not_read_as_templates() -> None:
    assert city.fill("{Spain} {{of}}") == (
        'Which is the capital of {Spain} {{of}}? Answer as JSON: {"name": ..., "people": ...}.'
    )


def test_values_that_are_not_text_are_put_in_as_json() -> None:
    @llm
    async def describe(city: City, tags: list[str]) -> str:
        """{city} {tags}"""
        raise AssertionError

    text = describe.fill(City(name="Rom", people=1), ["a", "é"])
    assert text == '{"name": "Rom", "people": 1} ["a", "é"]'


@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        ("Say {nme}.", "Did you mean 'name'?"),
        ("Say {name.first}.", "the name of a parameter"),
        ("Say {name!r}.", "the name of a parameter"),
        ("Say {name:>10}.", "the name of a parameter"),
        ("Say {}.", "the name of a parameter"),
        ("  ", "needs a docstring"),
    ],
)
def test_a_prompt_that_cannot_be_filled_is_refused_where_it_is_written(
    prompt: str, said: str
) -> None:
    async def say(name: str) -> str:
        raise AssertionError

    say.__doc__ = prompt
    with pytest.raises(DefinitionError, match="'say'") as caught:
        llm(say)
    assert said in str(caught.value)


def test_json_in_a_prompt_needs_no_doubled_braces() -> None:
    @llm
    async def say(name: str) -> str:
        """Like {"name": "x"}: {name}"""
        raise AssertionError

    assert say.fill("y") == 'Like {"name": "x"}: y'


def test_other_mistakes_are_refused_where_they_are_written() -> None:
    async def say(name: str) -> str:
        """{name}"""
        raise AssertionError

    def plain(name: str) -> str:
        """{name}"""
        raise AssertionError

    async def strange(name: str) -> type(say):  # type: ignore[valid-type]  # meant
        """{name}"""
        raise AssertionError

    with pytest.raises(DefinitionError, match="async def plain"):
        llm(plain)  # type: ignore[arg-type]  # meant
    with pytest.raises(DefinitionError, match="cannot be an answer's type"):
        llm(strange)
    with pytest.raises(DefinitionError, match="check is a function"):
        llm(check="yes")(say)  # type: ignore[call-overload]  # meant
    with pytest.raises(DefinitionError, match="samples="):
        llm(samples=0)(say)
    with pytest.raises(DefinitionError, match="samples="):
        llm(samples=())(say)
    with pytest.raises(DefinitionError, match="named twice"):
        llm(model=["a", "a"])(say)
    for models in ([], ["a", ""], 3):
        with pytest.raises(DefinitionError, match="write the name of a model"):
            llm(model=models)(say)  # type: ignore[arg-type]  # meant
    with pytest.raises(DefinitionError, match="max_tokens must be at least 1"):
        llm(max_tokens=0)(say)
    with pytest.raises(DefinitionError, match="repairs at least 0"):
        llm(repairs=-1)(say)
    with pytest.raises(DefinitionError, match="timeout"):
        llm(timout=3)(say)  # type: ignore[call-overload]  # meant


async def test_temperature_and_max_tokens_are_sent(scripted: Any) -> None:
    @llm(temperature=0.25, max_tokens=77)
    async def say(name: str) -> str:
        """{name}"""
        raise AssertionError

    made = scripted("x", "x")
    await ask(made, say, "y")
    await ask(made, summarise, "y")

    first, second = made.bodies()
    assert (first["temperature"], first["max_tokens"]) == (0.25, 77)
    assert "temperature" not in second and second["max_tokens"] == 1024


# Typed answers


async def test_the_answer_has_the_declared_type_and_its_schema_was_sent(scripted: Any) -> None:
    made = scripted(MADRID)

    assert await ask(made, city, "Spain") == City(name="Madrid", people=3)

    sent = made.bodies()[0]["response_format"]
    assert sent["type"] == "json_schema"
    assert sent["json_schema"]["name"] == "city"
    assert sent["json_schema"]["strict"] is True
    assert set(sent["json_schema"]["schema"]["properties"]) == {"name", "people"}


@pytest.mark.parametrize(
    ("type_", "reply", "value"),
    [
        (int, '{"value": 7}', 7),
        (int, "7", 7),
        (list[str], '{"value": ["a"]}', ["a"]),
        (bool, "```json\ntrue\n```", True),
        (dict[str, int], '{"a": 1}', {"a": 1}),
    ],
)
async def test_any_type_that_pydantic_knows_will_do(
    scripted: Any, type_: Any, reply: str, value: Any
) -> None:
    async def count(of: str) -> Any:
        """How many {of}?"""
        raise AssertionError

    count.__annotations__["return"] = type_

    assert await ask(scripted(reply), llm(count), "x") == value


@pytest.mark.parametrize("status", [400, 422])
async def test_a_backend_that_takes_no_schema_is_asked_in_words(scripted: Any, status: int) -> None:
    made = scripted(Fault.status(status, "response_format is not supported"), MADRID, MADRID)

    assert await ask(made, city, "Spain") == City(name="Madrid", people=3)
    assert await ask(made, city, "Italy") == City(name="Madrid", people=3)

    first, second, third = made.bodies()
    assert "response_format" in first and "response_format" not in second
    role, said = made.messages(1)[0]
    assert role == "system" and "JSON schema" in said and '"people"' in said
    assert "response_format" not in third  # it is not tried again
    assert third["messages"][0] == second["messages"][0]


@pytest.mark.parametrize("status", [401, 404])
async def test_another_refusal_is_not_taken_for_that(scripted: Any, status: int) -> None:
    made = scripted(Fault.status(status, "no"), MADRID)

    assert isinstance(await failure(made, city, "Spain"), BackendRejected)
    assert len(made.bodies()) == 1
    assert made.engine.plain_models == set()


async def test_a_request_that_is_refused_for_something_else_is_not_remembered(
    scripted: Any,
) -> None:
    too_long = Fault.status(400, "the context is too long")
    made = scripted(too_long, too_long, MADRID)

    assert isinstance(await failure(made, city, "Spain"), BackendRejected)
    await ask(made, city, "Spain")

    assert "response_format" in made.bodies()[2]


async def test_an_answer_that_does_not_fit_is_fed_back(scripted: Any) -> None:
    made = scripted('{"name": "Madrid"}', "It is Madrid.", MADRID)

    assert await ask(made, city, "Spain") == City(name="Madrid", people=3)

    roles = [role for role, _ in made.messages(2)]
    assert roles == ["user", "assistant", "user", "assistant", "user"]
    assert made.messages(1)[1] == ("assistant", '{"name": "Madrid"}')
    assert "people: Field required" in made.messages(1)[2][1]
    assert "no JSON value" in made.messages(2)[4][1]
    assert made.messages(2)[:3] == made.messages(1)


async def test_repairs_are_bounded(scripted: Any) -> None:
    @llm(repairs=1)
    async def count(of: str) -> int:
        """How many {of}?"""
        raise AssertionError

    made = scripted("many", "a lot", "7")

    error = await failure(made, count, "x")

    assert isinstance(error, AnswerInvalid)
    assert error.answer == "a lot" and "no JSON value" in error.problems
    assert str(error).startswith("count: the answer of tiny is not usable: ")
    assert len(made.bodies()) == 2


async def test_a_check_is_fed_back_like_a_type(scripted: Any) -> None:
    @llm(check=lambda answer: answer > 10 or f"{answer} is too few")
    async def count(of: str) -> int:
        """How many {of}?"""
        raise AssertionError

    made = scripted("3", "30")

    assert await ask(made, count, "x") == 30
    assert "3 is too few" in made.messages(1)[2][1]


@pytest.mark.parametrize(("verdict", "accepted"), [(True, 1), (None, 1), (False, 3), ("why", 3)])
async def test_true_and_none_accept(scripted: Any, verdict: Any, accepted: int) -> None:
    @llm(check=lambda answer: verdict)
    async def say(name: str) -> str:
        """{name}"""
        raise AssertionError

    made = scripted(*["x"] * 3)
    if accepted == 1:
        assert await ask(made, say, "y") == "x"
    else:
        error = await failure(made, say, "y")
        assert isinstance(error, AnswerInvalid)
        assert error.problems == (verdict or "it did not pass the check")
        assert "JSON" not in made.messages(1)[2][1]
    assert len(made.bodies()) == accepted


async def test_an_empty_answer_is_not_one(scripted: Any) -> None:
    made = scripted("  ", "Brief.")

    assert await ask(made, summarise, "x") == "Brief."
    assert "empty" in made.messages(1)[2][1]


async def test_an_answer_that_is_cut_off_is_an_error_and_not_repaired(scripted: Any) -> None:
    @llm(max_tokens=5)
    async def say(name: str) -> str:
        """{name}"""
        raise AssertionError

    made = scripted("one two three four five six seven", "x")

    error = await failure(made, say, "y")

    assert isinstance(error, AnswerInvalid) and "cut off at max_tokens=5" in str(error)
    assert error.answer.startswith("one two")
    assert len(made.bodies()) == 1


async def test_a_refusal_is_an_error_of_its_own(scripted: Any) -> None:
    made = scripted(Reply(refusal="I must not."))

    error = await failure(made, city, "Spain")

    assert isinstance(error, ModelRefusal)
    assert "city: tiny declined: I must not." in str(error)
    assert len(made.bodies()) == 1


# Several models


@llm(model=["small", "large"], repairs=0)
async def capital(of: str) -> City:
    """Which is the capital of {of}?"""
    raise AssertionError


async def test_the_first_model_that_answers_is_enough(scripted: Any) -> None:
    made = scripted(small=[MADRID], large=[])

    assert (await ask(made, capital, "Spain")).name == "Madrid"
    assert made.bodies("large") == []


@pytest.mark.parametrize(
    "first", ["no idea", Reply(refusal="no"), Fault.status(500), Fault.hang_up(), Fault.status(404)]
)
async def test_the_next_model_is_asked_when_one_gives_no_usable_answer(
    scripted: Any, first: Any
) -> None:
    made = scripted(small=[first], large=[MADRID])

    assert (await ask(made, capital, "Spain")).name == "Madrid"
    assert made.bodies("large")[0]["model"] == "large"


async def test_the_last_failure_tells_of_the_ones_before(scripted: Any) -> None:
    made = scripted(small=[Reply(refusal="no")], large=["no idea"])

    error = await failure(made, capital, "Spain")

    assert isinstance(error, AnswerInvalid) and "large" in str(error)
    assert any("small failed: capital: small declined: no" in note for note in error.__notes__)


async def test_each_model_starts_from_the_prompt(scripted: Any) -> None:
    @llm(model=("small", "large"), repairs=1)
    async def count(of: str) -> int:
        """How many {of}?"""
        raise AssertionError

    made = scripted(small=["x", "y"], large=["7"])

    assert await ask(made, count, "z") == 7
    assert made.messages(0, "large") == [("user", "How many z?")]


# In workflows


async def test_handles_are_passed_on(scripted: Any) -> None:
    @tool(pure=True)
    async def read(name: str) -> str:
        return f"text of {name}"

    @workflow
    async def brief(name: str) -> str:
        text = read(name)
        return await summarise(text.ref, style="dry")

    made = scripted("Brief.")

    assert await made.engine.run(brief, "x") == "Brief."
    assert made.messages(0)[0][1] == "Summarise the text in a dry style.\n\ntext of x"


async def test_a_map_asks_once_for_every_element_at_the_same_time(scripted: Any) -> None:
    @workflow
    async def briefs(texts: list[str]) -> list[str]:
        return await summarise.map(texts)

    made = scripted("A.", "B.", "C.", pace=Pace(first_token=1.0))

    assert sorted(await made.engine.run(briefs, ["a", "b", "c"])) == ["A.", "B.", "C."]
    assert made.servers["tiny"].peak == 3


async def test_options_of_one_call_are_those_of_tools(scripted: Any) -> None:
    @workflow
    async def brief() -> str:
        return await summarise.with_(timeout=5, fallback="nothing")("x")

    made = scripted(Fault.silence())

    assert await made.engine.run(brief) == "nothing"


async def test_the_reply_is_told_while_it_comes_with_its_call(scripted: Any) -> None:
    @workflow
    async def both() -> list[str]:
        return [await summarise("a"), await summarise("b")]

    made = scripted("one two three", "four", pace=Pace(0.3, 0.02))
    await made.engine.run(both)

    told = [e for e in made.events if isinstance(e, events.TextDelta)]
    assert "".join(e.text for e in told if e.node == 0) == "one two three"
    assert {e.role for e in told} == {"call"}
    assert "".join(e.text for e in told if e.node == 1) == "four"
    replied = [e.node for e in made.events if isinstance(e, events.ModelReplied)]
    assert replied == [0, 1]


async def test_what_it_costs_is_the_runs_and_within_its_budget(scripted: Any) -> None:
    prices = {"tiny": {"input": "1", "output": "10"}}
    made = scripted(Reply("x", usage=Usage(1_000, 100)), "never asked", prices=prices)

    @workflow(budget=Budget(usd="0.012"))
    async def twice() -> str:
        await summarise("a")
        return await summarise("b")

    with pytest.raises(RunFailed) as caught:
        await made.engine.run(twice)

    assert isinstance(caught.value.__cause__, BudgetExceeded)
    assert made.engine.ledger.spent.usd == Decimal("0.002")
    assert len(made.bodies()) == 1


async def test_arguments_are_checked_at_the_call(scripted: Any) -> None:
    @workflow
    async def wrong() -> str:
        return await summarise(7)  # type: ignore[arg-type]  # meant

    made = scripted("never asked")
    with pytest.raises(RunFailed) as caught:
        await made.engine.run(wrong)

    assert isinstance(caught.value.__cause__, ArgumentError)
    assert made.bodies() == []


# Called plainly


async def test_it_can_be_called_without_an_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    async with ScriptedServer([MADRID]) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
        monkeypatch.setenv("AGENTFLOW_MODEL", "tiny")

        assert await city("Spain") == City(name="Madrid", people=3)


async def test_a_plain_call_raises_what_went_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    async with ScriptedServer([Reply(refusal="no")]) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
        monkeypatch.setenv("AGENTFLOW_MODEL", "tiny")

        with pytest.raises(ModelRefusal):
            await city("Spain")


async def test_a_plain_call_checks_its_arguments_first() -> None:
    with pytest.raises(ArgumentError, match="city: argument 'of'"):
        await city(7)  # type: ignore[arg-type]  # meant


async def test_a_plain_call_without_an_endpoint_says_how_to_name_one(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    with pytest.raises(DefinitionError, match="OPENAI_BASE_URL"):
        await city("Spain")


async def test_a_tool_that_calls_it_is_asked_within_the_run(scripted: Any) -> None:
    @tool
    async def think(of: str) -> str:
        return (await city(of)).name

    made = scripted(MADRID)

    assert await ask(made, think, "Spain") == "Madrid"
    assert made.engine.ledger.spent.tokens > 0


def test_it_is_a_tool_that_samples() -> None:
    assert city.effect.kind == "samples"
    assert city.spec.parameters[0].name == "of"
    assert json.dumps(city.spec.returns)
