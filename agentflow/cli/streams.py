"""Standard output and error of the commands: what is written there names no known secret."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from agentflow.redaction import redact


class Redacting:
    """A text stream that masks known secrets in what is written to another.

    Args:
        stream: The other; whatever else it can do is done by itself.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write a text."""
        self._stream.write(redact(text))
        return len(text)

    def writelines(self, texts: Iterable[str]) -> None:
        """Write several."""
        for text in texts:
            self.write(text)


@contextmanager
def redacting() -> Iterator[None]:
    """Have everything that is printed in the block pass a `Redacting`, tracebacks too."""
    before = sys.stdout, sys.stderr
    guarded: list[Any] = [Redacting(stream) for stream in before]
    sys.stdout, sys.stderr = guarded
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
