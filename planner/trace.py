"""The Python front end: calls made in a workflow become nodes of a plan.

Handles passed on become references, `Tool.map` becomes ``each``, ``when=`` a guard. What is
not a handle is copied at the call, so changing a list afterwards changes nothing.
"""

from __future__ import annotations

import asyncio
import contextvars
import dataclasses
import sys
import threading
from collections.abc import Iterable, Iterator
from types import FrameType
from typing import Any

from agentflow.context import recorder
from agentflow.errors import DefinitionError, WorkflowError
from agentflow.planner.builder import Builder
from agentflow.planner.plan import ALL, GATHER, JOIN_ALL, UNCOUNTED, Each, Join, Node, Ref
from agentflow.tools.handle import Handle, Reference, parts
from agentflow.tools.spec import ToolSpec
from agentflow.tools.tool import Tool, has_each
from agentflow.tools.values import IMMUTABLE, fresh


class Trace:
    """Collects the calls of one workflow.

    Args:
        name: Name of the workflow.
        loop: The loop it runs in; its handles belong to it.

    Attributes:
        builder: Grows the plan.
        tools: The tools called so far, by the name their nodes have.
        pending: Handles of calls that are in no segment yet.
        contexts: Context variables at each pending call, by plan id.
        ended: Further calls are refused.
    """

    def __init__(self, name: str, loop: asyncio.AbstractEventLoop) -> None:
        self.name = name
        self.loop = loop
        self.tools: dict[str, Tool[..., Any]] = {}
        self.builder = Builder(self._spec)
        self.pending: list[Any] = []
        self.contexts: dict[int, contextvars.Context] = {}
        self.ended = False
        self._names: dict[int, str] = {}
        self._thread = threading.get_ident()

    def record(
        self,
        tool: Tool[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        *,
        mapped: bool = False,
    ) -> Any:
        """Note a call, or a map over its arguments, and return its handle.

        Raises:
            ArgumentError: An argument is not what the signature asks for.
            WorkflowError: The workflow cannot take calls here.
        """
        self._check_place(tool.name)
        argument = self._argument
        if mapped and args and isinstance(args[0], range | set | frozenset | Iterator):
            args = (list(args[0]), *args[1:])
        given = tuple([v if type(v) in IMMUTABLE else argument(v) for v in args])
        named = tuple([(name, argument(value)) for name, value in kwargs.items()])
        if tool.join and not mapped:
            raise DefinitionError(
                f"join={tool.join!r} says how a map waits: write {tool.name}.with_(...).map(...), "
                "or join handles with first, settled or quorum"
            )
        if mapped:
            given, named = _mapped(tool.name, args, kwargs, given, named)
        elif tool.signature.typed and not (
            _unknown(args) or (kwargs and _unknown(kwargs.values()))
        ):
            tool.signature.validate(args, kwargs)
        node = Node(
            self._names.get(id(tool)) or self._name_of(tool.origin),
            given,
            named,
            None if tool.when is None else self._guard(tool.when),
            join_policy(tool.join) if tool.join else JOIN_ALL,
            options=None if tool.policy is tool.origin.policy else tool.policy,
        )
        return self._add(node, tool.name, sys._getframe(2))

    def gather(self, join: Join, values: tuple[Any, ...]) -> Any:
        """Note a wait for several handles by a policy, and return its handle.

        Raises:
            DefinitionError: One of the values is not a handle.
        """
        name = GATHER if join.kind == "all" else join.kind
        self._check_place(name)
        for value in values:
            if type(value) is not Handle and type(value) is not Reference:
                raise DefinitionError(f"{name} joins handles, not {value!r}")
        node = Node(GATHER, tuple(map(self._argument, values)), join=join)
        return self._add(node, name, sys._getframe(3))

    def collected(self, handle: Any) -> None:
        """A call was noted."""
        self.pending.append(handle)

    def cancel_handle(self, _handle: Any) -> None:
        """A handle was cancelled; a trace that runs nothing has nothing to stop."""

    def _check_place(self, tool: str) -> None:
        if threading.get_ident() != self._thread:
            raise WorkflowError(
                f"{tool} was called in another thread than its workflow {self.name!r}: "
                f"call {tool}.fn(...) there"
            )
        if self.ended:
            raise WorkflowError(
                f"{tool} was called after workflow {self.name!r} had ended: "
                "await the task that calls it before returning"
            )

    def _add(self, node: Node, tool: str, frame: FrameType) -> Any:
        handle = _handle(self, tool, frame.f_code, frame.f_lineno, self.loop)
        index = self.builder.add(node)
        handle.home = Ref(index)
        if index not in self.contexts:
            context = contextvars.copy_context()
            context.run(recorder.set, None)
            self.contexts[index] = context
        self.collected(handle)
        return handle

    def _argument(self, value: Any) -> Any:
        """A value as it stands in a plan: handles become references, the rest a copy."""
        kind = type(value)
        if kind is Reference:
            return self._ref(*parts(value))
        if kind in IMMUTABLE:
            return value
        if kind is Handle:
            value.used = True
            return self._ref(value, ())
        if kind is list or kind is tuple:
            return kind([self._argument(item) for item in value])
        if kind is dict:
            return {key: self._argument(item) for key, item in value.items()}
        refuse_hidden(value)
        return fresh(value)

    def _ref(self, handle: Any, path: tuple[Any, ...]) -> Ref:
        if handle.owner is not self:
            raise WorkflowError(
                f"{handle!r} belongs to another workflow: await it there and pass its value"
            )
        home: Ref = handle.home
        return Ref(home.node, (*home.path, *path)) if path else home

    def _guard(self, when: Any) -> Ref:
        guard = self._argument(when)
        if type(guard) is not Ref:
            raise DefinitionError(f"when= takes a handle's .ref, not {when!r}")
        return guard

    def _name_of(self, tool: Tool[..., Any]) -> str:
        """The name of a tool in this plan; two tools of one name are told apart."""
        name = self._names.get(id(tool))
        if name is None:
            name, count = tool.name, 2
            while name in self.tools:
                name, count = f"{tool.name}.{count}", count + 1
            self.tools[name] = tool  # keeps it alive, so that its id stays its own
            self._names[id(tool)] = name
            if tool.batch is not None and tool.batch.name not in self.tools:
                self._name_of(tool.batch.origin)
        return name

    def _spec(self, name: str) -> ToolSpec | None:
        tool = self.tools.get(name)
        return None if tool is None else tool.spec


def refuse_hidden(value: Any) -> None:
    """Handles are found in lists, tuples and dicts; anywhere else they would pass for values.

    Raises:
        WorkflowError: One is in a set, a named tuple or a dataclass.
    """
    if isinstance(value, set | frozenset | tuple):
        inside: Iterable[Any] = value
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        inside = [getattr(value, field.name) for field in dataclasses.fields(value)]
    else:
        return
    for item in inside:
        if type(item) is Handle or type(item) is Reference:
            raise WorkflowError(
                f"{item!r} is inside a {type(value).__name__}, where it is not waited for: pass it "
                "by itself or in a list, tuple or dict, or await it first"
            )


def join_policy(text: str) -> Join:
    """Read the name of a policy: ``all``, ``settled``, ``first`` or ``quorum(2)``.

    Raises:
        DefinitionError: It is none of these.
    """
    if text in UNCOUNTED:
        return Join(text)
    count = text.removeprefix("quorum(").removesuffix(")")
    if text == f"quorum({count})" and count.isdecimal() and int(count) > 0:
        return Join("quorum", int(count))
    raise DefinitionError(
        f"{text!r} is not a join policy: write 'all', 'settled', 'first' or 'quorum(2)'"
    )


_handle: Any = Handle  # a type for checkers, a Future at run time


def _mapped(
    tool: str,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    given: tuple[Any, ...],
    named: tuple[tuple[str, Any], ...],
) -> tuple[tuple[Any, ...], tuple[tuple[str, Any], ...]]:
    """The arguments of a map: those with ``.each``, or the first, are gone over."""
    if any(has_each(value) for value in (*args, *kwargs.values())):
        return tuple(map(_each, given)), tuple((name, _each(arg)) for name, arg in named)
    if not given or not isinstance(given[0], Ref | list | tuple):
        raise DefinitionError(f"{tool}.map needs a list or a handle first, or arguments with .each")
    return (Each(given[0]), *given[1:]), named


def _each(arg: Any) -> Any:
    return Each(arg) if type(arg) is Ref and arg.path[:1] == (ALL,) else arg


def _unknown(values: Iterable[Any]) -> bool:
    """Whether any of these values does not exist yet."""
    for value in values:
        kind = type(value)
        if kind is Handle or kind is Reference:
            return True
        if kind in (list, tuple) and _unknown(value):
            return True
        if kind is dict and _unknown(value.values()):
            return True
    return False
