"""Values and failures as they stand in a journal: JSON, by the declared type of their tool."""

from __future__ import annotations

import builtins
import json
import math
import sys
from collections.abc import Callable, Mapping
from json.encoder import encode_basestring_ascii
from typing import Any
from weakref import WeakKeyDictionary

from pydantic_core import to_json, to_jsonable_python

from agentflow.caches.codec import Codec, same
from agentflow.errors import AgentflowError
from agentflow.redaction import holds_secret, redact
from agentflow.tools.tool import Tool
from agentflow.wording import described

INLINE = 4096
"""Bytes of a value that stand in its record; a larger one is kept apart, once."""

TEXT = 4000
"""Characters of a failure's text that are kept."""

_encoded = json.JSONEncoder(ensure_ascii=False).encode

SHORT = 1000
"""Characters of a text that is a short one."""

_WORD = 1 << 63
_CONSTANTS = {None: "null", True: "true", False: "false"}

_JSON_TYPES: Mapping[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
}

_PLAIN = (str, int, bool, type(None))


class Encoder:
    """Encodes what tools give, and decodes it for whoever goes on with a run.

    Attributes:
        inline: Bytes of a value that stand in its record.
    """

    inline = INLINE

    def __init__(self) -> None:
        self._codecs: WeakKeyDictionary[Tool[..., Any], Codec] = WeakKeyDictionary()

    def encode(self, tool: Tool[..., Any], value: Any) -> tuple[bytes, bool] | None:
        """A value as JSON, and whether it is to be read by the type that its tool declares.

        None if JSON does not give it back as it was, or it holds a secret.
        """
        kind = type(value)
        if kind in _PLAIN or (kind is float and math.isfinite(value)):
            data = _encode(value)
            return None if data is None or holds_secret(data) else (data, False)
        data = self._codec(tool).encode(value)
        return None if data is None else (data, True)

    def decode(self, tool: Tool[..., Any], data: bytes, *, typed: bool) -> Any:
        """The value again.

        Raises:
            Exception: It is not what the tool gives now; whatever its type's validators raise.
        """
        if typed:
            return self._codec(tool).decode(data)
        value = json.loads(data)
        declared = tool.spec.returns or {}
        wanted = _JSON_TYPES.get(declared.get("type", ""))
        if (
            wanted is not None
            and declared.keys() <= {"type", "title"}
            and type(value) not in wanted
        ):
            raise ValueError(f"{type(value).__name__} in place of {declared['type']}")
        return value

    def _codec(self, tool: Tool[..., Any]) -> Codec:
        tool = tool.origin
        codec = self._codecs.get(tool)
        if codec is None:
            codec = self._codecs[tool] = Codec(tool.signature)
        return codec


def quick_json(value: Any) -> str | None:
    """A short plain value as JSON, as most are; None for any other, or if it holds a secret."""
    kind = type(value)
    if kind is str and len(value) < SHORT and value.isascii():
        text: str = encode_basestring_ascii(value)
        return text if redact(text) is text else None
    if kind is int and -_WORD < value < _WORD:
        return f"{value}"
    return _CONSTANTS.get(value) if kind is bool or value is None else None


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
    except ValueError:  # half a surrogate pair, or more digits than Python writes
        return None


def failure_data(error: BaseException) -> dict[str, Any]:
    """What is kept of a failure: its type, its text, and its attributes that are plain data.

    With why it is ``lost``, if it does not come back as it was.
    """
    kind = type(error)
    data: dict[str, Any] = {
        "type": f"{kind.__module__}.{kind.__qualname__}",
        "message": _cut(described(error)),
    }
    arguments = [value for value in error.args if _is_short(value)]
    if len(arguments) == len(error.args):
        data["args"] = arguments
    if plain := {k: v for k, v in vars(error).items() if _is_short(v)}:
        data["attributes"] = plain
    if not _comes_back(error, data):
        data["lost"] = f"a {kind.__name__} does not come back from JSON as it was"
    return data


def _is_short(value: Any) -> bool:
    return type(value) in (*_PLAIN, float) and len(str(value)) <= TEXT


def _cut(text: str) -> str:
    return text if len(text) <= TEXT else f"{text[:TEXT]}…"


def _comes_back(error: BaseException, data: Mapping[str, Any]) -> bool:
    """Whether a failure can be made again of what is kept of it."""
    try:
        again = failure_of(data)
        alike = type(again) is type(error) and again.args == error.args and str(again) == str(error)
        return (alike and isinstance(error, AgentflowError | OSError)) or (
            alike and vars(again) == vars(error)
        )
    except Exception:  # noqa: BLE001  # whatever its own methods raise
        return False


class RecordedFailure(Exception):
    """A failure of an earlier execution whose own type is not at hand."""


def failure_of(data: Mapping[str, Any]) -> Exception:
    """The failure again, as an exception of its own type where that has been imported.

    Nothing is imported, and no constructor called but of Python's own: a record is data.
    """
    kind, args = _kind(str(data.get("type", ""))), data.get("args")
    if kind is None or args is None:
        return RecordedFailure(str(data.get("message", "")))
    if kind.__module__ == "builtins":
        error = kind(*args)
    else:
        error = kind.__new__(kind)
        error.args = tuple(args)
    attributes = data.get("attributes")
    if isinstance(attributes, dict):
        vars(error).update(attributes)
    return error


def _kind(name: str) -> type[Exception] | None:
    module, _, qualified = name.rpartition(".")
    found: Any = builtins if module == "builtins" else sys.modules.get(module)
    found = getattr(found, qualified, None)
    return found if isinstance(found, type) and issubclass(found, Exception) else None
