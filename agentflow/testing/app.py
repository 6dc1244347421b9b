"""The chat completions API without HTTP: a request in, a status and bytes out.

`agentflow.testing.http1` serves it over sockets, `agentflow.testing.transport` in memory.
"""

from __future__ import annotations

import asyncio
import inspect
import json
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, TypeAlias

from agentflow.clock import now, wall
from agentflow.testing.answering import Answering, Given, HangUp, Sender, Service, send_whole
from agentflow.testing.chat import ChatCall, Exchange
from agentflow.testing.replies import Answer, Fault, Model, error_body

Serve: TypeAlias = Callable[[Exchange, Given], AbstractContextManager[Service]]
"""How an answer is served, for as long as it takes."""


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """What the API needs to know of a request; header names are lower-case."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


class ChatApp:
    """Answers chat requests with what a model says.

    Args:
        model: A list of answers, or a function.
        serve: How they are served.
        models: Names that ``/v1/models`` lists.
        owner: Whose they are: servers name their own make there.

    Attributes:
        requests: Every chat request, in order of arrival.
        active: Chat requests being answered now.
        peak: The most that were answered at once.
        closing: Set by its owner before it cancels what is being answered.
    """

    def __init__(
        self,
        model: Model | Sequence[Answer],
        serve: Serve,
        models: Sequence[str],
        owner: str = "agentflow",
    ) -> None:
        self._model = model if callable(model) else in_turn(model)
        self._serve = serve
        self._models = models
        self._owner = owner
        self.requests: list[Exchange] = []
        self.active = 0
        self.peak = 0
        self.closing = False

    async def handle(self, request: HttpRequest, sender: Sender) -> None:
        """Answer one HTTP request.

        Raises:
            HangUp: The connection is to be closed without a proper end.
        """
        match request.method, request.path.partition("?")[0].rstrip("/"):
            case "POST", "/v1/chat/completions":
                await self._chat(request, sender)
            case "GET", "/v1/models":
                await send_whole(sender, 200, self._model_list())
            case "GET", "/health":
                await send_whole(sender, 200, b'{"status": "ok"}')
            case method, path:
                await send_whole(sender, 404, error_body(f"there is no {method} {path}", 404))

    def _model_list(self) -> bytes:
        head = {"object": "model", "created": int(wall()), "owned_by": self._owner}
        models = [{"id": name, **head} for name in self._models]
        return json.dumps({"object": "list", "data": models}).encode()

    async def _chat(self, request: HttpRequest, sender: Sender) -> None:
        body = _chat_body(request.body)
        if isinstance(body, str):
            await send_whole(sender, 400, error_body(body, 400))
            return
        exchange = Exchange(ChatCall(len(self.requests), body, request.headers), now())
        self.requests.append(exchange)
        self.active += 1
        self.peak = max(self.peak, self.active)
        try:
            await self._answer(exchange, _Recording(sender, exchange))
        except asyncio.CancelledError:
            exchange.disconnected = not self.closing
            raise
        finally:
            self.active -= 1
            exchange.ended = now()

    async def _answer(self, exchange: Exchange, sender: Sender) -> None:
        given = await self._ask(exchange)
        try:
            with self._serve(exchange, given) as service:
                await Answering(exchange, sender, service).give(given)
        except (HangUp, ConnectionError):
            raise
        except Exception as error:  # raised by the model between two pieces
            exchange.error = error
            raise HangUp from error

    async def _ask(self, exchange: Exchange) -> Given:
        try:
            answer = self._model(exchange.call)
            return await answer if inspect.isawaitable(answer) else answer
        except Exception as error:  # noqa: BLE001  a server answers 500, whatever was raised
            exchange.error = error
            return Fault.status(500, f"the scripted model raised {error!r}")


class _Recording:
    """Notes in the exchange what is sent."""

    def __init__(self, sender: Sender, exchange: Exchange) -> None:
        self._sender = sender
        self._exchange = exchange

    async def start(self, status: int, headers: Mapping[str, str]) -> None:
        self._exchange.status = status
        await self._sender.start(status, headers)

    async def send(self, data: bytes) -> None:
        self._exchange.sent.append((now(), data))
        await self._sender.send(data)


def in_turn(script: Sequence[Answer]) -> Callable[[ChatCall], Answer]:
    """A model that answers from a list."""
    answers = deque(script)

    def next_answer(call: ChatCall) -> Answer:
        if not answers:
            raise AssertionError(f"the script has no answer for request number {call.number + 1}")
        return answers.popleft()

    return next_answer


def _chat_body(body: bytes) -> Mapping[str, Any] | str:
    """The parsed body, or what is wrong with it."""
    try:
        parsed = json.loads(body)
    except ValueError as error:
        return f"the body is not JSON: {error}"
    if not isinstance(parsed, dict) or not isinstance(parsed.get("messages"), list):
        return "the body must be an object with a list 'messages'"
    return parsed
