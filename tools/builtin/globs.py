"""File patterns such as ``*.py`` and ``src/**/*.{md,txt}``."""

from __future__ import annotations

import re
from collections.abc import Callable

from agentflow.tools.builtin.patterns import Search

_TOKEN = re.compile(r"\*\*/|\*\*|\*|\?|\[!?\]?[^\]/]*\]|\{|\}|,|[^*?\[{},]+|\[")
_PLAIN = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}


def glob(pattern: str) -> Callable[[str], bool]:
    """A test of relative paths.

    ``**`` crosses folders, ``*`` and ``?`` do not; a pattern without a slash is matched
    against the last name at any depth, as in ``.gitignore``.

    Raises:
        PatternError: The pattern cannot be read.
    """
    if "/" not in pattern:
        pattern = f"**/{pattern}"
    return Search(f"^{_regex(pattern.removeprefix('./'))}$").matches


def _regex(pattern: str) -> str:
    out = []
    depth = 0
    for token in _TOKEN.findall(pattern):
        if token in _PLAIN:
            out.append(_PLAIN[token])
        elif token.startswith("[") and len(token) > 1:
            out.append(_set(token))
        elif token == "{":
            depth += 1
            out.append("(?:")
        elif token == "}" and depth:
            depth -= 1
            out.append(")")
        else:
            out.append("|" if token == "," and depth else re.escape(token))
    return "".join(out)


def _set(token: str) -> str:
    negated = token[1] == "!"
    members = token[1 + negated : -1].replace("\\", "\\\\").replace("^", "\\^")
    return f"[{'^' if negated else ''}{members}]"
