"""Calls of a plan that could start now if a value that is still to come were known.

A slow call will probably give what it gave the last time, and a guard will probably hold if
it mostly did: the calls behind them are worth starting. Whether the supposition was right
needs no check of its own: the call is asked for with its real arguments or it is not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from agentflow.caches.speculation.foresight import Foresight
from agentflow.executor.speculation.guesses import Guess, Wish
from agentflow.executor.state.bind import bind_arguments
from agentflow.executor.state.commands import DONE, PARKED, RUNNING, SKIPPED, WAITING
from agentflow.executor.state.run_state import RunState
from agentflow.planner.plan import Node
from agentflow.tools.paths import resolve
from agentflow.tools.tool import Tool
from agentflow.tools.values import plain

SCANNED = 64
"""Running calls whose consumers are looked at."""


@dataclass(frozen=True, slots=True)
class _Supposed:
    """A value that a call will probably have."""

    value: Any
    probability: float
    depth: int


class _View(Sequence[Any]):
    """The values of a run, the supposed ones among them."""

    def __init__(self, state: RunState, supposed: Mapping[int, _Supposed]) -> None:
        self._state = state
        self._supposed = supposed
        self.slots = state.slots
        self.values = self

    def __len__(self) -> int:
        return len(self._state.values)

    def __getitem__(self, slot: Any) -> Any:
        found = self._supposed.get(slot)
        return self._state.values[slot] if found is None else found.value


class Supposing:
    """Finds the calls of one run that wait for nothing but what can be supposed.

    Args:
        state: The calls of the run.
        started: Slots of the calls that run.
        tool: One of its tools by name.
        foresight: What calls gave the last time, and how often guards held.
    """

    def __init__(
        self,
        state: RunState,
        started: Callable[[], Iterable[int]],
        tool: Callable[[str], Tool[..., Any] | None],
        foresight: Foresight,
    ) -> None:
        self._state = state
        self._started = started
        self._tool = tool
        self._foresight = foresight
        self._guarded: set[int] = set()  # slots whose guard was guessed at

    def wishes(self, guesses: Iterable[Guess]) -> Iterator[Wish]:
        """The calls, given the guesses that were made already."""
        self.learn()
        state = self._state
        running = list(islice(self._started(), SCANNED))
        supposed = {slot: found for slot in running if (found := self._last_value(slot))}
        supposed |= self._guessed(guesses)
        view = _View(state, supposed)
        sources = dict.fromkeys([*running, *supposed])
        for user in dict.fromkeys(user for slot in sources for user in state.users(slot)):
            if (wish := self._wish(user, supposed, view)) is not None:
                yield wish

    def _guessed(self, guesses: Iterable[Guess]) -> Iterator[tuple[int, _Supposed]]:
        """What guesses at calls of the plan gave, or will probably give."""
        for guess in guesses:
            of = guess.wish
            if of.slot is None:
                continue
            if guess.seconds is not None:
                yield of.slot, _Supposed(guess.value, of.probability, of.depth)
            elif found := self._foresight.values.guess(of.tool, plain(dict(of.arguments))):
                yield of.slot, _Supposed(found[0], of.probability * found[1], of.depth)

    def _arguments(self, node: Node, view: Any) -> dict[str, Any] | None:
        """The arguments by name, as far as the values they use are known or supposed."""
        tool = self._tool(node.tool)
        if tool is None or tool.signature.positional:
            return None
        try:
            return tool.spec.bind(*bind_arguments(view, node))
        except Exception:  # noqa: BLE001  # a supposed value may have another shape
            return None

    def _last_value(self, slot: int) -> _Supposed | None:
        node = self._state.nodes[slot]
        arguments = self._arguments(node, self._state)
        if arguments is None or not self._state.users(slot):
            return None
        found = self._foresight.values.guess(node.tool, plain(arguments))
        return None if found is None else _Supposed(found[0], found[1], 0)

    def _wish(self, slot: int, supposed: Mapping[int, _Supposed], view: _View) -> Wish | None:
        state = self._state
        node = state.nodes[slot]
        if state.status[slot] is not WAITING or not state.plain(slot):
            return None
        if any(state.status[state.slots[dep]] < DONE for dep in node.after):
            return None
        probability, depth = 1.0, 1
        guard = None if node.guard is None else state.slots[node.guard.node]
        for slot_used in [state.slots[dep] for dep in node.waits_for()]:
            if state.status[slot_used] is DONE:
                continue
            if (found := supposed.get(slot_used)) is not None:
                probability *= found.probability
                depth = max(depth, found.depth + 1)
            elif slot_used != guard or self._is_used(node, slot_used):
                return None
        if guard is not None:
            probability *= self._guard_holds(slot, node, guard in supposed, view)
        arguments = self._arguments(node, view)
        if arguments is None or depth > self._foresight.depth.allowed:
            return None
        why = "its guard mostly holds" if guard is not None else "what it uses is mostly the same"
        return Wish(node.tool, arguments, probability, why, depth, slot, node.options)

    def _is_used(self, node: Node, slot: int) -> bool:
        """Whether a value is used as an argument, and not only as a guard."""
        bare = Node(node.tool, node.args, node.kwargs)
        return any(self._state.slots[dep] == slot for dep in bare.waits_for())

    # Guards

    def _guard_holds(self, slot: int, node: Node, is_supposed: bool, view: _View) -> float:
        """The probability that the guard of a call holds."""
        assert node.guard is not None, "only guarded calls are asked about"
        source = self._state.slots[node.guard.node]
        if is_supposed or self._state.status[source] is DONE:
            try:
                return float(bool(resolve(view[source], node.guard.path)))
            except Exception:  # noqa: BLE001  # the path leads nowhere, or a value raises
                return 0.0
        self._guarded.add(slot)
        return self._foresight.guards.probability(node.tool)

    def learn(self) -> None:
        """See what has become of the guards that were guessed at."""
        for slot in [s for s in self._guarded if self._state.status[s] is not WAITING]:
            self._guarded.remove(slot)
            if (status := self._state.status[slot]) in (PARKED, RUNNING, DONE, SKIPPED):
                tool = self._state.nodes[slot].tool
                self._foresight.guards.note(tool, status is not SKIPPED)
