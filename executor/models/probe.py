"""What answers at a base URL: which server, and which models; for ``agentflow doctor``."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from agentflow.errors import BackendError, BackendTimeout, BadReply
from agentflow.executor.models import failures
from agentflow.executor.models.base import Reply

PATIENCE = 10.0
"""Seconds that each question to the endpoint may take."""

_SERVERS = {
    "llamacpp": "llama.cpp",
    "vllm": "vllm",
    "sglang": "sglang",
    "agentflow": "agentflow",
}
_HELLO = ({"role": "user", "content": "Say ok."},)
_CONTEXT = ("max_model_len", "context_length", "context_window", "max_context_length")


@dataclass(slots=True, frozen=True)
class ModelInfo:
    """One model of an endpoint. `context` is its limit on input and output in tokens, if told."""

    name: str
    owned_by: str = ""
    context: int | None = None


@dataclass(slots=True, frozen=True)
class Endpoint:
    """What answers at a base URL.

    Attributes:
        url: The base URL.
        server: ``llama.cpp``, ``vllm``, ``sglang``, ``openai``, ``agentflow`` (our own stand-in)
            or ``unknown``.
        version: As the server says, or empty.
        models: What it offers.
        reply: Of one tiny call, if it was asked for.
    """

    url: str
    server: str
    version: str
    models: tuple[ModelInfo, ...]
    reply: Reply | None = None


async def look(http: Any, url: str, headers: Mapping[str, str]) -> Endpoint:
    """Ask an endpoint what it is.

    Args:
        http: A client from `agentflow._http.client`.
        url: The base URL.
        headers: Sent along, such as ``Authorization``.

    Raises:
        BackendError: It cannot be reached, or lists no models.
    """
    response = await _get(http, url + "/models", headers, url)
    if response.status_code >= 400:
        raise failures.from_status(response.status_code, response.text, response.headers, url)
    models = _models(response, url)
    found = Endpoint(url, _server(response.headers, models, url), "", models)
    if found.server == "vllm":
        said = await facts(http, url, "/version", headers)
        return replace(found, version=str(said.get("version", "")))
    if found.server == "llama.cpp":
        return _with_props(found, await facts(http, url, "/props", headers))
    return found


async def facts(http: Any, url: str, path: str, headers: Mapping[str, str]) -> dict[str, Any]:
    """What a page beside the API says; empty if there is none.

    Args:
        http: A client from `agentflow._http.client`.
        url: The base URL of the API.
        path: Of the page, such as ``/version``.
        headers: Sent along, such as ``Authorization``.
    """
    address = urlunsplit((*urlsplit(url)[:2], path, "", ""))
    try:
        response = await _get(http, address, headers, url)
        said = response.json()
    except (BackendError, ValueError):
        return {}
    return said if isinstance(said, dict) and response.status_code < 400 else {}


async def accepts(
    http: Any, url: str, headers: Mapping[str, str], model: str, fields: Mapping[str, Any]
) -> bool:
    """Whether a server answers a chat request that has these fields; it costs one token."""
    body = {"model": model, "messages": _HELLO, "max_tokens": 1, **fields}
    try:
        async with asyncio.timeout(PATIENCE):
            response = await http.post(url + "/chat/completions", headers=headers, json=body)
    except TimeoutError:
        return False
    except Exception as error:
        if failures.from_exception(error, url) is None:
            raise
        return False
    return bool(response.status_code == 200)


async def _get(http: Any, address: str, headers: Mapping[str, str], url: str) -> Any:
    try:
        async with asyncio.timeout(PATIENCE):
            return await http.get(address, headers=headers)
    except TimeoutError:
        raise BackendTimeout(f"{address} gave no answer within {PATIENCE:g} s", url=url) from None
    except Exception as error:
        failure = failures.from_exception(error, url)
        if failure is None:
            raise
        raise failure from error


def _models(response: Any, url: str) -> tuple[ModelInfo, ...]:
    try:
        listed = response.json()["data"]
        return tuple(_model(entry) for entry in listed)
    except (ValueError, TypeError, LookupError, AttributeError):
        raise BadReply(
            f"{url}/models did not list models but answered "
            f"{failures.quote(response.text)!r}. Is this the base URL of an OpenAI-compatible "
            f"API? It often ends in /v1.",
            url=url,
        ) from None


def _model(entry: Mapping[str, Any]) -> ModelInfo:
    facts = {**(entry.get("meta") or {}), **entry}
    limits = (facts.get(key) for key in (*_CONTEXT, "n_ctx", "n_ctx_train"))
    context = next((limit for limit in limits if isinstance(limit, int)), None)
    return ModelInfo(entry["id"], entry.get("owned_by") or "", context)


def _server(headers: Mapping[str, str], models: tuple[ModelInfo, ...], url: str) -> str:
    if "llama.cpp" in headers.get("server", ""):
        return "llama.cpp"
    if models and (server := _SERVERS.get(models[0].owned_by)):
        return server
    return "openai" if urlsplit(url).hostname == "api.openai.com" else "unknown"


def _with_props(found: Endpoint, props: Mapping[str, Any]) -> Endpoint:
    """llama.cpp tells its version, and the context of one slot rather than of the model."""
    settings = props.get("default_generation_settings")
    context = settings.get("n_ctx") if isinstance(settings, dict) else None
    models = found.models
    if isinstance(context, int):
        models = tuple(replace(model, context=context) for model in models)
    return replace(found, version=str(props.get("build_info", "")), models=models)
