"""File patterns such as ``*.py`` and ``src/**/*.{md,txt}``."""

from __future__ import annotations

import re
from collections.abc import Callable

from agentflow.tools.builtin.patterns import Search
from agentflow.tools.builtin.regex import PatternError, parse

_TOKEN = re.compile(r"\*\*/|\*\*|\*|\?|\[!?\]?[^\]/]*\]|\{|\}|,|[^*?\[{},]+|\[")
_PLAIN = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}


def glob(pattern: str) -> Callable[[str], bool]:
    """A test of relative paths.

    ``**`` crosses folders, ``*`` and ``?`` do not; a pattern without a slash is matched
    against the last name at any depth, as in ``.gitignore``.

    Raises:
        PatternError: The pattern cannot be read; the message says where.
        PatternTooCostly: It is too large.
    """
    regex = _regex(pattern)
    anywhere = "" if "/" in pattern else _PLAIN["**/"]
    return Search(f"^{anywhere}{regex}$").matches


def _regex(pattern: str) -> str:
    out: list[str] = []
    braces: list[int] = []
    for match in _TOKEN.finditer(pattern, 2 if pattern.startswith("./") else 0):
        token = match[0]
        if token == "{":
            braces.append(match.start())
            out.append("(?:")
        elif token == "}" and braces:
            braces.pop()
            out.append(")")
        elif token == "," and braces:
            out.append("|")
        elif token.startswith("[") and len(token) > 1:
            out.append(_set(token, match.start()))
        else:
            out.append(_PLAIN.get(token) or re.escape(token))
    if braces:
        raise PatternError("this '{' is never closed; write '[{]' for the character", braces[-1])
    return "".join(out)


def _set(token: str, at: int) -> str:
    negated = token[1] == "!"
    members = token[1 + negated : -1].replace("\\", "\\\\").replace("^", "\\^")
    text = f"[{'^/' if negated else ''}{members}]"
    try:
        parse(text)
    except PatternError:
        message = "a range in [...] goes from the lower character to the higher"
        raise PatternError(message, at) from None
    return text
