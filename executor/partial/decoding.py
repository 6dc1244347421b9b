"""The calls of one reply while a model writes it: arguments are checked, and tools begin."""

from __future__ import annotations

import contextvars
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any

from agentflow.executor.partial.part import Part, Why
from agentflow.executor.run import Run
from agentflow.executor.state.bind import bind
from agentflow.executor.state.commands import DONE
from agentflow.executor.state.run_state import RunState
from agentflow.planner.builder import renumbered
from agentflow.planner.plan import Arg, Each, Ref, refs
from agentflow.tools.arguments import (
    ArgumentClosed,
    ArgumentGrew,
    ArgumentOpened,
    Key,
)
from agentflow.tools.effects import conflict
from agentflow.tools.tool import Tool

AGAIN = 0.05
"""Seconds after which a part that could not begin is looked at again."""

Waits = Callable[[str, Mapping[str, Any]], bool]
"""Whether a call of a tool with these arguments has to wait for others of the same reply."""


class Decoding:
    """Follows the calls of one reply, or plan, argument by argument.

    Args:
        run: The run.
        waits: See `Waits`; of calls that only read.
        node: The node that a reference in an argument means; it raises LookupError for one
            that is not there yet.
    """

    def __init__(
        self, run: Run[Any], waits: Waits, node: Callable[[Ref], Ref] | None = None
    ) -> None:
        self._run = run
        self._waits = waits
        self._node = node
        self._context = contextvars.copy_context()
        self._tools: dict[int, Tool[..., Any]] = {}
        self._open: dict[int, Part] = {}
        self._blocked: dict[Part, float] = {}  # parts that cannot begin, and when to look again
        self._later: list[tuple[Part, str, Arg]] = []  # arguments that use values of calls

    # What the model writes

    def opened(self, at: int, tool: str) -> None:
        """A call began: its tool may warm up."""
        made = self._run.tools.get(tool)
        if made is None:
            return
        self._tools[at] = made
        if self._may_begin(made):
            self._open[at] = self._run.driver.parts.make_part(self._run, made)

    def take(self, event: ArgumentOpened | ArgumentGrew | ArgumentClosed) -> None:
        """An argument began, grew, or is complete.

        Raises:
            ArgumentError: It is of the wrong type, or a check of its tool rejects it.
        """
        if (tool := self._tools.get(event.id)) is None:
            return
        part = self._open.get(event.id)
        if isinstance(event, ArgumentClosed):
            self._close(event, tool, part)
        elif part is not None and (name := _name(tool, event.key)) is not None:
            if isinstance(event, ArgumentGrew):
                part.inputs.grow(name, event.text)
            else:
                part.inputs.open(name)

    def advance(self) -> None:
        """Begin what can begin, now that a piece of the reply has been read."""
        later, self._later = self._later, []
        for part, name, value in later:
            self._close_later(part, name, value)
        for part in self._open.values():
            self._advance(part)

    def part(self, at: int) -> Part | None:
        """A call is about to be made: its part, for the call to adopt."""
        part = self._open.pop(at, None)
        if part is not None and part.task is None:
            part.retract(Why.NOT_COMPLETED)  # it never began
            return None
        if part is not None and not (part.undecided or self._is_clear(part)):
            part.retract(Why.STALE)  # a write came between, of a call that was closed before
            return None
        return part

    def retract(self, at: int, why: Why) -> None:
        """A call is not going to be made."""
        if (part := self._open.pop(at, None)) is not None:
            part.retract(why)

    def close(self) -> None:
        """Nothing more is read: what was not made by now is retracted."""
        for at in list(self._open):
            self.retract(at, Why.NOT_COMPLETED)

    # Arguments

    def _close(self, event: ArgumentClosed, tool: Tool[..., Any], part: Part | None) -> None:
        name, value = _name(tool, event.key), event.value
        used = {ref.node for ref in refs(value)}
        if name is None or type(value) is Each:
            self.retract(event.id, Why.NOT_MADE)  # more than one call, or an open end
        elif not used:
            valid = tool.signature.argument(name, value)
            if part is not None:
                part.inputs.close(name, value, valid)
        elif part is not None and self._node is not None:
            with suppress(LookupError):  # the call waits for one that is not in the plan yet
                self._later.append((part, name, renumbered(value, self._node)))

    def _close_later(self, part: Part, name: str, value: Arg) -> None:
        """An argument uses values of other calls: it is complete when they are there."""
        missing = {ref.node for ref in refs(value)}

        def there(node: int, state: RunState, slot: int) -> None:
            missing.discard(node)
            if state.status[slot] is DONE and not missing:
                self._fill(part, name, value)

        for node in tuple(missing):
            self._run.driver.watch(node, partial(there, node))

    def _fill(self, part: Part, name: str, value: Arg) -> None:
        try:
            raw = bind(self._run.driver.state, value)
            part.inputs.close(name, raw, part.call.tool.signature.argument(name, raw))
        except Exception:  # noqa: BLE001  # the call itself will raise it
            return
        self._advance(part)

    # Beginning

    def _may_begin(self, tool: Tool[..., Any]) -> bool:
        if not self._run.begins_early or tool.policy.approve:
            return False
        return bool(tool.signature.roles.early) or tool.origin.warm_up is not None

    def _advance(self, part: Part) -> None:
        now = self._run.now()
        ready, warms = part.inputs.ready, part.call.tool.origin.warm_up is not None
        wanted = part.undecided and (ready or (warms and part.task is None))
        if not wanted or now < self._blocked.get(part, now):
            return
        ready = ready and self._is_clear(part)
        if part.task is None and (ready or warms) and not self._run.driver.state.crowded:
            part.begin(self._context.copy())
        if ready and part.task is not None:
            part.go_on()
        elif not warms or part.task is None:
            self._blocked[part] = now + AGAIN

    def _is_clear(self, part: Part) -> bool:
        """Whether no write of the run comes between a call that reads and what it reads."""
        tool, given = part.call.tool, part.inputs.given
        if tool.effect.kind != "reads":
            return True
        if self._waits(tool.name, given):
            return False
        read = tool.effect.touched(given)
        return not any(
            conflict(one, other) for one in read for other in self._run.driver.being_written()
        )


def _name(tool: Tool[..., Any], key: Key) -> str | None:
    """The parameter that an argument is for; None for one of ``*args``."""
    if isinstance(key, str):
        return key
    places = tool.signature.places
    return places[key] if key < len(places) else None
