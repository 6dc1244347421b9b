"""llama.cpp's server: each of its slots keeps the last sequence it worked on, and nothing is shared."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from operator import eq
from typing import Any

from agentflow.testing.answering import Service
from agentflow.testing.app import HttpRequest
from agentflow.testing.replicas_engine import Engine, Turn
from agentflow.testing.replicas_fronts import Front, as_json, prometheus
from agentflow.testing.replicas_prompts import Work
from agentflow.testing.replies import Fault, Raw, Usage
from agentflow.testing.serving import Serving

SWAP = 35_000.0
"""Tokens a second that a slot saves or restores; its README tells of 1,745 in 50 ms."""

_TOKEN_BYTES = 8_192
_SIMILAR = 0.1  # --slot-prompt-similarity
_SLOT = re.compile(r"/slots/(\d+)\?action=(save|restore|erase)")


@dataclass(slots=True, eq=False)
class Slot:
    """One slot.

    Attributes:
        id: Its number.
        keys: Chained blocks of the sequence it holds.
        busy: Somebody has it.
        used: When it was last given back, as a count.
    """

    id: int
    keys: list[bytes] = field(default_factory=list)
    busy: bool = False
    used: int = 0

    def shared(self, keys: Sequence[bytes]) -> int:
        """Blocks that it would not have to compute."""
        return sum(map(eq, self.keys, keys))  # keys are chained: after one differs, all do

    def tagged(self, start: int = 0) -> list[tuple[int, bytes]]:
        """Its blocks from there on, as the engine knows them: no other slot's."""
        return [(self.id, key) for key in self.keys[start:]]


class Slots:
    """Gives slots to requests: the one that holds most of the prompt, or the one unused longest."""

    def __init__(self, count: int) -> None:
        self.all = [Slot(number) for number in range(count)]
        self._deferred: list[tuple[int, asyncio.Future[Slot]]] = []
        self._releases = 0

    @property
    def busy(self) -> int:
        """Slots that somebody has."""
        return sum(slot.busy for slot in self.all)

    @property
    def deferred(self) -> int:
        """Requests that wait for a slot."""
        return len(self._deferred)

    async def take(self, keys: Sequence[bytes], wanted: int = -1) -> Slot:
        """Take a slot, or that one, as soon as it is free; whoever came first goes first."""
        slot = self._free(keys, wanted)
        if slot is not None:
            slot.busy = True
            return slot
        given: asyncio.Future[Slot] = asyncio.get_running_loop().create_future()
        self._deferred.append((wanted, given))
        try:
            return await given
        except asyncio.CancelledError:
            if (wanted, given) in self._deferred:
                self._deferred.remove((wanted, given))
            else:
                self.release(given.result())
            raise

    def release(self, slot: Slot) -> None:
        """Give it back; it goes to the first who waits for it."""
        self._releases += 1
        slot.used = self._releases
        for wanted, given in self._deferred:
            if wanted in (-1, slot.id) and not given.cancelled():
                self._deferred.remove((wanted, given))
                given.set_result(slot)
                return
        slot.busy = False

    def _free(self, keys: Sequence[bytes], wanted: int) -> Slot | None:
        free = [slot for slot in self.all if not slot.busy and wanted in (-1, slot.id)]
        if not free:
            return None
        best = max(free, key=lambda slot: slot.shared(keys))
        if best.shared(keys) > _SIMILAR * len(keys):
            return best
        return min(free, key=lambda slot: slot.used)


class LlamaCpp(Front):
    """llama.cpp's server, started with ``--metrics``, ``--slots`` and ``--slot-save-path``."""

    fields = frozenset(
        {"id_slot", "cache_prompt", "n_keep", "n_predict", "return_progress", "top_k", "min_p"}
    )

    def __init__(self, engine: Engine, name: str, *, priorities: bool) -> None:
        super().__init__(engine, name, priorities=priorities)
        self._slots = Slots(engine.model.serving.slots)
        self._files: dict[str, list[bytes]] = {}

    @property
    def context(self) -> int:
        """Tokens in a slot."""
        serving = self._engine.model.serving
        return serving.capacity // serving.slots // serving.block * serving.block

    async def page(self, request: HttpRequest) -> Raw | None:
        """``/slots``, what can be done with one, ``/props`` and ``/metrics``."""
        match request.path:
            case "/slots":
                return as_json([self._told(slot) for slot in self._slots.all])
            case "/props":
                settings = {"default_generation_settings": {"n_ctx": self.context}}
                total = {"total_slots": len(self._slots.all), "endpoint_slots": True}
                return as_json({**settings, **total, "model_alias": self._name})
            case "/metrics":
                return prometheus(self._metrics())
        if request.method == "POST" and (action := _SLOT.fullmatch(request.path)):
            return await self._act(int(action[1]), action[2], request.body)
        return None

    def restart(self, serving: Serving | None = None, priorities: bool | None = None) -> None:
        """Begin anew; what was saved is still there."""
        super().restart(serving, priorities)
        self._slots = Slots(self._engine.model.serving.slots)

    async def take(self, work: Work) -> tuple[Slot, Turn]:
        """Wait for a slot and begin there."""
        block = self._engine.model.serving.block
        blocks, written = work.keys(block, "")
        slots = self._slots
        slot = await slots.take(blocks, work.body.get("id_slot", -1))
        kept = slot.shared(blocks) if work.body.get("cache_prompt", True) else 0
        self._engine.model.drop_cache(slot.tagged(kept))
        slot.keys = [*blocks, *written]
        tagged, full = slot.tagged(), len(blocks)
        try:
            turn = self._engine.begin(
                tagged[:full], len(work.prompt), work.output, written=tagged[full:]
            )
        except BaseException:
            slots.release(slot)
            raise
        return slot, turn

    def give_back(self, slot: Slot, turn: Turn) -> None:
        """The request has ended, or nobody waits for it any longer."""
        self._engine.leave(turn)
        self._slots.release(slot)

    @contextmanager
    def _serve(self, work: Work) -> Iterator[Service]:
        turn = _SlotTurn(self, work, self._engine.size)
        try:
            yield turn
        finally:
            turn.leave()

    async def _act(self, number: int, action: str, body: bytes) -> Raw:
        if number >= len(self._slots.all):
            return Fault.status(400, "Invalid slot ID")
        filename = json.loads(body or b"{}").get("filename")
        if action == "restore" and filename not in self._files:
            return Fault.status(400, "Unable to restore slot: invalid slot save file")
        slots = self._slots
        slot = await slots.take((), number)
        try:
            return as_json({"id_slot": number, **await self._done(slot, action, filename)})
        finally:
            slots.release(slot)

    async def _done(self, slot: Slot, action: str, filename: str) -> Mapping[str, Any]:
        """Do it, and tell what was done."""
        model = self._engine.model
        if action == "save":
            self._files[filename] = slot.keys[: model.found(slot.tagged())]
        else:
            erased = model.found(slot.tagged())
            model.drop_cache(slot.tagged())
            slot.keys = []
        if action == "erase":
            return {"n_erased": erased * model.serving.block}
        keys = self._files[filename]
        tokens = len(keys) * model.serving.block
        await asyncio.sleep(tokens / SWAP)
        if action == "restore":
            slot.keys = list(keys)
            model.load(slot.tagged())
        done, moved = ("saved", "written") if action == "save" else ("restored", "read")
        timings = {f"{action}_ms": 1000 * tokens / SWAP}
        counts = {f"n_{done}": tokens, f"n_{moved}": tokens * _TOKEN_BYTES}
        return {"filename": filename, **counts, "timings": timings}

    def _told(self, slot: Slot) -> Mapping[str, Any]:
        held = self._engine.model.found(slot.tagged()) * self._engine.model.serving.block
        sizes = {"n_ctx": self.context, "n_prompt_tokens": held}
        return {"id": slot.id, "is_processing": slot.busy, **sizes}

    def _metrics(self) -> Mapping[str, float]:
        model = self._engine.model
        return {
            "llamacpp:requests_processing": self._slots.busy,
            "llamacpp:requests_deferred": self._slots.deferred,
            "llamacpp:prompt_tokens_total": model.queries - model.hits,
            "llamacpp:prompt_tokens_cached_total": model.hits,
            "llamacpp:tokens_predicted_total": self._engine.generated,
            "llamacpp:prompt_tokens_seconds": model.serving.prefill,
            "llamacpp:predicted_tokens_seconds": 1 / model.serving.step,
        }


class _SlotTurn:
    """One request that may have to wait for a slot: a `Service`."""

    def __init__(self, front: LlamaCpp, work: Work, size: int) -> None:
        self.size = size
        self.limit: int | None = work.output
        self._front = front
        self._work = work
        self._place: tuple[Slot, Turn] | None = None

    @property
    def _turn(self) -> Turn:
        assert self._place is not None, "nothing is said before the first token"
        return self._place[1]

    async def first(self) -> None:
        self._place = await self._front.take(self._work)
        await self._turn.first()

    async def tokens(self, count: int) -> None:
        await self._turn.tokens(count)

    def catch_up(self) -> None:
        """Nothing to catch up: the whole answer was known when it began."""

    def usage(self, completion_tokens: int) -> Usage:
        return self._turn.usage(completion_tokens)

    def leave(self) -> None:
        if self._place is not None:
            self._front.give_back(*self._place)
