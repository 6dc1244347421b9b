"""The doctor's questions: which server is it, and what does it offer?"""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from agentflow.errors import BackendRejected, BackendTimeout, BackendUnreachable, BadReply
from agentflow.executor.models.probe import ModelInfo

pytestmark = pytest.mark.virtual


def serve(wire: Any, path: str, data: Any, status: int = 200, **headers: str) -> None:
    body = json.dumps(data).encode()
    wire.route(path, body, status=status, headers=headers, content_type="application/json")


async def test_vllm_is_known_by_its_models_and_tells_its_version(wire: Any, backend: Any) -> None:
    models = {"data": [{"id": "qwen", "owned_by": "vllm", "max_model_len": 8192}]}
    serve(wire, "/v1/models", models)
    serve(wire, "/version", {"version": "0.32.0"})

    found = await backend().probe()

    assert (found.server, found.version) == ("vllm", "0.32.0")
    assert found.models == (ModelInfo("qwen", "vllm", 8192),)
    assert found.reply is None


async def test_llama_cpp_is_known_by_its_header_and_tells_the_context_of_a_slot(
    wire: Any, backend: Any
) -> None:
    models = {"data": [{"id": "tiny", "owned_by": "llamacpp", "meta": {"n_ctx_train": 32768}}]}
    serve(wire, "/v1/models", models, server="llama.cpp")
    serve(wire, "/props", {"build_info": "b1-0c", "default_generation_settings": {"n_ctx": 8192}})

    found = await backend().probe()

    assert (found.server, found.version) == ("llama.cpp", "b1-0c")
    assert found.models == (ModelInfo("tiny", "llamacpp", 8192),)


async def test_a_server_without_those_endpoints_is_still_described(wire: Any, backend: Any) -> None:
    serve(wire, "/v1/models", {"data": [{"id": "tiny", "owned_by": "llamacpp"}]})
    serve(wire, "/props", {"error": "disabled"}, status=403)

    found = await backend().probe()

    assert (found.server, found.version) == ("llama.cpp", "")


async def test_an_unknown_server_is_said_to_be_unknown(wire: Any, backend: Any) -> None:
    serve(wire, "/v1/models", {"object": "list", "data": [{"id": "a"}, {"id": "b"}]})

    found = await backend().probe()

    assert found.server == "unknown"
    assert [model.name for model in found.models] == ["a", "b"]


async def test_a_tiny_call_is_made_if_asked_for(wire: Any, backend: Any) -> None:
    serve(wire, "/v1/models", {"data": []})
    wire.reply(*wire.HELLO)

    found = await backend().probe(measure=True)

    assert found.reply is not None and found.reply.text == "Hello"
    assert wire.seen[-1].body["max_tokens"] == 8


async def test_the_key_is_sent(wire: Any, backend: Any) -> None:
    serve(wire, "/v1/models", {"data": []})

    await backend(api_key="k").probe()

    assert wire.seen[0].headers["authorization"] == "Bearer k"


@pytest.mark.parametrize("data", [{"models": []}, [], "hello", {"data": [{"name": "x"}]}])
async def test_an_answer_that_lists_no_models_is_quoted(wire: Any, backend: Any, data: Any) -> None:
    serve(wire, "/v1/models", data)

    with pytest.raises(BadReply, match=r"/models did not list.*/v1"):
        await backend().probe()


async def test_a_missing_page_asks_for_the_base_url(wire: Any, backend: Any) -> None:
    serve(wire, "/v1/models", {"detail": "Not Found"}, status=404)

    with pytest.raises(BackendRejected, match="base URL"):
        await backend().probe()


async def test_nobody_there(backend: Any) -> None:
    with pytest.raises(BackendUnreachable, match="is the server running"):
        await backend(base_url="http://127.0.0.1:9/v1").probe()


async def test_no_answer(wire: Any, backend: Any) -> None:
    wire.reply(asyncio.Event())

    with pytest.raises(BackendTimeout, match="within 10 s"):
        await backend().probe()
