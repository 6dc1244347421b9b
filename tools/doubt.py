"""Calls that may have been made: how their tool can tell whether they were."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from agentflow.context import Context
from agentflow.errors import DefinitionError
from agentflow.tools.annotations import hints_of
from agentflow.tools.roles import Roles

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Done(Generic[T]):
    """What ``verify=`` gives for a call that was made.

    Attributes:
        value: Of the call.
    """

    value: T


@dataclass(frozen=True, slots=True)
class NotDone:
    """What ``verify=`` gives for a call that was not made."""


class Verifier:
    """Finds out whether a call was made.

    Args:
        fn: Takes what the tool takes, and a `Context` if it wants one, whose idempotency key is
            the call's. It gives ``Done(value)``, ``NotDone()``, or None if it cannot tell.
        tool: Name of the tool.

    Attributes:
        in_thread: Whether it is a plain function, which may block.

    Raises:
        DefinitionError: Its annotations cannot be understood.
    """

    def __init__(self, fn: Callable[..., Any], tool: str) -> None:
        self._fn = fn
        self._tool = tool
        name = f"{tool}.verify"
        self._roles, hints = Roles(name), hints_of(fn, name, None)
        for parameter in inspect.signature(fn).parameters.values():
            self._roles.take(parameter, hints.get(parameter.name, parameter.annotation))
        self.in_thread = not inspect.iscoroutinefunction(fn)

    def ask(self, args: Sequence[Any], kwargs: Mapping[str, Any], context: Context) -> Any:
        """Call the function with the arguments of a call."""
        given = dict(kwargs)
        if self._roles.context is not None:
            given[self._roles.context] = context
        return self._fn(*args, **given)

    def read(self, found: Any) -> Done[Any] | NotDone | None:
        """What the function gave.

        Raises:
            DefinitionError: It is neither `Done` nor `NotDone`, nor None.
        """
        if found is None or isinstance(found, Done | NotDone):
            return found
        raise DefinitionError(
            f"{self._tool}: verify gave {type(found).__name__}: return Done(value), NotDone(), or "
            "None if it cannot tell"
        )
