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
        called: The number of pieces before the first call; None if there is no call.
    """

    began: float
    pieces: tuple[tuple[float, str], ...]
    ended: float
    called: int | None = None

    @classmethod
    def read(cls, chunks: Iterable[tuple[float, bytes]]) -> Written:
        """Read the body of a reply, cut anyhow.

        Raises:
            ValueError: There is no event in it.
        """
        splitter = EventSplitter()
        times: list[float] = []
        pieces: list[tuple[float, str]] = []
        called = None
        for at, data in chunks:
            for event in splitter.feed(data):
                times.append(at)
                delta = _delta(event)
                if calls := delta.get("tool_calls"):
                    called = len(pieces) if called is None else called
                    pieces.append((at, "".join(_arguments(call) for call in calls)))
                elif text := delta.get("content"):
                    pieces.append((at, text))
        return cls(min(times), tuple(pieces), max(times), called)

    @property
    def text(self) -> str:
        """All that was written."""
        return "".join(text for _, text in self.pieces)

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
        raise AssertionError(f"{text!r} never came, only {self.text!r}")


def _delta(event: bytes) -> dict[str, Any]:
    """What one event adds to the reply."""
    choices = json.loads(event)["choices"] if event.startswith(b"{") else []
    delta: dict[str, Any] = choices[0]["delta"] if choices else {}
    return delta


def _arguments(call: dict[str, Any]) -> str:
    return call.get("function", {}).get("arguments") or ""


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
