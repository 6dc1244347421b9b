"""What holds of the serving model whatever it is given to serve."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from agentflow.testing import Change, Serving, ServingModel
from agentflow.testing.serving_blocks import BlockPool

BLOCK = 4


@dataclass(frozen=True)
class Job:
    """A request of a random load: one of a few conversations, continued or branched off."""

    gap: float
    branch: str
    prompt: int
    output: int
    written: bool
    priority: int
    leaves: float | None

    def keys(self) -> list[str]:
        """Chained: the conversations of a branch begin alike, those of its forks a while too."""
        blocks = (self.prompt + self.output) // BLOCK
        return [f"{self.branch[: 1 + index // 5]}{index}" for index in range(blocks)]


jobs = st.builds(
    Job,
    gap=st.sampled_from([0.0, 0.0, 0.05, 0.3, 2.0]),
    branch=st.text("ab", min_size=4, max_size=4),
    prompt=st.integers(1, 60),
    output=st.integers(1, 30),
    written=st.booleans(),
    priority=st.sampled_from([0, 0, 0, -1, 3]),
    leaves=st.sampled_from([None, None, None, 0.0, 0.11, 1.0]),
)
loads = st.lists(jobs, min_size=1, max_size=25)
servings = st.builds(
    Serving,
    prefill=st.sampled_from([50.0, 997.0]),
    step=st.sampled_from([0.02, 0.1]),
    per_sequence=st.sampled_from([0.0, 0.007]),
    per_context=st.sampled_from([0.0, 0.0003]),
    chunk=st.sampled_from([8, 512]),
    capacity=st.sampled_from([89, 120, 400]),
    block=st.just(BLOCK),
    slots=st.sampled_from([1, 3, 256]),
)


def events(load: list[Job]) -> list[tuple[float, int, Job, bool]]:
    """(when, number, request, whether it comes) in order."""
    at, happening = 0.0, []
    for number, job in enumerate(load):
        at += job.gap
        happening.append((at, number, job, True))
        if job.leaves is not None:
            happening.append((at + job.leaves, number, job, False))
    return sorted(happening, key=lambda event: event[:2])


def serve(
    serving: Serving, load: list[Job], looks: list[float]
) -> tuple[list[Change], ServingModel]:
    """Serve it all, looking in between at those times too."""
    model, changes = ServingModel(serving), []
    for at, number, job, comes in events(load):
        for look in looks:
            changes += model.advance(at - look)
        if comes:
            full = job.prompt // BLOCK
            keys = job.keys()
            model.submit(
                number,
                keys[:full],
                job.prompt,
                job.output,
                at,
                written=keys[full:] if job.written else (),
                priority=job.priority,
            )
        else:
            model.cancel(number, at)
        check(model, load)
    while (next_change := model.next_change()) is not None:
        changes += model.advance(next_change)
        check(model, load)
    return changes, model


def check(model: ServingModel, load: list[Job]) -> None:
    """What holds at every moment."""
    assert 0 <= model.used <= model.serving.capacity
    assert 0 <= model.resident <= model.serving.capacity
    assert 0 <= model.hits <= model.queries
    assert model.running <= model.serving.slots
    for job in load:
        keys = job.keys()
        there = [model.found([key]) for key in keys]
        assert sum(there) == model.found(keys), "what is kept is not a whole prefix"


@given(servings, loads)
def test_every_request_that_stays_is_served_once(serving: Serving, load: list[Job]) -> None:
    changes, model = serve(serving, load, [])
    seen = Counter((change.number, change.kind) for change in changes)
    for number, job in enumerate(load):
        assert seen[number, "first"] <= 1
        assert seen[number, "finished"] <= 1
        if job.leaves is None:
            assert seen[number, "first"] == seen[number, "finished"] == 1
            assert seen[number, "started"] == 1 + seen[number, "preempted"]
    assert (model.waiting, model.running, model.used) == (0, 0, 0)


@given(servings, loads)
def test_changes_come_in_order_and_tell_what_was_done(serving: Serving, load: list[Job]) -> None:
    changes, _ = serve(serving, load, [])
    assert changes == sorted(changes, key=lambda change: change.at)
    for change in changes:
        job = load[change.number]
        assert change.cached % BLOCK == 0
        assert change.cached < job.prompt
        assert 0 <= change.made <= job.output
        if change.kind == "finished":
            assert change.made == job.output


@given(servings, loads, st.lists(st.sampled_from([0.31, 0.17, 0.05, 0.001, 0.0])))
def test_it_does_not_matter_how_often_one_looks(
    serving: Serving, load: list[Job], looks: list[float]
) -> None:
    assert serve(serving, load, sorted(looks, reverse=True))[0] == serve(serving, load, [])[0]


@given(loads)
def test_more_room_serves_no_token_anew(load: list[Job]) -> None:
    """With room for all, whatever came before is found: only its own last block may be missing."""
    stay = [job for job in load if job.leaves is None]
    serving = Serving(prefill=100, step=0.1, capacity=10_000, block=BLOCK, slots=1)
    changes, model = serve(serving, stay, [])
    known: set[str] = set()
    for change in changes:
        job = stay[change.number]
        keys = job.keys()[: job.prompt // BLOCK]
        if change.kind == "started":
            usable = keys[: (job.prompt - 1) // BLOCK]
            assert change.cached == BLOCK * sum(key in known for key in usable)
        elif change.kind == "finished":
            computed = (job.prompt + job.output - 1) // BLOCK
            known.update(job.keys()[:computed] if job.written else keys)
    assert model.resident == BLOCK * len(known)
    assert model.preemptions == 0


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 12), st.booleans()), max_size=40))
def test_blocks_are_neither_lost_nor_made(steps: list[tuple[int, int, bool]]) -> None:
    pool = BlockPool(40)
    holding: list[tuple[list[str], int]] = []
    for branch, blocks, leaves in steps:
        keys = [f"{branch}.{index}" for index in range(blocks)]
        there = pool.found(keys)
        missing = blocks - there + 1
        if missing + there - pool.shared(keys[:there]) <= pool.available:
            pool.hold(keys[:there])
            pool.take(missing)
            for key in keys[there:]:
                pool.name(key)
            holding.append((keys, 1))
        elif leaves and holding:
            pool.release(*holding.pop(0))
        held = {key for keys, _ in holding for key in keys}
        assert pool.held == len(held) + len(holding)
        assert pool.available == 40 - pool.held
        assert pool.resident + pool.private <= 40
        assert pool.resident >= len(held)
    for keys, private in holding:
        pool.release(keys, private)
    assert (pool.held, pool.private) == (0, 0)
