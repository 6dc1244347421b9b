"""How a call is made: timeouts, retries, limits, and what happens when it fails."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from decimal import Decimal
from enum import Enum
from typing import Any, Final, TypedDict

from agentflow.clock import seconds
from agentflow.errors import DefinitionError
from agentflow.money import dollars
from agentflow.tools.approval import Guard
from agentflow.wording import nearest


class Unset(Enum):
    """The type of `UNSET`, which tells "not given" from None."""

    UNSET = "UNSET"

    def __repr__(self) -> str:
        return "UNSET"


UNSET: Final = Unset.UNSET

DEFAULT_TIMEOUT: Final = 120.0
"""Seconds an attempt of a tool may take unless it says otherwise."""

DEFAULT_LIMIT: Final = 1000
"""Calls of one tool that run at once in one engine unless it says otherwise."""

_RATE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*/\s*(s|m|h|d|\d.*)\s*")


@dataclass(frozen=True, slots=True)
class Policy:
    """How calls of a tool are made.

    Attributes:
        timeout: Seconds one attempt may take, or None for no limit of its own.
        idle: Seconds an attempt may pass without a sign of life (an item of a generator or
            `Context.emit`); counts from the first sign. None for no such limit.
        retries: Further attempts after a failed one.
        retry_on: Exceptions that are worth another attempt.
        backoff: Seconds before the second attempt; doubles with each, with full jitter.
        backoff_limit: Longest pause between attempts, in seconds.
        limit: Calls that run at once in one engine.
        rate: Calls a second, or None.
        fallback: Value, or tool called with the same arguments, used when the call fails.
        ttl: Seconds for which a result may be used again; 0 for never. None: for ever if the
            tool is pure, within its run if it reads.
        negative_ttl: Seconds for which a failure is remembered and raised again; 0 for never.
        hedge: Seconds after which a second attempt is made beside a slow first one, or True:
            after the tool's own 95th percentile, for one call in twenty at most. False for
            never. The second attempt takes a turn and costs what the first does.
        max_output: Characters of a result that a model is shown; of a longer one it sees the
            beginning and the end. None: as the engine's `Limits.output` says.
        usd: Price of one attempt in USD, set aside in the run's budget before it.
        approve: Whether somebody is asked before a call is made, or what decides that from its
            arguments. Nothing of such a call begins before, and its result is not kept.
        verify: Finds out whether a call that is in doubt was made; see `Verifier`.
    """

    timeout: float | None = DEFAULT_TIMEOUT
    idle: float | None = None
    retries: int = 0
    retry_on: tuple[type[BaseException], ...] = (Exception,)
    backoff: float = 0.25
    backoff_limit: float = 30.0
    limit: int = DEFAULT_LIMIT
    rate: float | None = None
    fallback: Any = field(default=UNSET, hash=False)
    ttl: float | None = None
    negative_ttl: float = 0.0
    hedge: float | bool = False
    max_output: int | None = None
    usd: Decimal = Decimal(0)
    approve: Guard = False
    verify: Callable[..., Any] | None = None

    def revised(self, **changes: Any) -> Policy:
        """A copy with `changes`, which are checked and converted.

        Raises:
            DefinitionError: An unknown name, or a value out of range.
        """
        known = {known.name for known in fields(self)}
        for name in changes:
            if name not in known:
                raise DefinitionError(
                    f"there is no option {name!r}. {nearest(name, sorted(known))}"
                )
        try:
            return replace(self, **{name: _read(name, value) for name, value in changes.items()})
        except (TypeError, ValueError) as error:
            raise DefinitionError(str(error)) from None


DEFAULT = Policy()


class Options(TypedDict, total=False):
    """The fields of `Policy` as users write them: durations and rates may be text."""

    timeout: float | str | None
    idle: float | str | None
    retries: int
    retry_on: type[BaseException] | tuple[type[BaseException], ...]
    backoff: float | str
    backoff_limit: float | str
    limit: int
    rate: float | str | None
    fallback: Any
    ttl: float | str | None
    negative_ttl: float | str
    hedge: float | str | bool
    max_output: int | None
    usd: Decimal | float | str
    approve: Guard
    verify: Callable[..., Any] | None


def _read(name: str, value: Any) -> Any:
    match name:
        case "timeout" | "idle":
            return None if value is None else _positive(name, seconds(value))
        case "ttl":
            return None if value is None else seconds(value)
        case "usd":
            return dollars(value)
        case "hedge":
            return value if isinstance(value, bool) else _positive(name, seconds(value))
        case "backoff" | "backoff_limit" | "negative_ttl":
            return seconds(value)
        case "retries":
            return _whole(name, value, 0)
        case "max_output":
            return None if value is None else _whole(name, value, 1)
        case "limit":
            return _whole(name, value, 1)
        case "rate":
            return None if value is None else rate_per_second(value)
        case "retry_on":
            kinds = value if isinstance(value, Sequence) else (value,)
            if not all(
                isinstance(kind, type) and issubclass(kind, BaseException) for kind in kinds
            ):
                raise TypeError(f"retry_on takes exception types, not {value!r}")
            return tuple(kinds)
        case "approve":
            return _guard(value)
        case "verify":
            if value is not None and not callable(value):
                raise TypeError(f"verify takes a function, not {value!r}")
    return value


def rate_per_second(rate: float | str) -> float:
    """Read a rate: calls a second, or text such as ``"10/s"``, ``"600/m"``, ``"5/30s"``."""
    if isinstance(rate, str):
        match = _RATE.fullmatch(rate)
        if match is None:
            raise ValueError(f"{rate!r} is not a rate: write '10/s', '600/m' or '5/30s'")
        period = match[2] if match[2][0].isdigit() else f"1{match[2]}"
        rate = float(match[1]) / seconds(period)
    return _positive("rate", float(rate))


def _guard(value: Any) -> Guard:
    if isinstance(value, bool) or callable(value):
        guard: Guard = value
        return guard
    raise TypeError(f"approve takes True, False or a function of the arguments, not {value!r}")


def _positive(name: str, value: float) -> float:
    if not value > 0:
        raise ValueError(f"{name} must be more than 0, not {value}")
    return value


def _whole(name: str, value: Any, least: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f"{name} must be a whole number of at least {least}, not {value!r}")
    return value
