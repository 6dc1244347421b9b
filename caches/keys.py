"""Keys of tool calls: equal exactly when the same tool is called with the same values."""

from __future__ import annotations

import functools
import hashlib
import secrets
import types
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from agentflow.errors import ArgumentError
from agentflow.planner.canonical import NotCanonical, canonical, encoded, framed
from agentflow.tools.tool import Tool


class Keys:
    """Names the calls of one tool.

    A key covers the tool's name, its version, the scope and the canonical arguments: ``1``,
    ``1.0`` and ``True`` differ, the order of keyword arguments and of a dict's keys does not.

    Args:
        tool: The tool; without a declared version its code is its version.
    """

    def __init__(self, tool: Tool[..., Any]) -> None:
        self._tool = tool
        parameters = list(tool.signature.signature.parameters.values())
        self._places = [p.name for p in parameters if p.kind < p.VAR_POSITIONAL]
        self._first = sum(p.kind is p.POSITIONAL_ONLY for p in parameters)  # the first with a name
        self._named = self._places[self._first :]
        version = tool.version or fingerprint(tool.fn)
        start = framed(b"c", [tool.name.encode(), version.encode()])
        self._start = hashlib.blake2b(start, digest_size=16)

    def key(self, args: Sequence[Any], kwargs: Mapping[str, Any], scope: str = "") -> str:
        """The key of a call, in hexadecimal.

        Args:
            args: Positional arguments as `Signature.validate` gives them.
            kwargs: Keyword arguments, likewise.
            scope: Whose result it is: a tenant, a run.

        Raises:
            ArgumentError: An argument has no canonical form.
        """
        digest = self._start.copy()
        named = kwargs
        if args:
            named = dict(zip(self._named, args[self._first :], strict=False))
            named.update(kwargs)
        parts = [b"%d;" % len(named), _text(scope)]
        for name in sorted(named):
            parts += (_text(name), self._spelled(name, named[name]))
        if self._first or len(args) > len(self._places):
            parts += self._nameless(args)
        digest.update(b"".join(parts))
        return digest.hexdigest()

    def named(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Mapping[str, Any]:
        """Arguments by parameter name; those beyond the named ones are left out."""
        return {**kwargs, **dict(zip(self._places, args, strict=False))} if args else kwargs

    def _nameless(self, args: Sequence[Any]) -> Iterator[bytes]:
        """The arguments that can only be given by position."""
        beyond = len(self._places)
        for place, value in enumerate(args):
            if place < self._first:
                yield self._spelled(self._places[place], value)
            elif place >= beyond:
                yield self._spelled(f"*args[{place - beyond}]", value)

    def _spelled(self, name: str, value: Any) -> bytes:
        try:
            return _spell(value)
        except NotCanonical as error:
            tool = self._tool.name
            raise ArgumentError(
                f"{tool}: argument '{name}{error.where}' cannot be part of a cache key: {error}",
                tool=tool,
                argument=f"{name}{error.where}",
            ) from None
        except RecursionError:
            raise ArgumentError(
                f"{self._tool.name}: argument {name!r} is nested too deeply for a cache key",
                tool=self._tool.name,
                argument=name,
            ) from None


def fingerprint(fn: Any) -> str:
    """A version for a function that declares none: a digest of its code, as it was compiled.

    Default values and the values it closes over count; what it uses of its module does not.
    Where such a value cannot be told, the fingerprint is good in this process only, and differs
    for every function.
    """
    try:
        return hashlib.blake2b(_print(fn), digest_size=16).hexdigest()
    except (TypeError, ValueError, RecursionError):
        return secrets.token_hex(16)


def _print(fn: Any) -> bytes:
    if isinstance(fn, functools.partial):
        parts = [_print(fn.func), _spell(list(fn.args)), _spell(fn.keywords)]
        return framed(b"p", parts)
    if not isinstance(fn, types.FunctionType):
        raise TypeError(f"{fn!r} has state that its code does not tell of")
    held = [cell.cell_contents for cell in fn.__closure__ or ()]  # ValueError: not bound yet
    values = [*held, *(fn.__defaults__ or ()), *(fn.__kwdefaults__ or {}).items()]
    parts = [_print(v) if isinstance(v, types.FunctionType) else _spell(v) for v in values]
    place = f"{fn.__module__}.{fn.__qualname__}"
    return framed(b"f", [place.encode(), _code(fn.__code__), *parts])


def _code(code: types.CodeType) -> bytes:
    """What code does, on whatever lines of whatever file it stands."""
    names = (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)
    shape = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags)
    parts = [code.co_code, code.co_exceptiontable, repr((names, shape)).encode()]
    return framed(b"c", parts + [_constant(value) for value in code.co_consts])


def _constant(value: Any) -> bytes:
    if isinstance(value, types.CodeType):
        return _code(value)
    if isinstance(value, frozenset):  # in an order that changes from process to process
        return framed(b"{", sorted(map(_constant, value)))
    return repr(value).encode()


def _text(value: str) -> bytes:
    raw = value.encode("utf-8", "surrogatepass")
    return b"s%d:%b" % (len(raw), raw)


def _spell(value: Any, where: str = "") -> bytes:
    """A value as bytes that no different value has."""
    kind = type(value)
    if kind is str:
        return _text(value)
    if value is None or kind is bool:
        return b"n" if value is None else b"y" if value else b"z"
    if kind is int:
        return b"i%x;" % value if value >= 0 else b"j%x;" % -value
    if kind is float:
        return b"r%b;" % repr(value).encode()
    if kind is list:
        items = [_spell(item, f"{where}[{i}]") for i, item in enumerate(value)]
        return b"l%d:%b" % (len(items), b"".join(items))
    if kind is dict and all(type(name) is str for name in value):
        pairs = [_text(name) + _spell(value[name], f"{where}.{name}") for name in sorted(value)]
        return b"d%d:%b" % (len(pairs), b"".join(pairs))
    other = encoded(canonical(value, where))
    return b"o%d:%b" % (len(other), other)
