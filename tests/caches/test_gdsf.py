"""Eviction by frequency, cost and size, aged: who goes, and that it adds up."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agentflow.caches.gdsf import Gdsf


def test_the_cheapest_to_obtain_goes_first() -> None:
    policy: Gdsf[str] = Gdsf(30)
    policy.add("dear", 10, cost=5.0)
    policy.add("cheap", 10, cost=1.0)
    policy.add("medium", 10, cost=2.0)

    assert policy.add("new", 10, cost=9.0) == ["cheap"]


def test_the_larger_of_equally_dear_goes_first() -> None:
    policy: Gdsf[str] = Gdsf(30)
    policy.add("small", 5, cost=1.0)
    policy.add("large", 25, cost=1.0)

    assert policy.add("new", 1, cost=1.0) == ["large"]


def test_the_more_often_used_stays() -> None:
    policy: Gdsf[str] = Gdsf(20)
    policy.add("used", 10, cost=1.0)
    policy.add("unused", 10, cost=1.0)
    policy.hit("used")

    assert policy.add("new", 10, cost=1.0) == ["unused"]


def test_the_longest_unused_of_equals_goes_first() -> None:
    policy: Gdsf[int] = Gdsf(30)
    for key in (1, 2, 3):
        policy.add(key, 10, cost=1.0)

    assert [policy.add(key, 10, cost=1.0) for key in (4, 5, 6)] == [[1], [2], [3]]


def test_what_was_popular_once_ages_away() -> None:
    policy: Gdsf[str] = Gdsf(20)
    policy.add("once popular", 10, cost=10.0)
    for _ in range(5):
        policy.hit("once popular")

    out = [policy.add(f"new {n}", 10, cost=10.0) for n in range(8)]

    assert out.index(["once popular"]) == 6  # one eviction for each use of it
    assert out[7] == ["new 5"]


def test_what_is_larger_than_the_limit_is_refused_and_nothing_goes() -> None:
    policy: Gdsf[str] = Gdsf(20)
    policy.add("a", 10, cost=1.0)

    assert policy.add("huge", 21, cost=100.0) == ["huge"]
    assert (len(policy), policy.used) == (1, 10)


def test_a_key_that_grows_makes_room_by_leaving_first() -> None:
    policy: Gdsf[str] = Gdsf(20)
    policy.add("a", 15, cost=1.0)

    assert policy.add("a", 20, cost=1.0) == []
    assert (len(policy), policy.used) == (1, 20)


def test_a_key_that_is_taken_in_anew_keeps_its_frequency() -> None:
    policy: Gdsf[str] = Gdsf(20)
    policy.add("renewed", 10, cost=1.0)
    policy.add("other", 10, cost=1.5)
    policy.add("renewed", 10, cost=1.0)

    assert policy.add("new", 10, cost=1.0) == ["other"]


def test_a_group_over_its_quota_makes_room_itself() -> None:
    policy: Gdsf[str] = Gdsf(100, quota=0.2)
    policy.add("other", 10, cost=0.01, group="b")
    policy.add("first", 10, cost=9.0, group="a")
    policy.add("second", 10, cost=5.0, group="a")

    assert policy.add("third", 10, cost=7.0, group="a") == ["second"]
    assert policy.add("too large", 21, cost=7.0, group="a") == ["too large"]


def test_what_was_popular_once_ages_away_within_a_quota() -> None:
    policy: Gdsf[str] = Gdsf(1000, quota=0.02)
    policy.add("once popular", 10, cost=1.0, group="a")
    policy.hit("once popular")

    out = [policy.add(f"new {n}", 10, cost=1.0, group="a") for n in range(4)]

    assert out == [[], ["new 0"], ["once popular"], ["new 1"]]


steps = st.lists(
    st.tuples(
        st.sampled_from(["add", "hit", "remove"]),
        st.integers(0, 12),
        st.integers(1, 40),
        st.integers(0, 9),
    ),
    max_size=120,
)


class Plain:
    """The same policy without a heap: every priority is looked at for each eviction."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.age = 0.0
        self.held: dict[int, list[float]] = {}  # size, worth, frequency, age

    @property
    def used(self) -> float:
        return sum(size for size, *_ in self.held.values())

    def priority(self, key: int) -> float:
        _, worth, frequency, age = self.held[key]
        return age + frequency * worth

    def hit(self, key: int) -> None:
        self.held[key][2:] = [self.held[key][2] + 1, self.age]

    def add(self, key: int, size: int, cost: float) -> None:
        frequency = self.held.pop(key, [0, 0, 0, 0])[2] + 1
        while self.used + size > self.limit:
            self.age = min(map(self.priority, self.held))
            del self.held[min(self.held, key=self.priority)]
        self.held[key] = [size, cost / size, frequency, self.age]


@given(steps)
def test_it_never_holds_more_than_the_limit_and_reports_every_eviction(
    steps: list[tuple[str, int, int, int]],
) -> None:
    policy: Gdsf[int] = Gdsf(50)
    held: dict[int, int] = {}
    for what, key, size, cost in steps:
        if what == "add":
            held[key] = size
            for out in policy.add(key, size, float(cost)):
                del held[out]
        elif what == "remove":
            policy.remove(key)
            held.pop(key, None)
        elif key in held:
            policy.hit(key)

        assert policy.used == sum(held.values()) <= 50
        assert len(policy) == len(held)


@given(st.lists(st.tuples(st.integers(0, 12), st.integers(1, 40), st.integers(1, 10**6))))
def test_it_evicts_what_looking_at_every_priority_would(steps: list[tuple[int, int, int]]) -> None:
    policy: Gdsf[int] = Gdsf(60)
    plain = Plain(60)
    held: set[int] = set()
    for key, size, cost in steps:
        if key in held and cost % 2:
            policy.hit(key)
            plain.hit(key)
        else:
            held.add(key)
            held -= set(policy.add(key, size, cost * 1.000001**key))  # no two priorities are equal
            plain.add(key, size, cost * 1.000001**key)
        assert held == set(plain.held)


def test_removed_keys_leave_nothing_behind() -> None:
    policy: Gdsf[int] = Gdsf(1 << 20)
    for n in range(10_000):
        policy.add(n, 10, cost=1.0)
        policy.remove(n)

    [group] = policy._groups.values()
    assert len(group.heap) < 200
