"""Arguments and results are checked and converted by their annotations, and described by schemas."""

from __future__ import annotations

import enum
import sys
import typing
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Literal

import pydantic
import pytest
from typing_extensions import TypedDict

from agentflow.context import Context
from agentflow.errors import ArgumentError, DefinitionError, ResultError
from agentflow.tools.signature import Signature


class Hit(pydantic.BaseModel):
    url: str
    rank: int = 0


@dataclass
class Point:
    x: int
    y: int = 0


class Page(TypedDict):
    title: str


class Colour(enum.Enum):
    RED = "red"


class Foreign:
    """A class that pydantic knows nothing of."""


def search(query: str, k: int = 5, *, hits: list[Hit] | None = None) -> list[Hit]:
    """Search for something.

    Args:
        query: What to search for,
            in one line.
        k (int): How many.

    Returns:
        query: not a parameter.
    """
    return hits or []


def sign(fn: Any) -> Signature:
    return Signature(fn, fn.__name__ if hasattr(fn, "__name__") else "it")


def test_arguments_are_converted_to_their_types() -> None:
    args, kwargs = sign(search).validate(("q",), {"k": "7", "hits": [{"url": "u", "rank": "2"}]})
    assert args == ("q",) and kwargs == {"k": 7, "hits": [Hit(url="u", rank=2)]}


@pytest.mark.parametrize(
    ("args", "kwargs", "argument", "text"),
    [
        ((), {}, "query", "search: argument 'query': it is required and was not given"),
        (("q",), {"m": 1}, "m", "search: argument 'm': there is no such parameter"),
        (("q", 1, 2), {}, "2", "search: argument '2': there is no such parameter"),
        ((5,), {}, "query", "search: argument 'query': input should be a valid string, not 5"),
        (("q", "five"), {}, "k", "search: argument 'k': input should be a valid integer"),
        (("q",), {"hits": [{"url": "u"}, {"rank": 1}]}, "hits.1.url", "field required"),
    ],
)
def test_a_wrong_argument_is_named(
    args: tuple[Any, ...], kwargs: dict[str, Any], argument: str, text: str
) -> None:
    with pytest.raises(ArgumentError) as wrong:
        sign(search).validate(args, kwargs)
    assert wrong.value.argument == argument and wrong.value.tool == "search"
    assert text in str(wrong.value)


def test_a_long_value_is_cut_in_the_message() -> None:
    with pytest.raises(ArgumentError) as wrong:
        sign(search).validate(("q", "x" * 500), {})
    assert len(str(wrong.value)) < 250 and str(wrong.value).endswith("...")


def test_what_has_no_annotation_is_passed_as_it_is() -> None:
    def plain(a, b=1, *rest, **more):  # type: ignore[no-untyped-def]  # on purpose
        return a

    signature = sign(plain)
    assert not signature.typed and signature.open and signature.positional
    thing = object()
    assert signature.validate((thing, 2, 3), {"c": thing}) == ((thing, 2, 3), {"c": thing})


def test_a_class_pydantic_does_not_know_is_checked_by_isinstance() -> None:
    def take(thing: Foreign) -> Foreign:
        return thing

    thing = Foreign()
    assert sign(take).validate((thing,), {})[0][0] is thing
    with pytest.raises(ArgumentError, match="Foreign"):
        sign(take).validate((5,), {})
    check = sign(take).check_result
    assert check is not None and check(thing) is thing


def test_the_context_is_no_parameter() -> None:
    def work(n: int, ctx: Context, maybe: Context | None = None) -> int:
        return n

    signature = sign(work)
    assert signature.roles.context in ("ctx", "maybe")
    assert [p.name for p in signature.parameters] == ["n"]
    with pytest.raises(ArgumentError):
        signature.validate((1,), {"ctx": Context()})


def test_parameters_say_what_planners_need() -> None:
    query, k, hits = sign(search).parameters
    assert (query.name, query.required, query.keyword_only) == ("query", True, False)
    assert query.schema == {"type": "string", "description": "What to search for, in one line."}
    assert (k.required, k.schema["default"], k.schema["description"]) == (False, 5, "How many.")
    assert hits.keyword_only and hits.accepts_none and not k.accepts_none


def test_schemas_have_no_made_up_titles_and_keep_parameters_of_that_name() -> None:
    def write(title: str, page: Page) -> None: ...

    schema = sign(write).json_schema
    assert schema["properties"]["title"] == {"type": "string"}
    assert "title" not in schema["$defs"]["Page"]
    assert schema["$defs"]["Page"]["properties"] == {"title": {"type": "string"}}


@pytest.mark.parametrize(
    ("annotation", "accepts"),
    [
        (int | None, True),
        (None, True),
        (Annotated[int | None, "x"], True),
        (Literal["a", None], True),  # noqa: PYI061  # people write it
        (int, False),
        (list[int | None], False),
        (Any, False),
    ],
)
def test_whether_none_is_a_value_is_read_off_the_type(annotation: Any, accepts: bool) -> None:
    def take(value: Any) -> None: ...

    take.__annotations__["value"] = annotation
    assert sign(take).parameters[0].accepts_none is accepts


@pytest.mark.parametrize(
    ("annotation", "given", "expected"),
    [
        (int, "5", 5),
        (list[Hit], [{"url": "u"}], [Hit(url="u")]),
        (Point, {"x": "1"}, Point(1)),
        (Page, {"title": "t"}, {"title": "t"}),
        (Colour, "red", Colour.RED),
        (tuple[int, str], [1, "a"], (1, "a")),
        (None, None, None),
        (int | None, None, None),
    ],
)
def test_results_are_converted_to_the_declared_type(
    annotation: Any, given: Any, expected: Any
) -> None:
    def give() -> Any: ...

    give.__annotations__["return"] = annotation
    check = sign(give).check_result
    assert check is not None and check(given) == expected


def test_a_result_the_annotation_does_not_allow_is_refused_with_the_path_to_it() -> None:
    def give() -> list[Hit]: ...  # type: ignore[empty-body]  # never called

    check = sign(give).check_result
    assert check is not None
    with pytest.raises(ResultError) as wrong:
        check([{"url": "u"}, {"url": 5}])
    assert wrong.value.tool == "give"
    assert "give returned what '-> list[" in str(wrong.value) and "1.url" in str(wrong.value)


def test_a_result_without_a_declared_type_is_not_checked() -> None:
    def one():  # type: ignore[no-untyped-def]  # on purpose
        return 1

    def other() -> Any:
        return 1

    assert sign(one).check_result is None and sign(other).check_result is None
    assert sign(one).result_schema == sign(other).result_schema == {}


@pytest.mark.parametrize("kind", [AsyncIterator[int], AsyncGenerator[int, None]])
def test_the_value_of_a_generator_is_a_list_of_its_items(kind: Any) -> None:
    async def items() -> Any:
        yield 1

    items.__annotations__["return"] = kind
    signature = sign(items)
    assert signature.result_schema == {"type": "array", "items": {"type": "integer"}}
    check = signature.check_result
    assert check is not None and check(["1", 2]) == [1, 2]
    with pytest.raises(ResultError):
        check(["one"])


@pytest.mark.parametrize("kind", [AsyncIterator, AsyncGenerator])
def test_a_generator_that_does_not_say_of_what_gives_a_list_of_anything(kind: Any) -> None:
    async def items() -> Any:
        yield 1

    items.__annotations__["return"] = kind
    check = sign(items).check_result
    assert check is None or check([1, "a"]) == [1, "a"]


def test_an_annotation_that_cannot_be_read_is_refused_at_the_definition() -> None:
    def bad(x: Missing) -> None: ...  # type: ignore[name-defined]  # noqa: F821  # on purpose

    with pytest.raises(DefinitionError, match=r"tool 'bad': annotation not understood.*Missing"):
        sign(bad)


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="pydantic takes it there")
def test_a_type_that_pydantic_refuses_is_refused_by_name() -> None:
    class Old(typing.TypedDict):
        title: str

    def take(page: Old) -> Old:
        return page

    signature = Signature(take, "take", locals())
    for look in (lambda: signature.validate, lambda: signature.check_result):
        with pytest.raises(DefinitionError, match=r"tool 'take': .*TypedDict"):
            look()


def test_names_of_the_defining_scope_may_be_used() -> None:
    class Local(pydantic.BaseModel):
        n: int

    def take(x: Local) -> Local:
        return x

    signature = Signature(take, "take", locals())
    assert signature.validate(({"n": 1},), {})[0][0] == Local(n=1)


def test_a_partial_has_the_parameters_that_are_left() -> None:
    signature = Signature(partial(search, "q"), "later")
    assert [p.name for p in signature.parameters] == ["k", "hits"]
    assert signature.validate((), {"k": "3"}) == ((), {"k": 3, "hits": None})
