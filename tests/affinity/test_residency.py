"""The model of a prefix cache, beside a cache that knows the truth."""

from __future__ import annotations

import random
from collections import OrderedDict
from collections.abc import Hashable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.caches.affinity.prompts import Prompt
from agentflow.caches.affinity.residency import LEAST, MOST, Residency


class Cache:
    """A prefix cache of a server: whole blocks, least recently used first, last block first."""

    def __init__(self, capacity: float) -> None:
        self.capacity = capacity
        self.blocks: OrderedDict[Hashable, None] = OrderedDict()

    def serve(self, prompt: Prompt) -> int:
        cached = 0
        while cached < len(prompt.blocks) and prompt.blocks[cached] in self.blocks:
            cached += 1
        for block in reversed(prompt.blocks):
            self.blocks[block] = None
            self.blocks.move_to_end(block)
        while len(self.blocks) > self.capacity:
            self.blocks.popitem(last=False)
        return cached


def prompt(branch: str, length: int) -> Prompt:
    """Prompts of branches that begin alike are alike for five blocks a letter."""
    blocks = tuple((branch[: 1 + index // 5], index) for index in range(length))
    return Prompt(blocks, 64 * length)


def talk(name: str, length: int) -> Prompt:
    return Prompt(tuple((name, index) for index in range(length)), 64 * length)


def follow(model: Residency, cache: Cache, asked: Prompt) -> int:
    """One request, and what its reply says; by how many blocks the model was wrong."""
    expected, actual = model.depth(asked), cache.serve(asked)
    model.confirm(expected, actual, model.touch(asked))
    return abs(expected - actual)


prompts = st.builds(prompt, st.text("ab", min_size=4, max_size=4), st.integers(0, 20))


@given(st.lists(prompts, max_size=40), st.sampled_from([16, 23, 40, 1000]))
def test_with_a_known_capacity_it_is_what_the_server_has(asks: list[Prompt], size: int) -> None:
    model, cache = Residency(size), Cache(size)

    assert [follow(model, cache, ask) for ask in asks] == [0] * len(asks)
    assert len(model) == len(cache.blocks)


def test_what_was_used_since_a_prompt_is_counted() -> None:
    model = Residency(100)
    for name, length in (("a", 10), ("b", 20), ("c", 5), ("b", 20)):
        model.touch(talk(name, length))

    assert [model.newer(talk(*known)) for known in (("a", 10), ("b", 20), ("c", 5))] == [25, 0, 20]
    assert model.newer(talk("b", 25)) == len(model) == 35  # its end is not there: all is newer


@given(
    st.lists(st.tuples(prompts, st.integers(-5, 10**9), st.booleans()), max_size=60),
    st.sampled_from([None, 16, 40, 1000]),
)
def test_lies_never_break_it(lies: list[tuple[Prompt, int, bool]], size: float | None) -> None:
    model = Residency(size)

    for asked, actual, stale in lies:
        expected, touched = model.depth(asked), model.touch(asked)
        if stale:
            model.touch(talk("meanwhile", 30))
        model.confirm(expected, actual, touched)

        assert len(model) <= (size or MOST)
        depth = model.depth(asked)
        for length in range(len(asked.blocks)):
            assert model.depth(Prompt(asked.blocks[:length], 0)) == min(length, depth)


@pytest.mark.parametrize("ceiling", [None, 1000])
def test_it_recovers_from_lies_once_it_is_told_the_truth(ceiling: float | None) -> None:
    model, cache, chance = Residency(ceiling), Cache(1000), random.Random(1)
    asks = [talk(str(number), 50) for number in range(30)]
    for ask in chance.choices(asks, k=200):
        model.confirm(model.depth(ask), chance.randrange(51), model.touch(ask))
        cache.serve(ask)

    wrong = [follow(model, cache, ask) for ask in chance.choices(asks, k=2000)]

    assert sum(error > 2 for error in wrong[-500:]) < 50


@pytest.mark.parametrize("share", [1.0, 0.5, 0.2, 0.1])
@pytest.mark.parametrize("ceiling", [None, 10_000])
def test_it_learns_what_others_leave_it(share: float, ceiling: float | None) -> None:
    left = 10_000 * share
    model, cache, chance = Residency(ceiling), Cache(left), random.Random(0)
    asks = [talk(str(number), 100) for number in range(200)]

    for _ in range(4000):
        follow(model, cache, chance.choice(asks))

    assert model.capacity == pytest.approx(left, rel=0.05)


@pytest.mark.parametrize("ceiling", [None, 10_000])
def test_taking_turns_beyond_the_capacity_it_expects_nothing(ceiling: float | None) -> None:
    model, cache = Residency(ceiling), Cache(1000)
    asks = [talk(str(number), 100) for number in range(20)]
    for ask in asks * 5:
        follow(model, cache, ask)

    assert [follow(model, cache, ask) for ask in asks * 3] == [0] * 60


def test_it_learns_that_others_have_left() -> None:
    model, cache, chance = Residency(10_000), Cache(2000), random.Random(0)
    asks = [talk(str(number), 100) for number in range(90)]
    for _ in range(1000):
        follow(model, cache, chance.choice(asks))
    assert model.capacity == pytest.approx(2000, rel=0.12)

    cache.capacity = 10_000
    for _ in range(1000):
        follow(model, cache, chance.choice(asks))

    assert model.capacity is not None
    assert model.capacity >= 9000


def test_surprises_after_a_loss_do_not_make_the_capacity_run_away() -> None:
    model = Residency(1_000_000)
    model.touch(talk("lost", 5000))
    touched = model.touch(talk("lost", 5000))
    model.touch(talk("since", 300_000))
    model.confirm(5000, 0, touched)
    before = model.capacity
    model.forget()

    for number in range(50):
        model.confirm(0, 20, model.touch(talk(str(number), 20)))

    assert before is not None
    assert model.capacity == before < 300_001


def test_a_restart_is_not_taken_for_a_small_cache() -> None:
    model, cache = Residency(10_000), Cache(10_000)
    asks = [talk(str(number), 100) for number in range(90)]
    for ask in asks:
        follow(model, cache, ask)

    cache.blocks.clear()
    follow(model, cache, asks[-1])  # used a moment ago, and gone

    assert model.capacity == 10_000
    assert model.depth(asks[-1]) == 100
    assert all(model.depth(ask) == 0 for ask in asks[:-1])


def test_what_was_evicted_takes_with_it_all_that_is_older() -> None:
    model = Residency()
    old, middle, new = (talk(name, 20) for name in ("old", "middle", "new"))
    for ask in (old, middle, new):
        model.touch(ask)

    model.confirm(20, 0, model.touch(middle))

    assert (model.depth(old), model.depth(middle), model.depth(new)) == (0, 20, 20)


def test_without_a_capacity_it_follows_a_bounded_number_of_blocks() -> None:
    model = Residency()

    for number in range(300):
        model.touch(talk(str(number), 400))

    assert len(model) == MOST


def test_what_the_server_says_it_can_hold_is_the_most() -> None:
    model = Residency()
    model.touch(talk("a", 200))

    model.limit(100)
    model.confirm(0, 150, model.touch(talk("a", 150)))

    assert model.capacity == 100
    assert model.depth(talk("a", 200)) == 100


def test_hearing_the_same_again_does_not_unlearn_what_others_take() -> None:
    model, cache = Residency(), Cache(2000)
    model.limit(10_000 / 3)
    model.rescale(3.0)
    for number in range(400):
        follow(model, cache, talk(str(number % 90), 100))
    learnt = model.capacity

    model.limit(10_000 / 3 * 3.0 + 1e-9)

    assert model.capacity == learnt != 10_000


def test_no_capacity_is_below_the_least() -> None:
    model = Residency()

    model.limit(0)

    assert model.capacity == LEAST


def test_smaller_blocks_are_more_of_them() -> None:
    model = Residency(100)
    model.rescale(2.0)
    model.touch(talk("a", 150))

    assert model.depth(talk("a", 150)) == 150


def test_forgetting_leaves_nothing() -> None:
    model = Residency(100)
    model.touch(talk("a", 50))

    model.forget()

    assert len(model) == model.depth(talk("a", 50)) == 0


def test_an_empty_prompt_is_nowhere_and_harmless() -> None:
    model = Residency(16)

    model.confirm(model.depth(Prompt((), 30)), 0, model.touch(Prompt((), 30)))

    assert len(model) == 0
