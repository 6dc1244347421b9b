"""What plans cost with as little as possible: httpx, a tiny reader, a task for each call.

It reads the plans of `planning_cases.py` and no others, checks nothing, and knows no failures,
limits, effects, events or budgets.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from typing import Any

import httpx
from planning_cases import Case

_CALL = re.compile(r"\$(\d+) = (\w+)\(([^()]*)\)")
_USES = re.compile(r"\$(\d+)")


async def pieces(client: httpx.AsyncClient, system: str, asked: str) -> AsyncIterator[str]:
    """The text of a streamed reply, as it comes."""
    body = {
        "model": "any",
        "stream": True,
        "messages": [{"role": "system", "content": system}, {"role": "user", "content": asked}],
    }
    async with client.stream("POST", "chat/completions", json=body) as response:
        async for line in response.aiter_lines():
            if line.startswith("data: {"):
                choices = json.loads(line[6:])["choices"]
                yield (choices[0]["delta"].get("content") or "") if choices else ""


class Floor:
    """Runs plans of one server."""

    def __init__(self, base_url: str) -> None:
        self._client = httpx.AsyncClient(base_url=base_url, timeout=None)

    async def run(self, case: Case, asked: str) -> str:
        """Have the plan written, run it meanwhile, and have the joiner answer."""
        made: dict[str, asyncio.Task[str]] = {}
        ended = asyncio.Event()
        reading = asyncio.create_task(self._read(case, asked, made, ended))
        await ended.wait()
        results = await asyncio.gather(*made.values())
        observed = "\n".join(results)
        said = [text async for text in pieces(self._client, "Answer.", f"{asked}\n\n{observed}")]
        await reading
        return "".join(said).removeprefix("Answer: ")

    async def count(self, asked: str) -> int:
        """Read a reply and do nothing with it; how many pieces it had."""
        return sum([1 async for text in pieces(self._client, "", asked) if text])

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def _read(
        self, case: Case, asked: str, made: dict[str, asyncio.Task[str]], ended: asyncio.Event
    ) -> None:
        text, at = "", 0
        waiting: list[re.Match[str]] = []
        async for piece in pieces(self._client, "Write the plan in the notation.", asked):
            text += piece
            while match := _CALL.search(text, at):
                at = match.end()
                if match[2] == "keep":
                    waiting.append(match)
                else:
                    self._start(case, match, made)
            if "join()" in text and not ended.is_set():
                for match in waiting:
                    self._start(case, match, made)
                ended.set()

    def _start(self, case: Case, match: re.Match[str], made: dict[str, asyncio.Task[str]]) -> None:
        inputs = [made[used] for used in _USES.findall(match[3])]
        made[match[1]] = asyncio.create_task(_call(case.seconds, match[0], inputs))


async def _call(seconds: float, text: str, inputs: list[asyncio.Task[Any]]) -> str:
    for task in inputs:
        await task
    await asyncio.sleep(seconds)
    return f"{text} -> ok"
