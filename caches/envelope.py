"""How an entry lies on disk: one run of bytes that shows whether it is whole, and whose.

``magic and version | digest | length of the header | length of the value | header | value``.
The header is JSON. The digest covers the key too, so the value of another key is refused like
one that was cut short. It protects against accidents; against people, the folder's owner does.
"""

from __future__ import annotations

import json
import math
from hashlib import blake2b
from struct import Struct
from typing import Any

from agentflow.caches.store import Entry

_MAGIC = b"AFE1"
_HEAD = Struct("<4s16sIQ")


class Damaged(ValueError):
    """Bytes are not the entry of this key."""


def pack(key: str, entry: Entry) -> bytes:
    """The bytes of an entry."""
    header = json.dumps(
        {
            "cost": entry.cost,
            "expires": entry.expires,
            "epochs": entry.epochs,
            "tool": entry.tool,
        },
        separators=(",", ":"),
    ).encode()
    digest = _digest(key, header, entry.value)
    head = _HEAD.pack(_MAGIC, digest, len(header), len(entry.value))
    return b"".join((head, header, entry.value))


def unpack(key: str, packed: bytes) -> Entry:
    """The entry of a key from its bytes.

    Raises:
        Damaged: They are incomplete, altered, another key's, or of another version.
    """
    if len(packed) < _HEAD.size:
        raise Damaged("too short")
    magic, digest, header_size, value_size = _HEAD.unpack_from(packed)
    if magic != _MAGIC:
        raise Damaged("not an entry of this version")
    if len(packed) != _HEAD.size + header_size + value_size:
        raise Damaged("not as long as it says")
    middle = _HEAD.size + header_size
    header, value = packed[_HEAD.size : middle], packed[middle:]
    if _digest(key, header, value) != digest:
        raise Damaged("altered, or another key's")
    try:
        return _entry(json.loads(header), value)
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
        raise Damaged(f"unreadable header: {error}") from None


def _digest(key: str, header: bytes, value: bytes) -> bytes:
    name = key.encode("utf-8", "surrogatepass")
    digest = blake2b(b"%d %d " % (len(name), len(header)), digest_size=16)
    digest.update(name)
    digest.update(header)
    digest.update(value)
    return digest.digest()


def _entry(header: dict[str, Any], value: bytes) -> Entry:
    """The entry a header describes; a well-made digest does not make its types right."""
    expires, epochs = header["expires"], header["epochs"]
    if type(header["tool"]) is not str or not all(type(epoch) is int for epoch in epochs):
        raise ValueError("wrong types")
    return Entry(
        value=value,
        cost=_number(header["cost"]),
        expires=None if expires is None else _number(expires),
        epochs=tuple(epochs),
        tool=header["tool"],
    )


def _number(value: object) -> float:
    if type(value) not in (int, float) or not math.isfinite(value):  # type: ignore[arg-type]  # a number by now
        raise ValueError(f"{value!r} is not a number")
    return value  # type: ignore[return-value]  # checked above
