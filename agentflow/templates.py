"""Prompts of `llm`: templates in which ``{name}`` stands for an argument, and instructions."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from typing import Any

from agentflow.errors import DefinitionError
from agentflow.executor.models.base import Message
from agentflow.tools.values import as_text
from agentflow.wording import nearest

_FIELD = re.compile(r"\{\{|\}\}|\{([^\W\d]\w*)\}")
_ALMOST_FIELD = re.compile(r"(?<!\{)\{(?:[^\W\d]\w*[.\[!:][^{}]*)?\}")


def filled(template: str, arguments: Mapping[str, Any]) -> str:
    """A template with its arguments put in; ``{{`` and ``}}`` are braces."""

    def put(match: re.Match[str]) -> str:
        return match[0][0] if match[1] is None else as_text(arguments[match[1]])

    return _FIELD.sub(put, template)


def check_template(template: str, signature: inspect.Signature, name: str) -> None:
    """Check that a template names parameters of its function only.

    Raises:
        DefinitionError: It is empty, or names something else.
    """
    if not template.strip():
        raise DefinitionError(f"@llm needs a docstring on {name!r}: it is the prompt")
    if almost := _ALMOST_FIELD.search(_FIELD.sub("", template)):
        raise DefinitionError(
            f"the prompt of {name!r} uses {almost[0]}: write the name of a parameter in the "
            "braces and nothing else, or {{ and }} for braces"
        )
    for match in _FIELD.finditer(template):
        if match[1] is not None and match[1] not in signature.parameters:
            known = list(signature.parameters)
            raise DefinitionError(
                f"the prompt of {name!r} uses {match[0]}, which is no parameter. "
                f"{nearest(match[1], known) if known else 'There are none.'} "
                "Write {{ and }} for braces."
            )


def instructed(messages: list[Message], instructions: str) -> list[Message]:
    """The same conversation, told what to answer with; told first, so that it can be shared."""
    if not instructions:
        return messages
    return [{"role": "system", "content": instructions}, *messages]
