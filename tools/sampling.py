"""How a tool whose work is done by models may be tried."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from agentflow.errors import DefinitionError

WIDEST = 64
"""Samples of one model that may begin at once."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """The models that may try a call, and how many samples of one may begin at once.

    Attributes:
        models: Names, in the order listed; ``""`` is the engine's default.
        widths: Numbers of samples, ascending.
        max_tokens: Upper bound of one answer.
        judge: The tool that judges an answer, if that is done by models, and how it is tried.
    """

    models: tuple[str, ...]
    widths: tuple[int, ...]
    max_tokens: int
    judge: tuple[str, Sampling] | None = None

    @property
    def chooses(self) -> bool:
        """Whether there is more than one way to try it."""
        return len(self.models) > 1 or self.widths != (1,)


def sampling(
    tool: str, models: Sequence[str], samples: int | Sequence[int], max_tokens: int
) -> Sampling:
    """Read what a decorator was given.

    Raises:
        DefinitionError: No number of samples, or one that is out of range; a model named twice.
    """
    widths = tuple(samples) if isinstance(samples, Sequence) else (samples,)
    sound = all(isinstance(n, int) and not isinstance(n, bool) and 1 <= n <= WIDEST for n in widths)
    if not widths or not sound:
        raise DefinitionError(
            f"@llm on {tool!r}: samples={samples!r}: write how many answers may be asked for at "
            f"once, such as 2 or (1, 2, 4), each from 1 to {WIDEST}"
        )
    if not all(isinstance(name, str) and name for name in models):
        raise DefinitionError(
            f"@llm on {tool!r}: model={models!r}: write the name of a model, or a list of names"
        )
    if len(set(models)) < len(models):
        raise DefinitionError(f"@llm on {tool!r}: a model is named twice: {', '.join(models)}")
    return Sampling(tuple(models) or ("",), tuple(sorted(set(widths))), max_tokens)
