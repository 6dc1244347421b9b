"""Everything that reads what others wrote: what it reads well, and what it may raise."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from agentflow import Budget, tool
from agentflow.cli.arguments import read_arguments
from agentflow.clock import seconds
from agentflow.errors import AgentflowError, ArgumentError, DefinitionError, PlanError
from agentflow.executor.affinity import metrics
from agentflow.executor.models.base import ChatRequest
from agentflow.executor.models.stream import OpenAIStream, Timeouts
from agentflow.executor.models.typed import AnswerType
from agentflow.executor.strategies.verdict import VerdictReader
from agentflow.planner.check import read_plan
from agentflow.planner.lower import lower
from agentflow.planner.plan_json import plan_from_json, to_json
from agentflow.planner.reader import Reader, read_script
from agentflow.testing import run_virtual
from agentflow.tools.builtin.calculate import compute
from agentflow.tools.builtin.http_urls import FetchFailed, parse
from agentflow.tools.builtin.regex import parse as parse_pattern
from agentflow.tools.json_arguments import ArgumentsReader
from agentflow.tools.tool import Tool
from tests.fuzz.target import NESTED, TEXTS, Misread, Target, text, times

HERE = Path(__file__).parent.parent


@tool(pure=True)
async def search(query: str, k: int = 3, *, deep: bool = False) -> list[str]:
    """Search."""
    raise AssertionError


@tool(writes="orders/{id}")
async def put(id: str, amount: float | None = None, tags: list[str] | None = None) -> str:
    """Put."""
    raise AssertionError


TOOLS: dict[str, Tool[..., Any]] = {"search": search, "put": put}


def pieces(whole: str, chance: random.Random) -> Iterator[str]:
    """A text in pieces."""
    at = 0
    while at < len(whole):
        size = chance.choice((1, 2, 3, 7, 40, 1000))
        yield whole[at : at + size]
        at += size


# Plans and arguments


def plan(data: bytes, chance: random.Random) -> None:
    """A plan is read the same however it is cut, and compiled if it is right."""
    whole = text(data)
    try:
        script = read_script(whole)
    except PlanError as error:
        script, expected = None, error.kind
    reader = Reader()
    try:
        for piece in pieces(whole, chance):
            reader.feed(piece)
        reader.finish()
    except PlanError as error:
        if script is not None or error.kind != expected:
            raise Misread(f"cut into pieces it is {error.kind}") from error
    else:
        if script != reader.script:
            raise Misread("cut into pieces it is another plan")
    specs = {name: known.spec for name, known in TOOLS.items()}
    lower(read_plan(whole, specs), specs)


def plan_json(data: bytes, chance: random.Random) -> None:
    """A plan as JSON."""
    made = plan_from_json(text(data))
    if plan_from_json(to_json(made)) != made:
        raise Misread("written again it is another plan")


def arguments(data: bytes, chance: random.Random) -> None:
    """Arguments of a call, against the whole text read by the standard library."""
    whole = text(data)
    reader = ArgumentsReader(1, "search")
    for piece in pieces(whole, chance):
        reader.feed(piece)
    reader.finish()
    try:
        value, _ = json.JSONDecoder(parse_constant=_no_constant).raw_decode(whole.lstrip(" \t\r\n"))
    except (ValueError, RecursionError):
        return
    if isinstance(value, dict) and reader.ended and repr(reader.arguments) != repr(value):
        raise Misread(f"{reader.arguments!r} was read, and not {value!r}")


def _no_constant(constant: str) -> None:
    raise ValueError(constant)


def words(data: bytes, chance: random.Random) -> None:
    """Arguments of the command line."""
    read_arguments(text(data).split("\n"), chance.choice(list(TOOLS.values())))


# What models and servers say


def stream(data: bytes, chance: random.Random) -> None:
    """The body of a streamed reply."""
    run_virtual(_streamed(data, chance))


async def _streamed(data: bytes, chance: random.Random) -> None:
    async def body() -> AsyncIterator[bytes]:
        at = 0
        while at < len(data):
            size = chance.choice((1, 5, 60, 4000))
            yield data[at : at + size]
            at += size

    @asynccontextmanager
    async def call() -> AsyncIterator[Any]:
        yield SimpleNamespace(headers={"content-type": "text/event-stream"}, aiter_bytes=body)

    request = ChatRequest(messages=[{"role": "user", "content": "x"}])
    now = asyncio.get_running_loop().time()
    reply = OpenAIStream(
        request, "http://x/v1", Timeouts(), lambda _: Decimal(0), started=now, attempt=1
    )
    try:
        await reply.open(call())
        async for _ in reply:
            pass
        reply.reply.as_message()
    finally:
        await reply.aclose()


def answer(data: bytes, chance: random.Random) -> None:
    """A typed answer of a model, or its verdict."""
    verdict = VerdictReader(lambda _text, _role: None)
    for piece in pieces(text(data), chance):
        verdict.feed(piece)
    verdict.finish()
    AnswerType.of(dict[str, list[int]]).read(text(data))


def measured(data: bytes, chance: random.Random) -> None:
    """The metrics page of a server."""
    metrics.parse(text(data))


# What people write


def url(data: bytes, chance: random.Random) -> None:
    """A URL that is to be fetched, or that a page redirects to."""
    parse(text(data), parse("https://example.com/a/") if chance.random() < 0.5 else None)


def amount(data: bytes, chance: random.Random) -> None:
    """A duration, and an amount of money."""
    for read in (seconds, lambda given: Budget(usd=given), lambda given: Budget(deadline=given)):
        try:
            read(text(data))
        except (ValueError, DefinitionError):
            continue


def expression(data: bytes, chance: random.Random) -> None:
    """What is to be calculated."""
    compute(text(data))


def pattern(data: bytes, chance: random.Random) -> None:
    """A regular expression, of what takes linear time."""
    parse_pattern(text(data))


# What they are known to read


def _corpus(name: str) -> list[bytes]:
    lines = (HERE / "corpus" / name).read_text("utf-8").splitlines()
    return [json.loads(line)["text"].encode("utf-8", "surrogatepass") for line in lines]


def _transcripts() -> list[bytes]:
    return [path.read_bytes() for path in sorted((HERE / "transcripts").glob("*.txt"))]


PLAN = '$1 = search(query="a", k=2)\n$2 = put(id=$1[0], tags=each $1)  # b\nreturn ${2}'
ARGUMENTS = '{"query": "a \\"b\\" \\u00e9", "k": -1.5e3, "deep": [true, null, {"x": []}]}'
EVENT = 'data: {"choices": [{"index": 0, "delta": {"content": "a"}}]}\n\n'


def text_targets() -> list[Target]:
    """The readers of texts."""
    plans = [*_corpus("plans.jsonl"), *_corpus("paths.jsonl"), PLAN.encode()]
    specs = {name: known.spec for name, known in TOOLS.items()}
    a_plan = to_json(lower(read_plan(PLAN.replace("each ", ""), specs), specs)).encode()
    nameless = a_plan.replace(b'"label": 1', b'"label": NaN')
    return [
        Target("plan", plan, plans, (PlanError,), PLANS),
        Target("plan as JSON", plan_json, [a_plan, nameless], (PlanError,), NESTED),
        Target("arguments", arguments, [ARGUMENTS.encode(), *plans[:20]], (), TEXTS),
        Target("words", words, [b"a\nk=2", b'id=3\ntags=["a"]\namount=1'], (ArgumentError,), TEXTS),
        Target("stream", stream, _transcripts(), (AgentflowError,), EVENTS),
        Target("answer", answer, [b'```json\n{"a": [1]}\n```', b"Answer: 4"], (AgentflowError,), TEXTS),
        Target("metrics", measured, [METRICS.encode()], (), [times('a{b="c"} 1\n'), *TEXTS]),
        Target("url", url, URLS, (FetchFailed,), TEXTS),
        Target("amount", amount, [b"1h 30m", b"250ms", b"$1.50", b"1e-3"], (), TEXTS),
        Target("expression", expression, EXPRESSIONS, (ValueError, ArithmeticError), SUMS),
        Target("pattern", pattern, PATTERNS, (ValueError,), TEXTS),
    ]  # fmt: skip


METRICS = '# HELP a b\nvllm:num_requests_running{model="m",x="\\"q\\""} 3.0\nc 1e9\n'
URLS = (b"https://example.com/a?b=c#d", b"http://user:pw@[::1]:80/", b"//x/../y", b"http://0x7f.1")
EXPRESSIONS = (b"(1 + 2) * 3 ** 2 / -4", b"mean([1, 2, 3]) > sqrt(2)", b"10 ** 10 ** 10", b"50!")
PATTERNS = (rb"(a|b)*c{2,3}[^d-f]\w$", rb"(?i)\bfoo(?:bar)+?", rb"(((a)))|[[:alpha:]]")
PLANS = (
    *TEXTS,
    times("f("),
    times("$1 "),
    times("${1.", '$1 = search(query="'),
    times("\\", '$1 = search(query="'),
    times("[", "$1 = search(query="),
    times("search(query=$1)\n"),
    times("Thought: a\n"),
)
EVENTS = (
    times(EVENT),
    times("data: \n\n"),
    times(": ping\n"),
    times("\r\n"),
    times("[", "data: "),
)
SUMS = (
    times("1+"),
    times("("),
    times("-"),
    times("9"),
    times("2**"),
    times("1,", "max(", ")"),
)
