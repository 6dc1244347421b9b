"""What a session has said and done so far: all that a prediction may rest on."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from json.encoder import encode_basestring_ascii
from typing import Any, NamedTuple

from agentflow.caches.speculation.leaves import Leaf, leaves
from agentflow.caches.speculation.words import Token, days, tokens, words

STEPS = 64
"""Things said and calls made that a trail remembers."""

SIGNS = 40
"""Short values of a result that are looked at."""

SHORT = 24
"""Characters of such a value at most."""


class Offer(NamedTuple):
    """A value that stands somewhere in a step, and where: positions, the outermost first."""

    at: tuple[int, ...]
    value: Any


class Origin(NamedTuple):
    """A kind of place that values come from, the same in every session.

    Attributes:
        kind: ``result``, ``argument``, ``said`` or ``constant``.
        who: The tool, or who spoke.
        what: A path, a parameter, the shape of a token, or the constant as JSON.
    """

    kind: str
    who: str
    what: str

    def __str__(self) -> str:
        if self.kind == "constant":
            return self.what
        if self.kind == "said":
            return f"{self.what!r} said by the {self.who}"
        return f"{self.kind} {self.what.replace('.*', '[*]')} of {self.who}".replace("  ", " ")


@dataclass(frozen=True, eq=False)
class Step:
    """One thing that was said or done.

    Attributes:
        position: Counts from 0 in its session.
        actor: Who spoke, or the tool that was called.
        tokens: What was said; empty for a call.
        key: The call as text, equal for equal calls; empty for words.
        arguments: What the call was given.
        failed: Whether the call failed.
        changes: Whether the call may have changed something.
        offers: The values in it, by the kind of place they stand in.
        texts: What was said, token by token, in no order.
        words: The words of it, in lower case.
        signs: The short values of a result that are not ids, with their paths.
    """

    position: int
    actor: str
    tokens: tuple[Token, ...] = ()
    key: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    failed: bool = False
    changes: bool = False
    offers: Mapping[Origin, Sequence[Offer]] = field(default_factory=dict)
    texts: frozenset[str] = frozenset()
    words: frozenset[str] = frozenset()
    signs: tuple[str, ...] = ()

    @property
    def awaits(self) -> bool:
        """Whether the model's turn comes after it: a call, or words that are not the model's."""
        return bool(self.key) or self.actor != "model"

    @cached_property
    def sources(self) -> Mapping[tuple[type, Any], Sequence[tuple[Origin, Offer]]]:
        """The kinds of places in which a value stands, by its type and itself, the first of each."""
        found: dict[tuple[type, Any], dict[Origin, Offer]] = {}
        for origin, offers in self.offers.items():
            for offer in offers:
                found.setdefault((type(offer.value), offer.value), {}).setdefault(origin, offer)
        return {value: list(places.items()) for value, places in found.items()}

    @cached_property
    def folded(self) -> Mapping[str, Sequence[str]]:
        """The texts in it, by what they are in lower case."""
        found: dict[str, list[str]] = {}
        for kind, value in self.sources:
            if kind is str:
                found.setdefault(value.lower(), []).append(value)
        return found

    def first(self, origin: Origin, at: tuple[int, ...]) -> Offer | None:
        """The first value of a kind that stands in one record with what stands at a place."""
        offers = self.offers.get(origin)
        if not offers:
            return None
        length = min(len(at), len(offers[0].at))
        if (found := self._firsts.get((origin, length))) is None:
            found = {offer.at[:length]: offer for offer in reversed(offers)}
            self._firsts[origin, length] = found
        return found.get(at[:length])

    def words_of(self, at: tuple[int, ...]) -> frozenset[str]:
        """The words in the record of a result that stands at a place."""
        return self._records.get(at, frozenset()) if at else frozenset()

    @cached_property
    def _firsts(self) -> dict[tuple[Origin, int], dict[tuple[int, ...], Offer]]:
        return {}

    @cached_property
    def _records(self) -> Mapping[tuple[int, ...], frozenset[str]]:
        records: dict[tuple[int, ...], set[str]] = {}
        for origin, offers in self.offers.items():
            if origin.kind == "result":
                for offer in offers:
                    if isinstance(offer.value, str):
                        said = offer.value.lower().split()
                        for length in range(1, len(offer.at) + 1):
                            records.setdefault(offer.at[:length], set()).update(said)
        return {at: frozenset(found) for at, found in records.items()}


class Trail:
    """The last steps of one session, in order; bounded, and without knowledge of any predictor.

    Attributes:
        workflow: Name of what the session runs; what is learned is kept for each and overall.
        length: Steps so far, those forgotten included.
        steps: The steps that are remembered, oldest first.
        original: The trail this one was copied from to suppose a call; None if it is no copy.
    """

    original: Trail | None = None

    def __init__(self, workflow: str = "", *, limit: int = STEPS) -> None:
        self.workflow = workflow
        self.length = 0
        self.steps: deque[Step] = deque()
        self._limit = limit
        self._offering: dict[Origin, deque[Step]] = {}

    def said(self, text: str, by: str = "user") -> None:
        """Note what the user, the model (``by="model"``) or anybody else said.

        What a model says beside its calls is noted after them.
        """
        found = tokens(text)
        offers = _offers(_tokens(by, (*found, *days(found))))
        texts = frozenset(token.text for token in found)
        step = Step(self.length, by, found, offers=offers, texts=texts, words=words(found))
        self._note(step)

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
            failed: Whether it failed, and `result` says nothing.
            changes: Whether it may have changed something: it is never proposed, and reads may
                be worth repeating after it.
        """
        given, found = leaves(dict(arguments)), [] if failed else leaves(result)
        places = _leaves("argument", tool, given) + _leaves("result", tool, found)
        if len(found) == 1 and isinstance(result, str):
            places += _tokens(tool, tokens(result))
        self._note(
            Step(
                self.length,
                tool,
                key=call_key(tool, arguments),
                arguments=arguments,
                failed=failed,
                changes=changes,
                offers=_offers(places),
                signs=_signs(found),
            )
        )

    def supposing(self, tool: str, arguments: Mapping[str, Any], result: Any) -> Trail:
        """A copy in which one more call has been made; the original is not touched."""
        copy = Trail(self.workflow, limit=self._limit)
        copy.original = self
        copy.length = self.length
        copy.steps = self.steps.copy()
        copy._offering = {origin: steps.copy() for origin, steps in self._offering.items()}
        copy.called(tool, arguments, result)
        return copy

    def offering(self, origin: Origin) -> Sequence[Step]:
        """The steps in which an origin has values, oldest first."""
        return self._offering.get(origin, ())

    def _note(self, step: Step) -> None:
        if len(self.steps) == self._limit:
            self._forget(self.steps.popleft())
        self.steps.append(step)
        self.length += 1
        for origin in step.offers:
            self._offering.setdefault(origin, deque()).append(step)

    def _forget(self, step: Step) -> None:
        for origin in step.offers:
            steps = self._offering[origin]
            steps.popleft()
            if not steps:
                del self._offering[origin]


_encode = json.JSONEncoder(sort_keys=True, default=repr).encode


def call_key(tool: str, arguments: Mapping[str, Any]) -> str:
    """A call as text, equal for equal calls; the order of the arguments does not matter."""
    given = ", ".join([f"{_quoted(name)}: {_text(arguments[name])}" for name in sorted(arguments)])
    return f"[{_quoted(tool)}, {{{given}}}]"


_quoted = encode_basestring_ascii


def _text(value: Any) -> str:
    return _quoted(value) if type(value) is str else _encode(value)


def _leaves(kind: str, tool: str, found: Iterable[Leaf]) -> list[tuple[Origin, Offer]]:
    return [(Origin(kind, tool, leaf.path), Offer(leaf.at, leaf.value)) for leaf in found]


def _signs(found: Iterable[Leaf]) -> tuple[str, ...]:
    signs = dict.fromkeys(f"{leaf.path}={leaf.value}" for leaf in found if _telling(leaf.value))
    return tuple(signs)[:SIGNS]


def _telling(value: Any) -> bool:
    if isinstance(value, str):
        return len(value) < SHORT and not any(map(str.isdigit, value))
    return value is None or isinstance(value, bool)


def _tokens(who: str, found: Iterable[Token]) -> list[tuple[Origin, Offer]]:
    return [
        (Origin("said", who, token.shape), Offer((token.place,), token.text)) for token in found
    ]


def _offers(places: Iterable[tuple[Origin, Offer]]) -> dict[Origin, list[Offer]]:
    offers: dict[Origin, list[Offer]] = {}
    for origin, offer in places:
        offers.setdefault(origin, []).append(offer)
    return offers
