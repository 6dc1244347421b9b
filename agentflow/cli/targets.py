"""What a TARGET on the command line is: a question, a plan's text, or a workflow."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from agentflow.errors import DefinitionError
from agentflow.tools.tool import Tool
from agentflow.wording import nearest

_MEMBER = re.compile(r"(?P<module>.+\.py|[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*):(?P<name>[A-Za-z_]\w*)")
_SUFFIXES = (".plan", ".txt", ".md", ".json", ".py")


@dataclass(frozen=True, slots=True)
class Question:
    """A sentence for a model."""

    text: str


@dataclass(frozen=True, slots=True)
class PlanText:
    """A plan in the notation, and where it was found."""

    text: str
    where: str


@dataclass(frozen=True, slots=True)
class Member:
    """A workflow or a tool, the arguments it is called with, and the tools beside it."""

    tool: Tool[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    beside: tuple[Tool[..., Any], ...]


Target: TypeAlias = Question | PlanText | Member


def find(target: str, words: Sequence[str] = ()) -> Target:
    """What a TARGET and the words after it mean.

    Raises:
        DefinitionError: It is empty, names what is not there, or takes no arguments.
        ArgumentError: The words are not what the workflow takes.
    """
    if match := _MEMBER.fullmatch(target):
        return _member(match["module"], match["name"], words)
    if words:
        raise DefinitionError(
            f"{words[0]!r} is one word too many: only a workflow (module:name) takes arguments. "
            "Put a question in quotes."
        )
    if target == "-":
        return PlanText(_decoded(sys.stdin.buffer.read(), "standard input"), "standard input")
    if target.endswith(".py") and os.path.isfile(target):
        raise DefinitionError(f"{target!r} holds Python: say what to run in it, {target}:NAME")
    if os.path.exists(target) and not os.path.isdir(target):  # a file, or a pipe of the shell
        return PlanText(_decoded(Path(target).read_bytes(), target), target)
    if _looks_like_a_file(target):
        raise DefinitionError(f"there is no file {target!r}")
    if not target.strip():
        raise DefinitionError("the question is empty")
    return Question(target)


def names_member(target: str) -> bool:
    """Whether a TARGET is ``module:name`` or ``file.py:name``."""
    return _MEMBER.fullmatch(target) is not None


def _member(module: str, name: str, words: Sequence[str]) -> Member:
    from agentflow.cli.arguments import read_arguments
    from agentflow.cli.toolset import load
    from agentflow.tools.toolbox import tools_of

    loaded = load(module)
    tools = tools_of(loaded)
    found = getattr(loaded, name, None)
    if not isinstance(found, Tool):
        names = [key for key, value in vars(loaded).items() if isinstance(value, Tool)]
        reason = "is neither a workflow nor a tool" if hasattr(loaded, name) else "is not there"
        hint = nearest(name, names) if names else "Decorate functions with @workflow or @tool."
        raise DefinitionError(f"{name!r} {reason} in {module!r}. {hint}")
    args, kwargs = read_arguments(words, found)
    return Member(found, args, kwargs, tuple(tools))


def _looks_like_a_file(target: str) -> bool:
    one_word = not any(char.isspace() for char in target)
    return target.endswith(".plan") or (
        one_word and ("/" in target or os.sep in target or target.endswith(_SUFFIXES))
    )


def _decoded(data: bytes, where: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DefinitionError(
            f"{where} is not text in UTF-8 (byte {error.start}): save it as UTF-8"
        ) from None
