"""The serving model: what a request costs, what is cached, who waits and who loses its room."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import pytest

from agentflow.testing import Change, Serving, ServingModel

PLAIN = Serving(prefill=1000, step=0.1, chunk=100, capacity=1000, block=10)


def drain(model: ServingModel, until: float = 1e9) -> list[Change]:
    """Let the model run as a driver does."""
    changes: list[Change] = []
    while (at := model.next_change()) is not None and at <= until:
        changes += model.advance(at)
    return changes


def times(changes: Sequence[Change]) -> dict[tuple[int, str], Any]:
    return {(change.number, change.kind): pytest.approx(change.at) for change in changes}


def chain(name: str, blocks: int) -> list[Hashable]:
    return [(name, index) for index in range(blocks)]


def test_a_request_takes_its_prefill_and_a_step_for_each_further_token() -> None:
    model = ServingModel(PLAIN)
    model.submit(1, [], 200, 11, now=5.0)
    started, first, finished = drain(model)
    assert started == Change(5.0, 1, "started", cached=0, made=0)
    assert (first.kind, first.made) == ("first", 1)
    assert first.at == pytest.approx(5.2)
    assert (finished.kind, finished.made) == ("finished", 11)
    assert finished.at == pytest.approx(6.2)


def test_a_batch_makes_a_token_each_in_a_step_that_is_a_little_longer() -> None:
    model = ServingModel(Serving(prefill=1e9, step=0.1, per_sequence=0.01, chunk=10**9))
    for number in range(3):
        model.submit(number, [], 10, 101, now=0.0)
    assert times(drain(model))[2, "finished"] == 12.0  # 100 steps of 0.1 + 2 * 0.01


def test_a_step_takes_longer_the_more_context_it_attends_to() -> None:
    model = ServingModel(Serving(prefill=1e9, step=0.1, per_context=0.001))
    model.submit(1, [], 100, 101, now=0.0)
    steps = sum(0.1 + 0.001 * (100 + made + 0.5) for made in range(100))
    assert times(drain(model))[1, "finished"] == steps


def test_a_prompt_slows_those_who_decode_and_they_slow_it() -> None:
    model = ServingModel(PLAIN)
    model.submit(1, [], 100, 101, now=0.0)
    model.submit(2, [], 500, 1, now=2.1)
    seen = times(drain(model))
    assert seen[2, "first"] == 2.1 + 5 * (0.1 + 0.1)  # 5 chunks, each with a step of the other
    assert seen[1, "finished"] == 0.1 + 100 * 0.1 + 5 * 0.1


def test_prompts_are_worked_off_one_after_another() -> None:
    model = ServingModel(PLAIN)
    model.submit(1, [], 300, 1, now=0.0)
    model.submit(2, [], 100, 1, now=0.0)
    seen = times(drain(model))
    assert seen[2, "started"] == seen[1, "finished"] == 0.3
    assert seen[2, "first"] == 0.4


def test_a_prompt_seen_before_is_found_but_for_the_block_of_its_last_token() -> None:
    model = ServingModel(PLAIN)
    model.submit(1, chain("a", 10), 100, 1, now=0.0)
    drain(model)
    model.submit(2, chain("a", 10), 100, 1, now=1.0)
    model.submit(3, chain("a", 10), 105, 1, now=1.0)
    first = [change for change in drain(model) if change.kind == "first"]
    assert [change.cached for change in first] == [90, 100]
    assert first[0].at == pytest.approx(1.01)
    assert (model.hits, model.queries) == (190, 305)


def test_a_prompt_is_looked_up_when_it_starts_not_when_it_comes() -> None:
    model = ServingModel(PLAIN)
    model.submit(1, chain("a", 10), 105, 5, now=0.0)
    model.submit(2, chain("a", 10), 105, 5, now=0.0)
    assert model.found(chain("a", 10)) == 0
    assert [c.cached for c in drain(model) if c.kind == "finished"] == [0, 100]


def test_what_was_made_is_found_by_the_next_turn() -> None:
    model = ServingModel(PLAIN)
    turns = chain("a", 20)
    model.submit(1, turns[:9], 95, 40, now=0.0, written=turns[9:13])
    drain(model)
    model.submit(2, turns[:15], 150, 1, now=20.0)
    assert drain(model)[-1].cached == 130


def test_the_last_token_is_not_in_the_cache() -> None:
    model = ServingModel(PLAIN)
    model.submit(1, chain("a", 1), 10, 10, now=0.0, written=chain("a", 2)[1:])
    drain(model)
    assert model.found(chain("a", 2)) == 1  # the second block lacks the token that was said last


def test_a_shared_prefix_takes_room_once() -> None:
    model = ServingModel(PLAIN)
    for number in range(3):
        model.submit(number, [*chain("s", 8), (number,)], 95, 20, now=0.0)
    model.advance(0.2)
    assert model.running == 3
    assert model.used == 80 + 3 * 20


def test_what_was_used_longest_ago_goes_first_and_its_end_before_its_beginning() -> None:
    model = ServingModel(PLAIN)
    for number, name in enumerate("ab"):
        model.submit(number, chain(name, 40), 400, 1, now=number)
        drain(model)
    model.submit(2, chain("a", 5), 51, 1, now=2)  # the beginning of a is used again
    drain(model)
    model.submit(3, chain("c", 50), 500, 1, now=3)
    drain(model)
    assert [model.found(chain(name, 40)) for name in "abc"] == [10, 40, 40]
    model.submit(4, chain("d", 30), 300, 1, now=4)
    drain(model)
    assert [model.found(chain(name, 40)) for name in "abcd"] == [5, 15, 40, 30]


def test_a_request_waits_until_it_fits_and_so_do_those_behind_it() -> None:
    model = ServingModel(PLAIN)
    model.submit(1, [], 600, 11, now=0.0)
    model.submit(2, [], 600, 11, now=0.0)
    model.submit(3, [], 10, 11, now=0.0)
    model.advance(0.7)
    assert (model.running, model.waiting) == (1, 2)
    seen = times(drain(model))
    assert seen[1, "finished"] == seen[2, "started"] == 1.6
    assert seen[3, "started"] == seen[2, "first"]


def test_what_another_holds_already_takes_no_further_room() -> None:
    model = ServingModel(PLAIN)
    for number in (1, 2):
        model.submit(number, chain("a", 60), 605, 11, now=0.0)
    assert times(drain(model))[2, "started"] == 0.605


def test_no_more_run_than_there_are_slots() -> None:
    model = ServingModel(Serving(prefill=1000, step=0.1, slots=2))
    for number in range(3):
        model.submit(number, [], 100, 11, now=0.0)
    assert times(drain(model))[2, "started"] == 0.1 + 10 * 0.1 + 0.1  # beside a prompt of 0.1 s


def test_a_lower_priority_goes_first_and_arrival_decides_among_equals() -> None:
    model = ServingModel(Serving(prefill=1000, step=0.1, slots=1))
    for number, priority in enumerate([0, 0, 5, -1, 0]):
        model.submit(number, [], 100, 1, now=0.0, priority=priority)
    started = [change.number for change in drain(model) if change.kind == "started"]
    assert started == [0, 3, 1, 4, 2]


def test_when_there_is_no_room_left_the_newest_loses_its_own_and_computes_it_again() -> None:
    model = ServingModel(Serving(prefill=1000, step=0.1, chunk=100, capacity=200, block=10))
    model.submit(1, [], 95, 60, now=0.0)
    model.submit(2, chain("b", 9), 95, 30, now=0.0)
    changes = drain(model)
    kinds = [(change.number, change.kind) for change in changes if change.number == 2]
    assert kinds == [
        (2, "started"),
        (2, "first"),
        (2, "preempted"),
        (2, "started"),
        (2, "finished"),
    ]
    assert model.preemptions == 1
    lost = next(change for change in changes if change.kind == "preempted")
    assert 1 < lost.made < 30
    assert changes[-1].made == 30
    assert times(changes)[2, "started"] == times(changes)[1, "finished"]  # again


def test_a_preempted_request_goes_on_from_the_token_it_had_come_to() -> None:
    model = ServingModel(Serving(prefill=1000, step=0.1, chunk=100, capacity=200, block=50))
    model.submit(1, [], 95, 10, now=0.0)
    model.submit(2, [], 60, 45, now=0.0)
    changes = drain(model)
    [lost] = [change for change in changes if change.kind == "preempted"]
    again, ended = (change.at for change in changes[-2:])
    assert ended - again == pytest.approx((60 + lost.made) / 1000 + (45 - lost.made - 1) * 0.1)


def test_room_that_is_lost_goes_to_whoever_has_waited_for_it() -> None:
    model = ServingModel(Serving(prefill=1000, step=0.1, chunk=100, capacity=200, block=10))
    model.submit(1, [], 95, 60, now=0.0, priority=0)
    model.submit(2, [], 85, 60, now=0.0, priority=1)
    model.submit(3, [], 70, 60, now=0.3, priority=-1)
    seen = times(drain(model))
    assert seen[3, "started"] == seen[2, "preempted"]


def test_a_preempted_request_goes_before_those_who_have_not_started() -> None:
    model = ServingModel(Serving(prefill=1000, step=0.1, chunk=100, capacity=200, block=10))
    for number in (1, 2, 3):
        model.submit(number, [], 95, 60, now=0.0)
    started = [change.number for change in drain(model) if change.kind == "started"]
    assert started[:4] == [1, 2, 2, 3]


def test_what_a_preempted_request_had_computed_is_found_again_if_it_is_still_there() -> None:
    model = ServingModel(Serving(prefill=1000, step=0.1, chunk=100, capacity=300, block=10))
    model.submit(1, [], 95, 110, now=0.0)
    model.submit(2, chain("b", 9), 95, 110, now=0.0, written=chain("b", 20)[9:])
    changes = drain(model)
    lost = next(change for change in changes if change.kind == "preempted")
    [_, again] = [c.at for c in changes if (c.number, c.kind) == (2, "started")]
    ended = next(c.at for c in changes if (c.number, c.kind) == (2, "finished"))
    anew = (95 + lost.made) / 1000 + (110 - lost.made - 1) * 0.1
    assert 0 < ended - again < anew
    assert changes[-1].cached == 0  # found by its first start, which is what a server reports


def test_a_request_that_is_cancelled_leaves_its_room_and_what_it_has_computed() -> None:
    model = ServingModel(PLAIN)
    model.submit(1, chain("a", 50), 500, 100, now=0.0)
    model.submit(2, [], 600, 1, now=0.0)
    model.cancel(1, now=0.255)  # in the middle of its prompt
    assert model.found(chain("a", 50)) == 25
    assert (model.running, model.waiting) == (1, 0)
    model.cancel(1, now=0.3)  # it is gone
    assert [(c.number, c.kind) for c in drain(model)] == [
        (1, "started"),
        (2, "started"),
        (2, "first"),
        (2, "finished"),
    ]


def test_those_who_stay_are_faster_when_one_leaves() -> None:
    model = ServingModel(Serving(prefill=1e9, step=0.1, per_sequence=0.1, chunk=10**9))
    for number in (1, 2):
        model.submit(number, [], 10, 101, now=0.0)
    model.cancel(2, now=10.0)
    assert times(drain(model))[1, "finished"] == 10.0 + 50 * 0.1


def test_a_number_is_free_again_when_its_request_was_cancelled_in_the_queue() -> None:
    model = ServingModel(PLAIN)
    model.submit(1, [], 500, 1, now=0.0)
    model.submit(2, [], 100, 1, now=0.0)
    model.cancel(2, now=0.1)
    model.submit(2, [], 200, 1, now=0.1)
    assert times(drain(model))[2, "first"] == 0.7
    assert (model.running, model.waiting) == (0, 0)


def test_a_number_is_free_again_as_soon_as_its_request_has_ended() -> None:
    model = ServingModel(PLAIN)
    model.submit(1, [], 100, 1, now=0.0)
    model.submit(1, [], 100, 1, now=0.5)
    assert [change.kind for change in drain(model)] == ["started", "first", "finished"] * 2


def test_due_tells_when_a_token_will_come_if_nothing_changes() -> None:
    model = ServingModel(PLAIN)
    model.submit(1, [], 100, 50, now=0.0)
    model.submit(2, [], 100, 50, now=0.0)
    assert model.due(1, 1) == pytest.approx(0.1)
    assert model.due(1, 2) is None  # it depends on whose prompt is next
    assert model.due(2, 1) is None
    model.advance(1.0)
    assert model.due(1, 20) == pytest.approx(0.3 + 18 * 0.1)
    assert model.due(2, 20) == pytest.approx(0.3 + 19 * 0.1)


def test_dropping_the_cache_forgets_what_nobody_holds() -> None:
    model = ServingModel(PLAIN)
    model.submit(1, chain("a", 10), 100, 1, now=0.0)
    drain(model)
    model.submit(2, chain("b", 10), 100, 50, now=1.0)
    model.advance(2.0)
    model.drop_cache()
    assert model.resident == 100
    assert model.found(chain("a", 10)) == 0
    assert model.found(chain("b", 10)) == 10


def test_what_was_computed_elsewhere_is_loaded_beside_what_is_there() -> None:
    model = ServingModel(Serving(prefill=1000, step=0.1, capacity=60, block=10))
    model.load(chain("b", 2))
    for _ in range(2):
        model.load(chain("a", 4))
    assert model.resident == 60
    assert (model.found(chain("a", 4)), model.found(chain("b", 2))) == (4, 2)


def test_no_more_is_loaded_than_there_is_room_for() -> None:
    model = ServingModel(PLAIN)
    model.submit(1, [], 500, 10, now=0.0)
    model.load(chain("a", 80))
    assert model.found(chain("a", 80)) == 50
    assert model.resident + model.used == 1000


def test_blocks_are_dropped_unless_they_are_held() -> None:
    model = ServingModel(PLAIN)
    model.load(chain("a", 20))
    model.submit(1, chain("a", 10), 105, 5, now=0.0)
    model.drop_cache(chain("a", 15)[5:])
    assert model.found(chain("a", 20)) == 10
    assert model.resident == 150


def test_a_request_that_can_never_fit_is_refused() -> None:
    model = ServingModel(PLAIN)
    model.submit(1, [], 901, 100, now=0.0)  # exactly full: its last token needs no room
    with pytest.raises(ValueError, match=r"request 2: 1001 tokens never fit .* \(1000 tokens\)"):
        model.submit(2, [], 902, 100, now=0.0)
    assert drain(model)[-1].made == 100


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ((1, [], 10, 1), "there is one of that number"),
        ((2, [], 0, 1), "at least one token"),
        ((2, [], 10, 0), "at least one token"),
        ((2, chain("a", 2), 19, 1), "19 tokens do not fill 2 blocks"),
    ],
)
def test_contradictory_requests_are_refused(
    arguments: tuple[int, Sequence[Hashable], int, int], complaint: str
) -> None:
    model = ServingModel(PLAIN)
    model.submit(1, [], 10, 1, now=0.0)
    with pytest.raises(ValueError, match=complaint):
        model.submit(*arguments, now=0.0)
    assert model.waiting == 0


@pytest.mark.parametrize("field", ["prefill", "step", "chunk", "capacity", "block", "slots"])
def test_rates_and_sizes_are_above_zero(field: str) -> None:
    with pytest.raises(ValueError, match=f"Serving\\({field}=0\\): must be above 0"):
        Serving(**{"prefill": 1, "step": 1, field: 0})
