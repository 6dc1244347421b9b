"""The state of a session: what was said in it, and whose turn it is."""

from __future__ import annotations

import secrets
from asyncio import CancelledError
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from agentflow.context import run_scope
from agentflow.errors import DefinitionError, HistoryMismatch, SessionBusy
from agentflow.executor.outputs import Outputs, SessionOutputs
from agentflow.executor.sessions.gauge import Gauge
from agentflow.executor.sessions.history import History, Message
from agentflow.planner.prompting import shown
from agentflow.tools.tool import Tool
from agentflow.tools.toolbox import Toolbox
from agentflow.wording import described

if TYPE_CHECKING:
    from agentflow.executor.run import Run

AnyTool = Tool[..., Any]

REASON = 600
"""Characters that are kept of why there was no answer: servers repeat requests in their errors."""


@dataclass(frozen=True, slots=True)
class Mark:
    """How a session was before the first turn that an outermost run took in it.

    Attributes:
        run: Id of the run.
        messages: Messages there were.
        compactions: Compactions there were.
        window: As it was known.
        bytes_per_token: As it was known.
    """

    run: str
    messages: int
    compactions: int
    window: int | None
    bytes_per_token: float


class SessionState:
    """A conversation that outlasts a run: what strategies go on with.

    Args:
        system: What the model is told first; by default what the strategy tells it.
        tools: What it may call; the engine's tools by default.
        model: Name of the model; the engine's default by default.
        window: Tokens that the model takes, prompt and reply together; by default what its
            server says when a request is too long.

    Attributes:
        lasts: Whether it outlasts a run.
        id: Unique; two sessions of one id are one conversation.
        system: As given.
        tools: As given.
        model: As given.
        history: What was said.
        gauge: Measures its prompts.
        outputs: Results that were too long to be shown, by name.

    Raises:
        DefinitionError: The window is not positive.
    """

    lasts = True

    def __init__(
        self,
        system: str = "",
        *,
        tools: Iterable[AnyTool] | None = None,
        model: str | None = None,
        window: int | None = None,
    ) -> None:
        if window is not None and window < 1:
            raise DefinitionError(f"window={window!r}: write the tokens that the model takes")
        self.id = f"s-{secrets.token_hex(6)}"
        self.system = system
        self.tools = None if tools is None else tuple(tools)
        self.model = model
        self.history = History()
        self.gauge = Gauge(window)
        self.outputs: dict[str, str] = {}
        self._mark: Mark | None = None
        self._marked: Run[Any] | None = None  # the execution whose first turn set the mark
        self._turn = ""  # id of the run whose turn it is

    @property
    def messages(self) -> tuple[Message, ...]:
        """Everything that was said, in the OpenAI chat format, without the system message."""
        return tuple(self.history.messages)

    @property
    def epoch(self) -> int:
        """How often what is shown of it was compacted, and its prompt began anew."""
        return self.history.epoch

    def fork(self) -> Self:
        """Another session that begins with what was said so far: both go on by themselves.

        Raises:
            SessionBusy: A turn is under way.
        """
        self.check_free()
        if (run := run_scope.get()) is not None:
            self._take_back(run.root)
        twin = type(self)(self.system, tools=self.tools, model=self.model)
        twin.history = History(self.history.messages, self.history.compactions)
        twin.gauge = Gauge(self.gauge.window, self.gauge.bytes_per_token)
        twin.outputs = dict(self.outputs)
        return twin

    def check_free(self) -> None:
        """Check that no turn is under way.

        Raises:
            SessionBusy: One is.
        """
        if self._turn:
            raise SessionBusy(
                f"session {self.id} has a turn under way, in run {self._turn}: await it, or "
                "fork() the session before"
            )

    def toolbox(self, default: Mapping[str, AnyTool]) -> Toolbox:
        """What its model may call; with tools also `read_output`, for what is not shown whole.

        Args:
            default: The tools of the engine.
        """
        from agentflow.tools.builtin.read_output import read_output

        tools = tuple(default.values()) if self.tools is None else self.tools
        if not tools or any(tool.origin is read_output for tool in tools):
            return Toolbox(tools)
        return Toolbox((*tools, read_output))

    # A turn

    @contextmanager
    def turn(self, run: Run[Any], said: str) -> Iterator[None]:
        """The user says something, and a run answers.

        What is not answered in the end is said to be so: the next turn knows of it.

        Raises:
            SessionBusy: Another turn is under way.
        """
        self.check_free()
        self._remember(run.root)
        self._turn = run.id
        self._put_by(run)
        self.history.say({"role": "user", "content": said})
        try:
            yield
        except BaseException as error:
            stopped = isinstance(error, CancelledError)
            self._break_off("it was stopped" if stopped else shown(described(error), REASON))
            raise
        finally:
            self._turn = ""

    def _put_by(self, run: Run[Any]) -> None:
        """What is not shown whole can be read as long as the session lasts."""
        limit, turn = run.host.services.limits.output, len(self.history)
        run.driver.outputs = SessionOutputs(self.outputs, self.history.outputs, turn, limit)

    def _remember(self, root: Run[Any]) -> None:
        """A run that is executed again finds what was said before it was for the first time."""
        self._take_back(root)
        if self._marked is not root:
            self._mark, self._marked = self._now(root.id), root

    def _take_back(self, root: Run[Any]) -> None:
        """Take back what an earlier execution of a run has added, once."""
        mark = self._mark
        if mark is None or mark.run != root.id or self._marked is root:
            return
        self.history.rewind(mark.messages, mark.compactions)
        self.gauge = Gauge(mark.window, mark.bytes_per_token)
        self._marked = root

    def _now(self, run: str) -> Mark:
        gauge, history = self.gauge, self.history
        return Mark(run, len(history), history.epoch, gauge.window, gauge.bytes_per_token)

    def _break_off(self, why: str) -> None:
        for call in self.history.unanswered():
            missing = {"role": "tool", "tool_call_id": call, "content": f"not known: {why}"}
            self.history.say(missing)
        if self.history.is_open:
            self.history.say({"role": "assistant", "content": f"(no answer: {why})"})

    # As it is written down

    def data(self) -> dict[str, Any]:
        """All of it, as JSON has it."""
        from agentflow.executor.sessions.saved import saved

        return saved(self, self._mark)

    def check_begins(self, data: Mapping[str, Any], run: str) -> None:
        """Check that a run which goes on finds it as it was when the run began.

        Raises:
            HistoryMismatch: It is another one, or it has gone on.
        """
        mark = self._mark
        known = len(self.history) if mark is None or mark.run != run else mark.messages
        if list(self.history.messages[:known]) != data["messages"]:
            raise HistoryMismatch(
                f"run {run} began with another conversation than session {self.id} holds: give "
                "it the session as it was then, or none"
            )

    @classmethod
    def of(cls, data: Any, tools: Iterable[AnyTool] | None) -> Self:
        """A session as `data` gave it.

        Args:
            data: What `data` gave, or its JSON as a text.
            tools: All that it may call, by name.

        Raises:
            DefinitionError: It is no session, or it calls a tool that is not here.
        """
        from agentflow.executor.sessions.saved import Saved, read

        known: Saved = read(data)
        session = cls(known.system, tools=known.its_own(tools), model=known.model)
        session.id, session.outputs = known.id, dict(known.outputs)
        session.history = History(known.said(), known.made())
        session._break_off("it was saved before the turn was over")
        session.gauge = Gauge(known.window, known.bytes_per_token)
        session._mark = None if known.mark is None else Mark(*known.mark)
        return session


class Passing(SessionState):
    """The session of a single run."""

    lasts = False

    def _put_by(self, run: Run[Any]) -> None:
        outputs = run.driver.outputs
        assert isinstance(outputs, Outputs), "only sessions that last have others"
        outputs.referred = self.history.outputs
