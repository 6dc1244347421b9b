"""What caches find that forget nothing, know the future, or evict what was used longest ago."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from random import Random

import pytest
from affinity_bounds import Access, belady, ceiling, lru
from affinity_hindsight import Search, Visit, along


def request(path: str) -> Access:
    """A prompt whose blocks are the beginnings of a word."""
    return Access([path[: end + 1] for end in range(len(path))])


def test_one_that_forgets_nothing_finds_what_was_there_before() -> None:
    assert ceiling([request("abc"), request("abd"), request("xyz"), request("abcd")]) == 2 + 3


def test_what_a_reply_filled_is_found_by_the_next_prompt() -> None:
    first = Access(["a"], ["ab", "abc"])
    assert ceiling([first, request("abcd")]) == 3
    assert belady([first, request("abcd")], 3) == 3
    assert lru([first, request("abcd")], 3) == 3


def test_what_is_asked_for_in_turn_is_never_found_by_age_but_by_foresight() -> None:
    turns = [request(letter) for letter in "abcabcabc"]
    assert lru(turns, 2) == 0
    assert belady(turns, 2) == 4  # one stays, one is renewed every second time


def test_the_deepest_block_of_what_is_oldest_goes_first() -> None:
    assert lru([request("abc"), request("xy"), request("abc")], 4) == 2


def optimum(accesses: Sequence[Access], capacity: int) -> int:
    """By trying every set of whole prefixes after every request."""
    states: dict[frozenset[object], int] = {frozenset(): 0}
    for access in accesses:
        after: dict[frozenset[object], int] = {}
        for cached, found in states.items():
            hits = next((n for n, key in enumerate(access.prompt) if key not in cached), None)
            total = found + (len(access.prompt) if hits is None else hits)
            there = sorted(cached.union(access.prompt), key=str)
            for size in range(min(capacity, len(there)) + 1):
                for kept in combinations(there, size):
                    state = frozenset(kept)
                    if all(str(key)[:-1] in {"", *map(str, state)} for key in state):
                        after[state] = max(after.get(state, 0), total)
        states = after
    return max(states.values())


@pytest.mark.parametrize("seed", range(30))
def test_foresight_is_optimal(seed: int) -> None:
    random = Random(seed)
    words = ["ab", "ac", "b", "bb", "abc"]
    accesses = [request(random.choice(words)) for _ in range(7)]
    for capacity in (1, 2, 3):
        assert belady(accesses, capacity) == optimum(accesses, capacity)


def test_with_room_for_everything_all_find_the_same() -> None:
    random = Random(3)
    accesses = [request("".join(random.choices("ab", k=5))) for _ in range(40)]
    assert lru(accesses, 100) == belady(accesses, 100) == ceiling(accesses)
    small = lru(accesses, 8), belady(accesses, 8), ceiling(accesses)
    assert small[0] < small[1] < small[2]


def two_pairs() -> list[Visit]:
    """Four conversations in turn; two replicas hold one each."""
    return [Visit(name, request(name * 3)) for _ in range(6) for name in "abcd"]


def test_hindsight_separates_those_who_are_in_each_others_way() -> None:
    visits = [Visit(name, request(name * 3)) for _ in range(6) for name in "aab"]
    both_on_one = {"a": "r0", "b": "r0"}
    search = Search(visits, ["r0", "r1"], 3, both_on_one)
    before = search.found
    assert search.improve(50) > before
    assert search.found == 3 * (12 - 1) + 3 * (6 - 1)
    assert search.home["a"] != search.home["b"]


def test_hindsight_does_not_leave_one_replica_with_all_the_work() -> None:
    talk = [Visit("talk", request("abc")) for _ in range(6)]
    others = [Visit(f"{n}", request(3 * chr(200 + n))) for n in range(30)]
    visits = [visit for n in range(6) for visit in (talk[n], *others[5 * n : 5 * n + 5])]
    homes = {visit.session: f"r{index % 2}" for index, visit in enumerate(visits)}
    search = Search(visits, ["r0", "r1"], 8, {**homes, "talk": "r0"})
    before = search.found
    assert search.improve(500) > before
    loads = dict.fromkeys(("r0", "r1"), 0)
    for visit in visits:
        loads[search.home[visit.session]] += len(visit.access.prompt)
    assert max(loads.values()) <= 1.25 * sum(loads.values()) / 2


def test_what_a_policy_found_is_counted_where_it_sent_things() -> None:
    visits = two_pairs()
    apart = [{"a": "r0", "b": "r1", "c": "r2", "d": "r3"}[visit.session] for visit in visits]
    assert along(visits, apart, 3) == 4 * 5 * 3
    assert along(visits, ["r0"] * len(visits), 3) == 0
