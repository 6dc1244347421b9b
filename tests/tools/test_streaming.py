"""Texts and values that come while somebody reads them, and the commit."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.testing import run_virtual
from agentflow.tools.streaming import Commit, LateValue, Patience, TextBuffer, TextStream

PIECES = st.lists(st.text("ab\n\r ", max_size=4), max_size=8)


async def read(stream: Any) -> list[str]:
    return [piece async for piece in stream]


async def growing(*pieces: str, wait: float = 1.0) -> tuple[TextStream, asyncio.Task[None]]:
    """A text that gets one more piece a second, and then ends."""
    buffer = TextBuffer()

    async def write() -> None:
        for piece in pieces:
            await asyncio.sleep(wait)
            buffer.add(piece)
        buffer.end()

    return TextStream(buffer), asyncio.create_task(write())


# Texts


@pytest.mark.virtual
async def test_pieces_are_read_as_they_come() -> None:
    stream, _ = await growing("one", "two", "three")
    found = []
    async for piece in stream:
        found.append((piece, asyncio.get_running_loop().time()))

    assert found == [("one", 1.0), ("two", 2.0), ("three", 3.0)]


@pytest.mark.virtual
async def test_who_is_slower_than_the_text_reads_it_in_larger_pieces() -> None:
    stream, _ = await growing("one", "two", "three", "four")
    found = []
    async for piece in stream:
        found.append(piece)
        await asyncio.sleep(2.5)

    assert found == ["one", "twothree", "four"]


@pytest.mark.virtual
async def test_every_iteration_begins_at_the_beginning() -> None:
    stream, _ = await growing("one", "two")

    both = await asyncio.gather(read(stream), read(stream))

    assert list(both) == [["one", "two"]] * 2
    assert await read(stream) == ["onetwo"]
    assert await stream.whole() == "onetwo"


@pytest.mark.virtual
async def test_the_whole_is_there_at_the_end() -> None:
    stream, _ = await growing("one", "two")

    assert await stream.whole() == "onetwo"
    assert asyncio.get_running_loop().time() == 2.0


@pytest.mark.virtual
async def test_a_line_is_given_with_its_newline() -> None:
    stream, _ = await growing("a", "b\nc", "\n\nd\ne", "f")
    found = []
    async for line in stream.lines():
        found.append((line, asyncio.get_running_loop().time()))

    assert found == [("ab", 2.0), ("c", 3.0), ("", 3.0), ("d", 3.0), ("ef", 4.0)]


@given(PIECES)
def test_lines_do_not_depend_on_where_the_text_is_cut(pieces: list[str]) -> None:
    async def lines() -> list[str]:
        stream, _ = await growing(*pieces)
        return await read(stream.lines())

    whole = "".join(pieces).split("\n")
    assert run_virtual(lines()) == (whole if whole[-1] else whole[:-1])


@given(PIECES)
def test_a_text_that_is_there_reads_like_one_that_came(pieces: list[str]) -> None:
    text = "".join(pieces)

    async def both() -> list[Any]:
        there, (came, _) = TextStream.of(text), await growing(*pieces)
        return [
            "".join(await read(there)) == "".join(await read(came)) == text,
            await read(there.lines()) == await read(came.lines()),
            await there.whole() == await came.whole() == text,
        ]

    assert run_virtual(both()) == [True, True, True]


@pytest.mark.virtual
async def test_a_reader_that_is_cancelled_stops_no_other() -> None:
    stream, _ = await growing("one", "two")
    first, second = asyncio.create_task(read(stream)), asyncio.create_task(read(stream))
    await asyncio.sleep(1.5)
    first.cancel()

    assert await second == ["one", "two"]
    assert first.cancelled()


# Late values


@pytest.mark.virtual
async def test_a_late_value_is_awaited_as_often_as_wanted() -> None:
    coming: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    late = LateValue(coming)
    asyncio.get_running_loop().call_later(2.0, coming.set_result, 7)

    async def take() -> int:
        return await late

    assert list(await asyncio.gather(take(), take())) == [7, 7]
    assert await late == 7
    assert asyncio.get_running_loop().time() == 2.0


@pytest.mark.virtual
async def test_who_gives_up_on_a_late_value_takes_it_from_nobody() -> None:
    coming: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    late = LateValue(coming, Patience())

    async def take() -> int:
        return await late

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(take(), 1.0)
    coming.set_result(7)

    assert await late == 7


async def test_a_value_that_is_there_is_not_waited_for() -> None:
    nothing: LateValue[int | None] = LateValue.of(None)

    assert await nothing is None
    assert await LateValue.of([1]) == [1]


@pytest.mark.parametrize(
    "use",
    [
        str,
        bool,
        len,
        list,
        int,
        "{}".format,
        lambda value: value + "x",
        lambda value: value.upper(),
        lambda value: value == "x",
        lambda value: value != "x",
        lambda value: value in ("x", "y"),
    ],
)
@pytest.mark.parametrize(
    ("value", "remedy"),
    [(LateValue.of("x"), "await it first"), (TextStream.of("x"), "read it with 'async for'")],
)
def test_neither_passes_for_the_value(use: Any, value: Any, remedy: str) -> None:
    with pytest.raises((TypeError, AttributeError)) as caught:
        use(value)

    assert remedy in str(caught.value) or use is list


# Commits


async def test_a_commit_made_by_hand_lets_go_on_at_once() -> None:
    await Commit()()


@pytest.mark.virtual
async def test_a_commit_waits_until_the_call_is_certain() -> None:
    certain: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    commit = Commit(certain)
    asyncio.get_running_loop().call_later(3.0, certain.set_result, None)

    await commit()
    await commit()

    assert asyncio.get_running_loop().time() == 3.0


# Patience


@pytest.mark.virtual
async def test_waits_that_overlap_count_once() -> None:
    patience = Patience()

    async def wait(begin: float, end: float) -> None:
        await asyncio.sleep(begin)
        with patience:
            await asyncio.sleep(end - begin)

    await asyncio.gather(wait(1.0, 4.0), wait(2.0, 6.0), wait(8.0, 9.0))

    assert patience.seconds == 6.0


@pytest.mark.virtual
async def test_a_wait_that_goes_on_counts_so_far() -> None:
    patience = Patience()
    with patience:
        await asyncio.sleep(2.5)
        assert patience.seconds == 2.5
        await asyncio.sleep(0.5)

    assert patience.seconds == 3.0


@pytest.mark.virtual
async def test_a_reader_of_a_text_waits_only_while_there_is_nothing_new() -> None:
    patience = Patience()
    buffer = TextBuffer(patience)

    async def take() -> None:
        async for _ in TextStream(buffer):
            await asyncio.sleep(0.5)

    reader = asyncio.create_task(take())
    for _ in range(3):
        await asyncio.sleep(2.0)
        buffer.add("x")
    buffer.end()
    await reader

    assert patience.seconds == 5.0
