"""What a run came to, in a few rows: what ran, what was saved, what was wasted, what limited it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any

from agentflow.cli.account.accounts import Account
from agentflow.cli.account.losses import Link, Loss
from agentflow.cli.account.prompts import cached, told
from agentflow.cli.account.savings import REASONS
from agentflow.cli.account.spending import likely, repeated, tried, within
from agentflow.cli.account.tally import Call, Tally
from agentflow.cli.list_tools import UNDECLARED, advice
from agentflow.cli.output import LEAST_SECONDS, counted, duration, gist, listed
from agentflow.cli.progress import costs
from agentflow.cli.rows import Row, amounts
from agentflow.executor.run import Run
from agentflow.workflows import Workflow

_RESULTS = 20

_KINDS: Mapping[str, str] = {
    "model": "the model",
    "call": "calls",
    "own": "between calls",
    "tool": "a place among the calls of a tool",
    "run": "a place among the calls of the run",
    "rate": "a tool's rate",
    "guest": "guesses to make room",
    "held": "room at the model's servers",
    "answer": "answers",
    "retry": "pauses before another attempt",
}
"""What takes time on the critical path."""

_LEAST = 0.02  # of the time: what took less is left out
_LITTLE = 0.01  # of the time: what was saved of it is not worth a comparison
_LINKS = 6  # of the chain, the longest


def summary(tally: Tally, run: Run[Any], account: Account) -> Iterator[Row]:
    """The rows at the end of a run."""
    yield from outcome(tally, account)
    yield from (
        Row("limits", text) for text in (*within(tally, run.ledger), *likely(tally.samples))
    )
    yield from (Row("passes", text) for text in repeated(run))
    for name, calls in _undeclared(tally, run).items():
        spent = sum(call.seconds for call in calls)
        many = counted(len(calls), "call")
        declares = f"{name} declares no effect ({many}, {duration(spent)})"
        yield Row("note", f"{declares}: {UNDECLARED}{advice(run.tools[name])}")


def outcome(tally: Tally, account: Account) -> Iterator[Row]:
    """What ran, what was saved and wasted, and what took the time."""
    yield Row("ran", _calls(tally, account))
    if models := _models(tally, account):
        yield Row("ran", models)
    yield from (Row("saved", *row) for row in _saved(tally, account))
    yield from (Row("wasted", *_lost(loss, tally)) for loss in account.losses)
    yield from (Row("limited", text) for text in _limited(tally, account))
    yield from (Row("samples", text) for text in tried(tally))
    yield from (Row("prompts", text) for text in told(tally.prompts))


def finished(tally: Tally, results: dict[int, Any], run: str) -> Iterator[str]:
    """The results of a run that did not get to its end."""
    if not results:
        return
    yield f"{counted(len(results), 'call')} had finished:"
    for node, value in list(results.items())[:_RESULTS]:
        call = tally.calls.get((run, node))
        yield f"  {call.name if call else f'${node + 1}'}: {gist(value, 100)}"
    if len(results) > _RESULTS:
        yield f"  and {len(results) - _RESULTS:,} more; --json prints all of them"


def _calls(tally: Tally, account: Account) -> str:
    total = len(tally.calls)
    others = [
        f"{number:,} {status}"
        for status in ("failed", "skipped", "cancelled", "asked")
        if (number := tally.count(status))
    ]
    besides = f" ({listed(others)})" if others else ""
    calls = f"{counted(total, 'call') if total else 'no calls'}{besides}"
    gains = account.gains
    saved = gains.sequential - gains.taken
    alone = f"; one after another it would have been {duration(gains.sequential)}"
    return f"{calls} in {duration(tally.seconds)}{alone if saved >= max(LEAST_SECONDS, _LITTLE * gains.taken) else ''}"


def _models(tally: Tally, account: Account) -> str:
    if not tally.models:
        return costs(account.usd).removeprefix(", ")
    usage = tally.usage()
    about = "about " if usage["estimated"] else ""
    tokens = f"{usage['prompt_tokens']:,} + {usage['completion_tokens']:,} tokens"
    calls = counted(usage["model_calls"], "model call")
    return f"{calls}, {about}{tokens}{cached(tally.prompts)}{costs(account.usd)}"


def _saved(tally: Tally, account: Account) -> Iterator[tuple[str, str, str]]:
    """What each mechanism saved: in words, seconds and dollars."""
    by, usd, none = account.gains.by, account.usd_saved, Decimal(0)
    savings, parts = tally.savings, tally.parts
    kept = {
        why: n for why, n in savings.reused.most_common() if why not in ("journal", "speculated")
    }
    guesses, before = counted(savings.started, "guess"), savings.reused["journal"]
    reasons = _reasons(kept)
    early = sum(step.writing for step in tally.timeline.steps.values())
    many = counted(len(tally.calls), "call")
    stopped = counted(parts.stopped, "reply", "replies")
    rows = (
        ("parallel", f"calls side by side, up to {account.gains.at_once} at once"),
        ("streaming", f"{early:,} of {many} begun while the model was still writing"),
        ("cache", f"{counted(sum(kept.values()), 'call')} not made again{reasons}" if kept else ""),
        ("speculation", f"{savings.used:,} of {guesses} came true" if savings.used else ""),
        ("partial", _begun(parts.committed)),
        ("resume", f"{counted(before, 'call')} from the journal, not made again" if before else ""),
        ("prompts", f"{tally.prompts.all.cached:,} prompt tokens were cached"),
        ("samples", "samples not finished, once another had passed"),
        ("stopped", f"{stopped} stopped early, after {parts.tokens:,} tokens of at most "
         f"{parts.tokens + parts.spared:,}" if parts.stopped else ""),
    )  # fmt: skip
    for mechanism, text in rows:
        guessed = mechanism in ("cache", "resume", "samples")
        shown = amounts(by.get(mechanism, 0.0), usd.get(mechanism, none), about=guessed)
        always = mechanism in ("cache", "speculation", "partial", "resume", "stopped")
        if text and (any(shown) or always):
            yield text, *shown


def _reasons(kept: Mapping[str, int]) -> str:
    """Why calls were not made, by how many."""
    if len(kept) == 1:
        return f", {REASONS[next(iter(kept))]}"
    return f": {listed([f'{n:,} {REASONS[why]}' for why, n in kept.items()])}" if kept else ""


def _begun(committed: int) -> str:
    if not committed:
        return ""
    it = "it was" if committed == 1 else "they were"
    return f"{counted(committed, 'call')} begun before {it} written to the end"


def _lost(loss: Loss, tally: Tally) -> tuple[str, str, str]:
    texts = {
        "speculation": f"{loss.number:,} of {counted(tally.savings.started, 'guess')} not used",
        "partial": f"{counted(loss.number, 'call')} begun while written, and not made so",
        "samples": f"{counted(loss.number, 'sample')} cancelled under way",
        "retries": f"{counted(loss.number, 'attempt')} that failed, and the pauses after",
        "prewarm": f"{counted(loss.number, 'prompt')} computed ahead, and not asked for",
    }
    return texts[loss.kind], *amounts(loss.seconds, loss.usd)


def _limited(tally: Tally, account: Account) -> Iterator[str]:
    """What took the time, and the chain of it."""
    total = account.gains.taken
    if len(tally.calls) + len(tally.models) < 2 or total < LEAST_SECONDS:
        return
    if text := limiting(account.shares, total):
        yield text
    if sum(link.seconds for link in account.links) >= _LEAST * total:
        yield _chain(account.links)
    if hedged := sum(call.hedged for call in tally.calls.values()):
        yield f"{counted(hedged, 'second attempt')} made beside a slow first one"
    if account.reached:
        yield f"{account.reached} was reached"


def limiting(shares: Counter[str], total: float) -> str:
    """Kinds of what took the time of a run, with their shares of it; empty if nothing did."""
    parts = [
        f"{_KINDS[kind]} {duration(spent)} ({spent / total:.0%})"
        for kind, spent in shares.most_common()
        if spent >= _LEAST * total > 0
    ]
    return listed(parts) if parts else ""


def _chain(links: Sequence[Link]) -> str:
    """What took the time, in order: of a long chain the longest links, where others are dots."""
    least = sorted((link.seconds for link in links), reverse=True)[:_LINKS][-1]
    told: list[str] = []
    for link in links:
        if link.seconds >= least:
            told.append(f"{link.what.label} {duration(link.seconds)}")
        elif told[-1:] != ["…"]:
            told.append("…")
    return " › ".join(told)


def _undeclared(tally: Tally, run: Run[Any]) -> dict[str, list[Call]]:
    """Calls that began, by the name of a tool that declares nothing."""
    found: dict[str, list[Call]] = {}
    for call in tally.calls.values():
        tool = run.tools.get(call.tool) if call.run == run.id else None
        if tool is None or isinstance(tool, Workflow) or call.began is None:
            continue
        if tool.effect.kind == "undeclared":
            found.setdefault(call.tool, []).append(call)
    return found
