"""What a joiner says: an answer, or why another plan is needed."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

_VERDICT = re.compile(
    r"^[ \t*_#>`-]*(answer|replan)[*_`]*[ \t]*:[*_`]*\s*", re.IGNORECASE | re.MULTILINE
)
_THOUGHT = re.compile(r"[\s*_#>]*thought", re.IGNORECASE)

UNDECIDED = 400
"""Characters without a verdict, and not marked as a thought, that make a reply an answer."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a joiner decided.

    Attributes:
        kind: ``answer`` or ``replan``.
        text: The answer, or what is missing.
    """

    kind: Literal["answer", "replan"]
    text: str


class VerdictReader:
    """Reads a joiner's reply, and passes an answer on while it is written.

    The first line that begins with ``Answer:`` or ``Replan:``, however it is decorated,
    decides; what stands before it is a thought. A reply without such a line is an answer.

    Args:
        say: Is given text and its role, ``answer`` or ``thought``.
    """

    def __init__(self, say: Callable[[str, str], object]) -> None:
        self._say = say
        self._texts: list[str] = []
        self._kind: Literal["answer", "replan"] | None = None

    def feed(self, text: str) -> None:
        """Take more of the reply."""
        self._texts.append(text)
        if self._kind is not None:
            self._pass_on(text)
            return
        so_far = "".join(self._texts)
        match = _VERDICT.search(so_far)
        if match and match.end() < len(so_far):  # else its white space may go on
            self._decide(match)
        elif not match and len(so_far) > UNDECIDED and not _THOUGHT.match(so_far):
            self._decide(None)

    def finish(self) -> Verdict:
        """The reply has ended."""
        if self._kind is None:
            self._decide(_VERDICT.search("".join(self._texts)))
        assert self._kind is not None
        return Verdict(self._kind, "".join(self._texts).strip())

    def _decide(self, match: re.Match[str] | None) -> None:
        text = "".join(self._texts)
        if match is None:
            self._kind = "answer"
        else:
            self._kind = "replan" if match[1].lower() == "replan" else "answer"
            self._say(text[: match.start()], "thought")
            text = text[match.end() :]
        self._texts = [text]
        self._pass_on(text)

    def _pass_on(self, text: str) -> None:
        self._say(text, "answer" if self._kind == "answer" else "thought")
