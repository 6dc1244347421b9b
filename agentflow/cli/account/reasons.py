"""Why a call began when it did, and where it was made: decided by what a run's timeline says."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from agentflow.cli.account.path import EXACT, Actor, Causes
from agentflow.cli.account.savings import REASONS
from agentflow.cli.account.spans import Span, Speech, Step, Wait
from agentflow.cli.account.timeline import Timeline
from agentflow.cli.output import LEAST_SECONDS, duration

PLACES = {
    "tool": "a place among the calls of {tool} was free",
    "run": "a place among the calls of its run was free",
}
"""What a call that needed nothing more had waited for before it began."""

DURING = {
    "rate": "it waited {seconds} for its turn: only so many calls of {tool} may begin a second",
    "guest": "it waited {seconds} until what had begun early made room",
}
"""What a call waited for that had begun."""


@dataclass(frozen=True, slots=True)
class Reason:
    """Why something began when it did, or has not begun.

    Attributes:
        kind: ``start``, ``needed``, ``after``, ``writing``, ``written``, ``complete``, ``program``,
            ``place``, ``answer``, ``round``, ``joined``, or for what did not begin ``skipped``,
            ``cancelled``, ``failed``, ``waiting`` or ``unknown``.
        text: The same in words, to follow on a time.
        of: What it began after.
    """

    kind: str
    text: str
    of: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """The reason as plain data."""
        return {"kind": self.kind, "text": self.text, "of": list(self.of)}


class Reasons:
    """Says of everything in a run why it began when it did.

    Args:
        timeline: Of the run.
    """

    def __init__(self, timeline: Timeline) -> None:
        self.timeline = timeline
        self.causes = Causes(timeline)

    def of_step(self, step: Step, element: int | None = None) -> Reason:
        """Why a call, or an element of a map, began when it did."""
        actor = self._actor(step, element)
        if actor is None or actor.span is None:
            return self._not_begun(step, step.spans.get(element) or step.spans.get(None))
        held = [wait for wait in actor.span.waits if wait.began <= actor.began + EXACT]
        before = [wait for wait in held if wait.began < actor.began - EXACT]
        if before and before[-1].why == "answer":
            return Reason("answer", f"it was {before[-1].told or 'asked about'}")
        if held and held[-1].why in PLACES:
            return Reason("place", _after_a_place(held[-1], step))
        need = self.causes.last_need(step, element, actor.began)
        if need is not None and need.ended + EXACT >= step.planned:
            return self._needed(step, need)
        return self._written(step) or self._called(step, actor)

    def of_speech(self, speech: Speech) -> Reason:
        """Why a strategy asked its model when it did."""
        before = self.causes.latest(speech.run, speech.began)
        begun = self.timeline.round_at(speech.run, speech.began + EXACT)
        if begun is not None and begun.reason and begun.at + 0.05 >= speech.began:
            return Reason("round", f"round {begun.number} began: {begun.reason}")
        if before is None:
            return Reason("start", "at once")
        last = before.what.label
        if isinstance(before.what, Speech):
            return Reason("needed", f"the {last} was complete", (last,))
        return Reason("needed", f"{last} had ended, the last it had to wait for", (last,))

    def keeps_waiting(self, step: Step) -> Iterator[Step]:
        """The calls that began when this one had ended, the last of what they needed."""
        for other in self.timeline.of(step.run):
            if step.number in (*other.uses, *other.after):
                for actor in self.causes.actors_of(other):
                    reason = self.of_step(other, actor.element)
                    if reason.kind in ("needed", "after") and reason.of == (step.label,):
                        yield other
                        break

    def _actor(self, step: Step, element: int | None) -> Actor | None:
        """What was done for it first, or for the element."""
        actors = [
            actor
            for actor in self.causes.actors_of(step)
            if element is None or actor.element == element
        ]
        return min(actors, key=lambda actor: actor.began, default=None)

    def _needed(self, step: Step, need: Actor) -> Reason:
        assert isinstance(need.what, Step), "only calls are needed"
        label = need.what.label
        if need.what.number in step.after and need.what.number not in step.uses:
            return Reason("after", f"{label} had ended, which it has to come after", (label,))
        more = len(list(self.causes.needs(step, (*step.uses, *step.after)))) > 1
        last = "the last of what it needs" if more else "which it needs"
        return Reason("needed", f"{label} had ended, {last}", (label,))

    def _written(self, step: Step) -> Reason | None:
        """Why a call of a plan, or turn, that a model wrote began; None if nobody wrote it."""
        author = self.causes.author(step, step.planned)
        if author is None:
            return None
        label = author.what.label
        if step.writing:
            return Reason(
                "writing", f"it was written; the model went on with its {label}", (label,)
            )
        if not self.timeline.recorded:
            return Reason("written", f"the model had written it ({label})", (label,))
        why = " (it may change something, so it waited for that)" if step.announced else ""
        return Reason("complete", f"the {label} was complete{why}", (label,))

    def _called(self, step: Step, actor: Actor) -> Reason:
        by = min(step.planned, actor.began)
        mine = {id(one) for one in self.causes.calls_of(step.run) if one.what is step}
        before = self.causes.latest(step.run, by, mine)
        if before is None:
            above = self.timeline.parent_of(step.run)
            return Reason("start", "at once" if above is None else f"{above.label} began")
        label = before.what.label
        return Reason("program", f"the program called it then; {label} had ended last", (label,))

    def _not_begun(self, step: Step, span: Span | None) -> Reason:
        status = "waiting" if span is None else span.status
        if step.joins:
            return Reason("joined", "it only gathers values")
        if status == "skipped" and span is not None:
            return Reason("skipped", f"not begun: {span.told}")
        if status == "asked":
            return Reason("waiting", "not begun: it waits for an answer")
        if status in ("failed", "cancelled") and span is not None:
            because = f": {span.told}" if span.told else ""
            return Reason(status, f"{status} before it began{because}")
        if step.mapped and self.timeline.is_over(step.run):
            return Reason("joined", "there was nothing to do: no elements")
        missing = [
            needed.label
            for needed in self.causes.needs(step, (*step.uses, *step.after))
            if needed.ended is None
        ]
        if missing:
            return Reason(
                "waiting", f"not begun: it waits for {', '.join(missing)}", tuple(missing)
            )
        return Reason("unknown", "it has not ended, and when it began is recorded only then")


def _after_a_place(wait: Wait, step: Step) -> str:
    text = PLACES[wait.why].format(tool=step.tool)
    return f"{text}, after {duration(wait.seconds)}"


def places_of(step: Step, causes: Causes, element: int | None = None) -> list[str]:
    """Where a call was made, and what spared work: only what is out of the ordinary."""
    spans = [span for place, span in step.made().items() if element in (None, place)]
    made = any(span.began is not None and not span.source for span in spans)
    found = ["in a thread"] if step.thread and made else []
    if step.runs:
        found.append("as a run of its own")
    sources = dict.fromkeys(span.source for span in spans if span.source)
    found += [f"value {REASONS[source]}" for source in sources]
    if (hidden := max((span.hidden for span in spans), default=0.0)) >= LEAST_SECONDS:
        found.append(f"{duration(hidden)} of it done while it was written")
    if retries := sum(wait.why == "retry" for span in spans for wait in span.waits):
        found.append(f"{retries + 1} attempts")
    waits = [wait for span in spans for wait in span.waits if wait.began >= (span.began or 0.0)]
    answers = [wait for wait in waits if wait.why == "answer" and wait.told]
    found += [f"{wait.told} after {duration(wait.seconds)}" for wait in answers]
    found += dict.fromkeys(place_of(said) for said in causes.speeches_of(step))
    return found


def place_of(said: Speech) -> str:
    """Where a model was asked, and what it had cached."""
    facts = said.facts
    at = f" at {facts['replica']}" if facts.get("replica") else ""
    moved = f", moved there for {_MOVED[facts['moved']]}" if facts.get("moved") in _MOVED else ""
    held = facts.get("held", 0.0)
    waited = f", after {duration(held)} for room" if held >= LEAST_SECONDS else ""
    cached, prompt = facts.get("cached_tokens"), facts["prompt_tokens"]
    share = "" if not cached else f", {cached:,} of {prompt:,} prompt tokens cached"
    return f"{facts['model']}{at}{moved}{waited}{share}"


_MOVED = {
    "load": "an earlier answer",
    "room": "lack of room where it was",
    "lost": "the loss of where it was",
}
