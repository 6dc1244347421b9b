"""Typed answers: schemas that APIs accept, and answers read whatever surrounds them."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import date
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from agentflow.errors import AnswerInvalid, DefinitionError
from agentflow.executor.models.typed import AnswerType, feedback


class Cat(BaseModel):
    kind: Literal["cat"]
    lives: int = 9


class Dog(BaseModel):
    kind: Literal["dog"]
    name: str | None = None


class Tree(BaseModel):
    value: int
    children: list[Tree] = []


class Zoo(BaseModel):
    pet: Annotated[Cat | Dog, Field(discriminator="kind", description="the favourite")]
    best: Cat = Field(description="of all")
    opened: date


@dataclass
class Point:
    x: float
    tags: list[str] = field(default_factory=list)


def objects(schema: Any) -> list[dict[str, Any]]:
    if isinstance(schema, list):
        return [found for item in schema for found in objects(item)]
    if not isinstance(schema, dict):
        return []
    own = [schema] if schema.get("type") == "object" else []
    return own + [found for item in schema.values() for found in objects(item)]


@pytest.mark.parametrize("type_", [Cat, Zoo, Tree, Point, int, list[str], Cat | Dog, list[Zoo]])
def test_a_strict_schema_closes_every_object_and_requires_every_field(type_: Any) -> None:
    answer = AnswerType.of(type_)

    assert answer.strict
    assert answer.schema["type"] == "object"
    for found in objects(answer.schema):
        assert found["additionalProperties"] is False
        assert found["required"] == list(found["properties"])
    text = json.dumps(answer.schema)
    assert not any(f'"{word}"' in text for word in ("default", "oneOf", "discriminator"))


def test_a_reference_stands_alone() -> None:
    best = AnswerType.of(Zoo).schema["properties"]["best"]

    assert best == {"description": "of all", "anyOf": [{"$ref": "#/$defs/Cat"}]}


@pytest.mark.parametrize(
    "type_", [dict[str, int], Any, tuple[int, str], list[Any], list[dict[str, str]]]
)
def test_what_strict_mode_cannot_say_is_sent_without_it(type_: Any) -> None:
    answer = AnswerType.of(type_)
    sent = answer.response_format()

    assert sent is not None
    assert sent["json_schema"]["strict"] is answer.strict is False
    assert sent["json_schema"]["schema"]["type"] == "object"


def test_the_schemas_name_is_one_that_apis_accept() -> None:
    sent = AnswerType.of(Cat).response_format("my answer/é")

    assert sent is not None
    assert sent["json_schema"]["name"] == "my_answer__"


def test_text_needs_no_schema_and_is_its_own_answer() -> None:
    answer = AnswerType.of(str)

    assert answer.response_format() is None
    assert answer.instructions() == ""
    assert answer.read(' {"a": 1} ') == ' {"a": 1} '


def test_a_type_without_a_schema_is_refused_where_it_is_written() -> None:
    with pytest.raises(DefinitionError, match="cannot be an answer's type"):
        AnswerType.of(type("Opaque", (), {}))


CAT = '{"kind": "cat", "lives": 3}'


@pytest.mark.parametrize(
    "text",
    [
        CAT,
        f"\n {CAT} \n",
        f"```json\n{CAT}\n```",
        f"```\n{CAT}\n```",
        f"Here you are:\n\n```json\n{CAT}\n```\nAnything else?",
        f"Sure! {CAT} That is my answer.",
        f'Not {{"kind": "cat", "lives": 1}}, but:\n```json\n{CAT}\n```',
        f"I thought about [1] and {{x}}: {CAT}",
        f"```json\n{CAT}",
        f"{CAT}\n\n{CAT}",
        f"First {{broken: then {CAT}",
    ],
)
def test_what_surrounds_one_value_does_not_matter(text: str) -> None:
    assert AnswerType.of(Cat).read(text) == Cat(kind="cat", lives=3)


@pytest.mark.parametrize("text", ["[1, 2]", '{"value": [1, 2]}', "It is:\n```\n[1, 2]\n```"])
def test_a_wrapped_type_is_read_with_and_without_its_wrapper(text: str) -> None:
    assert AnswerType.of(list[int]).read(text) == [1, 2]


def test_values_are_read_as_json_has_them() -> None:
    text = '{"pet": {"kind": "dog"}, "best": {"kind": "cat"}, "opened": "2024-02-29"}'

    assert AnswerType.of(Zoo).read(text).opened == date(2024, 2, 29)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "no JSON value"),
        ("I do not know.", "no JSON value"),
        ('{"kind": "cat", "lives": NaN}', "no JSON value"),
        ("{" * 5000, "no JSON value"),
        ("[" * 100_000, "no JSON value"),
        ('{"kind": "cow"}', "kind: Input should be 'cat' (given: 'cow')"),
        ('{"kind": "cat", "lives": "many"}', "lives: "),
        (f'{CAT} or {{"kind": "cat", "lives": 4}}', "2 different values"),
        ("7", "the value: "),
    ],
)
def test_an_answer_that_does_not_fit_says_why(text: str, problem: str) -> None:
    with pytest.raises(AnswerInvalid) as caught:
        AnswerType.of(Cat).read(text)

    assert problem in caught.value.problems
    assert caught.value.answer == text
    assert problem in feedback(caught.value)


def test_feedback_stays_short() -> None:
    text = json.dumps([{"kind": "x" * 10_000}] * 100)

    with pytest.raises(AnswerInvalid) as caught:
        AnswerType.of(list[Cat]).read(text)

    assert "and 92 more" in caught.value.problems
    assert len(feedback(caught.value)) < 2000


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=10,
)


@given(st.dictionaries(st.text(max_size=4), JSON), st.text("abc .\n", max_size=20))
def test_any_object_is_found_in_any_prose(value: dict[str, Any], prose: str) -> None:
    answer = AnswerType.of(dict[str, Any])

    assert answer.read(f"{prose}\n{json.dumps(value)}\n{prose}") == value
