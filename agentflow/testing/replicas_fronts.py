"""What servers of different makes accept in a request and tell about themselves."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from agentflow.testing.answering import Service
from agentflow.testing.app import HttpRequest
from agentflow.testing.replicas_engine import Engine
from agentflow.testing.replicas_prompts import Work
from agentflow.testing.replies import Raw
from agentflow.testing.serving import Serving

_REQUEST = {"messages", "model", "n", "stream", "stream_options", "user", "seed", "stop"}
_LENGTH = {"max_tokens", "max_completion_tokens", "reasoning_effort"}
_SAMPLING = {"temperature", "top_p", "frequency_penalty", "presence_penalty", "logit_bias"}
_ANSWER = {"tools", "tool_choice", "parallel_tool_calls", "response_format"}
_TOLD = {"logprobs", "top_logprobs"}
_STANDARD = _REQUEST | _LENGTH | _SAMPLING | _ANSWER | _TOLD


class Front:
    """A server of no make in particular: the chat completions API and nothing else.

    Args:
        engine: What serves its requests.
        name: Of its model.
        priorities: Whether it schedules by priority.
    """

    fields: frozenset[str] = frozenset()

    def __init__(self, engine: Engine, name: str, *, priorities: bool) -> None:
        self._engine = engine
        self._name = name
        self._priorities = priorities

    @property
    def context(self) -> int:
        """Tokens that a prompt and its answer may have together."""
        serving = self._engine.model.serving
        return serving.capacity // serving.block * serving.block

    def unknown(self, body: Mapping[str, Any]) -> list[str]:
        """Fields of a request that it does not know."""
        return sorted(body.keys() - _STANDARD - self.fields)

    def complaint(self, body: Mapping[str, Any]) -> str | None:
        """What is wrong with a field that it knows."""
        return None

    def salt(self, body: Mapping[str, Any]) -> str:
        """Requests of different salts share nothing."""
        return ""

    def priority(self, body: Mapping[str, Any]) -> int:
        """The request's place in the queue; lower goes first."""
        return 0

    def serve(self, work: Work) -> AbstractContextManager[Service]:
        """Serve a request for as long as somebody waits for its answer."""
        return self._serve(work)

    async def page(self, request: HttpRequest) -> Raw | None:
        """Its answer to a request that is not of the chat completions API."""
        return None

    def restart(self, serving: Serving | None = None, priorities: bool | None = None) -> None:
        """Begin anew, with these settings or those it had."""
        self._engine.restart(serving)
        self._priorities = self._priorities if priorities is None else priorities

    @contextmanager
    def _serve(self, work: Work) -> Iterator[Service]:
        blocks, written = work.keys(self._engine.model.serving.block, self.salt(work.body))
        turn = self._engine.begin(
            blocks,
            len(work.prompt),
            work.output,
            written=written,
            priority=self.priority(work.body),
        )
        try:
            yield turn
        finally:
            self._engine.leave(turn)


class OpenAI(Front):
    """OpenAI's own API, as far as caching goes."""

    fields = frozenset({"prompt_cache_key", "prompt_cache_retention", "service_tier", "metadata"})


class VLLM(Front):
    """vLLM: lower priorities go first, salts keep tenants apart."""

    fields = frozenset({"cache_salt", "priority", "request_id", "session_id"})

    def complaint(self, body: Mapping[str, Any]) -> str | None:
        """As vLLM complains."""
        if body.get("priority") and not self._priorities:
            return f"Got priority {body['priority']} but priority scheduling is not enabled."
        if body.get("cache_salt") == "":
            return "Parameter 'cache_salt' must be a non-empty string if provided."
        return None

    def salt(self, body: Mapping[str, Any]) -> str:
        """The request's ``cache_salt``."""
        return body.get("cache_salt") or ""

    def priority(self, body: Mapping[str, Any]) -> int:
        """The request's ``priority``."""
        return body.get("priority") or 0

    async def page(self, request: HttpRequest) -> Raw | None:
        """``/metrics`` and ``/version``."""
        match request.path.partition("?")[0]:
            case "/metrics":
                return prometheus(self._metrics(), f'engine="0",model_name="{self._name}"')
            case "/version":
                return as_json({"version": "0.15.1"})
        return None

    def _metrics(self) -> Mapping[str, float]:
        model, serving = self._engine.model, self._engine.model.serving
        config = f'vllm:cache_config_info{{block_size="{serving.block}",'
        config += f'num_gpu_blocks="{serving.capacity // serving.block}"}}'
        return {
            "vllm:num_requests_running": model.running,
            "vllm:num_requests_waiting": model.waiting,
            "vllm:kv_cache_usage_perc": model.used / serving.capacity,
            "vllm:prefix_cache_queries_total": model.queries,
            "vllm:prefix_cache_hits_total": model.hits,
            "vllm:num_preemptions_total": model.preemptions,
            "vllm:prompt_tokens_total": model.queries,
            "vllm:generation_tokens_total": self._engine.generated,
            config: 1,
        }


class SGLang(Front):
    """SGLang: higher priorities go first."""

    fields = frozenset(
        {"rid", "session_id", "session_params", "priority", "cache_salt", "extra_key"}
    )

    def complaint(self, body: Mapping[str, Any]) -> str | None:
        """As SGLang complains."""
        if body.get("priority") is not None and not self._priorities:
            return (
                "Using priority is disabled for this server. Please send a new request without a"
                " priority."
            )
        return None

    def salt(self, body: Mapping[str, Any]) -> str:
        """The request's ``cache_salt`` and ``extra_key``."""
        return (body.get("cache_salt") or "") + (body.get("extra_key") or "")

    def priority(self, body: Mapping[str, Any]) -> int:
        """The request's ``priority``, turned round."""
        return -(body.get("priority") or 0)

    async def page(self, request: HttpRequest) -> Raw | None:
        """``/get_server_info`` and ``/metrics``."""
        model = self._engine.model
        match request.path.partition("?")[0]:
            case "/get_server_info":
                sizes = {
                    "max_total_num_tokens": model.serving.capacity,
                    "page_size": model.serving.block,
                    "max_running_requests": model.serving.slots,
                }
                return as_json({"model_path": self._name, **sizes})
            case "/metrics":
                return prometheus(self._metrics(), f'model_name="{self._name}"')
        return None

    def _metrics(self) -> Mapping[str, float]:
        model = self._engine.model
        return {
            "sglang:num_running_reqs": model.running,
            "sglang:num_queue_reqs": model.waiting,
            "sglang:num_used_tokens": model.used,
            "sglang:token_usage": model.used / model.serving.capacity,
            "sglang:cache_hit_rate": model.hits / max(1, model.queries),
            "sglang:prompt_tokens_total": model.queries,
            "sglang:generation_tokens_total": self._engine.generated,
        }


def prometheus(metrics: Mapping[str, float], labels: str = "") -> Raw:
    """A page of metrics; a name may bring labels of its own."""
    lines = []
    for name, value in metrics.items():
        bare, _, own = name.partition("{")
        lines.append(f"# TYPE {bare} {'counter' if bare.endswith('_total') else 'gauge'}")
        listed = ",".join(filter(None, [own.removesuffix("}"), labels]))
        lines.append(f"{bare}{{{listed}}} {value}" if listed else f"{bare} {value}")
    body = "\n".join([*lines, ""]).encode()
    return Raw(body, content_type="text/plain; version=0.0.4; charset=utf-8")


def as_json(data: Any, status: int = 200) -> Raw:
    """A page of JSON."""
    return Raw(json.dumps(data).encode(), status, "application/json")
