"""Typed answers: a type's JSON schema for the request, and the answer's text read back.

A type whose schema is not an object (``int``, ``list[str]``, a union) is wrapped as
``{"value": ...}``, because APIs accept only objects at the root; `AnswerType.read` unwraps it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Generic, NoReturn, TypeAlias, TypeVar

from pydantic import PydanticUserError, TypeAdapter, ValidationError

from agentflow.errors import AnswerInvalid, DefinitionError

T = TypeVar("T")
Schema: TypeAlias = "dict[str, Any]"

MAX_PROBLEMS = 8
"""Problems that the feedback to the model lists."""

MAX_PLACES = 64
"""Brackets in an answer at which a JSON value is looked for."""

_FENCE = re.compile(r"```[\w+-]*\s*\n(.*?)```", re.DOTALL)
_OPENING = re.compile(r"[\[{]")
_DECODER = json.JSONDecoder()
_LOOSE = {"prefixItems", "patternProperties", "propertyNames", "allOf", "not"}


@dataclass(frozen=True, slots=True)
class AnswerType(Generic[T]):
    """How answers of a type are asked for and read.

    Attributes:
        adapter: Validates the answer.
        schema: JSON schema with an object at its root.
        strict: Whether the schema keeps to what strict structured output allows: every object
            closed and all of its fields required.
        wrapped: Whether the value stands under ``value`` in an object.
        plain: The type is ``str``: the text itself is the answer, and there is no schema.
    """

    adapter: TypeAdapter[T]
    schema: Schema
    strict: bool
    wrapped: bool
    plain: bool

    @classmethod
    def of(cls, type_: Any) -> AnswerType[Any]:
        """How answers of this type, any that pydantic has a schema for, are asked for and read.

        Raises:
            DefinitionError: pydantic has none.
        """
        try:
            adapter: TypeAdapter[Any] = TypeAdapter(type_)
            schema = _root(adapter.json_schema())
        except PydanticUserError as error:
            raise DefinitionError(f"{type_!r} cannot be an answer's type: {error}") from None
        if wrapped := schema.get("type") != "object":
            schema = _wrap(schema)
        if strict := _can_be_strict(schema):
            schema = _closed(schema)
        return cls(adapter, schema, strict, wrapped, plain=type_ is str)

    def response_format(self, name: str = "answer") -> dict[str, Any] | None:
        """The request's ``response_format``; None for plain text.

        `name` is shown to the model; letters, digits, ``_`` and ``-`` are kept of it.
        """
        if self.plain:
            return None
        safe = re.sub(r"[^\w-]", "_", name, flags=re.ASCII)[:64] or "answer"
        fields = {"name": safe, "schema": self.schema, "strict": self.strict}
        return {"type": "json_schema", "json_schema": fields}

    def instructions(self) -> str:
        """What to tell a model whose backend takes no schema; empty for plain text."""
        if self.plain:
            return ""
        return (
            "Answer with one JSON value and nothing else. It has to match this JSON schema:\n"
            + json.dumps(self.schema, ensure_ascii=False)
        )

    def read(self, text: str) -> T:
        """The value in an answer; fences and prose around one JSON value are tolerated.

        Raises:
            AnswerInvalid: There is no such value, or more than one.
        """
        if self.plain:
            return self.adapter.validate_python(text)
        problems = ""
        found: list[tuple[Any, T]] = []
        for candidate in sorted(_candidates(text), key=len, reverse=True):
            try:
                value = self._validate(candidate)
            except ValidationError as error:
                problems = problems or describe(error)
                continue
            parsed = json.loads(candidate)
            if all(parsed != other for other, _ in found):
                found.append((parsed, value))
        if len(found) == 1:
            return found[0][1]
        if found:
            problems = f"it holds {len(found)} different values that fit; give one"
        problems = problems or "there is no JSON value in it"
        raise AnswerInvalid(
            f"the answer does not fit its type: {problems}", problems=problems, answer=text
        )

    def _validate(self, candidate: str) -> T:
        if self.wrapped:
            value = json.loads(candidate)
            if isinstance(value, dict) and set(value) == {"value"}:
                candidate = json.dumps(value["value"])
        return self.adapter.validate_json(candidate)


def feedback(error: AnswerInvalid) -> str:
    """The message that asks the model to repair its answer."""
    return (
        f"That answer could not be used: {error.problems}\n"
        "Answer again with the whole corrected JSON value and nothing else."
    )


def describe(error: ValidationError) -> str:
    """What is wrong, one problem a line: where, what, and what was given."""
    problems = error.errors(include_url=False, include_context=False)
    lines = []
    for problem in problems[:MAX_PROBLEMS]:
        where = ".".join(str(step) for step in problem["loc"]) or "the value"
        given = repr(problem["input"])
        given = given if len(given) <= 80 else given[:80] + "..."
        lines.append(f"{where}: {problem['msg']} (given: {given})")
    if len(problems) > MAX_PROBLEMS:
        lines.append(f"and {len(problems) - MAX_PROBLEMS} more")
    return "\n".join(lines)


def _candidates(text: str) -> list[str]:
    """The JSON values in a text: all of it, or else fenced blocks, or else what prose surrounds."""
    whole = text.strip()
    if _is_json(whole):
        return [whole]
    fenced = [block for block in _FENCE.findall(text) if _is_json(block)]
    return fenced or [value for value in _embedded(text) if _is_json(value)]


def _embedded(text: str) -> Iterator[str]:
    """The outermost JSON objects and arrays in prose."""
    at = 0
    for _ in range(MAX_PLACES):
        if (bracket := _OPENING.search(text, at)) is None:
            return
        start = bracket.start()
        try:
            _, at = _DECODER.raw_decode(text, start)
        except (ValueError, RecursionError):
            at = start + 1
        else:
            yield text[start:at]


def _is_json(text: str) -> bool:
    try:
        json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return False
    return True


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


def _root(schema: Schema) -> Schema:
    """The schema with the definition its root refers to, if it only refers to one, put there."""
    if "$ref" not in schema:
        return schema
    name = schema["$ref"].rpartition("/")[2]
    return {**schema["$defs"][name], "$defs": schema["$defs"]}


def _wrap(schema: Schema) -> Schema:
    inner = {key: value for key, value in schema.items() if key != "$defs"}
    wrapped: Schema = {"type": "object", "properties": {"value": inner}, "required": ["value"]}
    return {**wrapped, "$defs": schema["$defs"]} if "$defs" in schema else wrapped


def _children(schema: Schema) -> Iterator[Schema]:
    """The schemas directly inside a schema."""
    for key in ("properties", "$defs"):
        yield from schema.get(key, {}).values()
    for key in ("anyOf", "oneOf", "allOf"):
        yield from schema.get(key, ())
    if isinstance(schema.get("items"), dict):
        yield schema["items"]


def _can_be_strict(schema: Schema) -> bool:
    """Whether closing every object and requiring every field keeps the schema's meaning."""
    if schema.get("type") == "object" and "properties" not in schema:
        return False  # a mapping with keys of the model's choice
    if schema.get("additionalProperties") or _LOOSE & schema.keys():
        return False
    known = "type" in schema or "enum" in schema or "const" in schema or "$ref" in schema
    if not known and not ({"anyOf", "oneOf"} & schema.keys()):
        return False  # Any
    return all(_can_be_strict(child) for child in _children(schema))


def _closed(schema: Schema) -> Schema:
    """The schema as strict structured output wants it."""
    out = {key: value for key, value in schema.items() if key not in ("default", "discriminator")}
    if "$ref" in out and len(out) > 1:  # a reference may have no neighbours
        out["anyOf"] = [{"$ref": out.pop("$ref")}]
    if "oneOf" in out:
        out["anyOf"] = out.pop("oneOf")
    for key in ("properties", "$defs"):
        if key in out:
            out[key] = {name: _closed(child) for name, child in out[key].items()}
    if "anyOf" in out:
        out["anyOf"] = [_closed(child) for child in out["anyOf"]]
    if "items" in out:
        out["items"] = _closed(out["items"])
    if out.get("type") == "object":
        out["required"] = list(out["properties"])
        out["additionalProperties"] = False
    return out
