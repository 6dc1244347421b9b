"""What servers tell of themselves: how much KV they hold, how many requests run there.

Each make has pages of its own beside the API. All of it is optional: whatever is missing, or is
not as expected, is unknown.
"""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Callable, Iterable, Mapping
from contextvars import Context
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import urlsplit, urlunsplit

from agentflow.caches.affinity.load import Load
from agentflow.errors import BackendError
from agentflow.executor.models import failures

PERIOD = 5.0
"""Seconds between two looks at the same server."""

PATIENCE = 2.0
"""Seconds that one page may take."""

LARGEST = 4 * 1024 * 1024
"""Bytes of a page that are read at most."""

_SAMPLE = re.compile(r"([a-zA-Z_:][\w:]*)(?:\{(.*)\})?\s+(\S+)(?:\s+-?\d+)?", re.ASCII)
_LABEL = re.compile(r'([a-zA-Z_]\w*)="((?:[^"\\]|\\.)*)"', re.ASCII)
_ESCAPED = {"\\n": "\n", '\\"': '"', "\\\\": "\\"}


@dataclass(frozen=True, slots=True)
class Sample:
    """One line of a page of metrics."""

    name: str
    labels: Mapping[str, str]
    value: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerState:
    """What a server tells; None for what it does not.

    Attributes:
        running: Requests that it works on, everybody's.
        waiting: Requests that wait there.
        kv_usage: Share of the KV that running requests hold.
        capacity: Tokens of KV that it holds.
        slots: Requests that it runs at once at most.
        block: Tokens in a block of KV; of a prompt's end that fills none, nothing is cached.
        prefix_queries: Prompt tokens that it has looked up in its cache so far.
        prefix_hits: Of these, those that it had.
    """

    running: int | None = None
    waiting: int | None = None
    kv_usage: float | None = None
    capacity: int | None = None
    slots: int | None = None
    block: int | None = None
    prefix_queries: int | None = None
    prefix_hits: int | None = None

    @property
    def load(self) -> Load | None:
        """What is there, whoever has sent it; None if it does not tell how many requests."""
        if self.running is None:
            return None
        waiting = self.waiting or 0
        tokens = (self.kv_usage or 0.0) * (self.capacity or 0)
        return Load(self.running + waiting, waiting, tokens)


def parse(text: str) -> list[Sample]:
    """The samples of a page of metrics in Prometheus' text format.

    Lines that are no sample of a finite number are left out.
    """
    samples = []
    for line in text.splitlines():
        if (found := _SAMPLE.fullmatch(line.strip())) is None:
            continue
        try:
            value = float(found[3])
        except ValueError:
            continue
        if not math.isfinite(value):
            continue
        labels = {label[1]: _unescaped(label[2]) for label in _LABEL.finditer(found[2] or "")}
        samples.append(Sample(found[1], labels, value))
    return samples


def _unescaped(text: str) -> str:
    return re.sub(r"\\.", lambda escape: _ESCAPED.get(escape[0], escape[0]), text)


class Metrics:
    """The samples of one page, by any of the names that a metric has had.

    Args:
        text: The page.
    """

    def __init__(self, text: str) -> None:
        self._samples: dict[str, list[Sample]] = {}
        for sample in parse(text):
            self._samples.setdefault(sample.name, []).append(sample)

    def total(self, *names: str) -> float | None:
        """The sum over all engines behind the server, of the first name that is there."""
        for name in names:
            for known in (name, f"{name}_total"):
                if known in self._samples:
                    return sum(sample.value for sample in self._samples[known])
        return None

    def mean(self, *names: str) -> float | None:
        """The mean over all engines, of the first name that is there."""
        for name in names:
            if (samples := self._samples.get(name)) is not None:
                return sum(sample.value for sample in samples) / len(samples)
        return None

    def labels(self, name: str) -> list[Mapping[str, str]]:
        """The labels of a metric that says something by them, for each engine."""
        return [sample.labels for sample in self._samples.get(name, ())]


def vllm(metrics: Metrics) -> ServerState:
    """A state from vLLM's ``/metrics``, under today's names or those before version 0.10."""
    prefix = ("vllm:prefix_cache_queries", "vllm:gpu_prefix_cache_queries")
    found = ("vllm:prefix_cache_hits", "vllm:gpu_prefix_cache_hits")
    caches = metrics.labels("vllm:cache_config_info")
    blocks = [_count(cache.get("block_size")) for cache in caches]
    sizes = [
        block * count
        for block, cache in zip(blocks, caches, strict=True)
        if block and (count := _count(cache.get("num_gpu_blocks")))
    ]
    return ServerState(
        running=_count(metrics.total("vllm:num_requests_running")),
        waiting=_count(metrics.total("vllm:num_requests_waiting")),
        kv_usage=_share(metrics.mean("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc")),
        capacity=sum(sizes) or None,
        block=next(filter(None, blocks), None),
        prefix_queries=_count(metrics.total(*prefix)),
        prefix_hits=_count(metrics.total(*found)),
    )


def sglang(metrics: Metrics, info: Mapping[str, Any]) -> ServerState:
    """A state from SGLang's ``/metrics`` and ``/get_server_info``."""
    nested = info.get("server_info")
    said = {**nested, **info} if isinstance(nested, dict) else info
    return ServerState(
        running=_count(metrics.total("sglang:num_running_reqs")),
        waiting=_count(metrics.total("sglang:num_queue_reqs")),
        kv_usage=_share(metrics.mean("sglang:token_usage")),
        capacity=_count(said.get("max_total_num_tokens")) or None,
        slots=_count(said.get("max_running_requests")) or None,
        block=_count(said.get("page_size")) or None,
    )


def llama_cpp(metrics: Metrics, props: Mapping[str, Any], slots: Any) -> ServerState:
    """A state from the pages of llama.cpp's server: ``/metrics``, ``/props`` and ``/slots``."""
    listed = [slot for slot in slots if isinstance(slot, dict)] if isinstance(slots, list) else []
    contexts = [_count(slot.get("n_ctx")) for slot in listed]
    settings = props.get("default_generation_settings")
    each = _count(settings.get("n_ctx")) if isinstance(settings, dict) else None
    count = len(listed) or _count(props.get("total_slots")) or None
    busy = sum(slot.get("is_processing") is True for slot in listed) if listed else None
    computed = _count(metrics.total("llamacpp:prompt_tokens"))
    hits = _count(metrics.total("llamacpp:prompt_tokens_cached"))
    running = _count(metrics.total("llamacpp:requests_processing"))
    return ServerState(
        running=busy if running is None else running,
        waiting=_count(metrics.total("llamacpp:requests_deferred")),
        capacity=sum(filter(None, contexts)) or (each or 0) * (count or 0) or None,
        slots=count,
        prefix_queries=None if computed is None or hits is None else computed + hits,
        prefix_hits=hits,
    )


def _count(value: Any) -> int | None:
    """A number that can be a count of something."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return int(number) if 0 <= number < 2**53 else None


def _share(value: float | None) -> float | None:
    return value if value is not None and 0.0 <= value <= 1.0 else None


class Reader:
    """Reads the pages of one server.

    Args:
        http: A client from `agentflow._http.client`.
        url: The base URL of its API.
        headers: Sent along, such as ``Authorization``.
        server: Its make; see `agentflow.executor.models.probe.Endpoint`.
    """

    def __init__(self, http: Any, url: str, headers: Mapping[str, str], server: str) -> None:
        self._http = http
        self._url = url
        self._headers = headers
        self._server = server

    async def state(self) -> ServerState | None:
        """What it tells now; None if nothing is known of servers of its make."""
        match self._server:
            case "vllm":
                return vllm(await self._metrics())
            case "sglang":
                return sglang(await self._metrics(), await self._facts("/get_server_info"))
            case "llama.cpp":
                slots = await self._json("/slots")
                return llama_cpp(await self._metrics(), await self._facts("/props"), slots)
        return None

    async def _metrics(self) -> Metrics:
        return Metrics(await self._page("/metrics"))

    async def _facts(self, path: str) -> Mapping[str, Any]:
        said = await self._json(path)
        return said if isinstance(said, dict) else {}

    async def _json(self, path: str) -> Any:
        from pydantic_core import from_json

        try:
            return from_json(await self._page(path))
        except ValueError:
            return None

    async def _page(self, path: str) -> str:
        """The text of a page; empty if there is none."""
        address = urlunsplit((*urlsplit(self._url)[:2], path, "", ""))
        try:
            async with asyncio.timeout(PATIENCE):
                return await self._text(address)
        except (TimeoutError, BackendError):
            return ""

    async def _text(self, address: str) -> str:
        try:
            async with self._http.stream("GET", address, headers=self._headers) as response:
                body = b""
                async for chunk in response.aiter_bytes():
                    body += chunk
                    if len(body) > LARGEST:
                        return ""
                return body.decode("utf-8", "replace") if response.status_code == 200 else ""
        except Exception as error:
            if (failure := failures.from_exception(error, self._url)) is None:
                raise
            raise failure from error


class Tells(Protocol):
    """A server whose state can be read."""

    async def state(self) -> ServerState | None:
        """What it tells now; None if it never will tell anything."""
        ...


class Poller:
    """Looks at servers now and then, while there is something to do.

    It delays nobody: the looks run beside the requests, and what goes wrong with one is forgotten.
    A round looks at all of them at once and ends before the next one begins.

    Args:
        readers: Whom to look at, by name; asked before every round.
        told: Called with what one tells.
        busy: Whether there is something to do; if not, it stops until `wake`.
        period: Seconds between two rounds.
    """

    def __init__(
        self,
        readers: Callable[[], Iterable[tuple[str, Tells]]],
        told: Callable[[str, ServerState], object],
        busy: Callable[[], bool],
        period: float = PERIOD,
    ) -> None:
        self._readers = readers
        self._told = told
        self._busy = busy
        self._period = period
        self._task: asyncio.Task[None] | None = None

    def wake(self) -> None:
        """There is something to do."""
        if self._task is None or self._task.done():
            # in a context of its own: it may outlive the run whose request woke it
            loop = asyncio.get_running_loop()
            self._task = loop.create_task(self._look(), context=Context())

    async def aclose(self) -> None:
        """Look no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _look(self) -> None:
        while self._busy():
            await asyncio.gather(*(self._look_at(*each) for each in list(self._readers())))
            await asyncio.sleep(self._period)

    async def _look_at(self, name: str, reader: Tells) -> None:
        if (state := await reader.state()) is not None:
            self._told(name, state)
