"""The errors agentflow raises: one tree, data on attributes, the remedy in the text.

AgentflowError
  DefinitionError        a decorator or a setting is used wrongly; raised where it is written
  PlanError              kind, at: the plan cannot be run; raised before anything is spent
  CallError              tool, node: one call did not give a value
    ArgumentError        argument: an argument is not what the signature asks for
      MalformedArguments position: the text of the arguments cannot be read
      UnknownArgument      there is no such parameter
    PathError            a reference leads nowhere in a value (also a LookupError)
    ResultError          the tool returned what its annotation does not allow
    CallTimeout          seconds: an attempt took longer than its timeout (also a TimeoutError)
    CallCancelled        the call was cancelled by name while its run went on
    CallInDoubt          it may have been made before its run broke off, and is not made again
    ApprovalDenied       somebody was asked, and said no
    CallSkipped          a guard was false, or a call it depends on was skipped
    DependencyFailed     a call it depends on failed; __cause__ is that failure
  WorkflowError          a tool was called where its workflow cannot take the call
  RunError               results, pending, unfinished: the run ended without a value
    RunFailed            failures; __cause__ is the first failure
    RunCancelled         somebody cancelled the run (not the task that awaits it)
    DeadlineExceeded     the run's deadline passed (also a TimeoutError)
    RunPaused            asks: it was set aside until somebody answers
    HistoryMismatch      the program is not the one that the run began with
  SessionBusy            a session has a turn under way already
  BudgetExceeded         asked, left, unit: a reservation did not fit
  OutOfReach             tried, usd, seconds: no further sample is worth trying
  CheckFailed            tool: what was to judge an answer raised; __cause__ is what
  BackendError           url, status, retryable, retry_after: the serving side failed
    BackendUnreachable   refused, reset, name not found
    BackendTimeout       no answer, or no further token, in time (also a TimeoutError)
    BackendRejected      the request was understood and refused (4xx)
      ContextOverflow    window: prompt and reply are more than the model takes
    BackendBusy          429 or 503: later; retry_after says when, if the server did
    BadReply             HTML, broken JSON, not an answer of the API
    TruncatedReply       the stream ended without a finish reason
    NoReplica            no replica of a pool could answer; replicas says why, by name
  JournalError           path, run: what is kept of runs cannot be written or read
  ModelError             the model answered, but not usably
    ModelRefusal         the model declined
    AnswerInvalid        the answer never matched its type; problems says why
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from agentflow.errors_backend import (
    BackendBusy,
    BackendError,
    BackendRejected,
    BackendTimeout,
    BackendUnreachable,
    BadReply,
    ContextOverflow,
    NoReplica,
    TruncatedReply,
)
from agentflow.errors_base import AgentflowError

__all__ = [
    "AgentflowError",
    "AnswerInvalid",
    "ApprovalDenied",
    "ArgumentError",
    "BackendBusy",
    "BackendError",
    "BackendRejected",
    "BackendTimeout",
    "BackendUnreachable",
    "BadReply",
    "BudgetExceeded",
    "CallCancelled",
    "CallError",
    "CallInDoubt",
    "CallSkipped",
    "CallTimeout",
    "CheckFailed",
    "ContextOverflow",
    "DeadlineExceeded",
    "DefinitionError",
    "DependencyFailed",
    "HistoryMismatch",
    "JournalError",
    "MalformedArguments",
    "ModelError",
    "ModelRefusal",
    "NoReplica",
    "OutOfReach",
    "PathError",
    "PlanError",
    "ResultError",
    "RunCancelled",
    "RunError",
    "RunFailed",
    "RunPaused",
    "SessionBusy",
    "TruncatedReply",
    "UnknownArgument",
    "WorkflowError",
]


class DefinitionError(AgentflowError, TypeError):
    """A decorator or a setting is used wrongly; raised where it is written."""


class PlanError(AgentflowError, ValueError):
    """A plan cannot be run; raised before anything is spent.

    Attributes:
        kind: One of the kinds listed in docs/notation.md, such as ``unknown_tool``.
        at: Id of the line at fault, or None when the whole plan is.
    """

    def __init__(self, kind: str, message: str, at: int | None = None) -> None:
        self.kind = kind
        self.at = at
        super().__init__(message if at is None else f"line ${at}: {message}")


class CallError(AgentflowError):
    """One call did not give a value.

    Attributes:
        tool: Name of the tool.
        node: Id of the node in its run, or None outside a run.
    """

    def __init__(self, message: str, *, tool: str, node: int | None = None) -> None:
        self.tool = tool
        self.node = node
        super().__init__(message)


class ArgumentError(CallError, ValueError):
    """An argument is not what the signature asks for; nothing was called.

    Attributes:
        argument: Path of the argument at fault, such as ``k`` or ``filters.0.name``.
    """

    def __init__(
        self, message: str, *, tool: str, argument: str = "", node: int | None = None
    ) -> None:
        self.argument = argument
        super().__init__(message, tool=tool, node=node)


class MalformedArguments(ArgumentError):
    """The text of a call's arguments cannot be read; nothing was called.

    Attributes:
        position: The character at fault, from 0. In a text that ends too early it is the
            one where its last string or word begins, or its length.
    """

    def __init__(
        self, message: str, *, tool: str, position: int, argument: str = "", node: int | None = None
    ) -> None:
        self.position = position
        super().__init__(message, tool=tool, argument=argument, node=node)


class UnknownArgument(ArgumentError):
    """There is no such parameter."""


class PathError(CallError, LookupError):
    """A reference leads nowhere in the value it refers to; nothing was called."""


class ResultError(CallError, ValueError):
    """The tool returned what its annotation does not allow."""


class CallTimeout(CallError, TimeoutError):
    """An attempt took longer than its timeout.

    Attributes:
        seconds: The limit that was passed.
    """

    def __init__(self, message: str, *, tool: str, seconds: float, node: int | None = None) -> None:
        self.seconds = seconds
        super().__init__(message, tool=tool, node=node)


class CallCancelled(CallError):
    """The call was cancelled by name while its run went on."""


class CallInDoubt(CallError):
    """The call may have been made before its run broke off: whether it was, nobody knows."""


class ApprovalDenied(CallError):
    """Somebody was asked whether the call may be made, and said no; it was not made."""


class CallSkipped(CallError):
    """A guard was false, or a call it depends on was skipped."""


class DependencyFailed(CallError):
    """A call it depends on failed; ``__cause__`` is that failure."""


class WorkflowError(AgentflowError, RuntimeError):
    """A tool was called where its workflow cannot take the call."""


class RunError(AgentflowError):
    """The run ended without a value; what was done is not lost.

    Attributes:
        results: Value by node id of everything that finished.
        pending: Node ids that were running or waiting.
        unfinished: Names of calls that are still being cleaned up.
    """

    def __init__(
        self,
        message: str,
        *,
        results: Mapping[int, Any] | None = None,
        pending: Sequence[int] = (),
        unfinished: Sequence[str] = (),
    ) -> None:
        self.results: dict[int, Any] = dict(results or {})
        self.pending = tuple(pending)
        self.unfinished = tuple(unfinished)
        super().__init__(message)


class RunFailed(RunError):
    """Something in the run failed; ``__cause__`` is the first failure.

    Attributes:
        failures: Exception by node id; empty when the workflow's own code raised.
    """

    def __init__(
        self, message: str, *, failures: Mapping[int, BaseException] | None = None, **kept: Any
    ) -> None:
        self.failures: dict[int, BaseException] = dict(failures or {})
        super().__init__(message, **kept)


class RunCancelled(RunError):
    """Somebody cancelled the run (not the task that awaits it)."""


class DeadlineExceeded(RunError, TimeoutError):
    """The run's deadline passed."""


class RunPaused(RunError):
    """The run was set aside until somebody answers what it asks; resuming it goes on.

    Attributes:
        asks: What is asked, each with ``question``, ``kind``, ``call`` and ``why``.
    """

    def __init__(
        self, message: str, *, asks: Sequence[Mapping[str, Any]] = (), **kept: Any
    ) -> None:
        self.asks = tuple(asks)
        super().__init__(message, **kept)


class HistoryMismatch(RunError):
    """The program makes other calls than it did when the run began; nothing was called."""


class SessionBusy(AgentflowError, RuntimeError):
    """A session has one turn at a time: await it, or `fork` the session."""


class BudgetExceeded(AgentflowError):
    """A reservation did not fit into what is left.

    Attributes:
        asked: What was asked for, in `unit`.
        left: What was left, in `unit`.
        unit: ``usd``, ``tokens`` or ``seconds``.
        when_spent: What the budget that is exceeded says of calls that run: they are to
            ``finish``, or the end of their run is to ``cancel`` them.
    """

    def __init__(
        self, message: str, *, asked: Any, left: Any, unit: str, when_spent: str = "finish"
    ) -> None:
        self.asked = asked
        self.left = left
        self.unit = unit
        self.when_spent = when_spent
        super().__init__(message)


class OutOfReach(AgentflowError):
    """A call that models tried has no answer that passed, and no further sample is made.

    Attributes:
        tried: How many samples did not pass, by model.
        usd: What was left to spend, or None without a limit.
        seconds: What was left until the deadline, or None without one.
        when_spent: What the run's budget says of calls that run: they are to ``finish``, or not.
    """

    def __init__(
        self,
        message: str,
        *,
        tried: Mapping[str, int],
        usd: Any = None,
        seconds: float | None = None,
        when_spent: str = "finish",
    ) -> None:
        self.tried = dict(tried)
        self.usd = usd
        self.seconds = seconds
        self.when_spent = when_spent
        super().__init__(message)


class CheckFailed(AgentflowError):
    """What was to judge an answer raised; `__cause__` says what.

    Attributes:
        tool: Name of the tool whose answer it was.
    """

    def __init__(self, message: str, *, tool: str) -> None:
        self.tool = tool
        super().__init__(message)


class JournalError(AgentflowError):
    """What is kept of runs cannot be written or read.

    Attributes:
        path: The file.
        run: Id of the run that it is about; empty when it is about the whole file.
    """

    def __init__(self, message: str, *, path: str, run: str = "") -> None:
        self.path = path
        self.run = run
        super().__init__(message)


class ModelError(AgentflowError):
    """The model answered, but not usably."""


class ModelRefusal(ModelError):
    """The model declined to answer."""


class AnswerInvalid(ModelError):
    """The answer never matched its type.

    Attributes:
        problems: What was wrong with the last answer.
        answer: The last answer, as text.
    """

    def __init__(self, message: str, *, problems: str = "", answer: str = "") -> None:
        self.problems = problems
        self.answer = answer
        super().__init__(message)
