"""``agentflow doctor``: are the endpoints reachable, and what do they offer."""

from __future__ import annotations

import asyncio
import os
import platform
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from typing import Any

from agentflow import __version__
from agentflow.cli import codes
from agentflow.cli.endpoint import HOW_TO, Endpoint, stand_in
from agentflow.cli.output import counted, duration, print_json
from agentflow.cli.screen import Screen, show
from agentflow.cli.serving import Offers, offers
from agentflow.errors import BackendError
from agentflow.executor.models.base import ChatRequest, Delta, Reply, TextPiece
from agentflow.executor.models.client import OpenAIBackend
from agentflow.executor.models.probe import ModelInfo
from agentflow.executor.models.retry import RetryPolicy
from agentflow.executor.models.stream import Timeouts
from agentflow.settings import Settings

_TEXT = "Count from 1 to 12 in words, separated by commas."
_TOOL = {
    "type": "function",
    "function": {
        "name": "list_files",
        "description": "List the files that match a pattern.",
        "parameters": {
            "type": "object",
            "properties": {"pattern": {"type": "string"}},
            "required": ["pattern"],
        },
    },
}
_CALL = "How many *.py files are there? Use the tool."
_MODELS = 12


@dataclass
class Findings:
    """What was found out about an endpoint.

    Attributes:
        url: Its base URL.
        stand_in: Whether it is the stand-in of this process.
        key: Whether an API key is set.
        server: Which server it is.
        version: As the server says.
        models: What it offers.
        model: The model that was asked, or empty.
        first_token: Seconds until the first piece of a reply.
        seconds: Seconds of that reply.
        pieces: In how many pieces it came.
        usage: Whether tokens are counted by the server.
        tool_calls: Whether the model called a tool when told to; None if that was refused.
        offers: What the server offers beside the API.
        trouble: What went wrong.
    """

    url: str
    stand_in: bool
    key: bool
    server: str = ""
    version: str = ""
    models: tuple[ModelInfo, ...] = ()
    model: str = ""
    first_token: float | None = None
    seconds: float | None = None
    pieces: int = 0
    usage: bool = False
    tool_calls: bool | None = None
    offers: Offers = field(default_factory=Offers)
    trouble: str = ""


def command(options: Any, _screen: Screen) -> int:
    """Look at every endpoint and say what is there; the exit code."""
    settings = Settings.load(base_url=options.base_url, model=options.model)
    findings = asyncio.run(_look(settings))
    ok = not any(found.trouble for found in findings)
    if not options.json:
        show("\n".join([*_ourselves(), *_blocks(findings)]))
    elif len(findings) == 1:
        print_json({"ok": ok, **asdict(findings[0])})
    else:
        print_json({"ok": ok, "replicas": [asdict(found) for found in findings]})
    return codes.OK if ok else codes.BACKEND


async def _look(settings: Settings) -> list[Findings]:
    if not settings.base_urls:
        async with stand_in() as endpoint:
            return [await _examine(endpoint)]
    each = (Endpoint(replace(settings, base_urls=(url,))) for url in settings.base_urls)
    return list(await asyncio.gather(*map(_examine, each)))


async def _examine(endpoint: Endpoint) -> Findings:
    settings = endpoint.settings
    found = Findings(settings.base_url, endpoint.stand_in, bool(settings.api_key))
    backend = endpoint.backend or _backend(settings, settings.model)
    try:
        offered = await backend.probe()
        found.server, found.version, found.models = offered.server, offered.version, offered.models
        found.model = settings.model or _first(offered.models)
        if found.model and not endpoint.stand_in:
            await backend.aclose()
            backend = _backend(settings, found.model)
        if not endpoint.stand_in:
            found.offers = await offers(offered, settings.api_key)
        if found.model:
            await _measure(backend, found)
    except BackendError as error:
        found.trouble = str(error)
    finally:
        await backend.aclose()
    return found


def _backend(settings: Settings, model: str) -> OpenAIBackend:
    once, patience = RetryPolicy(max_retries=0), Timeouts(first_token=30.0, total=60.0)
    return OpenAIBackend(
        settings.base_url, model, api_key=settings.api_key, retry=once, timeouts=patience
    )


def _first(models: tuple[ModelInfo, ...]) -> str:
    """The only model; where there are several, somebody has to choose."""
    return models[0].name if len(models) == 1 else ""


async def _measure(backend: OpenAIBackend, found: Findings) -> None:
    """Two small calls: one for text, one that needs a tool."""
    pieces: list[Delta] = []
    reply = await backend.complete(_asking(_TEXT, max_tokens=64), pieces.append)
    found.pieces = sum(isinstance(piece, TextPiece) for piece in pieces)
    found.first_token, found.seconds = reply.first_token_seconds, reply.seconds
    found.usage = not reply.usage.estimated
    found.tool_calls = await _calls_tools(backend)


async def _calls_tools(backend: OpenAIBackend) -> bool | None:
    try:
        reply: Reply = await backend.complete(_asking(_CALL, max_tokens=256, tools=[_TOOL]))
    except BackendError:
        return None
    return bool(reply.calls)


def _asking(text: str, **options: Any) -> ChatRequest:
    return ChatRequest(messages=[{"role": "user", "content": text}], **options)


def _ourselves() -> Iterator[str]:
    yield _row("agentflow", f"{__version__}, Python {platform.python_version()}")
    yield _row("openai", version("openai"))


def _blocks(findings: Sequence[Findings]) -> Iterator[str]:
    """What was found, each of several endpoints for itself."""
    for found in findings:
        if len(findings) > 1:
            yield ""
        yield from _told(found)


def _told(found: Findings) -> Iterator[str]:
    if found.stand_in:
        yield _row("endpoint", "none configured: questions go to the rule-based stand-in")
        yield _row("", f"for a real model: {HOW_TO}")
    else:
        yield _row("endpoint", found.url)
        yield _row("API key", "set" if found.key else "not set (fine for most local servers)")
    if found.trouble and not found.server:
        yield _row("reachable", f"no: {found.trouble}")
        yield from _proxies()
        return
    yield _row("reachable", "yes")
    yield _row("server", " ".join(filter(None, (found.server, found.version))))
    yield from _models(found)
    if not found.stand_in:
        yield from (_row(name, text) for name, text in found.offers.rows)
    yield from _measured(found)


def _models(found: Findings) -> Iterator[str]:
    for index, model in enumerate(found.models[:_MODELS]):
        context = f" ({model.context:,} tokens of context)" if model.context else ""
        yield _row("" if index else "models", f"{model.name}{context}")
    if len(found.models) > _MODELS:
        yield _row("", f"and {counted(len(found.models) - _MODELS, 'further model')}")
    if not found.models:
        yield _row("models", "none are listed")
    elif found.model and found.model not in {model.name for model in found.models}:
        yield _row("", f"{found.model} is not among them")


def _measured(found: Findings) -> Iterator[str]:
    if not found.model:
        yield _row("calls", "not tried: choose a model with --model or AGENTFLOW_MODEL")
        return
    if found.trouble:
        yield _row("calls", f"{found.model} failed: {found.trouble}")
        return
    first, whole = found.first_token or 0.0, found.seconds or 0.0
    yield _row("latency", f"first token {duration(first)}, whole reply {duration(whole)}")
    yield _row(
        "streaming", f"yes, {found.pieces} pieces" if found.pieces > 1 else "no: in one piece"
    )
    yield _row("usage", "counted by the server" if found.usage else "not told: it is estimated")
    yield _row("tool calls", _TOOL_CALLS[found.tool_calls])


_TOOL_CALLS = {
    True: "yes",
    False: "the model called none (--strategy plan needs none)",
    None: "the server refuses them (--strategy plan needs none)",
}


def _proxies() -> Iterator[str]:
    """A proxy in the environment is what people forget."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        if value := os.environ.get(name) or os.environ.get(name.lower()):
            yield _row("proxy", f"{name} is set: {value.rpartition('@')[2]}")


def _row(name: str, text: str) -> str:
    return f"{name:<11} {text}"
