"""A chat model behind any OpenAI-compatible base URL."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from decimal import Decimal
from functools import partial
from typing import Any
from urllib.parse import unquote, urlsplit

from agentflow import _http
from agentflow.budgets.prices import Prices
from agentflow.clock import now
from agentflow.context import remaining
from agentflow.errors import BackendError, DefinitionError
from agentflow.executor.models import failures, probe, wire
from agentflow.executor.models.attempts import again, holding, sending
from agentflow.executor.models.base import ChatRequest, Delta, Reply, Usage, read_whole
from agentflow.executor.models.ratelimit import RateLimiter
from agentflow.executor.models.retry import RetryPolicy
from agentflow.executor.models.stream import OpenAIStream, Timeouts
from agentflow.executor.models.turns import Turns
from agentflow.redaction import conceal, conceal_headers, conceal_url, without_credentials

_PING = ChatRequest(messages=[{"role": "user", "content": "Say ok."}], max_tokens=8)


class OpenAIBackend:
    """One model of one OpenAI-compatible endpoint.

    Replies are always streamed and always closed: leaving `stream`, by whatever way, ends the
    call on the server as well. Failed attempts are repeated only while nothing of the reply
    has been handed out.

    Args:
        base_url: Such as ``https://api.openai.com/v1`` or ``http://127.0.0.1:8000/v1``. A user
            and password in it are sent in place of the key.
        model: Name of the model there.
        api_key: Empty for servers that ask for none.
        http: A shared client from `agentflow._http.client`, closed by whoever made it; by
            default the backend makes and closes its own.
        timeouts: Limits on waiting.
        max_concurrent: Calls in flight at once; further ones wait.
        limiter: Limits on requests and tokens per minute.
        prices: What the model costs; see `Prices`.
        headers: Sent with every request.
        retry: How often a failed call is repeated.
        max_tokens_field: The request field that bounds the output, such as
            ``max_completion_tokens`` for newer models of Azure; by default ``max_tokens``, but at
            api.openai.com.

    Attributes:
        name: Name of the model.
        url: The base URL, without the user that it may have named.
        prices: As given.
        timeouts: As given.

    Raises:
        DefinitionError: The base URL is none.
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        *,
        api_key: str = "",
        http: Any = None,
        timeouts: Timeouts | None = None,
        max_concurrent: int = 256,
        limiter: RateLimiter | None = None,
        prices: Prices | None = None,
        headers: Mapping[str, str] | None = None,
        retry: RetryPolicy | None = None,
        max_tokens_field: str = "",
    ) -> None:
        self.url, given = split_credentials(checked_url(base_url))
        self.name = model
        self.prices = prices or Prices()
        self.timeouts = timeouts or Timeouts()
        self._key = "" if given else api_key
        self._http = http
        self._owns_http = http is None
        self._headers = {**(headers or {}), **given}
        conceal(api_key)
        conceal_headers(self._headers)
        self._slots = asyncio.Semaphore(max_concurrent)
        self._turns = Turns(limiter, self.url)
        self._retry = retry or RetryPolicy()
        self._max_tokens_field = max_tokens_field or _max_tokens_field(self.url)
        self._client: Any = None
        self._known: wire.Template | None = None  # the first request that openai's client sent
        self._connecting = asyncio.Lock()

    @asynccontextmanager
    async def stream(
        self, request: ChatRequest, *, started: float | None = None, attempts: int = 0
    ) -> AsyncIterator[OpenAIStream]:
        """Start a call; the block is entered when the first piece is there.

        Args:
            request: What is asked.
            started: When the first attempt began, on the loop's clock, if there were some before.
            attempts: How many there were.

        Raises:
            BackendError: No attempt gave a piece; iterating raises what goes wrong later.
        """
        holding()
        since = now()
        async with self._slots:
            reserved = await self._turns.take(request)
            held, stream = now() - since, None
            try:
                stream = await self._begin(request, now() if started is None else started, attempts)
                stream.held = held
                yield stream
            finally:
                try:
                    if stream is not None:
                        await stream.aclose()
                finally:
                    used = stream.usage if stream is not None else Usage(0, 0)
                    self._turns.settle(reserved, used)

    async def complete(
        self, request: ChatRequest, on_delta: Callable[[Delta], object] | None = None
    ) -> Reply:
        """Make a call and wait for the whole reply; `on_delta` sees each piece as it comes.

        Raises:
            BackendError: The call failed; the class says how.
        """
        async with self.stream(request) as stream:
            return await read_whole(stream, on_delta)

    async def connect(self) -> Any:
        """Load the client library and build the client now rather than in the first call.

        This takes half a second the first time in a process, in a thread.
        """
        if self._client is None:
            async with self._connecting:
                if self._client is None:
                    self._client = await asyncio.to_thread(self._build)
        return self._client

    async def probe(self, *, measure: bool = False) -> probe.Endpoint:
        """Ask the endpoint what it is and offers, and with `measure` make one tiny call.

        Raises:
            BackendError: It cannot be reached, or does not speak the API.
        """
        await self.connect()
        found = await probe.look(self._http, self.url, self._asking())
        return replace(found, reply=await self.complete(_PING)) if measure else found

    async def answers(self) -> bool:
        """Whether the endpoint answers anything but that it is broken or not ready."""
        await self.connect()
        try:
            response = await self._http.get(f"{self.url}/models", headers=self._asking())
        except Exception as error:
            if failures.from_exception(error, self.url) is None:
                raise
            return False
        status: int = response.status_code
        return status < 500 and status != 429

    async def aclose(self) -> None:
        """Close the HTTP client, if it is the backend's own."""
        if self._owns_http and self._http is not None:
            http, self._http, self._client = self._http, None, None
            await http.aclose()

    def _build(self) -> Any:
        from openai import AsyncOpenAI

        if self._http is None:
            self._http = _http.client(connect=self.timeouts.connect)
        return AsyncOpenAI(
            base_url=self.url,
            api_key=self._key or "none",
            max_retries=0,
            http_client=self._http,
            timeout=self._http.timeout,
            default_headers=self._headers,
        )

    async def _begin(self, request: ChatRequest, started: float, before: int) -> OpenAIStream:
        """A stream that has its first piece, after as many attempts as it takes."""
        client = await self.connect()
        price = partial(self._usd, request.model or self.name)
        attempt = 1
        while True:
            stream = OpenAIStream(
                request, self.url, self.timeouts, price, started=started, attempt=before + attempt
            )
            try:
                await self._open(client, request, stream)
                return stream
            except BackendError as error:
                await self._wait_to_retry(attempt, error, started)
            attempt += 1

    async def _open(self, client: Any, request: ChatRequest, stream: OpenAIStream) -> None:
        sending()
        try:
            await stream.open(self._send(client, request))
        except BaseException:
            await stream.aclose()
            raise

    @asynccontextmanager
    async def _send(self, client: Any, request: ChatRequest) -> AsyncIterator[Any]:
        """Send a request and give the HTTP response, whose body is still to come.

        The openai client sends the first; the later ones have the same URL and headers, and
        repeating these costs a tenth of having them made again (0.7 ms after an idle moment).
        """
        fields = wire.arguments(request, model=self.name, max_tokens_field=self._max_tokens_field)
        if self._known is None:
            fields["extra_body"] = wire.whole(fields["extra_body"])
            async with client.chat.completions.with_streaming_response.create(**fields) as made:
                self._note(made.http_response.request, request.extra_headers)
                yield made.http_response
            return
        response = await self._http.send(self._known.request(fields), stream=True)
        try:
            if response.is_error:
                await response.aread()
                said, headers = response.text, response.headers
                raise failures.from_status(response.status_code, said, headers, self.url)
            yield response
        finally:
            await response.aclose()

    def _asking(self) -> dict[str, str]:
        """The headers of questions beside the API's calls."""
        key = {"authorization": f"Bearer {self._key}"} if self._key else {}
        return {**self._headers, **key}

    def _note(self, sent: Any, extra: Mapping[str, str] | None) -> None:
        """Remember what requests look like, unless this one hides headers of the backend's own."""
        if {name.lower() for name in self._headers}.isdisjoint(map(str.lower, extra or ())):
            self._known = wire.Template.of(sent, extra)

    async def _wait_to_retry(self, attempt: int, error: BackendError, started: float) -> None:
        """Wait for the next attempt, or raise the error if there is none."""
        self._turns.pause(error.retry_after)
        delay = self._retry.delay(attempt, error)
        if delay is None or self._is_too_long(delay, started):
            raise error
        again(error)
        await asyncio.sleep(delay)
        await self._turns.again()

    def _is_too_long(self, delay: float, started: float) -> bool:
        """Whether after the delay the time of the call, or of its run, is over."""
        total, left = self.timeouts.total, remaining()
        if left is not None and delay >= left:
            return True
        return total is not None and now() + delay >= started + total

    def _usd(self, model: str, used: Usage) -> Decimal | None:
        return self.prices.cost(model, used, url=self.url)


def checked_url(base_url: str) -> str:
    """A base URL as it is used, without a slash at its end; its credentials are secret.

    Raises:
        DefinitionError: It is none, or has a query, which would end up within the path.
    """
    conceal_url(base_url)
    shown = without_credentials(base_url)
    try:
        parts = urlsplit(base_url)
        usable = parts.scheme in ("http", "https") and parts.hostname
    except ValueError:
        usable = False
    if not usable:
        raise DefinitionError(
            f"{shown!r} is not a base URL: write something like 'http://127.0.0.1:8000/v1'"
        )
    if parts.query or parts.fragment:
        raise DefinitionError(
            f"the base URL {shown} goes on with a query: give a key as api_key or in headers"
        )
    return base_url.rstrip("/")


def split_credentials(url: str) -> tuple[str, dict[str, str]]:
    """A URL without its user, and the header that says the same."""
    parts = urlsplit(url)
    user, at, place = parts.netloc.rpartition("@")
    if not at:
        return url, {}
    name, _, password = user.partition(":")
    given = base64.b64encode(f"{unquote(name)}:{unquote(password)}".encode()).decode()
    return parts._replace(netloc=place).geturl(), {"Authorization": f"Basic {given}"}


def _max_tokens_field(url: str) -> str:
    """OpenAI's own endpoint refuses ``max_tokens`` for its newer models; others know no other."""
    own = urlsplit(url).hostname == "api.openai.com"
    return "max_completion_tokens" if own else "max_tokens"
