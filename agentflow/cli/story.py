"""All that is known of one call, as sentences in the order of time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from agentflow.cli.account.reasons import DURING, Reasons, place_of
from agentflow.cli.account.spans import Span, Speech, Step
from agentflow.cli.output import LEAST_SECONDS, counted, duration, gist
from agentflow.cli.progress import costs

FOUND = {
    "memory": "in memory, from an equal call before",
    "disk": "on disk, from an equal call before",
    "speculated": "made on a guess, before it was asked for",
    "journal": "in the journal, from before the run went on",
}
"""Where values were found of calls that were not begun, by the source that an event names."""


class Sentence(NamedTuple):
    """Something that is said of a call.

    Attributes:
        at: Seconds into the run; None where that is not known.
        text: What happened then.
    """

    at: float | None
    text: str

    def as_dict(self) -> dict[str, Any]:
        """It as plain data."""
        return {"at": None if self.at is None else round(self.at, 6), "text": self.text}


def story(
    reasons: Reasons, step: Step, element: int | None, value: Callable[[Any], Any]
) -> list[Sentence]:
    """The story of a call, or of one element of a map.

    Args:
        reasons: Of its run.
        step: The call.
        element: Of a map, or None.
        value: Gives a value as it is from how it is kept.
    """
    told = [Sentence(step.planned, _joined(step)), *_needs(reasons, step)]
    made = step.made()
    if element is None and None not in made and made:
        told += _elements(reasons, step)
    else:
        told += _happened(reasons, step, element, step.span(element), value)
        told += [_asked(said) for said in reasons.causes.speeches_of(step)]
    told += [
        Sentence(other.began, f"{other.label} began, which had waited for it last")
        for other in reasons.keeps_waiting(step)
    ]
    return sorted(told, key=lambda one: float("inf") if one.at is None else one.at)


def _elements(reasons: Reasons, step: Step) -> Iterator[Sentence]:
    """The elements of a map, together; each has a story of its own."""
    begins = [span.began for span in step.made().values() if span.began is not None]
    many = counted(len(step.made()), "element")
    if begins:
        why = reasons.of_step(step).text
        yield Sentence(min(begins), f"the first of {many} began: {why}{_where(step)}")
    if len(begins) > 1:
        yield Sentence(max(begins), "the last of them began")
    for place, span in step.made().items():
        if place is not None and span.status == "failed":
            yield Sentence(span.ended, f"element {place} failed: {span.told}")
    if (ended := step.ended) is not None:
        example = f"${step.number}[0]"
        yield Sentence(ended, f"all had ended; {example} tells of one of them")


def _joined(step: Step) -> str:
    if step.writing:
        return "it joined the plan, which the model was still writing"
    return "it joined the plan"


def _needs(reasons: Reasons, step: Step) -> Iterator[Sentence]:
    for needed in reasons.causes.needs(step, step.uses):
        yield Sentence(needed.ended, f"{needed.label} {_how(needed)}, which it uses")
    only = [number for number in step.after if number not in step.uses]
    for needed in reasons.causes.needs(step, only):
        yield Sentence(needed.ended, f"{needed.label} {_how(needed)}, which it has to come after")


def _how(needed: Step) -> str:
    words = {"done": "ended", "failed": "failed", "skipped": "was skipped"}
    words["cancelled"] = "was cancelled"
    return words.get(needed.status, "has not ended")


def _happened(
    reasons: Reasons, step: Step, element: int | None, span: Span, value: Callable[[Any], Any]
) -> Iterator[Sentence]:
    why = reasons.of_step(step, element).text
    if span.began is None:
        yield Sentence(span.ended, why)
        return
    found = span.source in FOUND
    yield Sentence(
        span.began, f"it was asked for: {why}" if found else f"it began: {why}{_where(step)}"
    )
    yield from _early(span)
    yield from _waits(step, span)
    if span.ended is not None:
        yield Sentence(span.ended, _end(span, value))


def _where(step: Step) -> str:
    if step.runs:
        return "; it is a run of its own"
    return "; in a thread of its own" if step.thread else "; in the event loop"


def _early(span: Span) -> Iterator[Sentence]:
    assert span.began is not None, "it has begun"
    if span.hidden >= LEAST_SECONDS:
        early = span.began - span.hidden
        yield Sentence(max(0.0, early), "it had begun already, while the model still wrote it")
    took = f", which took {duration(span.saved)}" if span.saved else ""
    if span.source == "shared":
        yield Sentence(span.began, f"an equal call was under way, and gave its value{took}")
    elif span.source:
        yield Sentence(span.began, f"its value was there: {FOUND[span.source]}{took}")


def _waits(step: Step, span: Span) -> Iterator[Sentence]:
    for wait in span.waits:
        if wait.why == "answer":
            yield Sentence(wait.began, "somebody was asked whether it may be made")
            if wait.told:
                yield Sentence(wait.ended, f"it was {wait.told}")
        elif wait.why == "retry":
            yield Sentence(
                wait.began, f"{wait.told}; the next began {duration(wait.seconds)} later"
            )
        elif wait.why in DURING:
            text = DURING[wait.why].format(seconds=duration(wait.seconds), tool=step.tool)
            yield Sentence(wait.began, text)
        else:
            yield Sentence(wait.began, "it needed nothing more, and waited for a place")


def _end(span: Span, value: Callable[[Any], Any]) -> str:
    took = duration(span.seconds)
    if span.status == "done":
        gave = "" if span.told is None else f": it gave {gist(value(span.told))}"
        return f"it ended, after {took}{gave}"
    if span.status == "failed":
        return f"it failed, after {took}: {span.told}"
    return f"it was {span.status}, after {took}"


def _asked(said: Speech) -> Sentence:
    facts = said.facts
    took = duration(said.ended - said.began)
    tokens = f"{facts['prompt_tokens']:,} + {facts['completion_tokens']:,} tokens"
    of = f", conversation {facts['session']}" if facts.get("session") else ""
    text = f"it asked {place_of(said)}: {took}, {tokens}{costs(facts['usd'])}{of}"
    return Sentence(said.began, text)
