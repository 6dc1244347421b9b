"""A first workflow: ordinary functions, called as usual, run in parallel where they can.

python examples/hello_workflow.py "seven seas"
"""

from __future__ import annotations

import asyncio
import sys

from agentflow import run_sync, tool, workflow


@tool(pure=True)
async def shout(text: str) -> str:
    """A tool is a function with a typed signature, and says what it does to the world."""
    await asyncio.sleep(0.1)
    return text.upper()


@tool(pure=True)
def count(text: str) -> int:
    """A plain function runs in a thread."""
    return len(text.split())


@tool(pure=True)
async def frame(text: str, words: int) -> str:
    return f"{text} ({words} words)"


@workflow
async def hello(text: str) -> str:
    """Inside a workflow a call gives a handle, and calls that do not use each other overlap."""
    loud = shout(text)
    words = count(text)
    return await frame(loud.ref, words.ref)


if __name__ == "__main__":
    print(run_sync(hello, " ".join(sys.argv[1:]) or "hello, world"))
