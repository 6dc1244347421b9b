"""What a run came to: counts, times, tokens, and which tools declare nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from agentflow.cli.list_tools import UNDECLARED, advice
from agentflow.cli.output import WORTH_TELLING, counted, duration, gist, listed
from agentflow.cli.parts import Parts
from agentflow.cli.progress import costs
from agentflow.cli.prompts import equivalents, told
from agentflow.cli.savings import REASONS, Savings
from agentflow.cli.spending import likely, repeated, tried, within
from agentflow.cli.tally import Call, Tally
from agentflow.executor.run import Run
from agentflow.workflows import Workflow

_RESULTS = 20


def summary(tally: Tally, run: Run[Any]) -> Iterator[str]:
    """The lines at the end of a run."""
    said = (_calls(tally, run), _models(tally), equivalents(tally.prompts))
    yield "; ".join(filter(None, said))
    yield from told(tally.prompts)
    yield from _reused(tally.savings)
    yield from _guessed(tally.savings)
    yield from _begun(tally.parts)
    yield from _stopped(tally.parts)
    yield from _hedged(tally)
    yield from tried(tally)
    yield from within(tally, run.ledger)
    yield from likely(tally.samples)
    yield from repeated(run)
    for name, calls in _undeclared(tally, run).items():
        spent = sum(call.seconds for call in calls)
        yield (
            f"{name} declares no effect ({counted(len(calls), 'call')}, {duration(spent)}): "
            f"{UNDECLARED}{advice(run.tools[name])}"
        )


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


def critical_path(tally: Tally, run: Run[Any]) -> float:
    """Seconds of the longest chain of calls that waited for each other."""
    state = run.driver.state
    longest: dict[int, float] = {}
    for node, slot in enumerate(state.slots):
        before = max((longest[dep] for dep in state.nodes[slot].waits_for()), default=0.0)
        call = tally.calls.get((run.id, node))
        longest[node] = before + (call.seconds if call else 0.0)
    return max(longest.values(), default=0.0)


def _calls(tally: Tally, run: Run[Any]) -> str:
    total = len(tally.calls)
    if not total:
        return f"no calls, {duration(tally.seconds)}"
    others = [
        f"{number:,} {status}"
        for status in ("failed", "skipped", "cancelled", "asked")
        if (number := tally.count(status))
    ]
    besides = f" ({listed(others)})" if others else ""
    longest = f", the longest chain {duration(critical_path(tally, run))}" if total > 1 else ""
    return f"{counted(total, 'call')}{besides} in {duration(tally.seconds)}{longest}"


def _models(tally: Tally) -> str:
    if not tally.models:
        return ""
    usage = tally.usage()
    about = "about " if usage["estimated"] else ""
    tokens = f"{usage['prompt_tokens']:,} + {usage['completion_tokens']:,} tokens"
    calls = counted(usage["model_calls"], "model call")
    return f"{calls}, {about}{tokens}{costs(usage['usd'])}"


def _reused(savings: Savings) -> Iterator[str]:
    if not (reused := savings.reused.total()):
        return
    total = savings.made + reused
    reasons = [f"{count:,} {REASONS[why]}" for why, count in savings.reused.most_common()]
    saved = f"; {duration(savings.seconds)} saved" if savings.seconds >= WORTH_TELLING else ""
    yield (
        f"{reused:,} of {counted(total, 'call')} reused ({reused / total:.0%}): "
        f"{listed(reasons)}{saved}"
    )


def _guessed(savings: Savings) -> Iterator[str]:
    if not savings.started:
        return
    saved = f" ({duration(savings.seconds_early)} saved)" if savings.used else ""
    work = f"{duration(savings.seconds_wasted)} of work{costs(savings.usd_wasted)}"
    spent = f" ({work})" if savings.wasted else ""
    yield (
        f"{counted(savings.started, 'call')} started on a guess: "
        f"{savings.used:,} used{saved}, {savings.wasted:,} in vain{spent}"
    )


def _begun(parts: Parts) -> Iterator[str]:
    if not parts.began:
        return
    hidden = parts.seconds_hidden
    shown = duration(hidden) if hidden >= WORTH_TELLING else "nothing"
    spent = f" (under way for {duration(parts.seconds_wasted)})" if parts.retracted else ""
    yield (
        f"{counted(parts.began, 'call')} began while the model wrote "
        f"{'it' if parts.began == 1 else 'them'}: {shown} hidden, {parts.retracted:,} in vain{spent}"
    )


def _stopped(parts: Parts) -> Iterator[str]:
    if not parts.stopped:
        return
    replies = "a reply was" if parts.stopped == 1 else f"{parts.stopped:,} replies were"
    yield (
        f"{replies} stopped early, after {parts.tokens:,} tokens "
        f"of at most {parts.tokens + parts.spared:,}"
    )


def _hedged(tally: Tally) -> Iterator[str]:
    if hedged := sum(call.hedged for call in tally.calls.values()):
        yield f"{counted(hedged, 'second attempt')} made beside a slow first one"


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
