"""The serving model against an engine that makes every single step."""

from __future__ import annotations

import statistics
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from random import Random

import pytest

from agentflow.testing import Serving, ServingModel

STEP = 0.03


@dataclass(frozen=True)
class Job:
    """One request of a load."""

    at: float
    keys: Sequence[Hashable]
    prompt: int
    output: int


@dataclass(eq=False)
class Served:
    """One request at the engine."""

    number: int
    job: Job
    computed: int = 0
    made: int = 0
    cached: int | None = None

    @property
    def goal(self) -> int:
        return self.job.prompt + self.made


@dataclass
class Engine:
    """As vLLM's scheduler does it: each step, who runs gets its tokens first, then who waits."""

    serving: Serving
    now: float = 0.0
    waiting: list[Served] = field(default_factory=list)
    running: list[Served] = field(default_factory=list)
    kept: dict[Hashable, int] = field(default_factory=dict)  # key: when it was let go
    clock: int = 0
    first: dict[int, float] = field(default_factory=dict)
    ended: dict[int, float] = field(default_factory=dict)
    hits: int = 0

    @property
    def total(self) -> int:
        return self.serving.capacity // self.serving.block

    def held(self) -> set[Hashable]:
        """Blocks of those that run, by key; those that have none yet by a name of their own."""
        return {block for each in self.running for block in self.blocks(each, each.goal)}

    def blocks(self, each: Served, tokens: int) -> list[Hashable]:
        size, full = self.serving.block, each.computed // self.serving.block
        keys = [*each.job.keys[:full]]
        return keys + [(each.number, index) for index in range(len(keys), -(-tokens // size))]

    def fits(self, each: Served) -> bool:
        return len(self.held() | set(self.blocks(each, each.goal))) <= self.total

    def let_go(self, each: Served) -> None:
        self.running.remove(each)
        for key in reversed(each.job.keys[: each.computed // self.serving.block]):
            self.clock += 1
            self.kept[key] = self.clock

    def make_room(self) -> None:
        """Preempt while there are too many, then forget what was let go longest ago."""
        while len(held := self.held()) > self.total:
            newest = self.running[-1]
            self.let_go(newest)
            newest.computed = 0
            self.waiting.insert(0, newest)
        kept = sorted((at, key) for key, at in self.kept.items() if key not in held)
        for _, key in kept[: max(0, len(held) + len(kept) - self.total)]:
            del self.kept[key]

    def look_up(self, each: Served) -> None:
        size, there = self.serving.block, 0
        known = self.held() | self.kept.keys()
        while there < (each.goal - 1) // size and each.job.keys[there] in known:
            there += 1
        each.computed = there * size
        if each.cached is None:
            each.cached = each.computed
            self.hits += each.computed

    def step(self) -> None:
        self.make_room()
        decoding = [each for each in self.running if each.made and each.goal - each.computed == 1]
        prefilling = self.prefilling([each for each in self.running if each not in decoding])
        serving = self.serving
        if decoding:
            self.now += serving.step + serving.per_sequence * (len(decoding) - 1)
            self.now += serving.per_context * sum(each.goal for each in decoding)
        self.now += sum(tokens for _, tokens in prefilling) / serving.prefill
        for each, tokens in [*prefilling, *((each, 1) for each in decoding)]:
            each.computed += tokens
            if each.computed == each.goal:
                each.made += 1
                self.first.setdefault(each.number, self.now)
            if each.made == each.job.output:
                self.ended[each.number] = self.now
                self.let_go(each)

    def prefilling(self, begun: list[Served]) -> list[tuple[Served, int]]:
        """Whose prompts are worked off in this step, and how many tokens of each."""
        budget = self.serving.chunk
        work = []
        while budget and (begun or self.start()):
            each = begun.pop(0) if begun else self.running[-1]
            tokens = min(budget, each.goal - each.computed)
            budget -= tokens
            work.append((each, tokens))
        return work

    def start(self) -> bool:
        """Let the next one run, if there is one and it fits."""
        if not self.waiting or len(self.running) == self.serving.slots:
            return False
        self.look_up(self.waiting[0])
        if not self.fits(self.waiting[0]):
            self.waiting[0].computed = 0
            return False
        self.running.append(self.waiting.pop(0))
        self.make_room()
        return True

    def serve(self, load: Sequence[Job]) -> None:
        coming = [Served(number, job) for number, job in enumerate(load)]
        while coming or self.waiting or self.running:
            if not self.waiting and not self.running:
                self.now = max(self.now, coming[0].job.at)
            while coming and coming[0].job.at <= self.now:
                self.waiting.append(coming.pop(0))
            self.step()


def conversations(seed: int, gap: float, size: int) -> list[Job]:
    """Conversations of a few turns each, whose prompts begin alike."""
    random = Random(seed)
    jobs = []
    for number in range(30):
        at, tokens = random.uniform(0, 30 * gap), 200
        for _ in range(random.randint(1, 5)):
            prompt, output = tokens + random.randint(20, 600), random.randint(5, 120)
            tokens = prompt + output
            blocks = range(tokens // size)
            keys = [("system" if index < 12 else number, index) for index in blocks]
            jobs.append(Job(at, keys, prompt, output))
            at += random.uniform(2, 20)
    return sorted(jobs, key=lambda job: job.at)


def modelled(serving: Serving, load: Sequence[Job]) -> tuple[int, list[float], list[float]]:
    """(tokens found, first tokens, ends) as the model has them."""
    model = ServingModel(serving)
    first, ended = [0.0] * len(load), [0.0] * len(load)
    for number, job in enumerate(load):
        full, keys = job.prompt // serving.block, job.keys
        model.submit(number, keys[:full], job.prompt, job.output, job.at, written=keys[full:])
    while (at := model.next_change()) is not None:
        for change in model.advance(at):
            if change.kind == "first":
                first[change.number] = change.at
            elif change.kind == "finished":
                ended[change.number] = change.at
    return model.hits, first, ended


def mean(times: Sequence[float], load: Sequence[Job]) -> float:
    return statistics.fmean(at - job.at for at, job in zip(times, load, strict=True))


def compare(seed: int, gap: float, capacity: int, chunk: int) -> tuple[float, float, float]:
    """How the model differs: cached share, seconds to the first token, completion time relatively."""
    serving = Serving(
        prefill=2000, step=STEP, per_sequence=0.001, per_context=2e-6,
        chunk=chunk, capacity=capacity, slots=64,
    )  # fmt: skip
    load = conversations(seed, gap, serving.block)
    engine = Engine(serving)
    engine.serve(load)
    hits, first, ended = modelled(serving, load)
    exact_first = [engine.first[number] for number in range(len(load))]
    exact_ended = [engine.ended[number] for number in range(len(load))]
    return (
        (hits - engine.hits) / sum(job.prompt for job in load),
        mean(first, load) - mean(exact_first, load),
        mean(ended, load) / mean(exact_ended, load) - 1,
    )


@pytest.mark.parametrize("chunk", [256, 2048])
@pytest.mark.parametrize(("capacity", "gap"), [(100_000, 2.5), (6000, 6.0)])
def test_the_model_is_close_to_an_engine_that_makes_every_step(
    capacity: int, gap: float, chunk: int
) -> None:
    share, first, ended = compare(1, gap, capacity, chunk)
    assert abs(share) < 0.002
    assert -2 * STEP < first < 0  # it waits for no step to end, and its last chunk for no other
    assert -0.02 < ended < 0


@pytest.mark.parametrize("chunk", [256, 2048])
def test_it_is_close_on_average_where_preemptions_make_every_moment_count(chunk: int) -> None:
    shares, _, ended = zip(*(compare(seed, 2.5, 6000, chunk) for seed in range(5)), strict=True)
    assert abs(statistics.fmean(shares)) < 0.01
    assert -0.04 < statistics.fmean(ended) < 0.0
