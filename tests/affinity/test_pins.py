"""The blocks that sessions stand on, each counted once."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.caches.affinity.fleet import Pins
from agentflow.caches.affinity.prompts import Prompt


def prompt(branch: str, length: int) -> Prompt:
    """Prompts whose branches begin alike are alike for three blocks a letter."""
    return Prompt(tuple((branch[: 1 + i // 3], i) for i in range(length)), 64 * length)


prompts = st.builds(prompt, st.text("ab", min_size=4, max_size=4), st.integers(0, 12))
holds = st.lists(
    st.tuples(st.integers(0, 4), st.one_of(st.none(), prompts), st.floats(0, 1e4)), max_size=30
)


@given(holds, prompts)
def test_it_counts_what_all_owners_together_stand_on(
    changes: list[tuple[int, Prompt | None, float]], asked: Prompt
) -> None:
    pins, held = Pins(), dict[int, tuple[Prompt, float]]()
    for owner, wanted, growth in changes:
        if wanted is None:
            pins.release(owner)
            held.pop(owner, None)
        else:
            pins.hold(owner, wanted, growth)
            held[owner] = (wanted, growth)

    union = {block for wanted, _ in held.values() for block in wanted.blocks}
    assert len(pins) == len(union)
    assert set(pins.owners) == set(held)
    assert pins.growth == pytest.approx(sum(growth for _, growth in held.values()), abs=1e-6)
    assert pins.missing(asked) == sum(block not in union for block in asked.blocks)


def test_releasing_what_is_not_held_changes_nothing() -> None:
    pins = Pins()

    pins.release("nobody")

    assert (len(pins), pins.growth, "nobody" in pins) == (0, 0.0, False)
