"""Typed answers from a model: the docstring is the prompt, the annotation is the answer's type.

    OPENAI_BASE_URL=http://127.0.0.1:8000/v1 AGENTFLOW_MODEL=my-model \\
        python examples/typed_answers.py

Without an endpoint the replies are scripted; one of them is wrong, to show how it is corrected.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Literal

from pydantic import BaseModel, Field

from agentflow import Engine, llm, tool, workflow
from agentflow.settings import Settings
from agentflow.testing import ChatCall, ScriptedServer

REVIEWS = ("Arrived broken, and nobody answers.", "Does what it should. The manual is thin.")


class Review(BaseModel):
    """What a review says; the model sees this schema."""

    mood: Literal["angry", "calm", "happy"]
    stars: int = Field(ge=1, le=5)
    wishes: list[str]


@llm(max_tokens=200, temperature=0)
async def read_review(text: str) -> Review:
    """Read this review of a kettle. What would its author rate it, and what do they wish for?

    {text}
    """
    raise NotImplementedError("the model does it")


@tool(pure=True)
async def average(reviews: list[Review]) -> float:
    return sum(review.stars for review in reviews) / len(reviews)


@workflow
async def digest(texts: Sequence[str]) -> str:
    reviews = read_review.map(texts)  # one call of the model for each, all at once
    stars = average(reviews.ref)
    wishes = [wish for review in await reviews for wish in review.wishes]
    return f"{await stars:.1f} stars; wished for: {', '.join(wishes)}"


def scripted(call: ChatCall) -> str:
    """A model with two answers; the second is corrected when it is asked again."""
    if "broken" in call.said_by("user"):
        return '{"mood": "angry", "stars": 1, "wishes": ["a replacement"]}'
    stars = 9 if len(call.messages) == 1 else 4  # there are only five
    return f'{{"mood": "calm", "stars": {stars}, "wishes": ["a better manual"]}}'


@asynccontextmanager
async def connected() -> AsyncIterator[Engine]:
    """An engine with the configured endpoint, or with scripted replies where there is none."""
    if Settings.load().base_url:
        async with Engine() as engine:
            yield engine
    else:
        print("no endpoint is configured: these replies are scripted")
        async with (
            ScriptedServer(scripted) as server,
            Engine(base_url=server.base_url, model="scripted") as engine,
        ):
            yield engine


async def main() -> str:
    async with connected() as engine:
        return await engine.run(digest, REVIEWS)


if __name__ == "__main__":
    print(asyncio.run(main()))
