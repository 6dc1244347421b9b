"""The model behind a run: the configured endpoint, or the stand-in that needs none."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

from agentflow import _http
from agentflow.errors import BackendError, DefinitionError
from agentflow.executor.models.client import OpenAIBackend
from agentflow.settings import Settings

HOW_TO = "--base-url URL --model NAME, or OPENAI_BASE_URL, OPENAI_API_KEY and AGENTFLOW_MODEL"
"""How to point agentflow at a model."""

NOTICE = (
    "No endpoint is configured, so the model is a rule-based stand-in, started in this process. "
    "It is not a language model: it looks for the words of the question and quotes what fits. "
    f"The tools, the planning, the engine and the HTTP are real. For a real model: {HOW_TO}."
)
FOOTER = (
    "(The model is a rule-based stand-in, not a language model. The tools, the planning, the "
    "engine and the HTTP are real. For a real model: --base-url URL --model NAME.)"
)


@dataclass(frozen=True)
class Endpoint:
    """Where models are.

    Attributes:
        settings: How they are reached.
        backend: The stand-in's client, or None for a configured endpoint.
    """

    settings: Settings
    backend: OpenAIBackend | None = None

    @property
    def stand_in(self) -> bool:
        """Whether the model is the stand-in."""
        return self.backend is not None


@asynccontextmanager
async def stand_in() -> AsyncIterator[Endpoint]:
    """The stand-in, served by this process while the block lasts."""
    from agentflow.testing.standin import MODEL, serve_standin

    # It never leaves this machine, whatever proxy the environment names.
    async with serve_standin() as url, _http.client(trust_env=False) as http:
        yield Endpoint(Settings((url,), "", MODEL), OpenAIBackend(url, MODEL, http=http))


@asynccontextmanager
async def reach(settings: Settings) -> AsyncIterator[Endpoint]:
    """The endpoint for a question: the configured one with its model, else the stand-in.

    Raises:
        DefinitionError: The endpoint offers several models and none is named.
        BackendError: It was asked for its models and did not answer.
    """
    if not settings.base_url:
        async with stand_in() as endpoint:
            yield endpoint
    elif settings.model:
        yield Endpoint(settings)
    else:
        yield Endpoint(replace(settings, model=await _only_model(settings)))


async def _only_model(settings: Settings) -> str:
    """The model of an endpoint that has just one; of several, the first that answers counts."""
    url, names = await _offered(settings)
    if len(names) == 1:
        return names[0]
    offered = f"it offers {', '.join(names[:8])}{', ...' if len(names) > 8 else ''}"
    raise DefinitionError(
        f"no model is named for {url}: {offered if names else 'it lists none'}. "
        "Choose with --model or AGENTFLOW_MODEL."
    )


async def _offered(settings: Settings) -> tuple[str, list[str]]:
    """An endpoint that answers, and the names of its models."""
    complaints = []
    for url in settings.base_urls:
        try:
            return url, await _models(url, settings.api_key)
        except BackendError as error:  # replicas are there to stand in for each other
            complaints.append(error)
    if len(complaints) == 1:
        raise complaints[0]
    said = "; ".join(map(str, complaints))
    raise BackendError(f"no endpoint answers: {said}", url=settings.base_url)


async def _models(url: str, api_key: str) -> list[str]:
    backend = OpenAIBackend(url, "", api_key=api_key)
    try:
        found = await backend.probe()
    finally:
        await backend.aclose()
    return [model.name for model in found.models]
