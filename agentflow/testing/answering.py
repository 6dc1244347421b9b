"""Gives one answer to one chat request: streamed or whole, and with the faults it scripts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from typing import NoReturn, Protocol, TypeAlias

from agentflow.clock import wall
from agentflow.testing.chat import Exchange
from agentflow.testing.replies import Answer, Call, Fault, Piece, Raw, Reply, Usage, error_body
from agentflow.testing.speech import Pacing, Speech
from agentflow.testing.wire import BROKEN, DONE, Completion, Message, sse

JSON = {"content-type": "application/json"}
SSE = {"content-type": "text/event-stream; charset=utf-8", "cache-control": "no-cache"}

Given: TypeAlias = "Answer | AsyncIterator[Piece]"


class HangUp(Exception):
    """The connection is to be broken off here."""


class Refused(HangUp):
    """Nobody listens here."""


class Service(Pacing, Protocol):
    """How one reply is served: when its tokens come, and what its usage counts."""

    @property
    def size(self) -> int:
        """Tokens sent together when streaming."""
        ...

    @property
    def limit(self) -> int | None:
        """Most tokens to say."""
        ...

    def usage(self, completion_tokens: int) -> Usage:
        """The token counts to report with a reply of that length."""
        ...


class Sender(Protocol):
    """Where an answer goes; it ends when the handler returns."""

    async def start(self, status: int, headers: Mapping[str, str]) -> None:
        """Send the status line and the headers."""
        ...

    async def send(self, data: bytes) -> None:
        """Send some of the body."""
        ...


async def send_whole(
    sender: Sender, status: int, body: bytes, headers: Mapping[str, str] = JSON
) -> None:
    """Answer with a body of known length."""
    await sender.start(status, {**headers, "content-length": str(len(body))})
    await sender.send(body)


class Answering:
    """One request being answered.

    Args:
        exchange: The request.
        sender: Where the answer goes.
        service: How it is served.
    """

    def __init__(self, exchange: Exchange, sender: Sender, service: Service) -> None:
        call = exchange.call
        self._call = call
        self._sender = sender
        self._service = service
        model = str(call.body.get("model", ""))
        self._completion = Completion(f"chatcmpl-{call.number}", model, int(wall()))

    async def give(self, answer: Given) -> None:
        """Send the answer.

        Raises:
            HangUp: It ends by breaking the connection.
        """
        fault: Fault | None = None
        if isinstance(answer, Fault):
            fault, answer = answer, answer.reply
            if fault.after is None or (not self._call.stream and fault.kind in ("cut", "stall")):
                await _break_off(fault)
        if isinstance(answer, Raw):
            await self._raw(answer)
            return
        reply, speech = self._speech(answer)
        try:
            if self._call.stream:
                await self._stream(reply, speech, fault)
            else:
                await self._whole(reply, speech, fault)
        finally:
            await speech.aclose()

    def _speech(self, answer: Reply | str | Call | AsyncIterator[Piece]) -> tuple[Reply, Speech]:
        if isinstance(answer, (str, Call)):
            answer = Reply(answer)
        reply = answer if isinstance(answer, Reply) else Reply()
        speech = Speech(
            answer.pieces if isinstance(answer, Reply) else answer,
            number=self._call.number,
            pacer=self._service,
            size=self._service.size,
            limit=self._service.limit,
            refusal=reply.refusal,
        )
        return reply, speech

    async def _stream(self, reply: Reply, speech: Speech, fault: Fault | None) -> None:
        await self._sender.start(200, SSE)
        content = -1  # the role comes first
        async with aclosing(speech.deltas()) as deltas:
            async for delta in deltas:
                if fault and content == fault.after and await self._strike(fault):
                    return
                await self._sender.send(self._completion.event(delta))
                content += 1
        if fault and (fault.after or 0) >= content and await self._strike(fault):
            return
        finish_reason = reply.finish_reason or speech.finish_reason
        await self._sender.send(self._completion.event({}, finish_reason))
        if (self._call.body.get("stream_options") or {}).get("include_usage"):
            await self._sender.send(self._completion.usage_event(self._usage(reply, speech)))
        await self._sender.send(DONE)

    async def _strike(self, fault: Fault) -> bool:
        """Let the fault happen in a stream; says whether the stream is over."""
        if fault.kind == "garbage":
            await self._sender.send(BROKEN)
            return False
        if fault.kind == "error":
            await self._sender.send(sse({"error": {"message": fault.message, "code": 500}}))
            return True
        if fault.kind == "unfinished":
            return True
        await _break_off(fault)

    async def _whole(self, reply: Reply, speech: Speech, fault: Fault | None) -> None:
        message = Message()
        async with aclosing(speech.deltas()) as deltas:
            async for delta in deltas:
                message.add(delta)
        finish_reason = reply.finish_reason or speech.finish_reason
        usage = self._usage(reply, speech)
        match fault:
            case Fault(kind="error"):
                await send_whole(self._sender, 500, error_body(fault.message, 500))
            case Fault(kind="garbage"):
                await send_whole(self._sender, 200, BROKEN)
            case Fault(kind="unfinished"):
                await send_whole(self._sender, 200, self._body(message, None, usage))
            case _:
                await send_whole(self._sender, 200, self._body(message, finish_reason, usage))

    def _body(self, message: Message, finish_reason: str | None, usage: Usage) -> bytes:
        return self._completion.whole(message.json(), finish_reason, usage)

    async def _raw(self, raw: Raw) -> None:
        await self._service.first()
        await self._sender.start(raw.status, {"content-type": raw.content_type, **raw.headers})
        for chunk in raw.chunks():
            await self._service.tokens(1)
            await self._sender.send(chunk)

    def _usage(self, reply: Reply, speech: Speech) -> Usage:
        return reply.usage or self._service.usage(speech.completion_tokens)


async def _break_off(fault: Fault) -> NoReturn:
    """Hang up, or wait until the client does."""
    if fault.kind == "stall":
        await asyncio.get_running_loop().create_future()
    raise HangUp
