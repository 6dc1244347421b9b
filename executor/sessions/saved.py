"""Sessions as JSON. What is read is data from outside: all of it is checked."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, astuple
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from agentflow.errors import DefinitionError
from agentflow.executor.models.wire import whole
from agentflow.executor.sessions.history import Compaction, Message
from agentflow.tools.tool import Tool

if TYPE_CHECKING:
    from agentflow.executor.sessions.state import Mark, SessionState


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


Count: TypeAlias = Annotated[int, Field(ge=0, lt=2**63)]
Rate: TypeAlias = Annotated[float, Field(ge=1, allow_inf_nan=False)]
Window: TypeAlias = Annotated[int, Field(ge=1, lt=2**63)]


class SavedFunction(_Strict):
    """What a call is of; its arguments are a text, perhaps not even JSON."""

    name: str
    arguments: str


class SavedCall(_Strict):
    """A call that the model made."""

    id: str
    type: Literal["function"]
    function: SavedFunction


class SavedByUser(_Strict):
    """What the user said."""

    role: Literal["user"]
    content: str


class SavedByAssistant(_Strict):
    """What the model said."""

    role: Literal["assistant"]
    content: str | None
    refusal: str = ""
    tool_calls: list[SavedCall] = []


class SavedResult(_Strict):
    """What came of a call."""

    role: Literal["tool"]
    tool_call_id: str
    content: str


SavedMessage: TypeAlias = Annotated[
    SavedByUser | SavedByAssistant | SavedResult, Field(discriminator="role")
]


class SavedCompaction(_Strict):
    """A `Compaction`."""

    cut: Count
    since: Count
    summary: str
    readable: bool


class Saved(_Strict):
    """A session."""

    agentflow_session: Literal[1]
    id: str = Field(max_length=100, pattern=r"^[A-Za-z0-9_.-]+$")  # it may stand in a header
    system: str
    model: str | None
    tools: list[str] | None
    window: Window | None
    bytes_per_token: Rate
    messages: list[SavedMessage]
    compactions: list[SavedCompaction]
    outputs: dict[str, str]
    mark: tuple[str, Count, Count, Window | None, Rate] | None

    def said(self) -> list[Message]:
        """The messages."""
        return [message.model_dump(exclude_unset=True) for message in self.messages]

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


def saved(session: SessionState, mark: Mark | None) -> dict[str, Any]:
    """A session as it is written down; `Saved` says what stands in it."""
    history = session.history
    return {
        "agentflow_session": 1,
        "id": session.id,
        "system": session.system,
        "model": session.model,
        "tools": None if session.tools is None else [tool.name for tool in session.tools],
        "window": session.gauge.window,
        "bytes_per_token": session.gauge.bytes_per_token,
        "messages": list(history.messages),
        "compactions": [asdict(made) for made in history.compactions],
        "outputs": dict(session.outputs),
        "mark": None if mark is None else list(astuple(mark)),
    }


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
            found = Saved.model_validate(whole(data), strict=False)
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
    _check_messages(session.messages)
    length = len(session.messages)
    for made in session.compactions:
        _check_within(max(made.cut, made.since), length)
        if any(message.role == "tool" for message in session.messages[made.since :][:1]):
            raise DefinitionError("this is no session: a result is shown without its call")
    if session.mark is not None:
        _check_within(session.mark[1], length)
        _check_within(session.mark[2], len(session.compactions))


def _check_messages(messages: Sequence[SavedMessage]) -> None:
    """Check that the user begins, and that every call is followed by its result.

    The last calls may have none: then it was saved in the middle of a turn.

    Raises:
        DefinitionError: It is not so.
    """
    if messages and messages[0].role != "user":
        raise DefinitionError("this is no session: it does not begin with the user")
    waiting: list[str] = []
    for place, message in enumerate(messages):
        if message.role == "tool":
            if message.tool_call_id not in waiting:
                raise DefinitionError(f"this is no session: message {place} answers no call")
            waiting.remove(message.tool_call_id)
        elif waiting:
            raise DefinitionError(
                f"this is no session: a call before message {place} has no result"
            )
        elif message.role == "assistant":
            waiting = [call.id for call in message.tool_calls]


def _check_within(place: int, length: int) -> None:
    if place > length:
        raise DefinitionError("this is no session: more is left out than was said")
