"""What was said in a conversation, and what of it a model is shown.

Nothing that was said is ever changed or taken out: a `Compaction` says from where on less is
shown. So two prompts of one epoch begin alike, byte by byte, as far as the shorter one goes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from agentflow.planner.prompting import kept, prompt, shown

Message: TypeAlias = "dict[str, Any]"

BRIEF = 200
"""Characters of an output that are shown where it stands by reference."""

LONG = 600
"""Characters from which on an output of a tool is worth a reference."""

UNDERSTOOD: Message = {"role": "assistant", "content": "Understood."}
"""Follows a summary: backends want user and assistant to take turns."""


@dataclass(frozen=True, slots=True)
class Compaction:
    """From where on less of a history is shown; it begins an epoch.

    Attributes:
        cut: Long outputs of tools before this message are shown by reference.
        since: Messages before this one are told by the summary.
        summary: What those said; empty if all are shown.
        readable: Whether the model has `read_output`, which a reference then names.
    """

    cut: int = 0
    since: int = 0
    summary: str = ""
    readable: bool = False


class History:
    """The messages of a conversation, in the OpenAI chat format, without a system message.

    Args:
        messages: What was said.
        compactions: In the order in which they were made.
    """

    def __init__(
        self, messages: Iterable[Message] = (), compactions: Iterable[Compaction] = ()
    ) -> None:
        self._messages = list(messages)
        self._compactions = list(compactions)

    @property
    def messages(self) -> Sequence[Message]:
        """Everything that was said."""
        return tuple(self._messages)

    @property
    def compactions(self) -> Sequence[Compaction]:
        """In the order in which they were made."""
        return tuple(self._compactions)

    @property
    def epoch(self) -> int:
        """How often it was compacted."""
        return len(self._compactions)

    @property
    def latest(self) -> Compaction | None:
        """What holds now."""
        return self._compactions[-1] if self._compactions else None

    def __len__(self) -> int:
        return len(self._messages)

    def say(self, *messages: Message) -> None:
        """Something more was said."""
        self._messages += messages

    def compact(self, compaction: Compaction) -> None:
        """Show less from now on."""
        self._compactions.append(compaction)

    def rewind(self, messages: int, compactions: int) -> None:
        """Take back what was said since then: it is about to be said again."""
        del self._messages[messages:]
        del self._compactions[compactions:]

    def shown(self, until: int | None = None) -> list[Message]:
        """What a model is shown, of the messages before a place."""
        known = self if until is None else History(self._messages[:until], self._compactions)
        return known.as_compacted(self.latest)

    def as_compacted(self, compaction: Compaction | None) -> list[Message]:
        """What a model would be shown."""
        if compaction is None:
            return list(self._messages)
        return [*self._summary(compaction), *self._rest(compaction)]

    def _summary(self, compaction: Compaction) -> Iterator[Message]:
        if compaction.summary:
            text = prompt("summary").replace("{summary}", compaction.summary)
            yield {"role": "user", "content": text.rstrip()}
            yield UNDERSTOOD

    def _rest(self, compaction: Compaction) -> Iterator[Message]:
        since = compaction.since
        if self._messages[since:] and self._messages[since]["role"] != "user":
            yield self._messages[self.question(since)]  # what is being answered is always shown
        for place in range(since, len(self._messages)):
            message = self._messages[place]
            if place < compaction.cut and is_long(message):
                message = _referred(message, output_name(place), readable=compaction.readable)
            yield message

    def question(self, before: int) -> int:
        """Place of the user's last message before a place."""
        return next(p for p in range(before - 1, -1, -1) if self._messages[p]["role"] == "user")

    def outputs(self) -> Mapping[str, str]:
        """The outputs that are shown by reference, whole, by their names."""
        cut = self.latest.cut if self.latest is not None else 0
        return {
            output_name(place): message["content"]
            for place, message in enumerate(self._messages[:cut])
            if is_long(message)
        }

    @property
    def is_open(self) -> bool:
        """Whether the user's last message is not answered."""
        return bool(self._messages) and self._messages[-1]["role"] != "assistant"

    def unanswered(self) -> list[str]:
        """Ids of the calls that were asked for last and have no result."""
        answered: set[str] = set()
        for message in reversed(self._messages):
            if message["role"] == "tool":
                answered.add(message["tool_call_id"])
                continue
            calls = message.get("tool_calls", ())
            return [call["id"] for call in calls if call["id"] not in answered]
        return []


def is_long(message: Message) -> bool:
    """Whether a message is an output of a tool that a reference would make shorter."""
    return message["role"] == "tool" and len(message["content"]) > LONG


def output_name(place: int) -> str:
    """The name of an output that is shown by reference."""
    return f"m{place}"


def _referred(message: Message, name: str, *, readable: bool) -> Message:
    text = message["content"]
    brief = kept(text, name, BRIEF) if readable else shown(text, BRIEF)
    return {**message, "content": brief}
