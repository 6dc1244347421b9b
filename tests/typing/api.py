"""A user's typed program: it passes mypy strict, and the marked lines are errors.

`test_typing.py` has mypy check it. An error that goes missing is reported too, because every
``type: ignore`` that nothing needs is one.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any, assert_type

from agentflow import (
    Budget,
    Commit,
    Context,
    Engine,
    Handle,
    Late,
    Outcome,
    Plan,
    Run,
    Session,
    Stream,
    Task,
    Tool,
    Warm,
    Workflow,
    first,
    gather,
    llm,
    quorum,
    run_sync,
    settled,
    tool,
    workflow,
)


@dataclass(frozen=True)
class Hit:
    url: str
    score: float


@dataclass(frozen=True)
class Summary:
    text: str
    sources: list[str]


@tool(reads="web", timeout="8s", retries=2)
async def search(query: str, k: int = 5) -> list[Hit]:
    """Search the web."""
    return [Hit(f"{query}/{number}", 1.0) for number in range(k)]


@tool
async def fetch(url: str, depth: int = 0) -> str:
    return f"page {url} {depth}"


@tool(pure=True)
async def rank(hits: Sequence[Hit], page: str, top: int = 3) -> str:
    return f"{len(hits)} {page} {top}"


@tool
def size(text: str) -> int:
    return len(text)


@tool(pure=True)
def longest(texts: list[str]) -> str:
    return max(texts, key=len)


@tool
async def lines(text: str) -> AsyncIterator[str]:
    for line in text.splitlines():
        yield line


@tool(writes="orders/{order}", idempotent=True)
async def cancel(order: str, context: Context = Context()) -> bool:
    context.emit(f"attempt {context.attempt}")
    return True


@tool(writes="files/{path}", check={"path": lambda path: ".." not in path})
async def write_file(
    path: str,
    text: Stream[str],
    times: Late[int] = 1,
    *,
    folder: Warm[str] = "",
    commit: Commit = Commit(),
) -> str:
    """Its callers give plain values; what the engine fills in has a default, so that they may."""
    async for piece in text:
        assert_type(piece, str | Any)
    written = [line async for line in text.lines()] * await times
    await commit()
    return f"{folder}/{path}: {'|'.join(written)} of {len(await text.whole())}"


@tool(reads="web")
async def ask(query: str, *, session: Warm[Hit | None] = None) -> str:
    """What the warm-up gives has None as its default where no other can be made."""
    assert session is not None
    return f"{session.url}: {query}"


@ask.warm
async def connect() -> Hit:
    return Hit("session", 1.0)


@write_file.warm
async def make_folder(path: Late[str]) -> AsyncIterator[str]:
    yield f"folder of {await path}"


@llm
async def title(text: str) -> str:
    """Give this a title: {text}"""
    raise NotImplementedError


@llm(model=["small", "large"], temperature=0, timeout="30s")
async def summarise(text: str, style: str = "short") -> Summary:
    """Summarise the text in a {style} style.

    {text}
    """
    raise NotImplementedError


async def outside() -> None:
    """Outside a workflow a tool is the coroutine function it decorates."""
    assert_type(await search("x"), list[Hit])
    assert_type(await size("x"), int)  # runs in a thread
    assert_type(await lines("x"), list[str])  # an async generator gives the list of its items
    both = await asyncio.gather(search("x"), fetch("u"))
    assert_type(both, tuple[list[Hit], str])
    assert_type(await asyncio.create_task(search(query="x", k=2)), list[Hit])
    assert_type(await fetch.map(["a", "b"]), list[str])
    assert_type(await cancel("o-1"), bool)
    assert_type(await write_file("a", "text", 2), str)
    assert_type(await ask("x"), str)
    assert_type(search.fn("x"), object)  # type: ignore[assert-type]  # the undecorated function


@workflow
async def passing(topic: str) -> str:
    """Handles are passed on as `.ref`, which is typed as the value."""
    hits = search(topic)
    assert_type(hits, Handle[list[Hit]])
    assert_type(hits.ref, list[Hit])
    assert_type(hits.ref[0].url, str)
    one = fetch(hits.ref[0].url, depth=2)
    two = rank(hits.ref, one.ref, top=1)
    assert_type(two.done(), bool)
    assert_type(await two, str)
    return await one


@workflow
async def mapping(topic: str) -> int:
    """A map takes a list first, or arguments with `.each`."""
    hits = search(topic)
    assert_type(hits.each, Hit)
    assert_type(hits.each.url, str)
    pages = fetch.map(hits.each.url, depth=1)
    assert_type(pages, Handle[list[str]])
    assert_type(await fetch.map(["a", "b"]), list[str])
    assert_type(await fetch.map(pages.ref), list[str])
    assert_type(await rank.map(hits.ref, pages.each), list[str])
    assert_type(await lines.map(pages.each), list[list[str]])
    assert_type(await longest(pages.ref), str)
    return len(await pages)


@workflow
async def joining() -> str:
    """Join policies."""
    one, two = fetch("a"), fetch("b")
    assert_type(await gather(one, two), list[str])
    assert_type(await first(one, two), str)
    assert_type(await quorum(1, one, two), list[str])
    outcomes = settled(one, two)
    assert_type(outcomes, Handle[list[Outcome[str]]])
    for outcome in await outcomes:
        assert_type(outcome.value, str | None)
        assert_type(outcome.ok, bool)
    mixed = await asyncio.gather(one, search("x"))  # of different types
    assert_type(mixed, tuple[str, list[Hit]])
    return await longest(gather(one, two).ref)


@workflow
async def overriding() -> str:
    """Per-call options keep the signature."""
    patient = fetch.with_(timeout=1, retries=3, fallback="nothing")
    assert_type(await patient("a", depth=1), str)
    found = size("a")
    guarded = fetch.with_(when=found.ref)("b")
    some = fetch.with_(join="quorum(1)").map(["a", "b"])
    assert_type(await some, list[str])
    return await guarded


@workflow(budget=Budget(usd="0.05", deadline="30s"))
async def asking(text: str, times: int = 1) -> Summary:
    """Prompts are called like tools, and workflows from workflows."""
    headline, found = title(text), passing(text)
    assert_type(headline, Handle[str])
    assert_type(found, Handle[str])
    assert_type(summarise(found.ref), Handle[Summary])
    assert_type(await summarise.map([text] * times), list[Summary])
    return await summarise(headline.ref, style="dry")


async def running() -> None:
    """An engine gives what the workflow returns."""
    async with Engine(seed=1) as engine:
        assert_type(await engine.run(passing, "x"), str)
        assert_type(await engine.run(asking, "x", times=2), Summary)
        assert_type(engine.start(mapping, topic="x"), Run[int])
        assert_type(await engine.start(mapping, "x"), int)
        assert_type(await engine.run(Task("Who?", strategy="react")), str)
        assert_type(await engine.run("Who?", rounds=2), str)
        assert_type(engine.plan("$1 = size('x')\nreturn $1", tools=[size]), Plan)
        async for event in engine.stream(passing, "x"):
            assert_type(event.at, float)
    assert_type(passing.plan("x"), Plan)
    assert_type(await passing("x"), str)  # with an engine of its own


def synchronously() -> None:
    assert_type(run_sync(mapping, "x"), int)
    assert_type(run_sync(mapping, "x", engine={"seed": 1}), int)
    assert_type(run_sync("Who?", engine={"model": "small"}), str)


def mistakes(hits: Handle[list[Hit]], page: Handle[str], engine: Engine) -> None:
    """Every line is an error."""
    # Arguments
    search(3)  # type: ignore[arg-type]  # a number
    search("x", k="5")  # type: ignore[arg-type]  # text
    search()  # type: ignore[call-arg]  # nothing
    search(query="x", kk=5)  # type: ignore[call-arg]  # no such parameter
    search("x", 5, 6)  # type: ignore[call-arg]  # too many
    summarise(3)  # type: ignore[arg-type]  # a number
    passing(topic=3)  # type: ignore[arg-type]  # a number

    # Handles
    rank(hits, "p")  # type: ignore[arg-type]  # .ref is missing
    fetch(hits.ref)  # type: ignore[arg-type]  # of the wrong type
    fetch(hits.ref[0].score)  # type: ignore[arg-type]  # a float
    fetch(url=page)  # type: ignore[arg-type]  # .ref is missing
    rank(page.ref, page.ref)  # type: ignore[arg-type]  # no hits
    print(hits.ref[0].nope)  # type: ignore[attr-defined]  # no such field
    print(hits[0])  # type: ignore[index]  # not awaited
    print(len(page))  # type: ignore[arg-type]  # not awaited

    # Maps
    print(page.ref.each)  # type: ignore[attr-defined]  # of a handle, not of a reference
    fetch.map(page)  # type: ignore[call-overload]  # .ref is missing
    size.map(hits.each)  # type: ignore[call-overload]  # a hit is no text
    fetch.map(["a"], depth="x")  # type: ignore[call-overload]  # text

    # Arguments that may come late
    write_file(["a"], "text")  # type: ignore[arg-type]  # a list
    write_file("a")  # type: ignore[call-arg]  # no text
    write_file.warm(3)  # type: ignore[type-var]  # a number
    tool(check=len)  # type: ignore[call-overload]  # a function, and for which parameter?

    # Options
    fetch.with_(timeout=[1])  # type: ignore[arg-type]  # a list
    fetch.with_(tries=3)  # type: ignore[call-arg]  # no such option
    tool(limit="many")  # type: ignore[call-overload]  # text
    llm(models=["small"])  # type: ignore[call-overload]  # no such option

    # Runs
    engine.start(passing)  # type: ignore[call-overload]  # nothing
    engine.start(passing, 3)  # type: ignore[call-overload]  # a number
    engine.start(asking, "x", time=3)  # type: ignore[call-arg]  # no such parameter
    Budget(usd=[])  # type: ignore[arg-type]  # a list
    number: int = run_sync(passing, "x")  # type: ignore[assignment]  # it gives text
    print(number)


async def sessions(engine: Engine) -> None:
    """A turn gives text."""
    chat = Session("You are careful.", tools=[search], window=8_000)
    assert_type(await engine.run(chat, "Hello", strategy="plan"), str)
    assert_type(engine.start(chat, "Hello"), Run[str])
    assert_type(chat.ask("Hello"), Handle[str])
    assert_type(chat.fork(), Session)
    assert_type(Session.from_json(chat.to_json(), tools=[search]), Session)
    engine.start(chat, 3)  # type: ignore[call-overload]  # a number
    chat.ask()  # type: ignore[call-arg]  # nothing


def definitions() -> None:
    """A workflow is an ``async def``."""

    @workflow  # type: ignore[arg-type]  # not async
    def plain(text: str) -> str:
        return text


def registry(*tools: Tool[..., object], flow: Workflow[[str], str] = passing) -> list[str]:
    """Tools of any signature in one collection."""
    return [*(each.name for each in tools), flow.name]


NAMES = registry(search, fetch, size, lines, summarise, passing)
