"""Replies recorded from llama.cpp and vLLM read as an independent reading of the files says."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from agentflow.executor.models.base import CallPiece, ChatRequest, TextPiece, Usage
from agentflow.executor.models.calls import CallAssembler
from agentflow.tools.arguments import (
    ArgumentClosed,
    ArgumentEvent,
    ArgumentGrew,
    ArgumentOpened,
    CallBroken,
    CallClosed,
    CallOpened,
)

pytestmark = pytest.mark.virtual

NAMES = sorted(
    path.name.removesuffix(".sse.txt")
    for path in (Path(__file__).parent.parent / "transcripts").glob("*.sse.txt")
)
ASK = ChatRequest(messages=[{"role": "user", "content": "hello"}])


def expected(path: Path) -> dict[str, Any]:
    """The reply in a recording, read line by line."""
    out: dict[str, Any] = {"text": "", "calls": {}, "finish": None, "usage": None, "model": None}
    for line in path.read_text("utf-8").splitlines():
        if not line.startswith("data: {"):
            continue
        chunk = json.loads(line[6:])
        out["model"] = chunk["model"]
        if "usage" in chunk:
            counts = chunk["usage"]
            cached = counts["prompt_tokens_details"]["cached_tokens"]
            out["usage"] = Usage(counts["prompt_tokens"], counts["completion_tokens"], cached)
        for choice in chunk["choices"]:
            out["finish"] = choice["finish_reason"] or out["finish"]
            out["text"] += choice["delta"].get("content") or ""
            for part in choice["delta"].get("tool_calls", []):
                call = out["calls"].setdefault(part["index"], {"arguments": ""})
                call["id"] = part.get("id") or call["id"]
                call["name"] = part["function"].get("name") or call["name"]
                call["arguments"] += part["function"].get("arguments", "")
    return out


def test_there_are_recordings() -> None:
    assert len(NAMES) == 22


@pytest.mark.parametrize("size", [17, 100_000], ids=["shreds", "whole"])
@pytest.mark.parametrize("name", NAMES)
async def test_a_recording_reads_as_it_was_meant(
    wire: Any, backend: Any, transcripts: Path, name: str, size: int
) -> None:
    path = transcripts / f"{name}.sse.txt"
    raw, wanted = path.read_bytes(), expected(path)
    wire.reply(*(raw[at : at + size] for at in range(0, len(raw), size)))
    pieces: list[Any] = []

    reply = await backend().complete(ASK, pieces.append)

    calls = wanted["calls"]
    assert reply.text == wanted["text"]
    assert [(call.id, call.name, call.arguments_text) for call in reply.calls] == [
        (calls[index]["id"], calls[index]["name"], calls[index]["arguments"])
        for index in sorted(calls)
    ]
    assert (reply.finish_reason, reply.model) == (wanted["finish"], wanted["model"])
    assert "".join(p.text for p in pieces if isinstance(p, TextPiece)) == wanted["text"]
    assert pieces[-1] == reply.usage
    if wanted["usage"] is None:
        assert reply.usage.estimated
    else:
        assert reply.usage == wanted["usage"]


@dataclass
class Recorded:
    """A recording as the client gives it, its calls read while they come."""

    reply: Any
    pieces: list[Any]
    events: list[ArgumentEvent]
    assembler: CallAssembler

    def of(self, *kinds: type[Any]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kinds)]


@pytest.fixture
def replay(wire: Any, backend: Any, transcripts: Path) -> Callable[[str], Awaitable[Recorded]]:
    async def read(name: str) -> Recorded:
        wire.reply((transcripts / f"{name}.sse.txt").read_bytes())
        pieces: list[Any] = []
        reply = await backend().complete(ASK, pieces.append)
        assembler = CallAssembler()
        calls = [piece for piece in pieces if isinstance(piece, CallPiece)]
        events = [event for piece in calls for event in assembler.feed(piece)]
        return Recorded(reply, pieces, events + assembler.finish(), assembler)

    return read


@pytest.mark.parametrize("name", NAMES)
async def test_calls_read_while_they_come_are_those_of_the_reply(replay: Any, name: str) -> None:
    recorded = await replay(name)

    assert recorded.assembler.calls() == recorded.reply.calls
    for place, call in enumerate(recorded.reply.calls):
        about = [event for event in recorded.events if event.id == place]
        assert about[0] == CallOpened(place, call.name)
        assert isinstance(about[-1], CallClosed | CallBroken)
        if isinstance(about[-1], CallClosed):
            assert recorded.assembler.arguments(place) == json.loads(call.arguments_text)


async def test_several_calls_are_told_apart(replay: Any) -> None:
    recorded = await replay("llamacpp_two_calls")

    assert len({call.id for call in recorded.reply.calls}) == 2
    assert recorded.of(CallOpened, CallClosed) == [
        CallOpened(0, "read_file"),
        CallClosed(0),
        CallOpened(1, "run_tests"),
        CallClosed(1),
    ]
    assert recorded.assembler.arguments(0) == {"path": "", "limit": 99}


async def test_text_before_a_call_is_kept_and_is_no_part_of_it(replay: Any) -> None:
    recorded = await replay("llamacpp_text_then_call")

    kinds = [type(piece) for piece in recorded.pieces]
    assert kinds.index(TextPiece) < kinds.index(CallPiece)
    assert recorded.reply.text
    assert recorded.events[:2] == [CallOpened(0, "read_file"), ArgumentOpened(0, "path")]
    assert recorded.events[-1] == CallClosed(0)
    path = "".join(event.text for event in recorded.of(ArgumentGrew))
    assert recorded.assembler.arguments(0) == {"path": path, "limit": 90}


async def test_arguments_that_are_no_object_are_an_error_the_model_can_be_told(replay: Any) -> None:
    recorded = await replay("nonstrict_vllm_named")

    opened, broken = recorded.events
    assert recorded.reply.finish_reason == "stop"
    assert opened == CallOpened(0, "run_tests")
    assert isinstance(broken, CallBroken)
    assert broken.error.position == 0
    assert str(broken.error) == (
        "run_tests: the arguments cannot be read: they are a JSON boolean, not an object,"
        " at character 0, in 'f'. Write one JSON object."
    )


@pytest.mark.parametrize("name", ["vllm_endtag_in_string", "vllm_truncated_arguments"])
async def test_arguments_that_were_cut_off_are_an_error_although_the_reply_ended_well(
    replay: Any, name: str
) -> None:
    recorded = await replay(name)

    *before, broken = recorded.events
    assert recorded.reply.finish_reason == "tool_calls"
    assert isinstance(broken, CallBroken)
    assert [type(event) for event in before[:2]] == [CallOpened, ArgumentOpened]
    assert not recorded.of(ArgumentClosed, CallClosed)
    assert recorded.assembler.arguments(0) == {}
    assert "they end too early" in str(broken.error)
    text = recorded.reply.calls[0].arguments_text
    with pytest.raises(json.JSONDecodeError) as python:
        json.loads(text)
    assert broken.error.position == python.value.pos


async def test_progress_of_the_prompt_is_no_piece(
    wire: Any, backend: Any, transcripts: Path
) -> None:
    wire.reply((transcripts / "llamacpp_prompt_progress_cold.sse.txt").read_bytes())
    pieces: list[Any] = []

    await backend().complete(ASK, pieces.append)

    assert {type(piece) for piece in pieces} <= {TextPiece, CallPiece, Usage}
    assert len(pieces) == 3 + 1  # three tokens and the usage
