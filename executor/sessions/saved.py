"""Sessions as JSON. What is read is data from outside: all of it is checked."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import astuple
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from agentflow.errors import DefinitionError
from agentflow.executor.sessions.history import Compaction
from agentflow.tools.tool import Tool

if TYPE_CHECKING:
    from agentflow.executor.sessions.state import Mark, SessionState


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class SavedCompaction(_Strict):
    """A `Compaction`."""

    at: int = Field(ge=0)
    cut: int = Field(ge=0)
    since: int = Field(ge=0)
    summary: str
    readable: bool


class Saved(_Strict):
    """A session."""

    agentflow_session: Literal[1]
    id: str = Field(min_length=1, pattern=r"^[\w.-]+$")
    system: str
    model: str | None
    tools: list[str] | None
    window: int | None = Field(ge=1)
    bytes_per_token: float = Field(ge=1)
    messages: list[dict[str, Any]]
    compactions: list[SavedCompaction]
    outputs: dict[str, str]
    mark: tuple[str, int, int, int | None, float] | None

    def made(self) -> list[Compaction]:
        """The compactions."""
        return [Compaction(**each.model_dump()) for each in self.compactions]

    def its_own(self, tools: Iterable[Tool[..., Any]] | None) -> list[Tool[..., Any]] | None:
        """Those of these tools that it may call; None where it has the engine's.

        Raises:
            DefinitionError: One is missing.
        """
        if self.tools is None:
            return None
        named = {tool.name: tool for tool in tools or ()}
        if missing := [name for name in self.tools if name not in named]:
            raise DefinitionError(
                f"session {self.id} may call {', '.join(missing)}: give these tools, too, as in "
                "Session.from_json(text, tools=[...])"
            )
        return [named[name] for name in self.tools]


def saved(session: SessionState, mark: Mark | None) -> Saved:
    """A session as it is written down."""
    names = None if session.tools is None else [tool.name for tool in session.tools]
    history = session.history
    return Saved(
        agentflow_session=1,
        id=session.id,
        system=session.system,
        model=session.model,
        tools=names,
        window=session.gauge.window,
        bytes_per_token=session.gauge.bytes_per_token,
        messages=list(history.messages),
        compactions=[
            SavedCompaction(
                at=made.at,
                cut=made.cut,
                since=made.since,
                summary=made.summary,
                readable=made.readable,
            )
            for made in history.compactions
        ],
        outputs=session.outputs,
        mark=None if mark is None else astuple(mark),
    )


def read(data: Any) -> Saved:
    """What was written down.

    Args:
        data: A mapping, or JSON.

    Raises:
        DefinitionError: It is no session.
    """
    try:
        if isinstance(data, str | bytes):
            found = Saved.model_validate_json(data)
        else:
            found = Saved.model_validate(data, strict=False)
        _check(found)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or "the text"
        raise DefinitionError(f"this is no session: {where}: {first['msg']}") from None
    return found


def _check(session: Saved) -> None:
    """Check what a history relies on.

    Raises:
        DefinitionError: It is not so.
    """
    for place, message in enumerate(session.messages):
        role, content = message.get("role"), message.get("content")
        text = isinstance(content, str) or (role == "assistant" and content is None)
        if role not in ("user", "assistant", "tool") or not text:
            raise DefinitionError(f"this is no session: message {place} is none of a conversation")
        if role == "tool" and not isinstance(message.get("tool_call_id"), str):
            raise DefinitionError(f"this is no session: message {place} answers no call")
    if session.messages and session.messages[0]["role"] != "user":
        raise DefinitionError("this is no session: it does not begin with the user")
    for made in session.compactions:
        if max(made.at, made.cut, made.since) > len(session.messages):
            raise DefinitionError("this is no session: more is left out than was said")
