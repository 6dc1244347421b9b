"""A model of one serving engine: continuous batching, chunked prefill, a finite KV cache.

It follows vLLM's scheduler. In each step every running request makes a token, and one prompt is
worked off in chunks beside them; the next request starts when that prompt is done and its own
fits into the KV cache beside what the running requests hold. Between two changes the model is a
fluid: it computes in closed form when the next one comes, so its cost does not grow with tokens.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Literal

from agentflow.testing.serving_blocks import BlockPool
from agentflow.testing.serving_requests import Request
from agentflow.testing.serving_steps import Steps

ChangeKind = Literal["started", "first", "finished", "preempted"]

_TINY = 1e-9  # of a token: what rounding may have taken


@dataclass(frozen=True, slots=True)
class Serving:
    """Rates and sizes of one serving engine.

    Attributes:
        prefill: Prompt tokens computed in a second.
        step: Seconds a decode step takes, however small the batch.
        per_sequence: Seconds more for each further sequence in the batch.
        per_context: Seconds more for each token of context the batch attends to.
        chunk: Prompt tokens worked off in one step at most.
        capacity: Tokens of KV there is room for.
        block: Tokens in a block of KV.
        slots: Requests that run at once at most.
    """

    prefill: float
    step: float
    per_sequence: float = 0.0
    per_context: float = 0.0
    chunk: int = 512
    capacity: int = 131_072
    block: int = 16
    slots: int = 256

    def __post_init__(self) -> None:
        for name in ("prefill", "step", "chunk", "capacity", "block", "slots"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"Serving({name}={getattr(self, name)!r}): must be above 0")


@dataclass(frozen=True, slots=True)
class Change:
    """Something that happened to a request.

    Attributes:
        at: When, in seconds.
        number: Of the request.
        kind: ``started`` (its prompt is looked up and begun; again after a preemption), ``first``
            (its first token), ``finished``, or ``preempted`` (it lost its room and waits again).
        cached: Tokens of its prompt that were found when it first started.
        made: Tokens made so far.
    """

    at: float
    number: int
    kind: ChangeKind
    cached: int
    made: int


class ServingModel:
    """One serving engine. Times are seconds on any clock that does not go back.

    Args:
        serving: Its rates and sizes.

    Attributes:
        serving: Its rates and sizes.
        queries: Prompt tokens looked up in the cache so far.
        hits: Those of them that were found.
        preemptions: How often a request lost its room.
    """

    def __init__(self, serving: Serving) -> None:
        self.serving = serving
        self.queries = 0
        self.hits = 0
        self.preemptions = 0
        self._blocks = BlockPool(serving.capacity // serving.block)
        self._steps = Steps()
        self._requests: dict[int, Request] = {}
        self._queue: list[tuple[int, int, Request]] = []  # by priority, then arrival
        self._prefilling: Request | None = None
        self._decoding: dict[int, Request] = {}
        self._due: list[tuple[float, int, int, Request]] = []  # steps at which one decoding is due
        self._arrivals = 0
        self._changes: list[Change] = []

    @property
    def waiting(self) -> int:
        """Requests that have not started, or have lost their room."""
        return len(self._requests) - self.running

    @property
    def running(self) -> int:
        """Requests that hold room."""
        return len(self._decoding) + (self._prefilling is not None)

    @property
    def used(self) -> int:
        """Tokens of KV that running requests hold, in whole blocks."""
        return self._blocks.held * self.serving.block

    @property
    def resident(self) -> int:
        """Tokens that a prompt could find in the cache; a prompt's own count once it is done."""
        return self._blocks.resident * self.serving.block

    def found(self, blocks: Sequence[Hashable]) -> int:
        """How many of a prompt's first blocks are in the cache now."""
        return self._blocks.found(blocks)

    def submit(
        self,
        number: int,
        blocks: Sequence[Hashable],
        prompt: int,
        output: int,
        now: float,
        *,
        written: Sequence[Hashable] = (),
        priority: int = 0,
    ) -> None:
        """Take a request.

        Args:
            number: A name for it, free again when it has ended.
            blocks: Keys of the full blocks of its prompt; each stands for all before it too.
            prompt: Tokens of its prompt.
            output: Tokens it will make, at least one.
            now: The time.
            written: Keys of the blocks that prompt and output fill beyond `blocks`.
            priority: Lower goes first.

        Raises:
            ValueError: It can never be served, or what is said of it is contradictory.
        """
        request = Request(number, (*blocks, *written), prompt, output, priority)
        self._run(now)
        self._check(request, len(blocks))
        request.arrival = self._arrivals = self._arrivals + 1
        self._requests[number] = request
        heappush(self._queue, request.turn())
        self._admit(now)

    def cancel(self, number: int, now: float) -> None:
        """Let go of a request; nothing happens if it has ended."""
        self._run(now)
        request = self._requests.pop(number, None)
        if request is None:
            return
        if self._holds_room(request):
            self._leave(request, now, self._steps.by(now))
        self._admit(now)

    def next_change(self) -> float | None:
        """When to call `advance` next: nothing changes before; None while nothing will at all."""
        if self._changes:
            return self._changes[0].at
        steps = self._next()
        return None if steps is None else self._steps.when(steps)

    def advance(self, now: float) -> list[Change]:
        """Let time pass and return what has happened since the last call, in order."""
        self._run(now)
        changes, self._changes = self._changes, []
        return changes

    def due(self, number: int, made: int) -> float | None:
        """When a request will have made that many tokens if nothing changes until then.

        None: it waits, or its prompt is not done and `made` is not its next token.
        """
        request = self._requests[number]
        if request is self._prefilling:
            return self._steps.when(request.end) if made == request.made + 1 else None
        if number in self._decoding:
            return self._steps.when(request.begun + made - request.made)
        return None

    def drop_cache(self, blocks: Iterable[Hashable] | None = None) -> None:
        """Forget these blocks, or all, as far as no running request holds them."""
        self._blocks.forget(blocks)

    def load(self, blocks: Sequence[Hashable]) -> None:
        """Put a sequence into the cache that was computed elsewhere, as far as there is room."""
        self._blocks.load(blocks)

    def _check(self, request: Request, blocks: int) -> None:
        where = f"request {request.number}"
        if request.number in self._requests:
            raise ValueError(f"{where}: there is one of that number already")
        if request.prompt < 1 or request.output < 1:
            raise ValueError(f"{where}: needs at least one token of prompt and one of output")
        if blocks * self.serving.block > request.prompt:
            raise ValueError(f"{where}: {request.prompt} tokens do not fill {blocks} blocks")
        if self._blocks_for(request.last) > self._blocks.total:
            raise ValueError(
                f"{where}: {request.last} tokens never fit into the KV cache"
                f" ({self.serving.capacity} tokens)"
            )

    def _blocks_for(self, tokens: int) -> int:
        return -(-tokens // self.serving.block)

    def _is_here(self, request: Request) -> bool:
        return self._requests.get(request.number) is request

    def _holds_room(self, request: Request) -> bool:
        return request is self._prefilling or request.number in self._decoding

    def _next(self) -> float | None:
        """The steps that will have been made when something is due."""
        while self._due and self._due[0][2] != self._due[0][3].stint:
            heappop(self._due)  # of one that has left since
        decode = self._due[0][0] if self._due else None
        if self._prefilling is None:
            return decode
        return self._prefilling.end if decode is None else min(decode, self._prefilling.end)

    def _run(self, now: float) -> None:
        """Let everything happen that is due."""
        while (steps := self._next()) is not None and (at := self._steps.when(steps)) <= now:
            if self._due and self._due[0][0] == steps:
                self._decoded(heappop(self._due)[3], at, steps)
            elif self._prefilling is not None:
                self._prefilled(self._prefilling, at, steps)

    def _admit(self, at: float) -> None:
        """Start who is next, if no prompt is being worked off and there is room."""
        while self._queue and not self._is_here(self._queue[0][2]):
            heappop(self._queue)  # it was cancelled
        if self._prefilling is not None or not self._queue or self.running >= self.serving.slots:
            return
        request = self._queue[0][2]
        block = self.serving.block
        usable = request.keys[: (request.known - 1) // block]  # the last token is always computed
        found = usable[: self._blocks.found(usable)]
        needed = self._blocks_for(request.known)
        if needed - self._blocks.shared(found) > self._blocks.available:
            return
        heappop(self._queue)
        self._blocks.hold(found)
        self._blocks.take(needed - len(found))
        request.named, request.blocks = len(found), needed
        self._start(request, at, len(found) * block)

    def _start(self, request: Request, at: float, cached: int) -> None:
        if request.cached is None:
            request.cached = cached
            self.queries += request.prompt
            self.hits += cached
        steps = self._steps.by(at)
        request.end = steps + (request.known - cached) / self.serving.chunk
        self._prefilling = request
        self._rebase(at, steps)
        self._note(request, "started", at)

    def _prefilled(self, request: Request, at: float, steps: float) -> None:
        """Its prompt is computed, and with it one more token."""
        self._prefilling = None
        self._name(request, request.known)
        request.made += 1
        request.begun = steps
        if request.made == 1:
            self._note(request, "first", at)
        if request.made == request.output:
            self._finish(request, at, steps)
            return
        self._decoding[request.number] = request
        self._await(request)
        self._rebase(at, steps)
        self._admit(at)

    def _await(self, request: Request) -> None:
        """Note when it fills its last block or, with no more to come after that, ends."""
        full = request.blocks * self.serving.block
        until = min(full, request.last) - (request.known - 1)
        entry = (request.begun + until, request.arrival, request.stint, request)
        heappush(self._due, entry)

    def _decoded(self, request: Request, at: float, steps: float) -> None:
        """It has come to the end of its last block, or of itself."""
        full = request.blocks * self.serving.block
        if full >= request.last:
            request.made = request.output
            self._finish(request, at, steps)
            return
        self._name(request, full)
        while not self._blocks.available and self._holds_room(request):
            self._preempt(at, steps)
        if self._holds_room(request):
            self._blocks.take(1)
            request.blocks += 1
            self._await(request)
        self._admit(at)

    def _finish(self, request: Request, at: float, steps: float) -> None:
        del self._requests[request.number]
        self._free(request, request.last)
        self._rebase(at, steps)
        self._note(request, "finished", at)
        self._admit(at)

    def _preempt(self, at: float, steps: float) -> None:
        """Take the room of who would be served last; it waits again and computes all anew."""
        running = [*self._decoding.values(), *filter(None, [self._prefilling])]
        newest = max(running, key=Request.turn)
        self._leave(newest, at, steps)
        heappush(self._queue, newest.turn())
        self.preemptions += 1
        self._note(newest, "preempted", at)

    def _leave(self, request: Request, at: float, steps: float) -> None:
        """It stops before its end; what is computed can be found until its room is needed."""
        if request is self._prefilling:
            computed = request.known - (request.end - steps) * self.serving.chunk
        else:
            request.made += int(steps - request.begun + _TINY)
            computed = request.known - 1
        self._free(request, int(computed + _TINY))
        self._rebase(at, steps)

    def _name(self, request: Request, computed: int) -> None:
        """Let the blocks be found that are full by now."""
        full = min(computed // self.serving.block, len(request.keys))
        for key in request.keys[request.named : full]:
            self._blocks.name(key)
        request.named = max(request.named, full)

    def _free(self, request: Request, computed: int) -> None:
        self._name(request, computed)
        self._blocks.release(request.keys[: request.named], request.blocks - request.named)
        request.named = request.blocks = 0
        request.stint += 1
        self._decoding.pop(request.number, None)
        if request is self._prefilling:
            self._prefilling = None

    def _rebase(self, at: float, steps: float) -> None:
        """The batch has changed, and with it what a step takes."""
        serving, batch = self.serving, self._decoding.values()
        cost = growth = 0.0
        if batch:
            context = sum(request.known - 1 + steps - request.begun for request in batch)
            cost += serving.step + serving.per_sequence * (len(batch) - 1)
            cost += serving.per_context * context
            growth = serving.per_context * len(batch)
        if self._prefilling is not None:
            cost += serving.chunk / serving.prefill
        self._steps.change(at, steps, cost, growth)

    def _note(self, request: Request, kind: ChangeKind, at: float) -> None:
        change = Change(at, request.number, kind, request.cached or 0, request.made)
        self._changes.append(change)
