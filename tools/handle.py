"""Handles: what a call inside a workflow gives before its value exists.

A handle is awaited for the value, or passed on as ``handle.ref`` to draw an edge.
``handle.ref[0].url`` records a path into the value; ``handle.each.url`` is one element's
field, for `Tool.map`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Generator, Sequence
from contextvars import Context as ContextVars
from types import CodeType
from typing import TYPE_CHECKING, Any, Generic, NoReturn, Protocol, TypeVar

from agentflow.tools.paths import ALL

T_co = TypeVar("T_co", covariant=True)
E = TypeVar("E")


class Reference:
    """A recorded path into the value of a handle; statically it is the value's type."""

    __slots__ = ("_agentflow_handle", "_agentflow_path")

    def __init__(self, handle: Any, path: tuple[Any, ...] = ()) -> None:
        self._agentflow_handle = handle
        self._agentflow_path = path

    def __getattr__(self, name: str) -> Reference:
        if name.startswith("__"):
            raise AttributeError(name)
        return Reference(self._agentflow_handle, (*self._agentflow_path, name))

    def __getitem__(self, key: Any) -> Reference:
        if not isinstance(key, str | int):
            raise TypeError(f"a path step is a name or an index, not {key!r}")
        return Reference(self._agentflow_handle, (*self._agentflow_path, key))

    def __repr__(self) -> str:
        steps = (f"[{s}]" if isinstance(s, int) else f".{s}" for s in self._agentflow_path)
        return f"<ref to {self._agentflow_handle!r}{''.join(steps)}>"

    def _not_a_value(self, *_: Any) -> NoReturn:
        raise TypeError(
            f"{self!r} stands for a value that does not exist yet: "
            "await the handle, or pass the reference to another call"
        )

    __bool__ = __len__ = __iter__ = __contains__ = __str__ = __format__ = _not_a_value
    __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = _not_a_value
    __add__ = __radd__ = __sub__ = __mul__ = __truediv__ = __int__ = __float__ = _not_a_value
    __call__ = _not_a_value
    __hash__ = object.__hash__


def parts(reference: Reference) -> tuple[Any, tuple[Any, ...]]:
    """The handle and the path of a reference."""
    return reference._agentflow_handle, reference._agentflow_path


class Owner(Protocol):
    """The run that a handle belongs to."""

    def cancel_handle(self, handle: Any) -> None:
        """Stop the call, unless something else needs it."""
        ...


if TYPE_CHECKING:

    class Handle(Coroutine[Any, Any, T_co], Generic[T_co]):
        """The value of a call, later: await it, or pass on its `ref`."""

        @property
        def ref(self) -> T_co:
            """The handle typed as its value, to be passed to another call."""
            ...

        @property
        def each(self: Handle[Sequence[E]]) -> E:
            """One element of the value, for `Tool.map`."""
            ...

        def cancel(self) -> bool:
            """Stop the call, unless another handle or call needs it."""
            ...

        def done(self) -> bool:
            """Whether the call has ended."""
            ...

        def __await__(self) -> Generator[Any, None, T_co]: ...

else:

    class Handle(asyncio.Future):
        """The value of a call, later: await it, or pass on its `ref`."""

        # A Future, so that gather and wait_for take it without a task of their own;
        # with send, throw and close, so that create_task takes it as a coroutine.

        __slots__ = ("_steps", "code", "home", "line", "owner", "tool", "used")

        def __init__(
            self,
            owner: Owner,
            tool: str,
            code: CodeType,
            line: int,
            loop: asyncio.AbstractEventLoop,
        ) -> None:
            super().__init__(loop=loop)
            self.owner = owner
            self.tool = tool
            self.code = code  # where the call was written
            self.line = line
            self.home: Any = None  # reference to its value in the run's plan
            self.used = False
            self._steps: Generator[Any, None, Any] | None = None

        def __class_getitem__(cls, _item: Any) -> type:
            return cls

        @property
        def ref(self) -> Reference:
            """The handle typed as its value, to be passed to another call."""
            self.used = True
            return Reference(self)

        @property
        def each(self) -> Reference:
            """One element of the value, for `Tool.map`."""
            self.used = True
            return Reference(self, (ALL,))

        def __await__(self) -> Generator[Any, None, Any]:
            self.used = True
            return super().__await__()

        def add_done_callback(
            self, fn: Callable[[Any], object], *, context: ContextVars | None = None
        ) -> None:
            """As of a Future; whoever adds one uses the handle."""
            self.used = True
            super().add_done_callback(fn, context=context)

        def cancel(self, msg: Any = None) -> bool:
            """Stop the call, unless another handle or call needs it."""
            # asyncio cancels a task through the future it awaits: it must see CancelledError.
            if not super().cancel(msg):
                return False
            self.owner.cancel_handle(self)
            return True

        def __eq__(self, other: object) -> bool:
            return self is other or self._not_a_value()

        __hash__ = asyncio.Future.__hash__

        def __getattr__(self, name: str) -> NoReturn:
            if name.startswith("_"):  # a protocol that handles do not have
                raise AttributeError(name)
            raise AttributeError(
                f"{self!r} is not the value yet: await it, or pass {self.tool}(...).ref.{name} on"
            )

        def send(self, value: Any) -> Any:
            """As of a coroutine."""
            if self._steps is None:
                self._steps = self.__await__()
            return self._steps.send(value)

        def throw(self, *error: Any) -> Any:
            """As of a coroutine; one that has not begun is cancelled."""
            if self._steps is None:
                self.cancel()
                self._steps = self.__await__()
            return self._steps.throw(*error)

        def close(self) -> None:
            """As of a coroutine; one that has not begun is cancelled."""
            if self._steps is not None:
                self._steps.close()
            else:
                self.cancel()

        def _not_a_value(self, *_: Any) -> NoReturn:
            raise TypeError(
                f"{self!r} is not the value yet: await it, or pass {self.tool}(...).ref on"
            )

        __bool__ = __len__ = __iter__ = __contains__ = __getitem__ = __format__ = _not_a_value
        __lt__ = __le__ = __gt__ = __ge__ = __add__ = __radd__ = __int__ = __float__ = _not_a_value

        def __repr__(self) -> str:
            return f"<handle of {self.tool}, {self.code.co_filename}:{self.line}>"

        __str__ = __repr__
