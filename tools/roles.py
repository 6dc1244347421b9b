"""What the parameters of a tool are for that are more than values a caller gives."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeAlias

from agentflow.context import Context
from agentflow.errors import DefinitionError
from agentflow.tools.streaming import WARM, Commit, Late, LateValue, Stream, TextStream
from agentflow.wording import described

Check: TypeAlias = Callable[[Any], "bool | str | None"]
"""Looks at a value: true or None accepts it; false, a reason or an exception does not."""

VARIABLE = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
"""Kinds of parameters that stand for any number of arguments."""

Early: TypeAlias = Literal["late", "stream"]
"""How a tool takes an argument that may come while it works."""


class Roles:
    """The parameters of one function that the engine fills in, or may fill before they are known.

    Args:
        tool: Name of the tool, for messages.

    Attributes:
        context: The parameter that takes the `Context`, or None.
        commit: The parameter that takes the `Commit`, or None.
        warm: The parameter that takes what the warm-up gave, or None.
        early: Parameters that may come while the tool works, and how.
        rearranges: Arguments are not passed on as callers give them.
    """

    def __init__(self, tool: str) -> None:
        self._tool = tool
        self._before = ""  # a parameter by position that the engine fills in
        self.context: str | None = None
        self.commit: str | None = None
        self.warm: str | None = None
        self.early: dict[str, Early] = {}
        self.rearranges = False

    @property
    def filled(self) -> frozenset[str]:
        """All parameters that the engine fills in."""
        return frozenset(filter(None, (self.context, self.commit, self.warm)))

    def take(self, parameter: inspect.Parameter, annotation: Any) -> Any:
        """Note a parameter, in order.

        Returns:
            The type of the value that callers give for it; None if they give none.

        Raises:
            DefinitionError: It cannot be what it is annotated as.
        """
        value = self._role_of(parameter, annotation)
        by_position = parameter.kind is not parameter.KEYWORD_ONLY
        if value is None and parameter.kind is parameter.POSITIONAL_ONLY:
            raise self._error(parameter.name, "is given by name: put it behind the '/'")
        if value is None and by_position:
            self._before = parameter.name
        elif self._before and parameter.kind is parameter.VAR_POSITIONAL:
            raise self._error(self._before, f"stands before *{parameter.name}: put it behind")
        elif self._before and by_position:
            self.rearranges = True
        return value

    def _role_of(self, parameter: inspect.Parameter, annotation: Any) -> Any:
        name = parameter.name
        if _is(annotation, Context):
            self.context = name
        elif _is(annotation, Commit):
            self.commit = self._only(self.commit, name, "Commit")
        elif WARM in getattr(annotation, "__metadata__", ()):
            self.warm = self._only(self.warm, name, "Warm")
        else:
            value = self._value_of(name, annotation)
            self.rearranges = self.rearranges or name in self.early
            if name in self.early and parameter.kind in VARIABLE:
                raise self._error(name, "stands for any number of arguments, which are not late")
            return value
        return None

    def _only(self, first: str | None, name: str, kind: str) -> str:
        if first is not None:
            raise self._error(name, f"is a second {kind}, beside {first!r}")
        return name

    def _error(self, name: str, problem: str) -> DefinitionError:
        return DefinitionError(f"tool {self._tool!r}: {name!r} {problem}")

    def _value_of(self, name: str, annotation: Any) -> Any:
        origin = typing.get_origin(annotation) or annotation
        inner = typing.get_args(annotation)
        if origin is typing.Annotated and _is_late(inner[0]):
            return typing.Annotated[(self._value_of(name, inner[0]), *inner[1:])]
        if any(map(_is_late, inner)):
            if type(None) in inner:
                raise self._error(
                    name, "may be left out: annotate it without None, and give it a default"
                )
            raise self._error(
                name,
                "is late in a part of it only: annotate the parameter itself "
                "Stream[str] or Late[...]",
            )
        if origin is Late:
            self.early[name] = "late"
            return (*inner, Any)[0]
        if origin is Stream:
            self.early[name] = "stream"
            kind = (*inner, str)[0]
            if kind is not str and (typing.get_args(kind) or (kind,))[0] is not str:
                raise self._error(name, "is a stream of text: annotate it Stream[str]")
            return kind
        return annotation

    def call(
        self,
        fn: Callable[..., Any],
        signature: inspect.Signature,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
    ) -> Any:
        """Call a function; arguments that it may take late, and that are there, are given so.

        Args:
            fn: The function.
            signature: What callers give.
            args: Arguments by position.
            kwargs: Arguments by name, and what the engine fills in.
        """
        own = self.filled
        filled = {name: value for name, value in kwargs.items() if name in own}
        given = {name: value for name, value in kwargs.items() if name not in own}
        bound = signature.bind(*args, **given)
        for name, how in self.early.items():
            value = bound.arguments.get(name, signature.parameters[name].default)
            bound.arguments[name] = there(value, how)
        if not self._before:
            return fn(*bound.args, **bound.kwargs, **filled)
        # What callers give by position may stand behind what they do not give: by name, then.
        first, named = [], filled
        for name, value in bound.arguments.items():
            kind = signature.parameters[name].kind
            if kind is inspect.Parameter.POSITIONAL_ONLY:
                first.append(value)
            else:
                named.update(value if kind is inspect.Parameter.VAR_KEYWORD else {name: value})
        return fn(*first, **named)


def there(value: Any, how: Early) -> TextStream | LateValue[Any]:
    """A value as an argument that has come already; one that may still come is kept."""
    if isinstance(value, TextStream | LateValue):
        return value
    return LateValue.of(value) if how == "late" else TextStream.of(value or "")


def refusal(verdict: bool | str | None) -> str | None:
    """Why a check does not accept a value; None if it does."""
    if isinstance(verdict, str):
        return verdict or "it did not pass the check"
    return None if verdict is None or verdict else "it did not pass the check"


def accepts(check: Check) -> Callable[[Any], Any]:
    """A check, as pydantic calls it: gives the value back, or raises ValueError."""

    def checked(value: Any) -> Any:
        try:
            why = refusal(check(value))
        except Exception as error:  # noqa: BLE001  # a value that it cannot take is no better
            why = str(error) if isinstance(error, ValueError) else described(error)
        if why is not None:
            raise ValueError(why)
        return value

    return checked


def _is_late(annotation: Any) -> bool:
    """Whether a type is, or holds, one of a value that may come late."""
    own = typing.get_origin(annotation) or annotation
    return own is Late or own is Stream or any(map(_is_late, typing.get_args(annotation)))


def _is(annotation: Any, kind: type) -> bool:
    return annotation is kind or annotation == (kind | None)
