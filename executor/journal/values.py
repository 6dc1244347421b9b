"""Values and failures as they stand in a journal: JSON, by the declared type of their tool."""

from __future__ import annotations

import builtins
import json
import math
import sys
from collections.abc import Callable, Mapping
from typing import Any
from weakref import WeakKeyDictionary

from pydantic_core import to_json, to_jsonable_python

from agentflow.caches.codec import Codec, same
from agentflow.redaction import holds_secret
from agentflow.tools.tool import Tool
from agentflow.wording import described

INLINE = 4096
"""Bytes of a value that stand in its record; a larger one is kept apart, once."""

_encoded = json.JSONEncoder(ensure_ascii=False).encode

_PLAIN = (str, int, bool, type(None))


class Encoder:
    """Encodes what tools give, and decodes it for whoever goes on with a run.

    Attributes:
        inline: Bytes of a value that stand in its record.
    """

    inline = INLINE

    def __init__(self) -> None:
        self._codecs: WeakKeyDictionary[Tool[..., Any], Codec] = WeakKeyDictionary()

    def encode(self, tool: Tool[..., Any], value: Any) -> bytes | None:
        """A value as JSON; None if JSON does not give it back as it was, or it holds a secret."""
        kind = type(value)
        if kind in _PLAIN or (kind is float and math.isfinite(value)):
            data = _encode(value)
            return None if data is None or holds_secret(data) else data
        return self._codec(tool).encode(value)

    def decode(self, tool: Tool[..., Any], data: bytes) -> Any:
        """The value again.

        Raises:
            ValueError: It is not what the tool gives now.
        """
        return self._codec(tool).decode(data)

    def _codec(self, tool: Tool[..., Any]) -> Codec:
        tool = tool.origin
        codec = self._codecs.get(tool)
        if codec is None:
            codec = self._codecs[tool] = Codec(tool.signature)
        return codec


def plain_data(value: Any) -> Any:
    """A value as data that JSON has a form for.

    Raises:
        ValueError: It has none.
    """
    return to_jsonable_python(value)


def faithful(given: Any, validate: Callable[..., Any]) -> bool:
    """Whether arguments come back from JSON as they were."""
    try:
        data = to_json(given)
        args, kwargs = json.loads(data)
        return not holds_secret(data) and same(given, validate(tuple(args), kwargs))
    except Exception:  # noqa: BLE001  # whatever pydantic, an object or the check raises
        return False


def plain_json(data: Any) -> str:
    """Data of any kind as JSON that a person can read; what JSON has no form for, as its `repr`."""
    try:
        return to_json(data, fallback=repr, inf_nan_mode="strings").decode()
    except Exception:  # noqa: BLE001  # half surrogate pairs, keys of odd types, a failing repr
        return json.dumps(data, separators=(",", ":"), default=repr, skipkeys=True)


def _encode(value: Any) -> bytes | None:
    try:
        return _encoded(value).encode()
    except UnicodeEncodeError:
        return None


def failure_data(error: BaseException) -> dict[str, Any]:
    """What is kept of a failure: its type, its text, and its attributes that are plain data."""
    kind = type(error)
    data: dict[str, Any] = {
        "type": f"{kind.__module__}.{kind.__qualname__}",
        "message": described(error),
    }
    plain = {k: v for k, v in vars(error).items() if type(v) in (*_PLAIN, float)}
    arguments = [value for value in error.args if type(value) in (*_PLAIN, float)]
    if len(arguments) == len(error.args):
        data["args"] = arguments
    return {**data, "attributes": plain} if plain else data


class RecordedFailure(Exception):
    """A failure of an earlier execution whose own type is not at hand."""


def failure_of(data: Mapping[str, Any]) -> Exception:
    """The failure again, as an exception of its own type where that has been imported.

    Nothing is imported and no constructor called: a record is data.
    """
    kind = _kind(str(data.get("type", "")))
    if kind is None:
        return RecordedFailure(str(data.get("message", "")))
    error: Exception = kind.__new__(kind)
    error.args = tuple(data.get("args") or (data.get("message", ""),))
    attributes = data.get("attributes")
    if isinstance(attributes, dict):
        vars(error).update(attributes)
    return error


def _kind(name: str) -> type[Exception] | None:
    module, _, qualified = name.rpartition(".")
    found: Any = builtins if module == "builtins" else sys.modules.get(module)
    found = getattr(found, qualified, None)
    return found if isinstance(found, type) and issubclass(found, Exception) else None
