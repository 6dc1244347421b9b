"""Shows a run while it goes on: its plan, its calls, and on a terminal a bar."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from agentflow import events
from agentflow.cli.account.prompts import shortened
from agentflow.cli.account.samples import DEFAULT
from agentflow.cli.account.savings import REASONS
from agentflow.cli.account.spans import verdict
from agentflow.cli.account.tally import Call, Tally
from agentflow.cli.output import LEAST_SECONDS, chance, counted, duration, gist
from agentflow.cli.screen import Screen

REDRAW = 0.1
"""Seconds between two drawings at least."""

_SHOWN = 8  # running calls
_BAR = 24
_SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
_MARKS = {
    "plan": ("·", "plan", "dim"),
    "round": ("›", "round", "cyan"),
    "run": ("»", "run", "cyan"),
    "start": ("", "start", ""),
    "warm": ("", "warm", ""),
    "early": ("", "early", ""),
    "dropped": ("↶", "dropped", "dim"),
    "abort": ("■", "abort", "yellow"),
    "done": ("✓", "done", "green"),
    "failed": ("✗", "failed", "red"),
    "skipped": ("↷", "skipped", "dim"),
    "cancelled": ("✗", "cancelled", "dim"),
    "asks": ("", "asks", ""),
    "answered": ("!", "answered", "dim"),
    "retry": ("↻", "retry", "yellow"),
    "sample": ("", "sample", ""),
    "refused": ("∅", "refused", "yellow"),
    "model": ("≈", "model", "cyan"),
    "shorter": ("⇣", "session", "yellow"),
    "down": ("▼", "replica", "yellow"),
    "back": ("▲", "replica", "green"),
    "blocked": ("■", "blocked", "yellow"),
    "missed": ("·", "missed", "dim"),
}
_ASCII = dict(zip("✓✗↷↶↻∅≈·›»■▼▲⇣", "+x--~0=.>>!!+v", strict=True))


class Progress:
    """A reader of events that shows them on a screen.

    Args:
        screen: Where to show them.
        tally: Counts the same events, before they come here.
    """

    def __init__(self, screen: Screen, tally: Tally) -> None:
        self._screen = screen
        self._tally = tally
        self._drawn_at = 0.0
        self._phase = ""
        self._down: set[str] = set()  # replicas; every run that uses them tells of them

    def take(self, event: events.Event) -> None:
        """Show an event."""
        if (shown := _SHOWS.get(type(event))) is not None:
            shown(self, event)

    def tick(self, at: float) -> None:
        """Redraw the bar and the running calls, if it is time to.

        Args:
            at: Seconds on the loop's clock.
        """
        if self._screen.live and at - self._drawn_at >= REDRAW:
            self._drawn_at = at
            self._screen.draw(self._live(at))

    # Lines that stay

    def _say(self, kind: str, text: str, run: str, *, whole: bool = False) -> None:
        mark, word, style = _MARKS[kind]
        indent = "  " * max(0, self._tally.depths.get(run, 0))
        if not self._screen.live:
            self._screen.line(f"{indent}{word:<9} {text}")
        elif mark:
            mark = mark if self._screen.unicode else _ASCII[mark]
            self._screen.line(text, style, indent + mark, whole=whole)

    def _run(self, event: events.RunStarted) -> None:
        if event.parent is not None:
            self._say("run", event.name, event.run)

    def _plan(self, event: events.PlanExtended) -> None:
        for line in event.lines:
            self._say("plan", line, event.run)

    def _round(self, event: events.RoundStarted) -> None:
        reason = f": {event.reason}" if event.reason else ""
        self._phase = event.kind
        self._say("round", f"{event.kind} {event.number}{reason}", event.run)

    def _started(self, event: events.NodeStarted) -> None:
        if event.element is None:
            self._say("start", self._tally.of(event).name, event.run)

    def _part(self, event: events.PartialWarmed | events.PartialStarted) -> None:
        kind = "warm" if isinstance(event, events.PartialWarmed) else "early"
        part = self._tally.parts.open[event.run, event.number]
        self._say(kind, part.line, event.run)

    def _dropped(self, event: events.PartialRetracted) -> None:
        spent = duration(event.seconds)
        self._say("dropped", f"{event.tool} after {spent}: {event.why}", event.run)

    def _stopped(self, event: events.ReplyStopped) -> None:
        tokens = counted(event.tokens, "token")
        self._say("abort", f"model stopped after {tokens}: {event.why}", event.run, whole=True)

    def _hedged(self, event: events.NodeHedged) -> None:
        place, after = _place(event, self._tally), duration(event.after)
        self._say("retry", f"{place}: slow, a second attempt beside it after {after}", event.run)

    def _retrying(self, event: events.NodeRetrying) -> None:
        self._say(
            "retry",
            f"{_place(event, self._tally)}: attempt {event.attempt} failed "
            f"({type(event.error).__name__}: {event.error}), "
            f"the next one in {duration(event.delay)}",
            event.run,
        )

    def _finished(self, event: events.NodeFinished) -> None:
        if event.element is None:
            call = self._tally.of(event)
            model = self._tally.samples.passed.get((event.run, event.node, None))
            by = f" by {model}" if model else ""
            self._say("done", f"{_timed(call)}{by}: {gist(event.value)}", event.run)

    def _failed(self, event: events.NodeFailed) -> None:
        error = f"{type(event.error).__name__}: {event.error}"
        self._say("failed", f"{_place(event, self._tally)}: {error}", event.run)

    def _skipped(self, event: events.NodeSkipped) -> None:
        if event.element is None:
            self._say("skipped", f"${self._tally.of(event).number} {event.reason}", event.run)

    def _cancelled(self, event: events.NodeCancelled) -> None:
        call = self._tally.of(event)
        if event.element is None and call.began is not None and call.status != "asked":
            self._say("cancelled", _timed(call), event.run)

    def _asks(self, event: events.QuestionAsked) -> None:
        if not self._screen.live:  # else it is asked there, or said when the run is set aside
            told = f"{_place(event, self._tally)}: {event.call} ({event.why})"
            self._say("asks", told, event.run)

    def _answered(self, event: events.QuestionAnswered) -> None:
        why = f" ({event.why})" if event.why else ""
        told = f"{_place(event, self._tally)} {verdict(event.verdict)} by {event.by}{why}"
        self._say("answered", told, event.run)

    def _sampled(self, event: events.SampleStarted) -> None:
        self._say("sample", f"{_sample(event, self._tally)} begins", event.run)

    def _sample_ended(self, event: events.SampleEnded) -> None:
        kind = "sample" if event.outcome in ("passed", "cancelled") else "refused"
        why = f": {event.why}" if event.why else ""
        spent = f"{duration(event.seconds)}{costs(event.usd)}"
        place = _sample(event, self._tally)
        self._say(kind, f"{place} {event.outcome} after {spent}{why}", event.run)

    def _model(self, event: events.ModelReplied) -> None:
        if self._screen.live and (event.run, event.node) in self._tally.samples.nodes:
            return  # it is one of many, and what comes of them is told
        about = "about " if event.estimated else ""
        tokens = f"{about}{event.prompt_tokens:,} + {event.completion_tokens:,} tokens"
        tokens += ", ahead" if event.warmed else ""
        told = f"{event.model} {duration(event.seconds)}: {tokens}{costs(event.usd)}"
        self._say("model", told, event.run)

    def _compacted(self, event: events.ContextCompacted) -> None:
        self._say("shorter", shortened(event), event.run)

    def _replica_down(self, event: events.ReplicaDown) -> None:
        if event.replica not in self._down:
            self._down.add(event.replica)
            self._say("down", f"{event.replica} is down: {event.why}", event.run)

    def _replica_up(self, event: events.ReplicaUp) -> None:
        if event.replica in self._down:
            self._down.remove(event.replica)
            spent = duration(event.seconds)
            self._say("back", f"{event.replica} is back after {spent}", event.run)

    def _blocked(self, event: events.LoopBlocked) -> None:
        spent = duration(event.seconds)
        told = f"{event.tool or 'code'} held the event loop for {spent}: {event.where}"
        self._say("blocked", told, event.run, whole=True)

    def _missed(self, event: events.EventsDropped) -> None:
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in event.kinds.items())
        self._say("missed", f"{counted(event.count, 'event')}: {kinds}", event.run)

    # Lines that are redrawn

    def _live(self, at: float) -> list[str]:
        calls = [_under_way(call, at, self._tally) for call in self._tally.running()]
        parts = [f"{duration(at - p.began)}  {p.line}" for p in self._tally.parts.open.values()]
        under_way = calls + parts
        shown = max(1, min(_SHOWN, self._screen.size.lines - 3))
        lines = [self._bar(len(calls), at) if self._tally.calls else self._waiting(at)]
        lines += [f"{self._spin(at)} {text}" for text in under_way[:shown]]
        if len(under_way) > shown:
            lines.append(f"  and {len(under_way) - shown:,} more")
        return lines

    def _waiting(self, at: float) -> str:
        return f"{self._spin(at)} waiting for the model {duration(at - self._tally.began)}"

    def _bar(self, running: int, at: float) -> str:
        total = len(self._tally.calls)
        over = total - running - self._tally.count("waiting")
        room = max(0, min(_BAR, self._screen.size.columns - 50))
        filled = room * over // total
        done, left = ("━", "─") if self._screen.unicode else ("#", "-")
        bar = done * filled + left * (room - filled)
        return (
            f"{bar} {over:,}/{counted(total, 'call')}, {running:,} running, "
            f"{duration(at - self._tally.began)}{self._likely()} {self._phase}"
        ).strip()

    def _likely(self) -> str:
        thought = self._tally.samples.at_end
        return "" if thought is None else f", {chance(thought)} likely"

    def _spin(self, at: float) -> str:
        return _SPINNER[int(at / REDRAW) % len(_SPINNER)] if self._screen.unicode else "*"


def price(usd: Any) -> str:
    """US dollars: cents where they matter, and as many digits as small amounts need."""
    amount = float(usd)
    return f"${amount:,.2f}" if amount >= 1 else f"${amount:.6f}".rstrip("0").rstrip(".")


def costs(usd: Any) -> str:
    """What follows in a sentence where something costs money: nothing if it does not."""
    return f", {price(usd)}" if float(usd) else ""


def _timed(call: Call) -> str:
    if call.began is None:
        return call.name
    elements = f" ({counted(call.elements, 'element')})" if call.elements else ""
    return f"{call.name}{elements} {duration(call.seconds)}{_hidden(call)}{_reused(call)}"


def _hidden(call: Call) -> str:
    if call.hidden is None or call.hidden < LEAST_SECONDS:
        return ""
    return f", {duration(call.hidden)} while it was written"


def _reused(call: Call) -> str:
    if call.elements and call.reused:
        return f", {call.reused.total():,} reused"
    return "".join(f", {REASONS[source]}" for source in call.reused)


def _place(event: events.NodeEvent, tally: Tally) -> str:
    """A call, or one element of a map."""
    return tally.of(event).name + ("" if event.element is None else f", element {event.element}")


def _sample(event: events.SampleEvent, tally: Tally) -> str:
    place = event.tool if event.node < 0 else _place(event, tally)  # asked by no call of the plan
    return f"{place}, sample {event.number} of {event.model or DEFAULT}"


def _under_way(call: Call, at: float, tally: Tally) -> str:
    spent = duration(at - (call.began or at))
    if call.elements:
        spent = f"{call.settled:,} of {call.elements:,} {spent}"
    tried = tally.samples.under_way(call.run, call.node)
    shown = call.told or ", ".join(f"{count:,} × {name}" for name, count in tried.items())
    told = f"  {shown}" if shown else ""
    return f"{spent}  {call.line or call.name}{told}"


_SHOWS: Mapping[type[events.Event], Callable[[Progress, Any], None]] = {
    events.RunStarted: Progress._run,
    events.PlanExtended: Progress._plan,
    events.RoundStarted: Progress._round,
    events.NodeStarted: Progress._started,
    events.PartialWarmed: Progress._part,
    events.PartialStarted: Progress._part,
    events.PartialRetracted: Progress._dropped,
    events.ReplyStopped: Progress._stopped,
    events.NodeRetrying: Progress._retrying,
    events.NodeHedged: Progress._hedged,
    events.NodeFinished: Progress._finished,
    events.NodeFailed: Progress._failed,
    events.NodeSkipped: Progress._skipped,
    events.NodeCancelled: Progress._cancelled,
    events.QuestionAsked: Progress._asks,
    events.QuestionAnswered: Progress._answered,
    events.SampleStarted: Progress._sampled,
    events.SampleEnded: Progress._sample_ended,
    events.ModelReplied: Progress._model,
    events.ContextCompacted: Progress._compacted,
    events.ReplicaDown: Progress._replica_down,
    events.ReplicaUp: Progress._replica_up,
    events.LoopBlocked: Progress._blocked,
    events.EventsDropped: Progress._missed,
}
