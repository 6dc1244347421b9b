"""Values as JSON and back, by the declared type of the tool that gives them."""

from __future__ import annotations

import dataclasses
from datetime import datetime, time, tzinfo
from typing import Any

from agentflow.redaction import holds_secret
from agentflow.tools.signature import Signature


class Codec:
    """Encodes the values of one tool.

    Args:
        signature: Of the tool; a value without a declared type is taken as plain JSON data.
    """

    def __init__(self, signature: Signature) -> None:
        adapter = signature.result_adapter
        self._dump, self._load = adapter.dump_json, adapter.validate_json

    def encode(self, value: Any) -> bytes | None:
        """The value as JSON (UTF-8); None if JSON does not give it back, or it holds a secret."""
        try:
            data: bytes = self._dump(value, warnings="error")
            return data if same(value, self._load(data)) and not holds_secret(data) else None
        except Exception:  # noqa: BLE001  # pydantic's errors, and whatever an object's == raises
            return None

    def decode(self, data: bytes) -> Any:
        """A value that belongs to whoever asked for it.

        Raises:
            ValueError: The data is not of the declared type.
        """
        return self._load(data)


def same(one: Any, other: Any) -> bool:
    """Whether two values are equal and of equal types, inside of them too."""
    if type(one) is not type(other):
        return False
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict):
        return list(map(type, one)) == list(map(type, other)) and all(
            key in other and same(value, other[key]) for key, value in one.items()
        )
    if isinstance(one, set | frozenset):
        return {(type(item), item) for item in one} == {(type(item), item) for item in other}
    if isinstance(one, datetime | time):
        return one == other and one.fold == other.fold and _fixed(one.tzinfo)
    if dataclasses.is_dataclass(one):
        names = [field.name for field in dataclasses.fields(one)]
        return all(same(getattr(one, name), getattr(other, name)) for name in names)
    for name in getattr(type(one), "model_fields", ()):
        if not same(getattr(one, name), getattr(other, name)):
            return False
    extra = getattr(one, "model_extra", None)
    return bool(one == other) and (not extra or same(extra, other.model_extra))


def _fixed(zone: tzinfo | None) -> bool:
    """Whether a time zone is no more than an offset, which is all that is kept of it."""
    return zone is None or zone.utcoffset(None) is not None
