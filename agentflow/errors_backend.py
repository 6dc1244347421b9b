"""What goes wrong on the serving side: a branch of the tree in `agentflow.errors`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agentflow.errors_base import AgentflowError
from agentflow.redaction import redact


class BackendError(AgentflowError):
    """The serving side failed.

    Attributes:
        url: Base URL of the backend.
        status: HTTP status, or None when there was no answer.
        retryable: Whether the same request can succeed later.
        retry_after: Seconds the server asked to wait, or None.
    """

    retryable = False

    def __init__(
        self,
        message: str,
        *,
        url: str,
        status: int | None = None,
        retry_after: float | None = None,
        retryable: bool | None = None,
    ) -> None:
        self.url = redact(url)
        self.status = status
        self.retry_after = retry_after
        if retryable is not None:
            self.retryable = retryable
        super().__init__(message)


class BackendUnreachable(BackendError):
    """Refused, reset, or the name was not found."""

    retryable = True


class BackendTimeout(BackendError, TimeoutError):
    """No answer, or no further token, in time."""

    retryable = True


class BackendRejected(BackendError):
    """The request was understood and refused (4xx)."""


class ContextOverflow(BackendRejected):
    """Prompt and reply together are more than the model takes.

    Attributes:
        window: Tokens that it takes, or None if its server does not say.
    """

    def __init__(self, message: str, *, window: int | None = None, **kept: Any) -> None:
        self.window = window
        super().__init__(message, **kept)


class BackendBusy(BackendError):
    """Too many requests, or unavailable for now (429, 503)."""

    retryable = True


class BadReply(BackendError):
    """HTML, broken JSON, or anything else that is not an answer of the API."""


class TruncatedReply(BackendError):
    """The stream ended without a finish reason."""

    retryable = True


class NoReplica(BackendError):
    """No replica of a pool can take the request.

    Attributes:
        replicas: Why not, by the name of the replica.
    """

    retryable = True

    def __init__(self, message: str, *, url: str, replicas: Mapping[str, str]) -> None:
        self.replicas = dict(replicas)
        super().__init__(message, url=url)
