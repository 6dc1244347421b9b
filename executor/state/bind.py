"""Arguments of a call, once the values they use exist."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from agentflow.planner.plan import Arg, Node, Ref, Template
from agentflow.tools.paths import resolve
from agentflow.tools.values import IMMUTABLE, as_text, fresh


@dataclass(frozen=True, slots=True)
class Element:
    """A use of a map element's value, before the map as a whole has one."""

    slot: int
    path: tuple[Any, ...] = ()


class Values(Protocol):
    """Where values are."""

    @property
    def values(self) -> Sequence[Any]:
        """Values by slot."""
        ...

    @property
    def slots(self) -> Sequence[int]:
        """Slots by plan id."""
        ...


def bind(source: Values, arg: Arg) -> Any:
    """An argument with every reference replaced by its value, fresh for its receiver.

    Raises:
        LookupError: A path does not lead anywhere.
    """
    kind = type(arg)
    if kind is Ref:
        value = source.values[source.slots[arg.node]]
        if arg.path:
            value = _found(value, arg.path, arg.node)
        return value if type(value) in IMMUTABLE else fresh(value)
    if kind in IMMUTABLE:
        return arg
    if kind is Element:
        return fresh(resolve(source.values[arg.slot], arg.path))
    if kind is Template:
        return "".join(
            part if isinstance(part, str) else as_text(bind(source, part)) for part in arg.parts
        )
    if kind is list or kind is tuple:
        return kind(bind(source, item) for item in arg)
    if kind is dict:
        return {key: bind(source, item) for key, item in arg.items()}
    return fresh(arg)


def bind_arguments(source: Values, node: Node) -> tuple[list[Any], dict[str, Any]]:
    """The arguments of a call, positional and by keyword.

    Raises:
        LookupError: A path does not lead anywhere.
    """
    args = [arg if type(arg) in IMMUTABLE else bind(source, arg) for arg in node.args]
    if not node.kwargs:
        return args, {}
    return args, {name: bind(source, arg) for name, arg in node.kwargs}


def _found(value: Any, path: Sequence[Any], node: int) -> Any:
    try:
        return resolve(value, path)
    except LookupError as error:
        raise LookupError(f"in the value of ${node + 1}: {error.args[0]}") from None
