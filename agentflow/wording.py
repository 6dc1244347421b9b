"""Words for what went wrong: errors as text, and what somebody may have meant."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches

from agentflow.errors import DependencyFailed, RunFailed
from agentflow.redaction import redact


def described(error: BaseException) -> str:
    """An error as text without known secrets, its type first; also where it has no text."""
    kind = type(error).__name__
    try:
        text = str(error)
    except Exception:  # noqa: BLE001  # whatever a user's __str__ does
        text = ""
    return redact(f"{kind}: {text}" if text else kind)


def nearest(name: str, known: Sequence[str]) -> str:
    """A sentence that names what is known, the nearest spelling first."""
    if not known:
        return "No tools are known."
    if close := get_close_matches(name, known, n=1, cutoff=0.5):
        return f"Did you mean {close[0]!r}?"
    return f"Known: {', '.join(sorted(known)[:12])}{', ...' if len(known) > 12 else ''}."


def root_cause(error: BaseException) -> BaseException:
    """What failed first, through calls that needed it and runs within runs."""
    while isinstance(error, RunFailed | DependencyFailed) and error.__cause__ is not None:
        error = error.__cause__
    return error
