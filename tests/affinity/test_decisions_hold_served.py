"""Decisions beside modelled servers: whole loads are served, in order and in fair shares."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from heapq import heappop, heappush
from itertools import count

import pytest

from agentflow.caches.affinity.completion import EarliestCompletion
from agentflow.caches.affinity.dispatcher import Dispatcher
from agentflow.caches.affinity.jobs import Job, Pause, Send
from agentflow.caches.affinity.policies import LeastLoaded, Policy, Sticky
from agentflow.caches.affinity.prompts import Prompt
from agentflow.testing import Serving, ServingModel

BLOCK = 16
SERVING = Serving(
    prefill=4000.0, step=0.02, per_sequence=0.001, capacity=16_000, block=BLOCK, slots=16
)
POLICIES: list[Callable[[], Policy]] = [EarliestCompletion, LeastLoaded, Sticky]


@dataclass(frozen=True)
class Agent:
    """A program that asks, runs a tool, and asks again."""

    name: str
    turns: int = 8
    first: int = 2000
    news: int = 200
    output: int = 40
    pause: Pause | None = None
    tenant: str = ""
    began: float = 0.0

    def keys(self, tokens: int) -> tuple[object, ...]:
        return tuple((self.name, index) for index in range(tokens // BLOCK))


@dataclass
class Play:
    """Agents, a dispatcher and modelled servers, in virtual time.

    Attributes:
        sends: What was sent, in order.
        ended: When each agent had its last answer.
        cached: Tokens that were found in caches.
        asked: Tokens of all prompts.
    """

    policy: Policy
    replicas: int = 2
    serving: Serving = SERVING
    seed: int = 0
    now: float = 0.0
    sends: list[tuple[float, str, str, str]] = field(default_factory=list)
    ended: dict[str, float] = field(default_factory=dict)
    cached: int = 0
    asked: int = 0

    def __post_init__(self) -> None:
        self.dispatcher = Dispatcher(self.policy, block=BLOCK)
        self.servers: dict[str, ServingModel] = {}
        self.chance = random.Random(self.seed)
        self.numbers = count(1)
        self.jobs: dict[int, tuple[Agent, int, Job]] = {}
        self.agenda: list[tuple[float, int, Callable[[], None]]] = []
        self.seen: Callable[[], None] = lambda: None
        for number in range(self.replicas):
            self.join(f"r{number}")

    def join(self, name: str) -> None:
        self.servers[name] = ServingModel(self.serving)
        capacity, slots = self.serving.capacity, self.serving.slots
        self.send(self.dispatcher.join(name, self.now, capacity=capacity, slots=slots))

    def leave(self, name: str) -> None:
        """A replica dies with all that it was doing."""
        del self.servers[name]
        for job in self.dispatcher.leave(name, self.now):
            self.send(self.dispatcher.arrive(job, self.now))

    def at(self, when: float, action: Callable[[], None]) -> None:
        heappush(self.agenda, (when, next(self.numbers), action))

    def start(self, agent: Agent, turn: int = 0) -> None:
        self.at(max(self.now, agent.began), lambda: self.ask(agent, turn))

    def ask(self, agent: Agent, turn: int) -> None:
        tokens = agent.first + turn * (agent.news + agent.output)
        job = Job(
            next(self.numbers), agent.name, Prompt(agent.keys(tokens), tokens), agent.output,
            self.now, agent.began, agent.tenant, returns=turn < agent.turns - 1,
        )  # fmt: skip
        self.jobs[job.number] = (agent, turn, job)
        self.send(self.dispatcher.arrive(job, self.now))

    def send(self, sends: list[Send]) -> None:
        for send in sends:
            agent, _, job = self.jobs[send.job.number]
            self.sends.append((self.now, agent.name, send.replica, send.why))
            tokens = job.prompt.tokens
            written = agent.keys(tokens + agent.output)[len(job.prompt.blocks) :]
            self.servers[send.replica].submit(
                job.number, job.prompt.blocks, tokens, agent.output, self.now, written=written
            )

    def run(self, until: float = 1e6) -> None:
        """Let everything happen."""
        while True:
            times = [server.next_change() for server in self.servers.values()]
            times += [self.agenda[0][0] if self.agenda else None, self.dispatcher.wake_at]
            known = [when for when in times if when is not None]
            if not known:
                return
            self.now = max(self.now, min(known))
            assert self.now < until, f"never sent: {list(self.dispatcher.waiting.values())}"
            self.look()
            self.seen()

    def look(self) -> None:
        for server in list(self.servers.values()):
            for change in server.advance(self.now):
                if change.kind == "first":
                    self.send(self.dispatcher.began(change.number, self.now))
                elif change.kind == "finished":
                    self.answered(change.number, change.cached, change.made)
        while self.agenda and self.agenda[0][0] <= self.now:
            heappop(self.agenda)[2]()
        if (wake := self.dispatcher.wake_at) is not None and wake <= self.now:
            self.send(self.dispatcher.tick(self.now))

    def answered(self, number: int, cached: int, made: int) -> None:
        agent, turn, job = self.jobs.pop(number)
        tokens = job.prompt.tokens
        self.cached += cached
        self.asked += tokens
        self.send(
            self.dispatcher.finished(number, self.now, prompt=tokens, cached=cached, made=made)
        )
        if turn == agent.turns - 1:
            self.ended[agent.name] = self.now
            self.send(self.dispatcher.ended(agent.name, self.now))
            return
        self.send(self.dispatcher.away(agent.name, agent.pause, self.now))
        pause = agent.pause or Pause(0.2, 1.0)
        back = self.now + self.chance.uniform(0.2, 2.0) * pause.p50
        self.at(back, lambda: self.ask(agent, turn + 1))


def crowd(agents: int) -> list[Agent]:
    """Agents of 2,000 to 3,680 tokens, one every 10 ms; a replica holds some five."""
    pause = Pause(0.2, 1.0)
    return [Agent(f"agent {i}", pause=pause, began=0.01 * i) for i in range(agents)]


def played(policy: Policy, agents: list[Agent], replicas: int = 2) -> Play:
    play = Play(policy, replicas)
    for agent in agents:
        play.start(agent)
    play.run()
    return play


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("agents", [1, 6, 40])
def test_everybody_is_served_and_nothing_is_left(policy: Callable[[], Policy], agents: int) -> None:
    play = played(policy(), crowd(agents))

    assert len(play.ended) == agents
    assert len(play.sends) == 8 * agents
    assert not play.dispatcher.fleet.sessions
    for replica in play.dispatcher.fleet.replicas.values():
        assert not (replica.flights or replica.pins.owners or replica.homes)


@pytest.mark.parametrize("policy", POLICIES)
def test_replicas_come_and_go_and_everybody_is_served(policy: Callable[[], Policy]) -> None:
    play = Play(policy(), replicas=3)
    for agent in crowd(30):
        play.start(agent)
    play.at(2.0, partial(play.leave, "r0"))
    play.at(4.0, partial(play.join, "r3"))
    play.at(5.0, partial(play.leave, "r1"))
    play.at(6.0, partial(play.leave, "r2"))
    play.at(9.0, partial(play.join, "r0"))

    play.run()

    assert len(play.ended) == 30
    assert {why for _, _, _, why in play.sends} >= {"new", "home", "lost"}


@pytest.mark.parametrize("policy", POLICIES)
def test_the_same_load_has_the_same_decisions(policy: Callable[[], Policy]) -> None:
    assert played(policy(), crowd(20)).sends == played(policy(), crowd(20)).sends


def test_with_too_many_sessions_whole_ones_wait_and_caches_hold() -> None:
    ours, least = (played(policy(), crowd(40)) for policy in (EarliestCompletion, LeastLoaded))

    assert ours.cached / ours.asked > 0.35
    assert least.cached / least.asked < 0.05
    mean = [sum(play.ended.values()) / 40 for play in (ours, least)]
    assert mean[0] < 0.7 * mean[1]


def test_with_too_many_sessions_older_programs_are_through_first() -> None:
    play = played(EarliestCompletion(), crowd(40))

    order = list(play.ended)
    place = {name: at for at, name in enumerate(order)}
    assert max(abs(place[f"agent {number}"] - number) for number in range(40)) <= 12


def test_sessions_that_fit_are_never_moved() -> None:
    play = played(EarliestCompletion(), crowd(6))

    homes: dict[str, set[str]] = {}
    for _, name, replica, _ in play.sends:
        homes.setdefault(name, set()).add(replica)
    assert all(len(replicas) == 1 for replicas in homes.values())


def test_replicas_that_join_a_crowded_one_take_their_part() -> None:
    play = Play(EarliestCompletion(), replicas=1)
    for agent in crowd(40):
        play.start(agent)
    for name in ("r1", "r2", "r3"):
        play.at(3.0, partial(play.join, name))

    play.run()

    taken = [sum(at > 3.0 and name == r for at, _, r, _ in play.sends) for name in play.servers]
    assert min(taken) > 0.1 * sum(taken)
    assert max(play.ended.values()) < 0.5 * max(
        played(EarliestCompletion(), crowd(40), replicas=1).ended.values()
    )


def test_tenants_that_always_wait_come_apart_by_no_more_than_the_stated_bound() -> None:
    play = Play(EarliestCompletion(), replicas=2)
    for number in range(90):
        tenant = "small" if number % 9 == 0 else "large"
        play.start(Agent(f"agent {number}", pause=Pause(0.2, 1.0), tenant=tenant))
    capacity = play.dispatcher.fleet.capacity
    assert capacity is not None
    apart: list[float] = []

    def look() -> None:
        waiting = {job.tenant for job in play.dispatcher.waiting.values()}
        served = play.dispatcher.fleet.shares.served
        if len(waiting) == 2 and len(served) == 2:
            apart.append(abs(served["small"] - served["large"]))

    play.seen = look
    play.run()

    assert len(apart) > 100
    assert max(apart) <= 3 * capacity  # a quantum of two, and what the fleet holds
