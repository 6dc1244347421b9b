"""Slots of llama.cpp servers: whose is taken, and what is saved of it."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from agentflow import _http
from agentflow.caches.affinity.dispatcher import Dispatcher
from agentflow.caches.affinity.jobs import Job, Pause
from agentflow.caches.affinity.policies import Sticky
from agentflow.caches.affinity.prompts import Prompt
from agentflow.caches.affinity.slots import FILES, NOTHING, Seat, SlotTable
from agentflow.executor.affinity.chains import Chains
from agentflow.executor.affinity.dialects import LLAMA_CPP, UNKNOWN, Template
from agentflow.executor.affinity.manners import MOMENT, Manners
from agentflow.executor.models.base import ChatRequest, SessionTag
from agentflow.executor.models.client import OpenAIBackend
from agentflow.testing import Serving


def slow(tokens: int) -> float:
    """Seconds to compute tokens: more than to save and restore them."""
    return tokens * 1e-3


def fast(tokens: int) -> float:
    """Less."""
    return tokens * 1e-6


def soon(session: str) -> float:
    """Seconds until any session is back."""
    return 1.0


def take(
    table: SlotTable,
    session: str,
    next_use: Callable[[str], float] = soon,
    compute: Callable[[int], float] = slow,
    prompt: Prompt = NOTHING,
) -> Seat:
    return table.take(session, prompt, next_use, compute)


def said(*blocks: str) -> Prompt:
    """A prompt of these blocks, each of which stands for what precedes it as well."""
    return Prompt(tuple("".join(blocks[: at + 1]) for at in range(len(blocks))), 64 * len(blocks))


def serve(table: SlotTable, session: str, prompt: Prompt, now: float) -> int:
    """Answer a request of a session that is over then; in which slot."""
    slot = take(table, session, prompt=prompt).slot
    table.give_back(slot, prompt.tokens, now)
    table.end(session)
    return slot


def held(table: SlotTable) -> list[str]:
    return [slot.session for slot in table.slots]


def fill(table: SlotTable, *sessions: str, tokens: int = 1000) -> None:
    for at, session in enumerate(sessions):
        seat = take(table, session)
        table.give_back(seat.slot, tokens, float(at))


def test_a_session_has_the_slot_that_holds_it() -> None:
    table = SlotTable(2)
    fill(table, "a", "b")
    assert take(table, "b") == Seat(1)
    assert take(table, "a") == Seat(0)


def test_an_empty_slot_is_taken_before_another_session_loses_its_own() -> None:
    table = SlotTable(3)
    fill(table, "a", "b")
    assert take(table, "c", lambda _: 1e9) == Seat(2)


def test_whoever_is_back_last_loses_its_slot() -> None:
    table = SlotTable(3, saves=False)
    fill(table, "a", "b", "c")
    back = {"a": 1.0, "b": 50.0, "c": 2.0}
    assert take(table, "d", back.__getitem__) == Seat(1)
    assert held(table) == ["a", "d", "c"]


def test_of_those_that_are_never_back_the_one_unused_longest_loses_its_slot() -> None:
    table = SlotTable(2, saves=False)
    fill(table, "a", "b")
    assert take(table, "c", lambda _: math.inf) == Seat(0)


def test_a_slot_in_use_is_nobody_elses() -> None:
    table = SlotTable(2)
    assert take(table, "a") == Seat(0)
    assert take(table, "a") == Seat(1)
    table.give_back(0, 10, 1.0)
    assert take(table, "b", lambda _: 0.0).slot == 0


def test_what_is_wanted_again_is_saved_and_restored() -> None:
    table = SlotTable(1)
    fill(table, "a")
    seat = take(table, "b")
    assert seat.save and seat.saved == "a" and not seat.restore
    table.give_back(0, 1000, 1.0)
    back = take(table, "a")
    assert back.restore == seat.save and back.saved == "b"


@pytest.mark.parametrize(
    ("saves", "next_use", "compute", "tokens"),
    [
        (False, 1.0, slow, 1000),  # the server cannot
        (True, math.inf, slow, 1000),  # nobody will want it
        (True, 1.0, fast, 1000),  # computing it again is faster
        (True, 1.0, slow, 0),  # there is nothing
    ],
)
def test_nothing_is_saved_where_it_does_not_pay(
    saves: bool, next_use: float, compute: Any, tokens: int
) -> None:
    table = SlotTable(1, saves=saves)
    fill(table, "a", tokens=tokens)
    assert take(table, "b", lambda _: next_use, compute) == Seat(0)


def test_whether_saving_pays_is_learnt() -> None:
    table = SlotTable(1)
    for _ in range(50):
        table.swapped(1000, 10.0)
    fill(table, "a")
    assert take(table, "b") == Seat(0)


def test_files_are_used_again_and_never_more_than_so_many() -> None:
    table = SlotTable(1)
    files = set()
    for number in range(3 * FILES):
        seat = take(table, f"s{number}")
        files.add(seat.save)
        table.give_back(0, 1000, float(number))
        if number >= FILES:
            table.end(f"s{number - FILES}")
    assert len(files - {""}) == FILES


def test_the_slot_of_a_session_that_ends_is_nobodys_even_while_it_is_in_use() -> None:
    table = SlotTable(2)
    fill(table, "a", "b")
    take(table, "a")
    table.end("a")
    table.end("a")
    assert held(table) == ["", "b"]
    assert take(table, "c", prompt=said("x")) == Seat(1, save="agentflow-slots-0.bin", saved="b")


def test_what_is_nobodys_goes_to_whoever_begins_most_alike() -> None:
    table = SlotTable(4)
    for session, prompt in (("a", said("x")), ("b", said("x", "y", "z")), ("c", said("x", "z"))):
        take(table, session, prompt=prompt)
    for slot, session in enumerate("abc"):
        table.give_back(slot, 1000, 1.0)
        table.end(session)
    assert take(table, "d", prompt=said("x", "y", "a")) == Seat(1)
    assert take(table, "e", prompt=said("x", "z", "z")) == Seat(2)
    assert take(table, "f", prompt=said("y", "z", "a")) == Seat(3)


def test_of_slots_that_begin_equally_alike_the_one_unused_longest_goes_first() -> None:
    table = SlotTable(3)
    for session in "abc":
        take(table, session, prompt=said("x", session))
    for slot, at in enumerate((3.0, 1.0, 2.0)):
        table.give_back(slot, 1000, at)
        table.end("abc"[slot])
    assert take(table, "d", prompt=said("x", "d")) == Seat(1)


def test_conversations_that_follow_each_other_share_what_they_begin_with() -> None:
    table = SlotTable(4)
    used = {serve(table, f"s{at}", said("x", "y", str(at)), float(at)) for at in range(8)}
    assert used == {0}


def test_a_session_keeps_its_slot_though_another_begins_more_alike() -> None:
    table = SlotTable(2)
    take(table, "a", prompt=said("x"))
    take(table, "over", prompt=said("y", "z"))
    table.give_back(0, 64, 1.0)
    table.give_back(1, 128, 1.0)
    table.end("over")
    assert take(table, "a", prompt=said("y", "z", "a")) == Seat(0)


def test_no_session_loses_its_slot_to_one_that_begins_alike_while_another_is_nobodys() -> None:
    table = SlotTable(2)
    take(table, "a", prompt=said("x", "y"))
    table.give_back(0, 128, 1.0)
    assert serve(table, "over", said("z"), 2.0) == 1
    assert take(table, "b", lambda _: 1e9, prompt=said("x", "y")) == Seat(1)


def test_of_its_own_slots_a_session_has_the_one_that_it_goes_on_from() -> None:
    table = SlotTable(2)
    take(table, "a", prompt=said("x"))
    take(table, "a", prompt=said("y"))
    table.give_back(0, 64, 1.0)
    table.give_back(1, 5000, 1.0)
    assert take(table, "a", prompt=said("x", "y")) == Seat(0)


def test_what_belongs_to_no_session_is_nobodys_from_the_beginning() -> None:
    table = SlotTable(2)
    assert take(table, "", prompt=said("x")) == Seat(0)
    table.give_back(0, 1000, 1.0)
    assert take(table, "", prompt=said("y")) == Seat(1)  # it is not the same nobody's
    table.give_back(1, 1000, 2.0)
    assert take(table, "a", prompt=said("z")) == Seat(0)


# A server

SERVING = Serving(prefill=1_000.0, step=0.01, capacity=8_192, block=16, slots=2)


class Llama:
    """A modelled llama.cpp server, and the manners for it."""

    def __init__(self, world: Any, serving: Serving = SERVING, **options: Any) -> None:
        self.url = world.replica("a", serving, server="llama.cpp")
        self.server = world["a"]
        self.dispatcher = Dispatcher(Sticky())
        self.dispatcher.join("a", 0.0)
        self.backend = OpenAIBackend(self.url, "modelled", http=world.http)
        self.manners = Manners(
            world.http, self.url, {}, self.dispatcher.fleet, "a", **{"dialect": LLAMA_CPP} | options
        )
        self._histories: dict[str, list[dict[str, Any]]] = {}
        self._chains = Chains()
        self._number = 0

    async def turn(self, session: str, system: str = "", *, tagged: bool = True) -> float:
        """One more turn of a session; the share of its prompt that was cached."""
        history = self._histories.setdefault(
            session, [{"role": "system", "content": system}] if system else []
        )
        history.append({"role": "user", "content": f"{session} says word " * 50})
        self._number += 1
        now = asyncio.get_running_loop().time()
        tag = SessionTag(session) if tagged else None
        request = ChatRequest(messages=list(history), max_tokens=8, session=tag)
        prompt, _ = self._chains.prompt(request, session)
        job = Job(self._number, session, prompt, 8, now, returns=tagged)
        self.dispatcher.arrive(job, now)
        async with self.manners.request(request, session) as dressed:
            reply = await self.backend.complete(dressed)
            used, now = reply.usage, asyncio.get_running_loop().time()
            self.dispatcher.began(job.number, now)
            self.dispatcher.finished(
                job.number, now, prompt=used.prompt_tokens, made=used.completion_tokens
            )
        history.append(reply.as_message())
        return (used.cached_tokens or 0) / used.prompt_tokens

    def away(self, session: str, p50: float) -> None:
        now = asyncio.get_running_loop().time()
        self.dispatcher.away(session, Pause(p50, 2 * p50), now)

    def end(self, session: str) -> None:
        self.manners.ended(session)
        self.dispatcher.ended(session, asyncio.get_running_loop().time())

    def slots(self) -> list[Any]:
        return [exchange.body.get("id_slot") for exchange in self.server.requests]


def actions(llama: Llama) -> list[str]:
    """What the server is asked to do with its slots from now on."""
    asked: list[str] = []
    inner = llama.server.transport

    class Listening:
        async def handle_async_request(self, request: Any) -> Any:
            if "action=" in str(request.url):
                asked.append(str(request.url))
            return await inner().handle_async_request(request)

    llama.server.transport = Listening
    return asked


SYSTEM = "You are a careful assistant with many tools. " * 40
"""What all conversations begin with: more than what follows it."""


@pytest.fixture
async def llama(world: Any) -> AsyncIterator[Llama]:
    made = Llama(world)
    yield made
    await made.manners.aclose()


@pytest.mark.virtual
async def test_sessions_that_begin_alike_do_not_take_each_others_slots(llama: Llama) -> None:
    await llama.turn("a")
    await llama.turn("ab")  # begins alike, and would be given the same slot
    assert await llama.turn("a") > 0.4 and await llama.turn("ab") > 0.4
    assert llama.slots() == [0, 1, 0, 1]


@pytest.mark.virtual
async def test_a_session_that_lost_its_slot_finds_what_it_had(llama: Llama) -> None:
    for session in ("a", "b", "c"):
        await llama.turn(session)
        llama.away(session, p50=1.0)
    assert await llama.turn("a") > 0.4
    assert await llama.turn("b") > 0.4


@pytest.mark.virtual
async def test_whoever_is_away_longest_makes_room(llama: Llama) -> None:
    await llama.turn("short")
    llama.away("short", p50=0.1)
    await llama.turn("long")
    llama.away("long", p50=1000.0)
    await llama.turn("new")
    assert llama.slots() == [0, 1, 1]


@pytest.mark.virtual
async def test_a_server_that_cannot_save_is_not_asked_twice(llama: Llama) -> None:
    asked: list[str] = []
    inner = llama.server.transport

    class Refusing:
        async def handle_async_request(self, request: Any) -> Any:
            if "action=save" in str(request.url):
                asked.append(str(request.url))
                request.url = request.url.copy_with(path="/none", query=None)
            return await inner().handle_async_request(request)

    llama.server.transport = Refusing
    for session in ("a", "b", "c", "d", "e"):
        await llama.turn(session)
        llama.away(session, p50=1.0)
    assert len(asked) == 1
    assert 0.0 in [await llama.turn(session) for session in "abc"]


@pytest.mark.virtual
async def test_a_connection_that_the_server_has_closed_meanwhile_loses_no_slot(
    llama: Llama,
) -> None:
    closed: list[str] = []
    inner = llama.server.transport

    class ClosedOnce:
        async def handle_async_request(self, request: Any) -> Any:
            url = str(request.url)
            if "action=" in url and url not in closed:
                closed.append(url)
                raise _http.module().RemoteProtocolError("Server disconnected", request=request)
            return await inner().handle_async_request(request)

    llama.server.transport = ClosedOnce
    for session in ("a", "b", "c"):
        await llama.turn(session)
        llama.away(session, p50=1.0)
    assert min([await llama.turn(session) for session in "abc"]) > 0.4
    assert closed


@pytest.mark.virtual
@pytest.mark.parametrize("tagged", [True, False])
async def test_a_shared_system_prompt_is_computed_once(llama: Llama, *, tagged: bool) -> None:
    asked, cached = actions(llama), []
    for number in range(6):
        cached.append(await llama.turn(f"s{number}", SYSTEM, tagged=tagged))
        llama.end(f"s{number}")
    assert cached[0] == 0.0 and min(cached[1:]) > 0.6
    assert asked == []


@pytest.mark.virtual
async def test_what_belongs_to_no_session_is_never_saved(llama: Llama) -> None:
    asked = actions(llama)
    await asyncio.gather(*(llama.turn(session, tagged=False) for session in "abcd"))
    assert sorted(llama.slots()) == [0, 0, 1, 1] and asked == []


@pytest.mark.virtual
async def test_whoever_shares_a_system_prompt_does_not_take_the_slot_of_who_will_be_back(
    llama: Llama,
) -> None:
    await llama.turn("stays", SYSTEM)
    for number in range(3):
        await llama.turn(f"s{number}", SYSTEM)
        llama.end(f"s{number}")
    assert llama.slots() == [0, 1, 1, 1] and await llama.turn("stays") > 0.7


@pytest.mark.virtual
async def test_requests_beyond_the_slots_wait_until_one_is_free(llama: Llama) -> None:
    await asyncio.gather(*(llama.turn(session) for session in "abcd"))
    assert sorted(llama.slots()) == [0, 0, 1, 1]


@pytest.mark.virtual
async def test_a_request_that_is_given_up_leaves_its_slot_to_the_next(llama: Llama) -> None:
    waiting = [asyncio.ensure_future(llama.turn(session)) for session in "abcd"]
    await asyncio.sleep(0.01)
    for request in waiting[:3]:  # two run, one waits
        request.cancel()
    await waiting[3]
    assert await llama.turn("d") > 0.4


# What a server is


@pytest.mark.virtual
async def test_the_first_request_waits_until_a_server_has_said_what_it_is(world: Any) -> None:
    llama = Llama(world, dialect=None)
    await llama.turn("a")
    assert llama.slots() == [0] and llama.manners.server == "llama.cpp"
    await llama.manners.aclose()


@pytest.mark.virtual
async def test_it_does_not_wait_for_long(world: Any) -> None:
    llama = Llama(world, dialect=None)
    answer = llama.server.transport

    class Slow:
        async def handle_async_request(self, request: Any) -> Any:
            if request.method == "GET":
                await asyncio.sleep(5.0)
            return await answer().handle_async_request(request)

    llama.server.transport = Slow
    now = asyncio.get_running_loop().time
    began = now()
    async with llama.manners.request(ChatRequest(messages=[]), "s"):
        assert now() - began == pytest.approx(MOMENT)
    began = now()
    async with llama.manners.request(ChatRequest(messages=[]), "s") as dressed:
        assert now() == began and dressed.extra_body is None
    await llama.manners.aclose()


@pytest.mark.virtual
async def test_what_it_tells_of_itself_is_read_as_soon_as_it_is_known_what_it_is(
    world: Any,
) -> None:
    llama = Llama(world, dialect=None)
    state = await llama.manners.state()
    assert state is not None and state.capacity == SERVING.capacity
    await llama.manners.aclose()


@pytest.mark.virtual
async def test_a_server_that_was_down_is_asked_again(world: Any) -> None:
    llama = Llama(world, dialect=None)
    llama.server.kill()
    async with llama.manners.request(ChatRequest(messages=[]), "s") as dressed:
        assert dressed.extra_body is None
    await llama.server.restart()
    await llama.turn("a")
    assert llama.slots() == [0]
    await llama.manners.aclose()


@pytest.mark.virtual
async def test_what_the_user_says_a_server_speaks_is_not_asked_for(world: Any) -> None:
    llama = Llama(world, dialect=Template(body={"user": "{session}"}))
    await llama.turn("a")
    assert llama.server.requests[0].body["user"] == "a"
    assert "id_slot" not in llama.server.requests[0].body

    llama = Llama(world, dialect=UNKNOWN)
    await llama.turn("a")
    assert "cache_prompt" not in llama.server.requests[0].body
    await llama.manners.aclose()


@pytest.mark.virtual
async def test_what_a_request_says_itself_goes_first(llama: Llama) -> None:
    request = ChatRequest(messages=[], extra_body={"cache_prompt": False}, session=SessionTag("s"))
    async with llama.manners.request(request, "s") as dressed:
        assert dressed.extra_body == {"cache_prompt": False, "id_slot": 0}
