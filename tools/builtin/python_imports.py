"""The imports that a program begins with, while it is being written."""

from __future__ import annotations

import ast

from agentflow.tools.builtin.statements import Statement, Statements

_ACTING = frozenset(("__main__", "antigravity", "idlelib", "this", "tkinter", "turtle"))
"""Modules that do something when they are imported, or may open a window."""


class OpeningImports:
    """The imports that a program makes before anything else.

    Those behind another statement are left out: it may change what they find, or do.
    """

    def __init__(self) -> None:
        self._statements = Statements()
        self._over = False

    def feed(self, text: str) -> list[tuple[str, list[str]]]:
        """More of the program; the modules it imports with it, and what it names of each."""
        found: list[tuple[str, list[str]]] = []
        for statement in [] if self._over else self._statements.feed(text):
            imports = _imports(statement)
            if not (imports or _is_text(statement)) or any(map(_acts, imports)):
                self._over = True
                break
            found += imports
        return found


def is_future_import(statement: Statement) -> bool:
    """Whether it does nothing but import from ``__future__``."""
    return all(
        isinstance(node, ast.ImportFrom) and node.module == "__future__" for node in statement.body
    )


def _imports(statement: Statement) -> list[tuple[str, list[str]]]:
    """The imports of a statement, if it does nothing else."""
    found: list[tuple[str, list[str]]] = []
    for node in statement.body:
        match node:
            case ast.Import(names=names):
                found += [(alias.name, []) for alias in names]
            case ast.ImportFrom(module=str(module), names=names, level=0):
                found.append((module, [alias.name for alias in names]))
            case _:
                return []
    return found


def _is_text(statement: Statement) -> bool:
    """Whether it is nothing but a string, such as a docstring."""
    return all(
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
        for node in statement.body
    )


def _acts(imported: tuple[str, list[str]]) -> bool:
    return imported[0].partition(".")[0] in _ACTING
