"""Values that nobody is to see: known where they are configured, masked wherever text leaves.

API keys, credentials in URLs and the values of ``SecretStr`` arguments are made known here.
Errors, events as data, logs, the command line and what is kept on disk ask `redact`, so that a
server that repeats a key, or a tool that puts it into an exception, gives nothing away.
"""

from __future__ import annotations

import base64
import dataclasses
import json
import re
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any
from urllib.parse import quote, unquote, urlsplit

MASK = "**********"
"""What stands in place of a secret, as in pydantic."""

SHORTEST, LONGEST_WORD = 8, 15
"""Characters of a secret that is looked for, and up to which letters alone are taken for a word.

``none`` and ``anything`` are sent as keys to servers that want none, and stand elsewhere too.
"""

CONFIGURED, PASSING = 1024, 128
"""Secrets of the configuration and of calls that are remembered; of more, the last ones."""

_TELLING = re.compile(r"authorization|cookie|key|token|secret|passw|credential|sig", re.IGNORECASE)
_NUMBER = re.compile(r"[\d.+eE-]*")  # JSON has such without quotes, where a mask cannot stand
_CREDENTIALS = re.compile(r"(^|//)[^/?#]*@|[?#].*", re.DOTALL)


class _Known:
    """The secrets of this process. Reading is safe in any thread, without a lock."""

    def __init__(self) -> None:
        self.spellings: tuple[str, ...] = ()
        self.encoded: tuple[bytes, ...] = ()
        self._lock = threading.Lock()
        self._configured: dict[str, None] = {}
        self._passing: dict[str, None] = {}

    def add(self, secret: str, *, configured: bool) -> None:
        kept, most = (self._configured, CONFIGURED) if configured else (self._passing, PASSING)
        with self._lock:
            known = secret in kept
            kept.pop(secret, None)
            kept[secret] = None
            if known:
                return
            if len(kept) > most:
                del kept[next(iter(kept))]
            every = {
                text for each in (*self._configured, *self._passing) for text in _spelled(each)
            }
            self.spellings = tuple(sorted(every, key=len, reverse=True))
            self.encoded = tuple(text.encode("utf-8", "surrogatepass") for text in self.spellings)


_known = _Known()


def conceal(*secrets: str) -> None:
    """Make secrets of the configuration known; words and numbers are left out."""
    for secret in filter(_is_telling, secrets):
        _known.add(secret, configured=True)


def conceal_url(url: str) -> None:
    """Make the credentials in a URL known: its user's, and such as ``?api_key=`` in its query."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return
    user = parts.netloc.rpartition("@")[0]
    pairs = [pair.partition("=") for pair in parts.query.split("&")]
    found = [user, user.partition(":")[2], *(v for name, _, v in pairs if _TELLING.search(name))]
    basic = base64.b64encode(unquote(user).encode()).decode()
    conceal(*found, *map(unquote, found), basic)


def conceal_headers(headers: Mapping[str, str]) -> None:
    """Make known what headers with such names as ``Authorization`` and ``X-Api-Key`` carry."""
    for name, value in headers.items():
        if _TELLING.search(name):
            conceal(value, value.partition(" ")[2])


def conceal_values(value: Any) -> None:
    """Make known the ``SecretStr`` and ``SecretBytes`` in the arguments of a call, for a while."""
    with suppress(RecursionError):  # it refers to itself
        for secret in filter(_is_telling, _secret_texts(value)):
            _known.add(secret, configured=False)


def redact(text: str) -> str:
    """A text without the known secrets; the text itself if it has none."""
    for secret in _known.spellings:
        text = text.replace(secret, MASK)
    return text


def redacted(value: Any) -> Any:
    """Data without the known secrets, inside of lists and dicts too.

    Of any other object whose text has one only the text is left.
    """
    if not _known.spellings or value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, dict):
        return {redacted(key): redacted(item) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(map(redacted, value))
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001  # whatever a user's __repr__ does
        return value
    return value if (safe := redact(text)) == text else safe


def holds_secret(data: bytes) -> bool:
    """Whether a known secret is in what is about to be kept."""
    return any(secret in data for secret in _known.encoded)


def is_secret(value: object) -> bool:
    """Whether a value is one of pydantic's secrets."""
    return hasattr(type(value), "get_secret_value")


def without_credentials(url: str) -> str:
    """A URL, or what was meant to be one, without user, password, query and fragment."""
    return _CREDENTIALS.sub(r"\1", url)


def _is_telling(secret: str) -> bool:
    if len(secret) < SHORTEST or _NUMBER.fullmatch(secret) or not secret.strip("*"):
        return False
    return len(secret) > LONGEST_WORD or not secret.isalpha()


def _spelled(secret: str) -> Iterable[str]:
    """A secret as it may stand in JSON, in a URL and in the text of bytes."""
    yield secret
    yield json.dumps(secret)[1:-1]
    yield json.dumps(secret, ensure_ascii=False)[1:-1]
    yield repr(secret)[1:-1]
    data = secret.encode("utf-8", "surrogatepass")
    yield repr(data)[2:-1]
    yield quote(data, safe="")


def _secret_texts(value: Any) -> Iterator[str]:
    """The texts of the secrets in a value."""
    if is_secret(value):
        held = value.get_secret_value()
        yield held.decode("utf-8", "replace") if isinstance(held, bytes) else str(held)
    elif isinstance(value, dict):
        yield from _secret_texts(list(value.values()))
    elif isinstance(value, list | tuple | set | frozenset):
        for item in value:
            yield from _secret_texts(item)
    elif hasattr(type(value), "model_fields"):
        yield from _secret_texts(dict(value))
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            yield from _secret_texts(getattr(value, field.name, None))
