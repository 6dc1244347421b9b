"""When the pieces of a reply reached the client, whatever the client makes of them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from typing import Any

from agentflow import _http
from agentflow.clock import now
from agentflow.executor.models.sse import EventSplitter


@dataclass(frozen=True)
class Written:
    """What a model wrote, and when.

    Attributes:
        began: When its first event came: the role, which comes with the first token.
        pieces: When which text came, of the answer or of the arguments of calls.
        ended: When its last event came.
    """

    began: float
    pieces: tuple[tuple[float, str], ...]
    ended: float

    @classmethod
    def read(cls, chunks: Iterable[tuple[float, bytes]]) -> Written:
        """Read the body of a reply, cut anyhow.

        Raises:
            ValueError: There is no event in it.
        """
        splitter = EventSplitter()
        found = [(at, event) for at, data in chunks for event in splitter.feed(data)]
        times = [at for at, _ in found]
        pieces = [(at, text) for at, event in found if (text := _text(event)) is not None]
        return cls(min(times), tuple(pieces), max(times))

    def at(self, text: str) -> float:
        """Seconds from the beginning until `text` was there to its last character."""
        return self.pieces[self.until(text) - 1][0] - self.began if text else 0.0

    def until(self, text: str) -> int:
        """How many pieces there were when `text` was there to its last character."""
        so_far = ""
        for count, (_, piece) in enumerate(self.pieces, 1):
            so_far += piece
            if text in so_far:
                return count
        raise AssertionError(f"{text!r} never came, only {so_far!r}")


def _text(event: bytes) -> str | None:
    """The text in one event, which may be empty; None if it is no part of what was written."""
    if not event.startswith(b"{"):
        return None
    choices = json.loads(event)["choices"]
    delta = choices[0]["delta"] if choices else {}
    if calls := delta.get("tool_calls"):
        return "".join(call["function"].get("arguments") or "" for call in calls)
    return delta.get("content") or None


@dataclass
class Heard:
    """One request, as the client sees it.

    Attributes:
        asked: When it was sent.
        chunks: When which bytes of the answer came.
    """

    asked: float
    chunks: list[tuple[float, bytes]] = field(default_factory=list)

    @property
    def written(self) -> Written:
        """The answer."""
        return Written.read(self.chunks)


class Listener:
    """Listens in on an HTTP client.

    Args:
        **options: Anything that the client takes.

    Attributes:
        heard: Every request, in the order they were sent.
        client: What requests are sent with.
    """

    def __init__(self, **options: Any) -> None:
        self.heard: list[Heard] = []
        hooks = {"request": [self._asked], "response": [self._answered]}
        self.client = _http.client(event_hooks=hooks, **options)

    async def _asked(self, request: Any) -> None:
        request.extensions["heard"] = Heard(now())
        self.heard.append(request.extensions["heard"])

    async def _answered(self, response: Any) -> None:
        response.stream = _Overheard(response.stream, response.request.extensions["heard"])


class _Overheard(_http.module().AsyncByteStream):  # type: ignore[misc]  # httpx's or httpx2's
    def __init__(self, stream: Any, heard: Heard) -> None:
        self._stream = stream
        self._heard = heard

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for data in self._stream:
            self._heard.chunks.append((now(), data))
            yield data

    async def aclose(self) -> None:
        await self._stream.aclose()
