"""Server-sent events give the same payloads for every way their bytes are cut."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.executor.models import sse
from agentflow.executor.models.sse import EventSplitter, NotEvents


def read(*chunks: bytes) -> list[bytes]:
    splitter = EventSplitter()
    payloads = [payload for chunk in chunks for payload in splitter.feed(chunk)]
    splitter.close()
    return payloads


@pytest.mark.parametrize(
    ("stream", "payloads"),
    [
        (b"data: a\n\ndata: b\n\n", [b"a", b"b"]),
        (b"data:a\n\n", [b"a"]),
        (b"data:  a\n\n", [b" a"]),
        (b"data: a\r\n\r\ndata: b\r\n\r\n", [b"a", b"b"]),
        (b": ping\n\ndata: a\n\n:\n\n", [b"a"]),
        (b"event: message\nid: 7\ndata: a\nretry: 3\n\n", [b"a"]),
        (b"data: a\ndata: b\n\n", [b"a\nb"]),
        (b"data\n\n", [b""]),
        (b"\n\n\ndata: a\n\n\n\n\ndata: b\n\n", [b"a", b"b"]),
        (b'error: {"code": 500}\n\n', [b'{"error":{"code": 500}}']),
        (b"data: a\n\ndata: not ended\n", [b"a"]),
        ("data: é\n\n".encode(), ["é".encode()]),
        (b"", []),
    ],
)
@pytest.mark.parametrize("size", [1, 2, 3, 1000])
def test_payloads_are_read(stream: bytes, payloads: list[bytes], size: int) -> None:
    assert read(*(stream[at : at + size] for at in range(0, len(stream), size))) == payloads


EVENTS = st.lists(
    st.sampled_from(["data: x", "data: ", "data:y", ": ping", "event: e", "data: é{}", ""]),
    max_size=12,
)


@given(EVENTS, st.sampled_from(["\n", "\r\n"]), st.data())
def test_every_chunking_gives_the_same(lines: list[str], end: str, data: st.DataObject) -> None:
    stream = "".join(line + end for line in ["data: first", "", *lines, ""]).encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    bounds = [0, *cuts, len(stream)]

    chunks = [stream[a:b] for a, b in pairwise(bounds)]

    assert read(*chunks) == EventSplitter().feed(stream)


@pytest.mark.parametrize("page", [b"<!DOCTYPE html>\n<html>", b"\n\n<html>\n", b'{"error": 1}'])
@pytest.mark.parametrize("size", [1, 1000])
def test_what_is_no_event_stream_is_refused_with_its_beginning(page: bytes, size: int) -> None:
    with pytest.raises(NotEvents) as caught:
        read(*(page[at : at + size] for at in range(0, len(page), size)))

    assert caught.value.head.strip()[:1] in (b"<", b"{")


@pytest.mark.parametrize("chunk", [b"data: " + b"x" * 60, b"data: x\n" * 8])
def test_an_event_that_never_ends_is_refused(chunk: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "MAX_EVENT", 1000)
    splitter = EventSplitter()

    with pytest.raises(NotEvents):
        for _ in range(100):
            splitter.feed(chunk)
