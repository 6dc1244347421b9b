"""What a tool makes ready when a model has named it, before there are arguments."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from typing import Any, Final

from agentflow.context import Context
from agentflow.errors import DefinitionError
from agentflow.tools.annotations import hints_of
from agentflow.tools.roles import Roles, there
from agentflow.tools.signature import Signature
from agentflow.wording import described

CLEANING: Final = 10.0
"""Seconds that cleaning up may take."""

_OVER: Final = object()


class WarmUp:
    """The warm-up of one tool.

    Args:
        fn: An async function that gives a value, or an async generator that yields one and
            cleans up after it when the call has ended. It may take a `Context`, and any
            parameters of the tool, annotated ``Stream[str]`` or ``Late[T]``.
        tool: The signature of the tool.
        local: Names that annotations may use besides the function's globals.

    Attributes:
        needs: How it takes parameters of the tool: ``late`` or ``stream``, by name.

    Raises:
        DefinitionError: It is no such function.
    """

    def __init__(
        self, fn: Callable[..., Any], tool: Signature, local: Mapping[str, Any] | None = None
    ) -> None:
        name = f"{tool.name}.warm"
        self._name = name
        self._generates = inspect.isasyncgenfunction(fn)
        if not self._generates and not inspect.iscoroutinefunction(fn):
            raise DefinitionError(f"@{name} decorates an 'async def', not {fn!r}")
        self._fn = fn
        self._tool = tool
        self._roles = Roles(name)
        hints = hints_of(fn, name, local)
        for parameter in inspect.signature(fn).parameters.values():
            annotation = hints.get(parameter.name, parameter.annotation)
            kind = self._roles.take(parameter, annotation)
            early = self._roles.early.get(parameter.name)
            if kind is not None and (early is None or parameter.name not in tool.names):
                raise DefinitionError(
                    f"@{name} takes {parameter.name!r}: it may take a Context, and parameters "
                    f"of {tool.name} annotated Stream[str] or Late[...]"
                )
        if self._roles.commit or self._roles.warm:
            raise DefinitionError(f"@{name} comes before the call: it has no Commit and no Warm")
        self.needs = self._roles.early

    def open(self, arguments: Mapping[str, Any], context: Context) -> Warming:
        """Warm up, and clean up in the end.

        Args:
            arguments: A stream, or a late value, for each of `needs`.
            context: For the function, if it wants one.
        """
        given = dict(arguments)
        if self._roles.context is not None:
            given[self._roles.context] = context
        return Warming(self._name, (self._fn if self._generates else self._once)(**given))

    def open_for(self, args: Sequence[Any], kwargs: Mapping[str, Any], context: Context) -> Warming:
        """Warm up for a call whose arguments are all there."""
        bound = self._tool.signature.bind(*args, **kwargs)
        bound.apply_defaults()
        given = {name: there(bound.arguments[name], how) for name, how in self.needs.items()}
        return self.open(given, context)

    async def _once(self, /, **given: Any) -> AsyncGenerator[Any, None]:
        yield await self._fn(**given)


class Warming:
    """One warm-up, from its beginning to its cleaning up; a context manager gives its value.

    An error in cleaning up, or too much time for it, is logged: the call it was for has its
    value all the same.

    Args:
        name: Of the warm-up, for messages.
        work: Yields the value.
    """

    def __init__(self, name: str, work: AsyncGenerator[Any, None]) -> None:
        self._name = name
        self._work = work

    async def __aenter__(self) -> Any:
        try:
            return await anext(self._work)
        except StopAsyncIteration:
            raise DefinitionError(f"@{self._name} yields nothing: let it yield one value") from None

    async def __aexit__(self, _: object, error: BaseException | None, __: object) -> None:
        await self.end(done=error is None)

    async def end(self, *, done: bool) -> None:
        """Clean up; if the call is done, with all that follows the value, else as on an error."""
        try:
            async with asyncio.timeout(CLEANING):
                if done and await anext(self._work, _OVER) is not _OVER:
                    self._warn("it yields more than one value")
                await self._work.aclose()
        except Exception as error:  # noqa: BLE001  # the call has its value, or its own error
            self._warn(described(error))

    def _warn(self, why: str) -> None:
        import structlog

        log = structlog.get_logger("agentflow.tools")
        log.warning("cleaning up after a warm-up went wrong", warm_up=self._name, why=why)


def needed(warm_up: WarmUp | None, tool: str, role: str) -> WarmUp:
    """The warm-up of a tool that takes its value.

    Raises:
        DefinitionError: There is none.
    """
    if warm_up is None:
        raise DefinitionError(
            f"tool {tool!r} takes {role!r} from its warm-up and has none: decorate one with "
            f"@{tool}.warm"
        )
    return warm_up
