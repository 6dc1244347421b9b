"""pydantic-ai's agent loop, which runs the calls of a turn at the same time."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from agent_fleet import HOSTED_URL, MODEL, PROXY
from agent_hand import MOST, ROUNDS, SYSTEM, client, estimator
from agent_programs import Program
from agent_scene import Drive, Scene
from pydantic_ai import Agent, Tool, UsageLimits
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider


@asynccontextmanager
async def agent(scene: Scene) -> AsyncIterator[Drive]:
    """An agent for each program, all with one client."""
    provider = OpenAIProvider(openai_client=client(scene, PROXY))
    model = OpenAIChatModel(MODEL, provider=provider)
    estimate = estimator(client(scene, HOSTED_URL))

    async def drive(program: Program) -> str:
        functions = {**scene.tools(program), "estimate": estimate}
        tools = [
            Tool(function, name=name, description=inspect.getdoc(function) or name)
            for name, function in functions.items()
        ]
        its = Agent(model, system_prompt=SYSTEM, tools=tools, model_settings={"max_tokens": MOST})
        limits = UsageLimits(request_limit=ROUNDS)
        done = await its.run(program.question, usage_limits=limits)
        return str(done.output)

    yield drive
