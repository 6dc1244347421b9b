"""`Session`: a conversation with a model and tools, in turns."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any, Self

from agentflow.executor.models.wire import sound
from agentflow.executor.run import Body
from agentflow.executor.sessions.state import AnyTool, SessionState
from agentflow.executor.strategies.task import Task
from agentflow.redaction import redact
from agentflow.tools.handle import Handle
from agentflow.workflows import Workflow


class Session(SessionState):
    """A conversation with a model that may call tools; each turn is a run.

    ``await engine.run(session, "...")`` takes a turn, and ``session.ask("...")`` does within a
    workflow, by the strategy ``react`` unless another is named. What was said is only added to, so
    prompts begin alike and servers that still hold the conversation need not compute it again.
    Where it grows too long for the model, older outputs of tools are shown by reference, and if
    that is not enough, older messages are told by a summary; `events.ContextCompacted` says so.

    Args:
        system: What the model is told first; by default what the strategy tells it.
        tools: What it may call; the engine's tools by default.
        model: Name of the model; the engine's default by default.
        window: Tokens that the model takes, prompt and reply together; by default what its
            server says when a request is too long.

    Raises:
        DefinitionError: The window is not positive.
    """

    @cached_property
    def _turns(self) -> dict[tuple[tuple[str, Any], ...], _Turn]:
        """Its turns in workflows, by their fields: to a workflow each is one tool."""
        return {}

    def ask(self, said: str, **fields: Any) -> Handle[str]:
        """Take a turn: within a workflow a handle, elsewhere a coroutine with its own engine.

        Args:
            said: What the user says.
            **fields: Further fields of `Task`, such as ``strategy`` and ``budget``.

        Raises:
            DefinitionError: A field is not usable, or the session says what it does.
        """
        turn_of(self, "what is said is checked in its turn", **fields)
        key = tuple(sorted(fields.items()))
        turn = self._turns.get(key) or self._turns.setdefault(key, _Turn(self, fields))
        return turn(said)

    def to_json(self) -> str:
        """All of it as JSON, with known secrets masked; tools go by their names."""
        return redact(sound(json.dumps(self.data(), ensure_ascii=False)))

    @classmethod
    def from_json(cls, text: str, *, tools: Iterable[AnyTool] | None = None) -> Self:
        """The session that `to_json` wrote.

        Args:
            text: What it wrote.
            tools: Those that it may call; not needed if it has the engine's.

        Raises:
            DefinitionError: It is no session, or it calls a tool that is not here.
        """
        return cls.of(text, tools)


def turn_of(session: SessionState, said: str, **fields: Any) -> Task:
    """A turn of a session as a task; calls turn by turn, unless it is to plan.

    Args:
        session: The session.
        said: What the user says.
        **fields: Further fields of `Task`.
    """
    return Task(said, session=session, **{"strategy": "react", **fields})


class _Turn(Workflow[[str], str]):
    """A turn of a session, as a call in a workflow: a run within the workflow's."""

    def __init__(self, session: Session, fields: dict[str, Any]) -> None:
        async def ask(said: str) -> str:
            raise NotImplementedError

        super().__init__(ask, budget=fields.get("budget"), local={})
        self._session = session
        self._fields = fields

    @property
    def stateful(self) -> bool:
        """What was said in it is part of the session."""
        return True

    def body(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Body[str]:
        """What a run of it does."""
        (said,), _ = self.signature.validate(args, dict(kwargs))
        return turn_of(self._session, said, **self._fields).body()

    def toolbox(self, default: Mapping[str, AnyTool]) -> Mapping[str, AnyTool]:
        """What the session's model may call.

        Args:
            default: The tools of the engine.
        """
        return self._session.toolbox(default)
