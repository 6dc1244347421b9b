"""How much work follows a request in its program: what decides how urgent it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agentflow.executor.affinity.pauses import expected

if TYPE_CHECKING:
    from agentflow.executor.run import Run


def work_after(run: Run[Any], node: int | None) -> float:
    """Seconds of the longest chain of calls that wait for one, in its run and in those above.

    What a program will call that it has not called yet is not known.

    Args:
        run: The run of the call.
        node: Plan id of the call; None where a request belongs to none.
    """
    seconds = 0.0
    place: tuple[Run[Any], int | None] | None = (run, node)
    while place is not None:
        run, node = place
        seconds += 0.0 if node is None else _longest(run, node)
        place = run.parent
    return seconds


def _longest(run: Run[Any], node: int) -> float:
    """Seconds of the longest chain of calls that wait for one, without it."""
    state, latencies = run.driver.state, run.host.services.latencies
    first = state.slot(node)
    longest: dict[int, float] = {}
    for slot in sorted(_waiting(run, first), reverse=True):  # users come after what they use
        after = max((longest[user] for user in state.users(slot)), default=0.0)
        tool = run.tools.get(state.nodes[slot].tool) if slot != first else None
        longest[slot] = after + (0.0 if tool is None else expected(tool, latencies(tool)).p50)
    return longest[first]


def _waiting(run: Run[Any], slot: int) -> set[int]:
    """A call, and all that wait for it."""
    found, new = {slot}, [slot]
    while new:
        users = set(run.driver.state.users(new.pop())) - found
        found |= users
        new += users
    return found
