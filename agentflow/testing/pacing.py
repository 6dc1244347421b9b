"""Serves replies at a fixed pace, from a cache that never runs full."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

from agentflow.testing.answering import Given, Service
from agentflow.testing.chat import Exchange
from agentflow.testing.replies import Fault, Pace, Reply, Usage
from agentflow.testing.speech import Pacer
from agentflow.testing.tokens import PrefixCache, tokens


class AtPace:
    """Serves each reply at its own pace, or else at this one."""

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self._prefixes = PrefixCache()

    def __call__(self, exchange: Exchange, given: Given) -> AbstractContextManager[Service]:
        """Serve one answer."""
        reply = given.reply if isinstance(given, Fault) else given
        pace = (reply.pace if isinstance(reply, Reply) else None) or self._pace
        cached = self._prefixes.cached(exchange.call.prompt())
        return nullcontext(_Paced(pace, exchange, cached))


class _Paced(Pacer):
    """One reply at a fixed pace."""

    def __init__(self, pace: Pace, exchange: Exchange, cached: int) -> None:
        super().__init__(pace, exchange.started)
        self.size = pace.tokens_per_chunk
        self.limit = exchange.call.max_tokens
        self._call = exchange.call
        self._cached = cached

    def usage(self, completion_tokens: int) -> Usage:
        return Usage(len(tokens(self._call.prompt())), completion_tokens, self._cached)
