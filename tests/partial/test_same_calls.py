"""With partial execution or without it: the same calls, the same results, the same conversation.

Random replies of a model, cut at random places and written at random speeds, call tools that
take their arguments in every way there is, in a world whose writes change later reads.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Any

import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentflow import (
    Commit,
    Context,
    Engine,
    Late,
    Limits,
    Speculation,
    Stream,
    Task,
    Tool,
    Warm,
    events,
    tool,
)
from agentflow.caches.speculation.candidates import Candidate
from agentflow.caches.speculation.trail import Trail
from agentflow.errors import BackendError, RunFailed
from agentflow.executor.models.base import ChatRequest
from agentflow.executor.partial.decoding import Decoding
from agentflow.executor.partial.inputs import Inputs
from agentflow.planner import prompting
from agentflow.testing import run_virtual

AREAS, KEYS = "ab", "xy"

RATE = 0.5
"""Calls of `broken` in a second; so few of them are not put off for later ones."""

Lower = Annotated[str, pydantic.StringConstraints(to_lower=True, strip_whitespace=True)]

Arguments = list[tuple[str, Any]]
"""In the order written; a name may come twice."""


def allowed(value: Any) -> bool | str:
    return value not in (13, "secret") or "not that one"


class World:
    """A tree of numbers, and tools that take random times to read and change it."""

    def __init__(self) -> None:
        self.create("")
        leaf, area = "tree/{area}/{key}", "tree/{area}"
        self.tools: list[Tool[..., Any]] = [
            tool(reads=leaf, ttl="1h", check={"note": allowed})(self.get),
            tool(reads=leaf, hedge=0.3)(self.peek),
            tool(reads=area, limit=1)(self.dump),
            tool(reads="tree")(self.count),
            tool(reads=leaf, retries=8, backoff=0.1)(self.flaky),
            tool(reads=leaf, fallback="fallen back", rate=RATE)(self.broken),
            tool(pure=True, check={"n": allowed}, usd=0.01)(self.double),
            tool(pure=True, limit=2)(self.lines),
            tool(pure=True)(self.items),
            tool(pure=True)(self.strict),
            tool(pure=True)(self.plain),
            tool(pure=True)(self.shape),
            tool(writes=leaf, check={"n": allowed})(self.put),
            tool(writes=area)(self.wipe),
            tool(writes=leaf)(self.bump),
            tool()(self.shout),
        ]
        by_name = {made.name: made for made in self.tools}
        by_name["count"].warm(self.session)
        by_name["bump"].warm(self.session)
        by_name["plain"].warm(self.session)
        by_name["double"].warm(self.scale)
        by_name["dump"].warm(self.glance)

    def create(self, seed: str) -> None:
        """As it was in the beginning; tools are made once, because that takes long."""
        self._chance = random.Random(seed)
        self.leaves: Counter[tuple[str, str]] = Counter()
        self.shouts: Counter[str] = Counter()
        self.open = 0  # warm-ups that have not been cleaned up
        self.dumping = 0
        self.begun: list[float] = []

    async def _pass(self) -> None:
        await asyncio.sleep(self._chance.choice((0, 0, 0.1, 0.5, 1, 3)))

    # Warm-ups

    async def session(self) -> AsyncIterator[str]:
        self.open += 1
        try:
            await self._pass()
            yield "session"
        except asyncio.CancelledError:
            await asyncio.sleep(0)
            raise
        finally:
            self.open -= 1

    async def scale(self, n: Late[int]) -> int:
        return 2 if await n < 100 else 3

    async def glance(self, style: Stream[str]) -> str:
        await self._pass()
        return (await style.whole())[:1]

    # Reads

    async def get(self, area: str, key: str, note: Late[str] = "none") -> dict[str, Any]:
        """A leaf, in a form that further calls can be made of."""
        await self._pass()
        n = self.leaves[area, key]
        said = await note
        await self._pass()
        return {"n": n, "even": n % 2 == 0, "next": KEYS[n % 2], "at": area + key, "note": said}

    async def peek(self, area: str, key: str, k: int = 1, *, how: Late[Any] = None) -> list[Any]:
        await self._pass()
        n = self.leaves[area, key]
        await self._pass()
        if isinstance(said := await how, list):
            said.append("and more")  # it is the tool's own
        return [area, key, n, k, said]

    async def dump(self, area: str, style: Stream[str] = "", *, first: Warm[str]) -> list[Any]:
        self.dumping += 1
        try:
            assert self.dumping == 1, "its limit is one"
            await self._pass()
            found = {key: self.leaves[area, key] for key in KEYS}
            return [found, [line async for line in style.lines()], first]
        finally:
            self.dumping -= 1

    async def count(self, *, session: Warm[str]) -> str:
        await self._pass()
        total = sum(self.leaves.values())
        await self._pass()
        return f"{total} in {session}"

    async def flaky(self, area: str, key: str, hint: Late[str], *, ctx: Context) -> str:
        await self._pass()
        n = self.leaves[area, key]
        if ctx.attempt == 1 and key == "x":
            raise ConnectionError(f"{area}{key} is away")
        return f"{n} {await hint}"

    async def broken(self, area: str, key: str, hint: Late[str]) -> str:
        self.begun.append(asyncio.get_running_loop().time())
        await self._pass()
        n = self.leaves[area, key]
        if await hint == "x":
            raise LookupError(f"{area}{key} is broken")
        return f"whole {n}"

    # Pure ones

    async def double(self, n: int, *, factor: Warm[int]) -> int:
        await self._pass()
        return factor * n

    async def lines(self, text: Stream[str], prefix: str = "-") -> list[str]:
        out = []
        async for line in text.lines():
            await self._pass()
            out.append(prefix + line)
        return out

    async def items(self, text: Stream[str], k: Late[int] = 2) -> AsyncIterator[str]:
        whole = await text.whole()
        for number in range(min(await k, 3)):
            await self._pass()
            yield f"{whole} {number}"

    async def strict(self, n: int, hint: Late[str]) -> str:
        await self._pass()
        if n == 0 or await hint == "":
            raise ValueError(f"{n} will not do")
        return await hint

    def plain(self, n: int, *, session: Warm[str]) -> str:
        return f"{n} in {session}"

    async def shape(
        self,
        text: Stream[Lower],
        k: int = pydantic.Field(default=3, ge=1),
        tags: list[str] = [],  # noqa: B006  # every call has its own
        hint: Late[str] = "none",
    ) -> list[Any]:
        tags.append(await text.whole())
        return [k, tags, await hint]

    # Writes

    async def put(self, commit: Commit, area: str, key: str, n: int, memo: Late[str]) -> str:
        await self._pass()
        await commit()
        await self._pass()
        self.leaves[area, key] = self.leaves[area, key] * 7 % 1000 + n
        await self._pass()
        return f"put {area}/{key} {n} {await memo}"

    async def wipe(self, area: str, why: Stream[str], *, commit: Commit) -> str:
        seen = await why.whole()
        await commit()
        for key in KEYS:
            self.leaves[area, key] += 1
        await self._pass()
        return f"wiped {area} {seen}"

    async def bump(self, area: str, session: Warm[str], key: str) -> int:
        await self._pass()
        self.leaves[area, key] += 5
        return self.leaves[area, key]

    async def shout(self, who: str, text: Stream[str], *, commit: Commit) -> int:
        """Nobody has said what this does."""
        await commit()
        size = 0
        async for piece in text:
            size += len(piece)
            await self._pass()
        self.shouts[f"{who} {await text.whole()}"] += 1
        return size


WORLD = World()

# What a model writes

WORDS = (
    "x",
    " Secret ",
    "secret",
    "one\ntwo\n\nthree",
    "ü\u20ac\U0001f600 and more",
    "",
    "a b c d e f g h",
)


def arguments(chance: random.Random, name: str) -> Arguments:
    """Arguments of a call, in a random order; now and then wrong."""
    word, n = chance.choice(WORDS), chance.choice((0, 1, 2, 3, 200))
    leaf: Arguments = [("area", chance.choice(AREAS)), ("key", chance.choice(KEYS))]
    given: Arguments = {
        "get": [*leaf, *chance.choice(([], [("note", word)]))],
        "peek": [*leaf, *chance.choice(([], [("how", [word, n])], [("how", n), ("k", n)]))],
        "dump": [leaf[0], *chance.choice(([], [("style", word)]))],
        "count": [],
        "flaky": [*leaf, ("hint", word)],
        "broken": [*leaf, ("hint", word)],
        "double": [("n", n)],
        "lines": [("text", word), *chance.choice(([], [("prefix", chance.choice("+*"))]))],
        "strict": [("n", n), ("hint", word)],
        "plain": [("n", n)],
        "shape": [
            *chance.choice(([], [("k", n)])),
            ("text", word),
            *chance.choice(([], [("hint", word)])),
        ],
        "items": [("text", word), *chance.choice(([], [("k", n)]))],
        "put": [*leaf, ("n", n), ("memo", word)],
        "wipe": [leaf[0], ("why", word)],
        "bump": leaf,
        "shout": [("who", chance.choice(KEYS)), ("text", word)],
    }[name]
    if chance.random() < 0.4:
        chance.shuffle(given)
    if chance.random() < 0.04:
        wrong: Arguments = [("n", 13), ("n", "many"), ("area", 7), ("bogus", 1), ("note", "secret")]
        given.insert(chance.randrange(len(given) + 1), chance.choice(wrong))
    if given and chance.random() < 0.05:
        given.append((chance.choice(given)[0], chance.choice((word, n, "a"))))  # twice
    return given


NAMES = ("get", "get", "peek", "dump", "count", "flaky", "broken", "double", "double", "lines",
         "items", "strict", "plain", "shape",  "put", "put", "wipe", "bump", "shout")  # fmt: skip


def pieces(chance: random.Random, whole: str) -> list[str]:
    """A text, cut at random places."""
    out, at = [], 0
    longest = chance.choice((1, 3, 8, 40, 400))
    while at < len(whole):
        size = chance.randrange(1, longest + 1)
        out.append(whole[at : at + size])
        at += size
    return out


def as_json(chance: random.Random, given: Arguments) -> str:
    """Arguments as a model writes them; some are broken, or cut off."""
    gap, ascii_only = chance.choice(("", " ", "\n ")), chance.random() < 0.5
    pairs = [f"{json.dumps(k)}:{gap}{json.dumps(v, ensure_ascii=ascii_only)}" for k, v in given]
    whole = "{" + f",{gap}".join(pairs) + "}"
    if chance.random() < 0.04:
        return chance.choice((whole[:-1], whole[: len(whole) // 2], "false", whole + "}", "[1]",
                              whole.replace(":", "=", 1), '{"area": nope}'))  # fmt: skip
    return whole


def turn(chance: random.Random, haste: random.Random) -> list[tuple[Any, ...]]:
    """Several calls of one reply, one after the other or interleaved, as indexes and pieces."""
    interleaved = chance.random() < 0.4  # then how they are cut says in which order they end
    drafts: list[list[tuple[Any, ...]]] = []
    before: list[tuple[str, Arguments]] = []
    for index in range(chance.randrange(1, 6)):
        name = chance.choice(NAMES)
        made = (name, arguments(chance, name))
        if before and chance.random() < 0.2:
            made = chance.choice(before)
        before.append(made)
        text = pieces(chance if interleaved else haste, as_json(chance, made[1]))
        opening = (index, "", made[0] if chance.random() < 0.98 else "nothing")
        drafts.append([opening, *((index, piece) for piece in text)])
    if not interleaved:
        out = [stroke for draft in drafts for stroke in draft]
        if len(drafts) < 3 and chance.random() < 0.2:  # what comes after it is not of the turn
            out += [(9, "", "get"), (9, '{"bogus": 1,'), chance.choice((LOST, REFUSED))]
        return out
    out = []
    while drafts := [draft for draft in drafts if draft]:
        out.append(chance.choice(drafts[:2]).pop(0))
    return out


LOST, REFUSED = ("lost",), ("refused",)


def stroke(pen: Any, given: tuple[Any, ...], wait: float) -> Any:
    """One chunk of a turn."""
    if given == LOST:
        return pen.Stroke({}, wait, error=BackendError("lost", url="http://author/v1"))
    return pen.Stroke({"refusal": "no"}, wait) if given == REFUSED else pen.call(*given, wait=wait)


def quoted(chance: random.Random, value: Any, sources: Sequence[int]) -> str:
    """A value in the notation; with references to earlier lines in it."""
    if isinstance(value, str) and sources and chance.random() < 0.3:
        return json.dumps(f"{value}${{{chance.choice(sources)}.at}} and so on {value}")
    if isinstance(value, str) and sources and chance.random() < 0.15:
        return f"${chance.choice(sources)}.next"
    if isinstance(value, list) and sources:
        one, other = chance.choices(sources, k=2)
        return f'[${one}.n, {{"at": ${other}.at}}]'
    return json.dumps(value, ensure_ascii=False)


def plan(chance: random.Random, first: int) -> str:
    """A plan with references, guards and maps, and its end."""
    out: list[str] = []
    sources: list[int] = []
    before: list[str] = []
    for number in range(first, first + chance.randrange(2, 8)):
        name = chance.choice(NAMES)
        given = {key: quoted(chance, value, sources) for key, value in arguments(chance, name)}
        if "key" in given and chance.random() < 0.1:
            given["key"] = 'each ["x", "y"]'
        guard = f" if ${chance.choice(sources)}.even" if sources and chance.random() < 0.25 else ""
        spelled = [f"{key}={value}" for key, value in given.items()]
        if spelled and chance.random() < 0.2:  # the first by its position
            spelled[0] = next(iter(given.values()))
        made = f"{name}({', '.join(spelled)}){guard}"
        if before and chance.random() < 0.15:
            made = chance.choice(before)
        before.append(made)
        if made.startswith("get(") and "each" not in made and " if " not in made:
            sources.append(number)
        out.append(f"${number} = {made}")
    end = chance.choice(("join()", "join()", "", f"return ${number}"))
    return "\n".join([*out, end])


@dataclass(frozen=True)
class Session:
    """One task, and what a model writes in the course of it."""

    seed: int

    @property
    def strategy(self) -> Any:
        return ("react", "plan")[self.seed % 2]

    @property
    def commit(self) -> Any:
        return ("plan", "plan", "line")[self.seed // 2 % 3]

    @property
    def limits(self) -> Limits:
        chance = random.Random(~self.seed)
        return Limits(run=chance.choice((1, 3, 1000, 1000)), turn=chance.choice((3, 64)))

    def author(self, pen: Any, mood: str) -> Any:
        """A model that writes it, at speeds of its own."""
        chance, haste = random.Random(self.seed), random.Random(mood)
        rounds = chance.randrange(1, 3)
        turns = [turn(chance, haste) for _ in range(rounds)]
        plans = [pieces(chance, plan(chance, 1 + 10 * n)) for n in range(rounds)]
        numbers = iter(range(rounds))

        def script(request: ChatRequest) -> Iterable[Any]:
            def wait() -> float:
                return haste.choice((0, 0, 0.01, 0.1, 0.5))

            if request.messages[0]["content"] == prompting.prompt("join"):
                return [pen.text("Answer: done")]
            if (number := next(numbers, None)) is None:
                return [pen.text("join()" if self.strategy == "plan" else "Done.")]
            if self.strategy == "plan":
                return [pen.text(piece, wait()) for piece in plans[number]]
            return [stroke(pen, given, wait()) for given in turns[number]]

        return pen.Author(script)


# Running


class Fortune:
    """Guesses at calls such as a model makes, right ones and wrong ones."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(~seed)

    def candidates(self, trail: Trail, limit: int) -> Sequence[Candidate]:
        chance = self._chance
        names = [chance.choice(NAMES) for _ in range(chance.randrange(limit))]
        return [
            Candidate(name, dict(arguments(chance, name)), chance.random(), 0.5, "a whim")
            for name in names
        ]

    def learn(self, trail: Trail) -> None:
        pass

    def close(self, trail: Trail) -> None:
        pass


@dataclass(frozen=True)
class Switches:
    """What is switched on."""

    partial: bool = False
    cache: bool = False
    guesses: bool = False


PARTIAL = Switches(partial=True)

MATRIX = [
    PARTIAL,
    Switches(partial=True, cache=True),
    Switches(partial=True, cache=True, guesses=True),
    Switches(cache=True),
]


@dataclass
class Record:
    """What came of it: the answer, the conversation, the calls, the world; and parts that served."""

    answer: str
    conversation: list[Any]
    calls: list[str]
    world: Any
    committed: int

    def same(self, other: Record) -> bool:
        return (self.answer, self.conversation, self.calls, self.world) == (
            other.answer, other.conversation, other.calls, other.world,
        )  # fmt: skip


def record(session: Session, switches: Switches, pen: Any) -> Record:
    """Run a session in a world of its own."""
    return run_virtual(_record(session, switches, pen))


async def _record(session: Session, switches: Switches, pen: Any) -> Record:
    mood = f"{session.seed} {switches}"
    told: list[events.Event] = []
    author = session.author(pen, mood)
    WORLD.create(mood)
    speculation: Speculation | bool = False
    if switches.guesses:
        speculation = Speculation(source=Fortune(session.seed), load_price=0.0001)
    engine = Engine(
        model=author, tools=WORLD.tools, cache=switches.cache, partial=switches.partial,
        speculation=speculation, limits=session.limits, subscribers=[told.append], seed=1,
    )  # fmt: skip
    task = Task("Which?", session.strategy, rounds=3, commit=session.commit)
    async with engine:
        run = engine.start(task)
        others = asyncio.create_task(disturb(engine, mood))
        try:
            answer = str(await run)
        except RunFailed as failed:
            answer = f"{failed}"
        others.cancel()
    pen.audit(engine)
    assert all(b - a > 0.999 / RATE for a, b in pairwise(WORLD.begun)), WORLD.begun
    assert WORLD.open == 0, "a warm-up was not cleaned up"
    committed = sum(isinstance(event, events.PartialCommitted) for event in told)
    state = (WORLD.leaves, WORLD.shouts)
    return Record(answer, author.requests, sorted(calls(told)), state, committed)


async def disturb(engine: Engine, mood: str) -> None:
    """Say now and then that somebody has changed everything."""
    chance = random.Random(mood)
    while True:
        await asyncio.sleep(chance.choice((0.05, 0.2, 1.0, 5.0)))
        await engine.changed("tree")


def calls(told: Iterable[events.Event]) -> Iterable[str]:
    """The calls of a run with their arguments, and what came of them."""
    for event in told:
        if isinstance(event, events.PlanExtended):
            for node, line in zip(event.nodes, event.lines, strict=True):
                yield f"{node}: {line}"
        elif isinstance(event, events.NodeFinished | events.NodeFailed | events.NodeSkipped):
            came = getattr(event, "value", getattr(event, "error", "skipped"))
            yield f"{event.node} {event.tool} {event.element} {came!r}"


def differing(session: Session, pen: Any, *matrix: Switches) -> list[Switches]:
    """The switches with which a session goes otherwise than without any."""
    plain = record(session, Switches(), pen)
    return [switches for switches in matrix if not record(session, switches, pen).same(plain)]


@settings(max_examples=60)
@given(seed=st.integers(0, 1 << 32))
def test_partial_execution_changes_nothing_but_time(pen: Any, seed: int) -> None:
    assert differing(Session(seed), pen, *MATRIX) == []


def test_the_parts_of_this_test_are_adopted_often_enough(pen: Any) -> None:
    assert sum(record(Session(seed), PARTIAL, pen).committed for seed in range(20)) > 20


async def at_once(self: Commit) -> None:
    """A commit that waits for nothing."""


@pytest.mark.parametrize(
    ("owner", "name", "without"),
    [
        (Inputs, "fit", lambda self, arguments: True),
        (Decoding, "_is_clear", lambda self, part: True),
        (Commit, "__call__", at_once),
    ],
    ids=["the arguments are not compared", "writes are not waited for", "commits do not wait"],
)
def test_it_would_change_more_if(
    pen: Any, monkeypatch: pytest.MonkeyPatch, owner: type, name: str, without: Any
) -> None:
    monkeypatch.setattr(owner, name, without)

    assert any(differing(Session(seed), pen, PARTIAL) for seed in range(200))
