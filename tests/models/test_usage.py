"""How many tokens a call can take, against what real tokenizers counted."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from agentflow.executor.models.base import ChatRequest
from agentflow.executor.models.usage import estimate, prompt_bound

RECORDED = ["llamacpp_required_after_tool_result", "vllm_json_schema", "vllm_auto"]


def recorded(folder: Path, name: str) -> tuple[ChatRequest, int]:
    sent = json.loads((folder / f"{name}.request.json").read_text("utf-8"))
    counted = re.search(r'"prompt_tokens":(\d+)', (folder / f"{name}.sse.txt").read_text("utf-8"))
    assert counted is not None
    request = ChatRequest(
        messages=sent["messages"],
        tools=sent.get("tools", ()),
        response_format=sent.get("response_format"),
    )
    return request, int(counted[1])


@pytest.mark.parametrize("name", RECORDED)
def test_the_bound_is_above_what_a_server_counted(transcripts: Path, name: str) -> None:
    request, counted = recorded(transcripts, name)

    assert counted <= prompt_bound(request) <= 20 * counted


@pytest.mark.parametrize("name", RECORDED)
def test_the_estimate_is_of_the_right_size(transcripts: Path, name: str) -> None:
    request, counted = recorded(transcripts, name)

    assert counted / 4 <= estimate(request, 0, 0).prompt_tokens <= 4 * counted


@pytest.mark.parametrize("text", ["a", "é" * 50, "🙂" * 50, '"\\\n' * 50, ""])
def test_the_bound_counts_bytes(text: str) -> None:
    request = ChatRequest(messages=[{"role": "user", "content": text}])

    assert prompt_bound(request) >= len(text.encode())


@pytest.mark.parametrize(("size", "pieces", "tokens"), [(0, 0, 0), (9, 1, 3), (4, 3, 3)])
def test_output_is_estimated_from_its_bytes_and_its_pieces(
    size: int, pieces: int, tokens: int
) -> None:
    usage = estimate(ChatRequest(messages=[]), size, pieces)

    assert (usage.completion_tokens, usage.estimated) == (tokens, True)
