"""Requests as jobs: what a pool knows of a request before it is sent, and learns after."""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass
from itertools import count

from agentflow.caches.affinity.dispatcher import Dispatcher
from agentflow.caches.affinity.jobs import Job
from agentflow.caches.affinity.prompts import BLOCK_BYTES
from agentflow.clock import now
from agentflow.context import remaining
from agentflow.errors import BackendError
from agentflow.executor.affinity.chains import Chains
from agentflow.executor.affinity.stream import Placed
from agentflow.executor.models.base import ChatRequest, Usage

EXPECTED = 200.0
"""Tokens that a reply is taken to have before there was one."""

MEMORY = 0.9
"""Weight of earlier replies in what the next one is expected to take."""

BROKEN = 256
"""Requests whose replies broke off that are remembered, until they are asked again."""

CHANGED = 0.02
"""Share by which the size of a token has to differ before blocks are measured anew."""


@dataclass(slots=True, eq=False)
class Call:
    """A request on its way through a pool.

    Attributes:
        request: What was asked.
        job: The same as the dispatcher sees it.
        size: Bytes of its prompt's text.
        until: Loop time at which nobody waits for it any more.
        placed: How it came where it is, all attempts together.
        rounds: How often every replica has failed it.
        broken_since: When it was first answered that a server is broken, on the loop's clock.
        error: What it failed with last.
    """

    request: ChatRequest
    job: Job
    size: int
    until: float
    placed: Placed
    rounds: int = 0
    broken_since: float = math.inf
    error: BackendError | None = None


class Intake:
    """Makes jobs of requests, and learns from replies what to expect of the next ones.

    Args:
        dispatcher: Knows the sessions.
    """

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher
        self._chains = Chains()
        self._numbers = count(1)
        self._output = EXPECTED
        self._broken: OrderedDict[int, tuple[ChatRequest, frozenset[str]]] = OrderedDict()
        self._resize()

    def call(self, request: ChatRequest, *, optional: bool = False) -> Call:
        """What a request is to the pool; `optional` if it only makes a later one faster."""
        number, at, tag = next(self._numbers), now(), request.session
        prompt, size = self._chains.prompt(request, None if tag is None else tag.id)
        _, avoid = self._broken.get(id(request), (None, frozenset[str]()))
        left = remaining()
        until = math.inf if left is None else at + left
        if tag is None:
            output = min(self._output, request.max_tokens)
            name = f"request {number}"
            job = Job(number, name, prompt, output, at, optional=optional, avoid=avoid)
            return Call(request, job, size, until, Placed())
        job = Job(
            number,
            tag.id,
            prompt,
            self._expected(tag.id, request.max_tokens),
            arrived=at,
            program=-math.inf if tag.began is None else tag.began,
            tenant=tag.tenant,
            kind=tag.kind,
            deadline=tag.deadline,
            remaining=tag.remaining,
            returns=not optional and self._dispatcher.fleet.returns.expected(tag.kind),
            optional=optional,
            avoid=avoid,
        )
        until = min(until, math.inf if tag.deadline is None else tag.deadline)
        return Call(request, job, size, until, Placed())

    def broke(self, request: ChatRequest, replica: str) -> None:
        """A reply broke off at a replica; whoever asks for it again should not go there."""
        _, names = self._broken.pop(id(request), (None, frozenset[str]()))
        self._broken[id(request)] = (request, names | {replica})
        if len(self._broken) > BROKEN:
            self._broken.popitem(last=False)

    def learn(self, call: Call, used: Usage) -> None:
        """A reply has come to its end."""
        self._broken.pop(id(call.request), None)
        self._output = MEMORY * self._output + (1 - MEMORY) * used.completion_tokens
        if not used.estimated:
            self._chains.learn(call.size, used.prompt_tokens)
            self._resize()

    def forget(self, session: str) -> None:
        """A session asks nothing more."""
        self._chains.forget(session)

    def _expected(self, session: str, at_most: int) -> float:
        known = self._dispatcher.fleet.sessions.get(session)
        output = self._output if known is None or known.output is None else known.output
        return min(output, at_most)

    def _resize(self) -> None:
        block = BLOCK_BYTES * self._chains.tokens_per_byte
        if abs(block - self._dispatcher.fleet.block) > CHANGED * block:
            self._dispatcher.resize(block)
