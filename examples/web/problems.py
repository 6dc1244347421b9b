"""What clients are told of errors: a status, and what to do; the rest is for the log."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse

from agentflow.errors import (
    BackendBusy,
    BackendError,
    BudgetExceeded,
    DependencyFailed,
    ModelError,
    OutOfReach,
    RunCancelled,
    RunFailed,
)
from agentflow.wording import described

log = logging.getLogger("web")


@dataclass(frozen=True)
class Problem:
    """An error as a client is told of it, in the form of RFC 9457.

    Attributes:
        status: HTTP status.
        title: What kind of error it is.
        detail: What happened, and what to do.
        retry_after: Seconds after which it is worth trying again, or None.
    """

    status: int
    title: str
    detail: str
    retry_after: int | None = None

    def response(self) -> Response:
        """As an answer."""
        headers = {} if self.retry_after is None else {"retry-after": str(self.retry_after)}
        kind = "application/problem+json"
        return JSONResponse(asdict(self), self.status, headers, media_type=kind)


class Refused(Exception):
    """A request is not let in."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.detail)
        self.problem = problem


CROWDED = Problem(429, "too many at once", "Many are asking just now. Try again in a moment.", 1)
EXHAUSTED = Problem(402, "budget", "The budget of this site is spent. Tell whoever runs it.")
TOO_DEAR = Problem(402, "budget", "The answer costs more than one may. Ask for less.")
TOO_LATE = Problem(504, "deadline", "The answer took longer than it may. Try again, or ask less.")
CLOSING = Problem(503, "closing", "The server is being restarted. Try again in a moment.", 5)
BROKEN = Problem(500, "internal", "Something broke here. It is in the log of this site.")
PROBLEMS: tuple[tuple[type[BaseException], Problem], ...] = (
    (RequestValidationError, Problem(400, "input", "Ask for a topic of 1 to 200 characters.")),
    (OutOfReach, TOO_DEAR),
    (BudgetExceeded, TOO_DEAR),
    (TimeoutError, TOO_LATE),  # of the run, a call or a model
    (RunCancelled, CLOSING),  # for nobody else cancels a run that has a reader
    (BackendBusy, Problem(503, "model", "The model is busy. Try again in a moment.", 5)),
    (BackendError, Problem(502, "model", "The model cannot be reached. Try again later.")),
    (ModelError, Problem(502, "model", "The model gave no usable answer. Ask differently.")),
)


def problem_of(error: BaseException) -> Problem:
    """What a client is told of an error; what is not its own fault is logged."""
    while isinstance(error, RunFailed | DependencyFailed) and error.__cause__ is not None:
        error = error.__cause__
    if isinstance(error, Refused):
        return error.problem
    if isinstance(error, BudgetExceeded) and error.unit == "seconds":
        return TOO_LATE
    problem = next((told for kind, told in PROBLEMS if isinstance(error, kind)), BROKEN)
    if problem.status >= 500:
        log.warning("%s", described(error))
    return problem


async def refused(_: Request, error: Exception) -> Response:
    """The answer to a request that failed."""
    return problem_of(error).response()
