"""What plans cost with as little as possible: httpx, a tiny reader, a task for each call.

It reads the plans of `planning_cases.py` and no others, checks nothing, and knows no failures,
limits, effects, events or budgets.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeAlias

import httpx

Work: TypeAlias = Callable[..., Awaitable[str]]
"""Makes a call: the name of the tool and its arguments."""

_CALL = re.compile(r"\$(\d+) = (\w+)\(([^()]*)\)")


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
    """Runs plans of one server.

    Args:
        base_url: Of the server.
        work: Makes a call.
    """

    def __init__(self, base_url: str, work: Work) -> None:
        self._client = httpx.AsyncClient(base_url=base_url, timeout=None)
        self._work = work

    async def run(self, asked: str) -> str:
        """Have the plan written, run it meanwhile, and have the joiner answer."""
        made: dict[str, asyncio.Task[str]] = {}
        ended = asyncio.Event()
        reading = asyncio.create_task(self._read(asked, made, ended))
        await ended.wait()
        observed = "\n".join(await asyncio.gather(*made.values()))
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
        self, asked: str, made: dict[str, asyncio.Task[str]], ended: asyncio.Event
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
                    self._start(match, made)
            if "join()" in text and not ended.is_set():
                for match in waiting:
                    self._start(match, made)
                ended.set()

    def _start(self, match: re.Match[str], made: dict[str, asyncio.Task[str]]) -> None:
        arguments = [
            made[spelt[1:]] if spelt.startswith("$") else spelt.strip('"')
            for spelt in match[3].split(", ")
        ]
        made[match[1]] = asyncio.create_task(self._call(match[2], arguments))

    async def _call(self, name: str, arguments: list[asyncio.Task[str] | str]) -> str:
        values = [a if isinstance(a, str) else await a for a in arguments]
        return await self._work(name, *values)
