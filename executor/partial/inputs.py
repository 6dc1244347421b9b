"""The arguments of a call, as far as they are known while a model writes them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from agentflow.tools.roles import VARIABLE, Early
from agentflow.tools.streaming import Commit, LateValue, Patience, TextBuffer, TextStream
from agentflow.tools.tool import Tool
from agentflow.tools.values import fresh


class Inputs:
    """The arguments of one call.

    Args:
        tool: What is called.

    Attributes:
        certain: Done when the call is certain.
        commit: Lets the tool know.
        patience: How long the tool has waited for arguments, and to be called at all.
        given: Complete arguments by name, as the model wrote them.
        spoiled: An argument came twice, or after the tool had begun without it.
    """

    def __init__(self, tool: Tool[..., Any]) -> None:
        self._tool = tool
        self._parameters = tool.signature.signature.parameters
        self._early = tool.signature.roles.early
        needs = tool.origin.warm_up.needs if tool.origin.warm_up is not None else {}
        self.patience = Patience()
        self.given: dict[str, Any] = {}
        self.spoiled = False
        self._opened: set[str] = set()
        self._loop = asyncio.get_running_loop()
        hows = [*self._early.items(), *needs.items()]
        self._texts = {name: TextBuffer(self.patience) for name, how in hows if how == "stream"}
        self._coming: dict[str, asyncio.Future[Any]] = {
            name: self._loop.create_future() for name, how in hows if how == "late"
        }
        self._frozen: frozenset[str] | None = None  # what the tool has begun with
        self.certain: asyncio.Future[None] = self._loop.create_future()
        self.commit = Commit(self.certain, self.patience)

    # What the model writes

    def open(self, name: str) -> None:
        """The value of an argument begins."""
        if name in self._opened:
            self.spoiled = True
        self._opened.add(name)

    def grow(self, name: str, text: str) -> None:
        """More of a text."""
        if (buffer := self._texts.get(name)) is not None and not buffer.ended:
            buffer.add(text)

    def close(self, name: str, raw: Any, valid: Any) -> None:
        """An argument is complete, as it was written and as the tool takes it."""
        if self._frozen is not None and name not in self._frozen and name not in self._early:
            self.spoiled = True
        self.given[name] = raw
        self._settle(name, valid)

    def _settle(self, name: str, valid: Any) -> None:
        """Whoever waits for an argument has it now."""
        if (buffer := self._texts.get(name)) is not None and not buffer.ended:
            text, so_far = _text(valid), buffer.text
            if text.startswith(so_far):
                buffer.add(text[len(so_far) :])
                buffer.end()
            else:
                self.spoiled = True
        if (coming := self._coming.get(name)) is not None and not coming.done():
            coming.set_result(fresh(valid))

    # What the tool may begin with

    @property
    def ready(self) -> bool:
        """Whether the tool can begin: all is there but what may come late.

        An argument that may be left out is waited for until one that may come late begins.
        """
        if not self._early or self.spoiled:
            return False
        missing = [
            p
            for p in self._parameters.values()
            if p.name not in self._early and p.name not in self.given and p.kind not in VARIABLE
        ]
        if any(p.default is p.empty for p in missing):
            return False
        return not missing or not self._opened.isdisjoint(self._early)

    def late(self, needs: Mapping[str, Early]) -> dict[str, Any]:
        """Arguments that may still come, as whoever takes them sees them."""
        return {
            name: LateValue(self._coming[name], self.patience)
            if how == "late"
            else TextStream(self._texts[name])
            for name, how in needs.items()
        }

    def known(self) -> tuple[list[Any], dict[str, Any]]:
        """The arguments to call the tool with now; from now on only late ones may come."""
        self._frozen = frozenset(self.given)
        written = {name: fresh(raw) for name, raw in self.given.items() if name not in self._early}
        values = self._tool.signature.validate_known(written)
        values.update(self.late(self._early))
        args = [values.pop(name) for name in self._by_position if name in values]
        if (role := self._tool.signature.roles.commit) is not None:
            values[role] = self.commit
        return args, values

    @property
    def _by_position(self) -> list[str]:
        return [p.name for p in self._parameters.values() if p.kind is p.POSITIONAL_ONLY]

    # The call is made

    def fit(self, arguments: Mapping[str, Any]) -> bool:
        """Whether tool and warm-up may have begun so, for a call with these arguments.

        Args:
            arguments: By name, as they were written.
        """
        if self._frozen is None and not (self._texts or self._coming):
            return True  # nobody was told of any
        if self.spoiled or not self.given.keys() <= arguments.keys():
            return False
        if any(not _same(raw, arguments[name]) for name, raw in self.given.items()):
            return False
        further = arguments.keys() - self.given.keys()
        if self._frozen is not None and not further <= self._early.keys():
            return False
        return all(
            str(arguments[name]).startswith(self._texts[name].text)
            for name in further & self._texts.keys()
        )

    def agree(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
        """Whether texts may have been read so far as they were; the arguments are converted."""
        arguments = self._bound(args, kwargs)
        return all(
            buffer.ended or _text(arguments[name]).startswith(buffer.text)
            for name, buffer in self._texts.items()
        )

    def complete(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """The call is certain: these are its arguments, converted."""
        arguments = self._bound(args, kwargs)
        for name in (*self._texts, *self._coming):
            self._settle(name, arguments[name])
        if not self.certain.done():
            self.certain.set_result(None)

    def abandon(self) -> None:
        """The call is not made: whoever waits for anything of it is cancelled."""
        for coming in (self.certain, *self._coming.values()):
            coming.cancel()
        for buffer in self._texts.values():
            buffer.abandon()

    def _bound(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        bound = self._tool.signature.signature.bind(*args, **kwargs)
        bound.apply_defaults()
        return bound.arguments


def _text(value: Any) -> str:
    """A streamed argument; one that was left out is empty."""
    return str(value or "")


def _same(one: Any, other: Any) -> bool:
    if one is other:
        return True
    try:
        return type(one) is type(other) and bool(one == other)
    except Exception:  # noqa: BLE001  # arrays, for one, have no single answer
        return False
