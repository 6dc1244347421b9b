"""A run's side of the tool cache: which of its calls may be answered from it."""

from __future__ import annotations

import contextvars
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from agentflow.caches.caching import Scope
from agentflow.caches.tool_cache import Ask, ToolCache
from agentflow.errors import ArgumentError, DefinitionError
from agentflow.executor.calls.bound import BoundCall
from agentflow.tools.effects import Resource
from agentflow.tools.tool import Tool

_EVERYTHING: tuple[Resource, ...] = ((),)


@dataclass(slots=True)
class Asked:
    """A call with its validated arguments, and how the cache knows it."""

    ask: Ask
    args: Sequence[Any]
    kwargs: dict[str, Any]


class Reuse:
    """Asks the tool cache for one run.

    Args:
        cache: The engine's.
        run: Id of the outermost run: results of tools that read and have no ``ttl`` stay in it.
        scope: Whose results they are.
    """

    def __init__(self, cache: ToolCache, run: str, scope: Scope) -> None:
        self.cache = cache
        self._run = run
        self._scope = scope

    def ask(
        self,
        call: BoundCall,
        args: Sequence[Any],
        kwargs: dict[str, Any],
        context: contextvars.Context,
    ) -> Asked | None:
        """Name a call; None if its arguments have no name.

        Raises:
            ArgumentError: The arguments are wrong, or have no canonical form and the tool
                was given a ``ttl``.
        """
        kept = call.reused
        assert kept is not None, "only calls that may be reused are asked for"
        scope = self._scope if isinstance(self._scope, str) else context.run(self._scope)
        if not isinstance(scope, str):
            raise DefinitionError(
                f"Caching(scope=...) gave {scope!r} for {kept.name}: return a text"
            )
        valid, named = call.tool.signature.validate(tuple(args), kwargs)
        # A result that one caller may use for an hour is too old for one who gave it a minute.
        scope = f"{scope}\0{self._run if kept.within_run else kept.ttl}"
        try:
            key = kept.keys.key(valid, named, scope)
        except ArgumentError as error:
            if call.policy.ttl is not None:
                raise
            self.cache.warn(kept.name, str(error))
            return None
        resources: tuple[Resource, ...] = ()
        if kept.effect.kind == "reads":
            resources = kept.effect.touched(kept.keys.named(valid, named))
        return Asked(Ask(key, kept, resources), valid, named)


def written(
    tool: Tool[..., Any], args: Sequence[Any], kwargs: dict[str, Any]
) -> tuple[Resource, ...]:
    """What a call may write to: everything, if it does not say."""
    if tool.effect.kind == "undeclared":
        return _EVERYTHING
    try:
        args, kwargs = tool.signature.validate(tuple(args), kwargs)
    except ArgumentError:
        return ()  # it will not be made
    return tool.effect.touched(tool.spec.bind(args, kwargs))
