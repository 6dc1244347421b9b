"""LangGraph's ready-made agent: `create_react_agent` over langchain-openai's client."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from agent_fleet import HOSTED_URL, MODEL, PROXY
from agent_hand import MOST, ROUNDS, SYSTEM, TIMEOUT, client, estimator
from agent_programs import Program
from agent_scene import Drive, Scene
from langchain_core.tools import StructuredTool
from langchain_openai import ChatOpenAI
from langgraph.prebuilt import create_react_agent


@asynccontextmanager
async def agent(scene: Scene) -> AsyncIterator[Drive]:
    """An agent for each program, all with one client."""
    model = ChatOpenAI(
        model=MODEL,
        base_url=PROXY,
        api_key="none",
        http_async_client=scene.http,
        max_tokens=MOST,
        max_retries=2,
        timeout=TIMEOUT,
        streaming=True,
        stream_usage=True,
    )
    estimate = estimator(client(scene, HOSTED_URL))

    async def drive(program: Program) -> str:
        functions = {**scene.tools(program), "estimate": estimate}
        tools = [
            StructuredTool.from_function(
                coroutine=function, name=name, description=inspect.getdoc(function) or name
            )
            for name, function in functions.items()
        ]
        graph = create_react_agent(model, tools, prompt=SYSTEM)
        state = await graph.ainvoke(
            {"messages": [("user", program.question)]}, {"recursion_limit": 2 * ROUNDS + 1}
        )
        return str(state["messages"][-1].content)

    yield drive
