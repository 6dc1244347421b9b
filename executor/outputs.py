"""Results that are too long to be shown to a model, whole, in files of their run."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from pathlib import Path

_BYTES = 4  # of a character, each the same, so that any can be found

_ENCODING = "utf-32-le"


class Outputs:
    """The texts that one run has put by: in a folder that only this user can read.

    Args:
        over: Done when the run is over: then they are removed.
        limit: The most characters that are read at once.
    """

    def __init__(self, over: asyncio.Future[None], limit: int) -> None:
        self._over = over
        self._limit = limit
        self._folder: Path | None = None
        self._lengths: dict[str, int] = {}

    def keep(self, name: str, text: str) -> None:
        """Put a text by; not again if there is one of that name."""
        if name in self._lengths:
            return
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="agentflow-"))
            self._over.add_done_callback(self._remove)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        with open(os.open(self._folder / name, flags, 0o600), "wb") as file:
            file.write(text.encode(_ENCODING, "surrogatepass"))
        self._lengths[name] = len(text)

    def read(self, name: str, start: int, end: int | None) -> str:
        """The characters from `start` to `end`, as far as they may be read at once.

        Raises:
            LookupError: There is no such text, or it is over before `start`.
        """
        if self._folder is None or name not in self._lengths:
            known = ", ".join(self._lengths) or "none"
            raise LookupError(f"there is no output {name!r}; there are: {known}")
        length = self._lengths[name]
        if not 0 <= start < length:
            raise LookupError(f"output {name!r} has the characters 0 to {length}, not {start}")
        until = min(length if end is None else end, start + self._limit)
        with (self._folder / name).open("rb") as file:
            file.seek(start * _BYTES)
            return file.read(max(0, until - start) * _BYTES).decode(_ENCODING, "surrogatepass")

    def _remove(self, _over: asyncio.Future[None]) -> None:
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
