"""Results that are too long to be shown to a model, whole, in files of their run."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, MutableMapping
from pathlib import Path
from typing import Protocol

_BYTES = 4  # of a character, each the same, so that any can be found

_ENCODING = "utf-32-le"


class PutBy(Protocol):
    """Where texts are put by that are not shown whole."""

    def put(self, node: int, text: str) -> str:
        """Put the text that a call gave by; the name under which it is read."""
        ...

    def read(self, name: str, start: int, end: int | None) -> str:
        """The characters from `start` to `end`, as far as they may be read at once.

        Raises:
            LookupError: There is no such text, or it is over before `start`.
        """
        ...


class Outputs:
    """The texts that one run has put by: in a folder that only this user can read.

    Args:
        over: Done when the run is over: then they are removed.
        limit: The most characters that are read at once.

    Attributes:
        referred: Gives further texts: those that a conversation holds but does not show.
    """

    def __init__(self, over: asyncio.Future[None], limit: int) -> None:
        self.referred: Callable[[], Mapping[str, str]] = dict
        self._over = over
        self._limit = limit
        self._folder: Path | None = None
        self._lengths: dict[str, int] = {}

    def put(self, node: int, text: str) -> str:
        """Put the text that a call gave by, once; the name under which it is read."""
        name = f"r{node + 1}"
        if name not in self._lengths:
            self._keep(name, text)
        return name

    def _keep(self, name: str, text: str) -> None:
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
        if name in (texts := self.referred()):
            return _part(texts, name, start, end, self._limit)
        length = _length(name, self._lengths, start)
        assert self._folder is not None, "there is one where there are texts"
        until = min(length if end is None else end, start + self._limit)
        with (self._folder / name).open("rb") as file:
            file.seek(start * _BYTES)
            return file.read(max(0, until - start) * _BYTES).decode(_ENCODING, "surrogatepass")

    def _remove(self, _over: asyncio.Future[None]) -> None:
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)


class SessionOutputs:
    """The texts of a session, which are kept as long as it is.

    Args:
        texts: Texts by name; those that are put by join them.
        referred: The texts that its messages hold but are not shown.
        turn: Which turn of the session it is.
        limit: The most characters that are read at once.
    """

    def __init__(
        self,
        texts: MutableMapping[str, str],
        referred: Callable[[], Mapping[str, str]],
        turn: int,
        limit: int,
    ) -> None:
        self._texts = texts
        self._referred = referred
        self._turn = turn
        self._limit = limit

    def put(self, node: int, text: str) -> str:
        """Put the text that a call gave by; the name under which it is read."""
        name = f"t{self._turn}r{node + 1}"
        self._texts[name] = text
        return name

    def read(self, name: str, start: int, end: int | None) -> str:
        """The characters from `start` to `end`, as far as they may be read at once.

        Raises:
            LookupError: There is no such text, or it is over before `start`.
        """
        return _part({**self._texts, **self._referred()}, name, start, end, self._limit)


def _part(texts: Mapping[str, str], name: str, start: int, end: int | None, limit: int) -> str:
    """The characters from `start` to `end` of a text, as far as they may be read at once.

    Raises:
        LookupError: There is no such text, or it is over before `start`.
    """
    length = _length(name, {each: len(text) for each, text in texts.items()}, start)
    return texts[name][start : min(length if end is None else end, start + limit)]


def _length(name: str, lengths: Mapping[str, int], start: int) -> int:
    """The length of a text.

    Raises:
        LookupError: There is no such text, or it is over before `start`.
    """
    if name not in lengths:
        known = ", ".join(lengths) or "none"
        raise LookupError(f"there is no output {name!r}; there are: {known}")
    if not 0 <= start < lengths[name]:
        raise LookupError(f"output {name!r} has the characters 0 to {lengths[name]}, not {start}")
    return lengths[name]
