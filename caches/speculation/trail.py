"""What a session has said and done so far: all that a prediction may rest on."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from agentflow.caches.speculation.leaves import leaves
from agentflow.caches.speculation.words import Token, tokens

STEPS = 64
"""Things said and calls made that a trail remembers."""


@dataclass(frozen=True, slots=True)
class Offer:
    """A value that stands somewhere in a step, and where: positions, the outermost first."""

    at: tuple[int, ...]
    value: Any


@dataclass(frozen=True, slots=True)
class Origin:
    """A kind of place that values come from, the same in every session.

    Attributes:
        kind: ``result``, ``argument``, ``said`` or ``constant``.
        who: The tool, or who spoke.
        what: A path, a parameter, the shape of a token, or the constant as JSON.
    """

    kind: str
    who: str
    what: str


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """One thing that was said or done.

    Attributes:
        position: Counts from 0 in its session.
        actor: Who spoke, or the tool that was called.
        tokens: What was said; empty for a call.
        key: The call as text, equal for equal calls; empty for words.
        failed: Whether the call failed.
        changes: Whether the call may have changed something.
        offers: The values in it, by the kind of place they stand in.
    """

    position: int
    actor: str
    tokens: tuple[Token, ...]
    key: str
    failed: bool
    changes: bool
    offers: Mapping[Origin, tuple[Offer, ...]]
    arguments: Mapping[str, Any]


class Trail:
    """The last steps of one session, in order; bounded, and without knowledge of any model.

    Attributes:
        workflow: Name of what the session runs: what follows what is learned for each and overall.
        length: Steps so far, those forgotten included.
    """

    def __init__(self, workflow: str = "", *, limit: int = STEPS) -> None:
        self.workflow = workflow
        self.length = 0
        self.question = None
        self.open = []
        self.steps: deque[Step] = deque(maxlen=limit)

    def said(self, text: str, by: str = "user") -> None:
        """Note what the user, the model or anybody else said."""
        words = tokens(text)
        offers: dict[Origin, list[Offer]] = {}
        for token in words:
            origin = Origin("said", by, token.shape)
            offers.setdefault(origin, []).append(Offer((token.index,), token.text))
        self._note(by, words, "", False, False, offers, {})

    def called(
        self,
        tool: str,
        arguments: Mapping[str, Any],
        result: Any = None,
        *,
        failed: bool = False,
        changes: bool = False,
    ) -> None:
        """Note a committed call and what came of it.

        Args:
            tool: Its name.
            arguments: Value by parameter name, as JSON would hold them.
            result: What it returned, as JSON would hold it; text that is JSON is read as such.
            failed: Whether it failed; `result` may then be the error's text.
            changes: Whether it may have changed something: it is never proposed, and reads may
                be worth repeating after it.
        """
        offers: dict[Origin, list[Offer]] = {}
        for kind, value in (("argument", dict(arguments)), ("result", result)):
            for leaf in leaves(value):
                origin = Origin(kind, tool, leaf.path)
                offers.setdefault(origin, []).append(Offer(leaf.at, leaf.value))
        self._note(tool, (), call_key(tool, arguments), failed, changes, offers, arguments)

    def _note(
        self,
        actor: str,
        words: tuple[Token, ...],
        key: str,
        failed: bool,
        changes: bool,
        offers: Mapping[Origin, list[Offer]],
        arguments: Mapping[str, Any],
    ) -> None:
        fixed = {origin: tuple(found) for origin, found in offers.items()}
        step = Step(self.length, actor, words, key, failed, changes, fixed, arguments)
        self.steps.append(step)
        self.length += 1


def call_key(tool: str, arguments: Mapping[str, Any]) -> str:
    """A call as text, equal for equal calls; the order of the arguments does not matter."""
    return json.dumps([tool, arguments], sort_keys=True, default=repr)
