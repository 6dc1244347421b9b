"""Parameters that are more than values: refused where they cannot work, filled in where they can."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Annotated, Any

import pytest

from agentflow import Commit, Context, Engine, Late, Stream, Tool, Warm, llm, tool, workflow
from agentflow.errors import ArgumentError, DefinitionError
from agentflow.tools.streaming import TextStream

# Declarations that are refused


def no_commit() -> None:
    @tool(writes="files/{path}")
    async def write(path: str, text: Stream[str]) -> None: ...


def undeclared() -> None:
    @tool
    async def shout(text: Late[str]) -> None: ...


def in_a_thread() -> None:
    @tool(pure=True)
    def count(text: Stream[str]) -> int:
        return 0


def commit_in_a_thread() -> None:
    @tool
    def put(key: str, *, commit: Commit) -> None: ...


def a_stream_of_numbers() -> None:
    @tool(pure=True)
    async def add(numbers: Stream[int]) -> int:
        return 0


def perhaps_late() -> None:
    @tool(pure=True)
    async def look(hint: Late[str] | None = None) -> None: ...


def late_within() -> None:
    @tool(pure=True)
    async def look(hints: list[Late[str]]) -> None: ...


def late_streams() -> None:
    @tool(pure=True)
    async def look(hint: Late[Stream[str]]) -> None: ...


def any_number_of_streams() -> None:
    @tool(pure=True)
    async def look(*texts: Stream[str]) -> None: ...


def two_commits() -> None:
    @tool
    async def look(*, one: Commit, two: Commit) -> None: ...


def of_a_workflow() -> None:
    @workflow
    async def flow(text: Stream[str]) -> None: ...


def of_a_model() -> None:
    @llm
    async def summarise(text: Late[str]) -> str:
        """Summarise {text}"""
        raise NotImplementedError


@pytest.mark.parametrize(
    ("declare", "told"),
    [
        (no_commit, r"tool 'write' writes, and would begin .*: add a parameter 'commit: Commit' and "),
        (undeclared, "tool 'shout' does not say that it only reads.*or declare pure=True"),
        (in_a_thread, "tool 'count' takes Stream, Late or Commit: make it 'async def'"),
        (commit_in_a_thread, "tool 'put' takes Stream, Late or Commit: make it 'async def'"),
        (a_stream_of_numbers, r"'numbers' is a stream of text: annotate it Stream\[str\]"),
        (perhaps_late, "'hint' may be left out: annotate it without None, and give it a default"),
        (late_within, r"'hints' is late in a part of it only: annotate the parameter itself"),
        (late_streams, r"'hint' is late in a part of it only"),
        (any_number_of_streams, "'texts' stands for any number of arguments"),
        (two_commits, "'two' is a second Commit, beside 'one'"),
        (of_a_workflow, "'flow' takes Stream, Late, Commit or Warm: only a @tool can"),
        (of_a_model, "'summarise' takes Stream, Late, Commit or Warm: only a @tool can"),
    ],
    ids=lambda given: getattr(given, "__name__", ""),
)  # fmt: skip
def test_what_cannot_work_is_refused_and_says_what_to_do(
    declare: Callable[[], None], told: str
) -> None:
    with pytest.raises(DefinitionError, match=told):
        declare()


# Declarations that are taken


def test_models_see_the_type_of_the_value() -> None:
    @tool
    async def write(
        path: str,
        text: Stream[str],
        note: Late[int] = 3,
        loose: Late[Any] = None,
        *,
        short: Stream[Annotated[str, "at most a line"]] = "",
        commit: Commit,
        ctx: Context,
        link: Warm[str],
    ) -> None: ...

    schema = write.spec.schema()
    assert list(schema["properties"]) == ["path", "text", "note", "loose", "short"]
    assert schema["properties"]["text"] == {"type": "string"}
    assert schema["properties"]["note"] == {"type": "integer", "default": 3}
    assert schema["properties"]["short"] == {"type": "string", "default": ""}
    assert schema["required"] == ["path", "text"]


@pytest.mark.parametrize("declared", [{"pure": True}, {"reads": "web"}], ids=str)
async def test_a_tool_that_changes_nothing_needs_no_commit(declared: Any) -> None:
    @tool(**declared)
    async def look(text: Stream[str]) -> str:
        return await text.whole()

    assert await look("x") == "x"


def test_the_engines_own_parameters_cannot_be_given_by_a_plan() -> None:
    @tool
    async def put(key: str, *, commit: Commit) -> None: ...

    engine = Engine(tools=[put])
    with pytest.raises(Exception, match="no parameter 'commit'"):
        engine.plan('$1 = put(key="x", commit=1)')


# Calls that no model was seen to write


class Written:
    """A tool that takes everything there is, and how it was called."""

    def __init__(self) -> None:
        self.said: list[str] = []

        @tool(writes="files/{path}")
        async def write(
            path: str,
            text: Stream[str],
            size: Late[int] = 2,
            *,
            link: Warm[str],
            commit: Commit,
            ctx: Context,
        ) -> str:
            pieces = [piece async for piece in text]
            assert pieces in ([await text.whole()], [])
            await commit()
            self.said.append(f"{path} {pieces} {await size} {link} {type(ctx).__name__}")
            return self.said[-1]

        @write.warm
        async def connect(path: Late[str], text: Stream[str]) -> AsyncIterator[str]:
            self.said.append("open")
            try:
                yield f"<{await path} {await text.whole()}>"
            finally:
                self.said.append("closed")

        self.tool: Tool[..., Any] = write


async def plainly(write: Tool[..., Any]) -> Any:
    return await write("a", "one\ntwo")


async def as_it_is(write: Tool[..., Any]) -> Any:
    return await write.fn("a", TextStream.of("one\ntwo"), asyncio.sleep(0, 2), link="<a one\ntwo>",
                          commit=Commit(), ctx=Context())  # fmt: skip


async def in_a_workflow(write: Tool[..., Any]) -> Any:
    @workflow
    async def flow() -> Any:
        return await write("a", text="one\ntwo")

    async with Engine() as engine:
        return await engine.run(flow)


async def with_a_value_of_another_call(write: Tool[..., Any]) -> Any:
    @tool(pure=True)
    async def text() -> str:
        return "one\ntwo"

    @workflow
    async def flow() -> Any:
        return await write("a", text().ref)

    async with Engine() as engine:
        return await engine.run(flow)


async def in_a_plan(write: Tool[..., Any]) -> Any:
    async with Engine(tools=[write]) as engine:
        return await engine.run(engine.plan('$1 = write("a", text="one\\ntwo")\nreturn $1'))


async def with_options(write: Tool[..., Any]) -> Any:
    @workflow
    async def flow() -> Any:
        return await write.with_(timeout=5)("a", "one\ntwo", 2)

    async with Engine() as engine:
        return await engine.run(flow)


async def mapped(write: Tool[..., Any]) -> Any:
    @workflow
    async def flow() -> Any:
        [only] = await write.map(["a"], "one\ntwo")
        return only

    async with Engine() as engine:
        return await engine.run(flow)


@pytest.mark.parametrize(
    "way",
    [plainly, in_a_workflow, with_a_value_of_another_call, in_a_plan, with_options, mapped],
    ids=lambda way: str(way.__name__),
)
async def test_however_it_is_called_it_gets_the_same(way: Any) -> None:
    made = Written()

    assert await way(made.tool) == r"a ['one\ntwo'] 2 <a one" + "\ntwo> Context"
    assert [made.said[0], made.said[-1]] == ["open", "closed"]


async def test_the_function_itself_takes_them_as_they_are() -> None:
    made = Written()

    assert await as_it_is(made.tool) == r"a ['one\ntwo'] 2 <a one" + "\ntwo> Context"


async def test_arguments_are_checked_as_ever() -> None:
    @workflow
    async def flow() -> Any:
        made: Tool[..., Any] = Written().tool
        return await made("a", 7)

    async with Engine() as engine:
        with pytest.raises(Exception, match="argument 'text'") as caught:
            await engine.run(flow)

    assert isinstance(caught.value.__cause__, ArgumentError)


async def test_a_late_argument_left_out_has_its_default() -> None:
    @tool(pure=True)
    async def look(hint: Late[str] = "nothing", text: Stream[str] = "empty") -> str:
        return f"{await hint} {await text.whole()}"

    assert await look() == "nothing empty"
    assert await look("one") == "one empty"
    assert await look(text="two") == "nothing two"


async def test_generators_take_streams_too() -> None:
    @tool(pure=True)
    async def lines(text: Stream[str]) -> AsyncIterator[str]:
        async for line in text.lines():
            yield line

    async with Engine(tools=[lines]) as engine:
        assert await engine.run(engine.plan('$1 = lines("a\\nb")\nreturn $1')) == ["a", "b"]
    assert await lines("a\nb") == ["a", "b"]
