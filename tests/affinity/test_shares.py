"""What is computed for whom: a bound on how far tenants come apart."""

from __future__ import annotations

from collections import deque

from hypothesis import given
from hypothesis import strategies as st

from agentflow.caches.affinity.shares import SERVED_MEMORY, WRITTEN, Shares

QUANTUM = 1000.0
LARGEST = 700.0


@given(
    st.lists(st.tuples(st.floats(1, LARGEST), st.floats(1, LARGEST)), min_size=1, max_size=80),
    st.integers(1, 5),
)
def test_of_two_that_always_wait_neither_gets_more_than_a_quantum_and_what_runs_beyond_the_other(
    costs: list[tuple[float, float]], places: int
) -> None:
    shares, running = Shares(), deque[tuple[str, float]]()
    asks = {"a": [a for a, _ in costs], "b": [b for _, b in costs]}
    shares.active("a", set())
    shares.active("b", {"a"})

    while asks["a"] and asks["b"]:
        if len(running) == places:
            shares.count(*running.popleft(), 0.0)
        ahead = shares.ahead({"a", "b"}, QUANTUM)
        first = min("ab", key=lambda tenant: ahead[tenant])  # as the order of jobs does
        running.append((first, asks[first].pop()))

        difference = abs(shares.served["a"] - shares.served["b"])
        assert difference <= QUANTUM + places * LARGEST


def test_output_counts_more_than_prompts() -> None:
    shares = Shares()

    shares.count("a", 100.0, 10.0)

    assert shares.served["a"] == 100.0 + 10.0 * WRITTEN


def test_who_was_idle_while_others_waited_saves_nothing_up() -> None:
    shares = Shares()
    shares.active("busy", set())
    shares.count("busy", 1e6, 0.0)

    shares.active("idle", {"busy"})

    assert shares.ahead({"busy", "idle"}, QUANTUM) == {"busy": 0, "idle": 0}


def test_who_was_idle_while_nobody_had_to_wait_saves_nothing_up() -> None:
    shares = Shares()
    shares.active("busy", set())
    shares.count("busy", 1e6, 0.0)

    shares.active("idle", set())
    shares.active("busy", {"idle"})

    assert shares.ahead({"busy", "idle"}, QUANTUM) == {"busy": 0, "idle": 0}


def test_who_waits_already_loses_nothing_by_asking_again() -> None:
    shares = Shares()
    for tenant in ("small", "large"):
        shares.active(tenant, {"small"})
    shares.count("large", 5000.0, 0.0)

    shares.active("small", {"small", "large"})

    assert shares.ahead({"small", "large"}, QUANTUM) == {"small": 0, "large": 5}


def test_one_tenant_alone_is_never_ahead() -> None:
    shares = Shares()
    shares.count("a", 1e9, 0.0)

    assert shares.ahead({"a"}, QUANTUM) == {"a": 0}
    assert shares.ahead(set(), QUANTUM) == {}


def test_tenants_are_forgotten_that_were_not_heard_of_for_longest() -> None:
    shares = Shares()
    shares.active("often", set())
    shares.count("often", 1e6, 0.0)
    for number in range(2 * SERVED_MEMORY):
        shares.active(f"tenant {number}", {"often"})
        if number % 1000 == 0:
            shares.active("often", set())

    assert len(shares.served) == SERVED_MEMORY
    assert shares.served["often"] == 1e6
