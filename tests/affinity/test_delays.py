"""Whether requests delay each other at a server is learnt; they are held back only where they do."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count
from typing import Any

import pytest

from agentflow.caches.affinity.completion import AHEAD, EarliestCompletion
from agentflow.caches.affinity.dispatcher import Dispatcher
from agentflow.caches.affinity.jobs import Job, Send
from agentflow.caches.affinity.policies import LeastLoaded
from agentflow.caches.affinity.prompts import Prompt
from agentflow.clock import now
from agentflow.executor.models.base import ChatRequest
from agentflow.testing import Serving

PREFILL = 2000.0
TOKENS = 1000
REPLY = 0.5


class Hosted:
    """Servers that take any number of requests at once."""

    def __init__(self, scatter: float = 0.0) -> None:
        self._scatter, self._random = scatter, random.Random(7)

    def first(self, _name: str, _tokens: float, _now: float) -> float:
        """Seconds until the first token."""
        return 0.7 * self._random.lognormvariate(0.0, self._scatter)


class InTurn:
    """Servers that compute one prompt after the other, as llama.cpp does."""

    def __init__(self) -> None:
        self._until: dict[str, float] = {}

    def first(self, name: str, tokens: float, now: float) -> float:
        """Seconds until the first token."""
        self._until[name] = max(now, self._until.get(name, 0.0)) + tokens / PREFILL
        return self._until[name] + 0.02 - now


class Play:
    """A dispatcher over two servers, in time that only this knows of.

    Attributes:
        held: Seconds for which each job was held back, by its number.
        began: After how many seconds each had its first token.
        most: How many had not begun at a server at once, at most.
        where: How many were sent where.
    """

    def __init__(self, policy: Callable[[], Any] = EarliestCompletion) -> None:
        self.dispatcher = Dispatcher(policy(), block=64)
        for name in "ab":
            self.dispatcher.join(name, 0.0)
        self.server: Hosted | InTurn = Hosted()
        self.now = 0.0
        self.held: dict[int, float] = {}
        self.began: dict[int, float] = {}
        self.most = 0
        self.where: Counter[str] = Counter()
        self._numbers = count(1)
        self._events: list[tuple[float, int, str, Job]] = []

    def burst(self, jobs: int = 100, *, program: float = 0.0, after: float = 0.0) -> list[int]:
        """So many new requests at once; their numbers."""
        at, numbers = self.now + after, [next(self._numbers) for _ in range(jobs)]
        for number in numbers:
            blocks = tuple((number, index) for index in range(TOKENS // 64))
            job = Job(number, f"s{number}", Prompt(blocks, TOKENS), 50.0, at, program)
            heappush(self._events, (at, number, "arrive", job))
        return numbers

    def run(self) -> None:
        """Until everything was answered."""
        while self._events or self.dispatcher.waiting:
            wake = self.dispatcher.wake_at
            if wake is not None and (not self._events or wake < self._events[0][0]):
                self.now = wake
                self._send(self.dispatcher.tick(wake))
                continue
            self.now, _, what, job = heappop(self._events)
            if what == "arrive":
                self._send(self.dispatcher.arrive(job, self.now))
            elif what == "began":
                self.began[job.number] = self.now - job.arrived
                self._send(self.dispatcher.began(job.number, self.now))
            else:
                self._send(self.dispatcher.finished(job.number, self.now, made=50))

    def mean_held(self, numbers: list[int]) -> float:
        """Seconds for which these were held back in the mean."""
        return sum(self.held[number] for number in numbers) / len(numbers)

    def mean_began(self, numbers: list[int]) -> float:
        """Seconds until these had a first token in the mean."""
        return sum(self.began[number] for number in numbers) / len(numbers)

    def _send(self, sends: list[Send]) -> None:
        for send in sends:
            job, replica = send.job, self.dispatcher.fleet.replicas[send.replica]
            self.held[job.number] = self.now - job.arrived
            self.where[send.replica] += 1
            self.most = max(self.most, replica.beginning)
            first = self.now + self.server.first(send.replica, TOKENS, self.now)
            heappush(self._events, (first, job.number, "began", job))
            heappush(self._events, (first + REPLY, job.number, "finished", job))


def test_where_nothing_is_known_nothing_is_held_back() -> None:
    play = Play()

    numbers = play.burst()
    play.run()

    assert max(play.held[number] for number in numbers) == 0.0
    assert play.where == {"a": 50, "b": 50}


@pytest.mark.parametrize("scatter", [0.0, 0.3, 1.0])
def test_servers_that_take_any_number_at_once_are_given_it(scatter: float) -> None:
    play = Play()
    play.server = Hosted(scatter)

    numbers: list[int] = []
    for _ in range(10):
        numbers += play.burst()
        play.run()
        play.now += 10.0

    assert play.mean_held(numbers) < 0.02
    assert max(play.where.values()) < 1.5 * min(play.where.values())


def test_where_prompts_wait_for_each_other_they_wait_in_the_pool() -> None:
    play = Play()
    play.server = InTurn()
    play.burst()
    play.run()
    play.most = 0

    play.burst()
    play.run()

    assert play.most <= 2 + AHEAD * PREFILL / TOKENS
    assert max(play.began.values()) < 1.05 * (50 * TOKENS / PREFILL) + 0.1  # never idle for it


def test_holding_lets_the_older_program_go_first() -> None:
    began = {}
    for policy in (EarliestCompletion, LeastLoaded):
        play = Play(policy)
        play.server = InTurn()
        play.burst()
        play.run()
        play.burst(program=2.0)
        old = play.burst(5, program=1.0, after=1.0)
        play.run()
        began[policy] = play.mean_began(old)

    assert began[EarliestCompletion] < 3.0
    assert began[LeastLoaded] > 20.0


def test_servers_that_change_are_seen_to() -> None:
    play, held = Play(), []
    for server in (Hosted(), InTurn(), Hosted()):
        play.server = server
        for _ in range(2):
            play.burst()
            play.run()
        last = play.burst()
        play.run()
        held.append(play.mean_held(last))

    assert held[0] == 0.0
    assert held[1] > 5.0
    assert held[2] == 0.0


@pytest.mark.virtual
async def test_a_pool_is_as_quick_as_its_servers(world: Any) -> None:
    async def thinks(_call: Any) -> str:
        await asyncio.sleep(0.7)
        return "fine"

    for name in "ab":
        world.replica(name, Serving(prefill=1e9, step=1e-5), thinks)
    pool = world.pool()
    for _ in range(3):
        began = now()
        asked = [pool.complete(asking(f"{n} " + "word " * 200)) for n in range(200)]
        replies = await asyncio.gather(*asked)

        assert now() - began < 0.8
        assert max(reply.held for reply in replies) == 0.0


@pytest.mark.virtual
async def test_a_pool_holds_back_what_a_calibrated_server_would_only_queue(world: Any) -> None:
    llama = Serving(prefill=2000.0, step=0.0022, per_sequence=0.001, per_context=0.65e-6, chunk=128)
    for name in "ab":
        world.replica(name, llama)
    pool, took, held = world.pool(), [], []
    for burst in range(3):
        began = now()
        asked = [pool.complete(asking(f"{burst} {n} " + "word " * 800)) for n in range(60)]
        replies = await asyncio.gather(*asked)
        took.append(now() - began)
        held.append(sum(reply.held for reply in replies) / len(replies))

    assert held[0] < 0.3 * held[2]
    assert took[2] < 1.05 * took[0]


def asking(text: str) -> ChatRequest:
    return ChatRequest(messages=[{"role": "user", "content": text}], max_tokens=20)
