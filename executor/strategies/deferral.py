"""Which calls of a plan, or of a turn, wait until all of it has been read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agentflow.planner.builder import effect_of
from agentflow.tools.effects import Resource, conflict
from agentflow.tools.spec import ToolSpec


class Deferral:
    """Knows what must wait: writes, undeclared calls, and reads of what a waiting write touches.

    Args:
        specs: The tools by name.
    """

    def __init__(self, specs: Mapping[str, ToolSpec]) -> None:
        self._specs = specs
        self._to_be_written: list[Resource] = []

    def waits(self, tool: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
        """Whether a call must wait."""
        spec = self._specs.get(tool)
        if not effect_of(tool, spec).starts_early:
            return True
        touched = () if spec is None else spec.effect.touched(spec.bind(args, kwargs))
        return any(conflict(one, other) for one in touched for other in self._to_be_written)

    def note(self, tool: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """A call waits from now on."""
        spec = self._specs.get(tool)
        if spec is not None and spec.effect.kind == "writes":
            self._to_be_written += spec.effect.touched(spec.bind(args, kwargs))
