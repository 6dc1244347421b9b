"""A reply that breaks off is asked for again, and handed out once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, Self

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow import _http
from agentflow.context import run_scope
from agentflow.errors import (
    BackendError,
    BackendRejected,
    BackendTimeout,
    BackendUnreachable,
    BadReply,
    BudgetExceeded,
    TruncatedReply,
)
from agentflow.executor.models.base import (
    CallPiece,
    ChatRequest,
    Delta,
    ReasoningPiece,
    RefusalPiece,
    Reply,
    TextPiece,
    Usage,
)
from agentflow.executor.models.calls import CallTexts
from agentflow.executor.models.client import OpenAIBackend
from agentflow.executor.models.persistent import Persistent, PersistentStream, ReplyDiverged
from agentflow.executor.models.retry import RetryPolicy
from agentflow.executor.models.stream import Timeouts
from agentflow.testing import Call, Fault, ScriptedServer
from agentflow.testing import Reply as Said
from agentflow.testing.replies import Pace

pytestmark = pytest.mark.virtual

ASKED = ChatRequest(messages=[{"role": "user", "content": "Which?"}])
SAID = (
    "Let me look at both of them.",
    Call("look", {"key": "a b c"}),
    Call("look", {"key": "d"}),
)
BROKEN: list[Callable[..., Fault]] = [
    Fault.cut,
    Fault.stall,
    Fault.unfinished,
    lambda *said, after: Fault.error("overloaded", *said, after=after),
]
KINDS = ["cut", "stall", "unfinished", "error"]


class Heard:
    """What was handed out of a reply."""

    def __init__(self) -> None:
        self.pieces: list[Delta] = []
        self.restarts = 0

    def restart(self) -> None:
        self.pieces, self.restarts = [], self.restarts + 1

    def text(self, kind: type[Any] = TextPiece) -> str:
        return "".join(piece.text for piece in self.pieces if isinstance(piece, kind))

    def calls(self) -> list[tuple[str, str]]:
        texts = CallTexts()
        for piece in self.pieces:
            if isinstance(piece, CallPiece):
                texts.add(piece)
        return [(call.name, call.arguments) for call in texts]

    async def read(self, stream: PersistentStream) -> Heard:
        """Read a stream to its end, and forget what was void."""
        while True:
            try:
                async for piece in stream:
                    self.pieces.append(piece)
                return self
            except ReplyDiverged:
                self.restart()


class Endpoint:
    """A scripted server, and a persistent model that asks it."""

    def __init__(self, *script: Any, **options: Any) -> None:
        self.server = ScriptedServer(list(script))
        self._http = _http.client(transport=self.server.transport())
        backend = OpenAIBackend("http://a/v1", "tiny", http=self._http, **options)
        self.model = Persistent(backend)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_error: object) -> None:
        assert self.server.active == 0
        await self._http.aclose()

    async def hear(self) -> Heard:
        """What is handed out of one reply."""
        async with self.model.stream(ASKED) as stream:
            return await Heard().read(stream)


class Attempts:
    """A model by its attempts: the pieces of each, and the error it breaks off with."""

    name = "tiny"
    usage = Usage(1, 1)
    reply = Reply(text="whole")

    def __init__(self, *attempts: Sequence[Any]) -> None:
        self._attempts = list(attempts)
        self.left: list[BaseException | None] = []  # with what each attempt was left

    @asynccontextmanager
    async def stream(self, _request: ChatRequest) -> AsyncIterator[Any]:
        self._now = self._attempts.pop(0)
        if isinstance(self._now[0], Exception):
            raise self._now[0]
        self.left.append(None)
        try:
            yield self
        except Exception as error:
            self.left[-1] = error
            raise

    async def complete(self, request: ChatRequest, on_delta: Any = None) -> Reply:
        async with self.stream(request):
            async for piece in self:
                on_delta(piece)
        return self.reply

    async def __aiter__(self) -> AsyncIterator[Delta]:
        for piece in self._now:
            if isinstance(piece, Exception):
                raise piece
            yield piece


def broken(kind: type[BackendError] = TruncatedReply) -> BackendError:
    return kind("it broke off", url="http://a/v1")


async def heard_of(*attempts: Sequence[Any]) -> Heard:
    async with Persistent(Attempts(*attempts)).stream(ASKED) as stream:
        return await Heard().read(stream)


def texts(*parts: str) -> list[Delta]:
    return [TextPiece(part) for part in parts]


def call(index: int, id: str | None, name: str | None, arguments: str) -> CallPiece:
    return CallPiece(index, id, name, arguments)


# Wherever, and however, a reply breaks off


@pytest.mark.parametrize("fault", BROKEN, ids=KINDS)
@pytest.mark.parametrize("size", [1, 3])
async def test_a_reply_that_breaks_off_anywhere_is_handed_out_once(fault: Any, size: int) -> None:
    async with Endpoint(Said(*SAID)) as endpoint:
        whole = await endpoint.hear()
    assert whole.text() == SAID[0] and len(whole.calls()) == 2

    for after in range(len(whole.pieces) + 1):
        again = Said(*SAID, pace=Pace(tokens_per_chunk=size))
        async with Endpoint(fault(*SAID, after=after), again) as endpoint:
            heard = await endpoint.hear()

            assert (heard.text(), heard.calls()) == (whole.text(), whole.calls()), after
            assert heard.restarts == 0
            assert len(endpoint.server.requests) == 2


async def test_a_reply_goes_on_after_it_broke_off_twice() -> None:
    cut = Fault.cut(*SAID, after=9), Fault.unfinished(*SAID, after=4)
    async with Endpoint(*cut, Said(*SAID)) as endpoint:
        heard = await endpoint.hear()

    assert heard.text() == SAID[0]
    assert [name for name, _ in heard.calls()] == ["look", "look"]


async def test_a_reply_that_breaks_off_a_third_time_fails_as_it_does_then() -> None:
    cut = [Fault.cut(*SAID, after=3), Fault.cut(*SAID, after=3), Fault.unfinished(*SAID, after=3)]
    async with Endpoint(*cut, "never asked") as endpoint:
        with pytest.raises(TruncatedReply):
            await endpoint.hear()

        assert len(endpoint.server.requests) == 3


async def test_a_failure_that_will_not_pass_ends_the_reply() -> None:
    async with Endpoint(Fault.garbage(*SAID, after=3), "never asked") as endpoint:
        with pytest.raises(BadReply):
            await endpoint.hear()

        assert len(endpoint.server.requests) == 1


async def test_what_fails_when_it_is_asked_again_is_not_taken_for_what_failed_before() -> None:
    refused = Fault.status(401, "no key")
    async with Endpoint("hello", Fault.cut(*SAID, after=3), refused) as endpoint:
        await endpoint.hear()  # requests after the first are sent in another way

        with pytest.raises(BackendRejected, match="no key"):
            await endpoint.hear()


async def test_a_stream_that_is_left_is_closed_on_the_server() -> None:
    async with Endpoint(Fault.cut(*SAID, after=3), Fault.stall(*SAID, after=9)) as endpoint:
        async with endpoint.model.stream(ASKED) as stream:
            for _ in range(9):
                await anext(stream)

        await asyncio.sleep(0)
        assert [request.disconnected for request in endpoint.server.requests] == [False, True]


async def test_an_attempt_is_left_with_what_broke_it_off() -> None:
    error = broken()
    model = Attempts([TextPiece("a"), error], texts("ab"))

    async with Persistent(model).stream(ASKED) as stream:
        await Heard().read(stream)

    assert model.left == [error, None]


async def test_nothing_is_asked_again_when_enough_has_been_read() -> None:
    model = Attempts([*texts("a", "b"), broken()], texts("ab"))

    async with Persistent(model).stream(ASKED) as stream:
        await anext(stream)
        stream.enough()
        with pytest.raises(TruncatedReply):
            await Heard().read(stream)


@pytest.mark.parametrize(("left", "fails"), [(1.0, False), (0.0, True)])
async def test_nothing_is_asked_again_after_the_deadline(left: float, fails: bool) -> None:
    def hear() -> asyncio.Task[Heard]:
        deadline = asyncio.get_running_loop().time() + left
        run_scope.set(SimpleNamespace(deadline=deadline))
        return asyncio.create_task(heard_of([TextPiece("a"), broken()], texts("ab")))

    [done] = await asyncio.gather(hear(), return_exceptions=True)

    if fails:
        assert isinstance(done, TruncatedReply)
    else:
        assert isinstance(done, Heard) and done.text() == "ab"


async def test_what_cannot_be_paid_again_fails_as_it_broke_off() -> None:
    unpaid = BudgetExceeded("too much", asked=2, left=1, unit="usd")
    attempts = [TextPiece("a"), broken()], [unpaid]

    with pytest.raises(TruncatedReply) as streamed:
        await heard_of(*attempts)
    with pytest.raises(TruncatedReply) as completed:
        await Persistent(Attempts(*attempts)).complete(ASKED)

    assert streamed.value.__cause__ is completed.value.__cause__ is unpaid


async def test_what_cannot_be_paid_at_all_is_not_asked() -> None:
    unpaid = BudgetExceeded("too much", asked=2, left=1, unit="usd")

    with pytest.raises(BudgetExceeded):
        await heard_of([unpaid])
    with pytest.raises(BudgetExceeded):
        await Persistent(Attempts([unpaid])).complete(ASKED)


async def test_silence_in_the_middle_is_waited_for_as_long_as_the_backend_allows() -> None:
    timeouts = Timeouts(idle=20.0)
    async with Endpoint(Fault.stall(*SAID, after=3), Said(*SAID), timeouts=timeouts) as endpoint:
        await endpoint.hear()

        first, second = endpoint.server.requests
        assert second.started - first.started == 20.0


@pytest.mark.parametrize("rest", [texts("other"), []], ids=["different", "shorter"])
async def test_how_a_reply_goes_on_is_all_the_same_when_enough_has_been_read(
    rest: list[Delta],
) -> None:
    first, again = [*texts("text"), broken()], [call(0, "x", "look", "{}"), *rest]

    async with Persistent(Attempts(first, again)).stream(ASKED) as stream:
        assert [await anext(stream), await anext(stream)] == [first[0], again[0]]
        stream.enough()
        heard = await Heard().read(stream)

    assert (heard.pieces, heard.restarts) == (rest, 0)


# What came differently


OTHERS = {
    "text": (texts("one ", "two"), texts("one ", "too")),
    "reasoning": ([ReasoningPiece("hm"), TextPiece("a")], [ReasoningPiece("ha"), TextPiece("a")]),
    "refusal": ([RefusalPiece("no")], [RefusalPiece("never")]),
    "shorter": (texts("one ", "two"), texts("one ")),
    "name": ([call(0, "x", "look", "{")], [call(0, "y", "put", "{")]),
    "arguments": ([call(0, "x", "look", '{"k": 1')], [call(0, "y", "look", '{"k": 2}')]),
    "no call": ([*texts("a"), call(0, "x", "look", "")], texts("a", "b")),
    "one call less": (
        [call(0, "x", "look", "{}"), call(1, "y", "look", "")],
        [call(0, "z", "look", "{}")],
    ),
}


@pytest.mark.parametrize(("old", "new"), OTHERS.values(), ids=list(OTHERS))
async def test_what_comes_differently_is_handed_out_from_its_start(
    old: list[Delta], new: list[Delta]
) -> None:
    heard = await heard_of([*old, broken()], new)

    assert heard.restarts == 1
    assert heard.pieces == new


async def test_what_comes_differently_may_break_off_too() -> None:
    first, second = [*texts("one ", "two"), broken()], [*texts("one ", "too"), broken()]

    heard = await heard_of(first, second, texts("one too many"))

    assert heard.restarts == 1
    assert heard.text() == "one too many"


async def test_whoever_does_not_know_of_it_gets_an_error_of_the_backend() -> None:
    model = Persistent(Attempts([*texts("one"), broken()], texts("two")))

    with pytest.raises(ReplyDiverged, match="came differently"):
        async with model.stream(ASKED) as stream:
            async for _ in stream:
                pass


async def test_calls_keep_the_ids_they_were_handed_out_with() -> None:
    first = [call(0, "x", "look", '{"k"'), broken()]
    again = [call(0, "z", "look", '{"k"'), call(0, "z", "look", ": 1}"), call(1, "w", "put", "{}")]

    heard = await heard_of(first, again)

    assert heard.calls() == [("look", '{"k": 1}'), ("put", "{}")]
    assert [piece.id for piece in heard.pieces if isinstance(piece, CallPiece)] == ["x", None, "w"]


async def test_calls_that_all_have_the_same_index_are_told_apart() -> None:
    first = [call(0, "x", "look", "{}"), call(0, "y", "put", '{"a'), broken()]
    again = [call(0, "v", "look", "{}"), call(0, "w", "put", '{"a": 1}')]

    heard = await heard_of(first, again)

    assert heard.calls() == [("look", "{}"), ("put", '{"a": 1}')]
    assert heard.restarts == 0


def cut(text: str, size: int) -> list[str]:
    return [text[at : at + size] for at in range(0, len(text), size)]


@st.composite
def replies(draw: st.DrawFn) -> list[Delta]:
    """A reply in pieces; the texts are so short that many repeat each other's beginning."""
    size = draw(st.integers(1, 3))
    pieces: list[Delta] = [
        ReasoningPiece(part) for part in cut(draw(st.text("h", max_size=3)), size)
    ]
    pieces += texts(*cut(draw(st.text("ab", max_size=4)), size))
    for place, arguments in enumerate(draw(st.lists(st.text("x", max_size=4), max_size=2))):
        pieces.append(call(place, f"{size}{place}", draw(st.sampled_from(["look", "put"])), ""))
        pieces += [call(place, None, None, part) for part in cut(arguments, size)]
    return [*pieces, TextPiece("")]


@given(st.lists(st.tuples(replies(), st.integers(1, 12)), min_size=3, max_size=3))
def test_whatever_the_attempts_said_the_last_one_is_what_was_handed_out(
    attempts: list[tuple[list[Delta], int]],
) -> None:
    first, second, (last, _) = attempts
    begun = [[*pieces[:end], broken()] for pieces, end in (first, second)]

    heard = asyncio.run(heard_of(*begun, last))

    alone = asyncio.run(heard_of(last))
    assert heard.calls() == alone.calls()
    for kind in (TextPiece, ReasoningPiece):
        assert heard.text(kind) == alone.text(kind)


@given(replies(), st.integers(1, 12), st.integers(1, 12), st.integers(1, 3))
def test_however_attempts_are_cut_nothing_of_a_reply_is_void(
    whole: list[Delta], one: int, two: int, size: int
) -> None:
    said = "".join(piece.text for piece in whole if isinstance(piece, TextPiece))
    rest = [piece for piece in whole if not isinstance(piece, TextPiece)]
    again: list[Delta] = [*texts(*cut(said, size)), *rest, TextPiece("")]

    heard = asyncio.run(heard_of([*whole[:one], broken()], [*again[:two], broken()], whole))

    assert heard.restarts == 0
    assert heard.text() == said


# Whole replies


async def complete(*attempts: Sequence[Any]) -> tuple[Reply, Heard]:
    heard = Heard()
    model = Persistent(Attempts(*attempts))
    reply = await model.complete(ASKED, lambda piece: heard.pieces.append(piece), heard.restart)
    return reply, heard


@pytest.mark.parametrize("fault", BROKEN, ids=KINDS)
async def test_a_whole_reply_is_asked_for_again(fault: Any) -> None:
    async with Endpoint(fault(*SAID, after=5), Said(*SAID)) as endpoint:
        heard = Heard()
        reply = await endpoint.model.complete(ASKED, heard.pieces.append, heard.restart)

    assert reply.text == heard.text() == SAID[0]
    assert [(one.name, one.arguments_text) for one in reply.calls] == heard.calls()
    assert heard.restarts == 0


@pytest.mark.parametrize(("old", "new"), OTHERS.values(), ids=list(OTHERS))
async def test_a_whole_reply_that_comes_differently_begins_anew(
    old: list[Delta], new: list[Delta]
) -> None:
    _, heard = await complete([*old, broken()], new)

    assert heard.restarts == 1
    assert heard.pieces == new


async def test_a_whole_reply_that_comes_differently_need_not_be_heard() -> None:
    model = Persistent(Attempts([*texts("one"), broken()], texts("two")))

    assert (await model.complete(ASKED)).text == "whole"


async def test_a_whole_reply_is_asked_for_three_times_at_most() -> None:
    attempts = [[*texts("one"), broken()]] * 2 + [[*texts("one"), broken(BackendUnreachable)]]

    with pytest.raises(BackendUnreachable):
        await complete(*attempts, texts("never asked"))


@pytest.mark.parametrize(
    "attempt", [[broken(BackendTimeout)], [*texts("one"), broken(BadReply)]], ids=["begun", "bad"]
)
async def test_a_whole_reply_that_never_began_or_will_not_pass_is_not_asked_for_again(
    attempt: list[Any],
) -> None:
    with pytest.raises(BackendError, match="it broke off"):
        await complete(attempt, texts("never asked"))


async def test_a_backend_repeats_what_fails_before_the_first_piece() -> None:
    once = RetryPolicy(max_retries=0)
    async with Endpoint(Fault.hang_up(), "never asked", retry=once) as endpoint:
        with pytest.raises(BackendUnreachable):
            await endpoint.hear()

    async with Endpoint(Fault.hang_up(), "hello") as endpoint:
        assert (await endpoint.hear()).text() == "hello"


async def test_it_has_the_name_of_its_model() -> None:
    assert Persistent(Attempts()).name == "tiny"
