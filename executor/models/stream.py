"""One streamed reply: bytes in, pieces out, with limits on time and every failure mapped."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, aclosing, suppress
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, TypeVar

from agentflow.clock import now
from agentflow.errors import BackendError, BackendTimeout, BadReply, TruncatedReply
from agentflow.executor.models import failures, wire
from agentflow.executor.models.base import ChatRequest, Delta, Reply, Usage
from agentflow.executor.models.collect import Collected
from agentflow.executor.models.sse import EventSplitter, NotEvents
from agentflow.executor.models.watch import Expired, Watch

DRAIN = 0.05
"""Seconds to wait for the body's end after ``[DONE]``, so that the connection can be reused."""

MAX_BODY = 64 * 1024
"""Bytes that are read of a body which is not a stream of events."""

R = TypeVar("R")


@dataclass(slots=True, frozen=True)
class Timeouts:
    """Limits in seconds; None switches one off.

    Attributes:
        connect: Until the connection is open.
        first_token: From an attempt's start to the first piece of the reply.
        idle: Between two signs of life from the server (comments are some) after that.
        total: From the first attempt's start to the end of the reply, retries included.
    """

    connect: float | None = 5.0
    first_token: float | None = 120.0
    idle: float | None = 60.0
    total: float | None = 600.0


class OpenAIStream:
    """A reply while it arrives; made by `OpenAIBackend.stream`, which also closes it.

    Args:
        request: What was asked.
        url: Base URL, for messages.
        timeouts: Limits on waiting.
        price: USD of some usage, or None if the price is not known.
        started: Loop time at which the first attempt began.
        attempt: Which attempt this is, from 1.

    Attributes:
        alive_at: When the server sent something last, on the loop's clock.
        asked: Since when somebody waits for it to send more; None if nobody does.
        held: Seconds for which it waited before it was sent, for a slot and its rate.
    """

    def __init__(
        self,
        request: ChatRequest,
        url: str,
        timeouts: Timeouts,
        price: Callable[[Usage], Decimal | None],
        *,
        started: float,
        attempt: int,
    ) -> None:
        self._url = url
        self._timeouts = timeouts
        self._price = price
        self._started = started
        self._attempt = attempt
        self._end_by = _after(started, timeouts.total)
        self._first_by = _earlier(_after(now(), timeouts.first_token), self._end_by)
        self._first_at: float | None = None
        self.alive_at = started
        self.asked: float | None = None
        self.held = 0.0
        self._on_end: Callable[[BackendError | None], object] | None = None
        self._broken: BackendError | None = None
        self._watch = Watch()
        self._exit = AsyncExitStack()
        self._body: AsyncIterator[bytes] | None = None
        self._content_type = ""
        self._events = EventSplitter()
        self._collected = Collected(request)
        self._ready: deque[Delta] = deque()
        self._ended = False
        self._at_eof = False
        self._failure: BackendError | None = None
        self._reply: Reply | None = None

    def __aiter__(self) -> AsyncIterator[Delta]:
        return self

    async def __anext__(self) -> Delta:
        if not self._ready:
            await self._fill()
            if not self._ready:
                raise self._failure or StopAsyncIteration
        return self._ready.popleft()

    @property
    def usage(self) -> Usage:
        """Tokens so far: estimated until the backend has said, also after an error."""
        return self._collected.usage()

    @property
    def reply(self) -> Reply:
        """The whole reply.

        Raises:
            RuntimeError: The stream has not been read to its end.
        """
        if self._reply is None:
            raise RuntimeError("read the stream to its end before asking for its reply")
        return self._reply

    def on_end(self, callback: Callable[[BackendError | None], object]) -> None:
        """Have something called when the reply has ended, at once if it has.

        It is given what went wrong, or None, before the last pieces are handed out.
        """
        if self._ended:
            callback(self._failure)
        else:
            self._on_end = callback

    def break_off(self, error: BackendError) -> None:
        """Let the reply end here, with an error, whatever the server may still send."""
        self._broken = error
        self._watch.expire()

    async def open(self, call: Any) -> None:
        """Enter the HTTP call, which gives the response, and wait for the first piece.

        Raises:
            BackendError: Something went wrong before there was a piece.
        """
        http = await self._in_time(self._exit.enter_async_context(call))
        self._content_type = http.headers.get("content-type", "")
        self._body = await self._exit.enter_async_context(aclosing(http.aiter_bytes()))
        await self._fill()
        if self._failure is not None and not self._ready:
            raise self._failure

    async def aclose(self) -> None:
        """End the call, on the server too if it is still answering."""
        try:
            if self._reply is not None and not self._at_eof:
                await self._drain()
        finally:
            self._watch.stop()
            await self._exit.aclose()

    async def _fill(self) -> None:
        """Read until a piece is ready or the stream has ended."""
        while not self._ready and not self._ended:
            if self._broken is not None:
                self._end(self._broken)
                return
            try:
                await self._feed(await self._read())
            except BackendError as error:
                self._end(error)

    async def _feed(self, chunk: bytes) -> None:
        """Take bytes of the body in; no bytes are its end."""
        try:
            if not chunk:
                self._at_eof = True
                self._events.close()
                self._end(None)
            for payload in self._events.feed(chunk):
                self._take(payload)
        except NotEvents as error:
            self._end(await self._not_a_stream(error.head))

    def _take(self, payload: bytes) -> None:
        """Turn the data of one event into pieces."""
        if self._ended:
            return
        if payload == b"[DONE]":
            self._end(None)
            return
        try:
            chunk = json.loads(payload.decode())
            if "error" in chunk or "choices" not in chunk:
                self._refuse(chunk)
            self._ready.extend(self._collected.add(chunk))
            if self._first_at is None and self._ready:
                self._first_at = now()
        except BackendError as error:
            self._end(error)
        except (ValueError, TypeError, AttributeError, LookupError, RecursionError) as error:
            self._end(self._unreadable(payload, error))

    def _refuse(self, chunk: Any) -> None:
        if (said := wire.failure(chunk)) is not None:
            raise failures.from_event(said, self._url)
        if not isinstance(chunk, dict):
            raise TypeError(f"a JSON {type(chunk).__name__} where an object belongs")

    def _end(self, failure: BackendError | None) -> None:
        """Note how the stream ended; pieces that are ready are handed out first."""
        if self._ended:
            return
        self._ended = True
        if failure is None and self._collected.finish_reason is None:
            failure = TruncatedReply(
                f"{self._url} ended the stream without a finish reason: the reply is cut off",
                url=self._url,
            )
        self._failure = failure
        if failure is None:
            self._finish()
        if self._on_end is not None:
            self._on_end(failure)

    def _finish(self) -> None:
        usage = self._collected.usage()
        self._ready.append(usage)
        self._reply = self._collected.reply(usage, self._price(usage), self._attempt)
        self._reply.seconds, self._reply.held = now() - self._started, self.held
        if self._first_at is not None:
            self._reply.first_token_seconds = self._first_at - self._started

    def _unreadable(self, payload: bytes, error: Exception) -> BackendError:
        said = failures.quote(payload.decode("utf-8", "replace"))
        return BadReply(
            f"{self._url} sent a chunk that is not a chat completion ({error}): {said!r}",
            url=self._url,
        )

    async def _not_a_stream(self, head: bytes) -> BackendError:
        body = head
        while len(body) < MAX_BODY and (chunk := await self._read()):
            body += chunk
        return failures.not_a_stream(body, self._content_type, self._url)

    async def _read(self) -> bytes:
        """The next bytes of the body, empty at its end."""
        assert self._body is not None, "open() comes first"
        return await self._in_time(anext(self._body, b""))

    async def _drain(self) -> None:
        """Read to the body's end; the reply is complete, so a failure loses only the connection."""
        with suppress(BackendError, TimeoutError):
            async with asyncio.timeout(DRAIN):
                while await self._read():
                    pass

    async def _in_time(self, step: Awaitable[R]) -> R:
        """Await a step of the HTTP call within its limits, and map what goes wrong."""
        self.asked = at = now()
        try:
            done = await self._watch.wait(step, self._wait_until(at))
        except Expired:
            raise self._broken or self._too_slow() from None
        except Exception as error:
            failure = failures.from_exception(error, self._url)
            if failure is None:
                raise
            raise failure from error
        finally:
            self.asked = None
        self.alive_at = now()
        return done

    def _wait_until(self, at: float) -> float | None:
        if self._first_at is None:
            return self._first_by
        idle = self._timeouts.idle
        return self._end_by if idle is None else _earlier(at + idle, self._end_by)

    def _too_slow(self) -> BackendTimeout:
        limits = self._timeouts
        over = self._end_by is not None and now() >= self._end_by
        if over:
            said = f"did not finish within {limits.total:g} s (timeouts.total)"
        elif self._first_at is None:
            said = f"gave no token within {limits.first_token:g} s (timeouts.first_token)"
        else:
            said = f"sent nothing more for {limits.idle:g} s (timeouts.idle)"
        return BackendTimeout(f"{self._url} {said}", url=self._url, retryable=not over)


def _after(start: float, limit: float | None) -> float | None:
    return None if limit is None else start + limit


def _earlier(one: float | None, other: float | None) -> float | None:
    if one is None or other is None:
        return other if one is None else one
    return min(one, other)
