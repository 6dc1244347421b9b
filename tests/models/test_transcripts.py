"""Replies recorded from llama.cpp and vLLM read as an independent reading of the files says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from agentflow.executor.models.base import CallPiece, ChatRequest, TextPiece, Usage
from agentflow.executor.models.calls import BadArguments, read_arguments

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


async def reply_of(wire: Any, backend: Any, transcripts: Path, name: str) -> Any:
    wire.reply((transcripts / f"{name}.sse.txt").read_bytes())
    return await backend().complete(ASK)


async def test_several_calls_are_told_apart(wire: Any, backend: Any, transcripts: Path) -> None:
    reply = await reply_of(wire, backend, transcripts, "llamacpp_two_calls")

    assert len({call.id for call in reply.calls}) == len(reply.calls) >= 2
    assert all(isinstance(read_arguments(call), dict) for call in reply.calls)


async def test_text_before_a_call_is_kept(wire: Any, backend: Any, transcripts: Path) -> None:
    reply = await reply_of(wire, backend, transcripts, "llamacpp_text_then_call")

    assert reply.text and reply.calls


async def test_arguments_that_are_no_object_are_an_error_the_model_can_be_told(
    wire: Any, backend: Any, transcripts: Path
) -> None:
    reply = await reply_of(wire, backend, transcripts, "nonstrict_vllm_named")

    bad = read_arguments(reply.calls[0])
    assert reply.finish_reason == "stop"
    assert isinstance(bad, BadArguments)
    assert "false" in str(bad) and "JSON boolean" in str(bad)


@pytest.mark.parametrize("name", ["vllm_endtag_in_string", "vllm_truncated_arguments"])
async def test_arguments_that_were_cut_off_are_an_error_although_the_reply_ended_well(
    wire: Any, backend: Any, transcripts: Path, name: str
) -> None:
    reply = await reply_of(wire, backend, transcripts, name)

    bad = read_arguments(reply.calls[0])
    assert reply.finish_reason == "tool_calls"
    assert isinstance(bad, BadArguments)
    assert bad.call.name in str(bad) and "character" in str(bad)


async def test_progress_of_the_prompt_is_no_piece(
    wire: Any, backend: Any, transcripts: Path
) -> None:
    wire.reply((transcripts / "llamacpp_prompt_progress_cold.sse.txt").read_bytes())
    pieces: list[Any] = []

    await backend().complete(ASK, pieces.append)

    assert {type(piece) for piece in pieces} <= {TextPiece, CallPiece, Usage}
    assert len(pieces) == 3 + 1  # three tokens and the usage
