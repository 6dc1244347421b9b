"""What the runs of an engine have learnt of what comes next, and what guessing has cost."""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import structlog

from agentflow._private import make_folder, replace_text
from agentflow.budgets.ledger import Ledger
from agentflow.caches.speculation.candidates import Candidate, CandidateSource
from agentflow.caches.speculation.policy import Bar, Depth, Speculation
from agentflow.caches.speculation.trail import Trail
from agentflow.caches.speculation.values import GuardMemory, Recent, ValueMemory
from agentflow.redaction import redact
from agentflow.tools.tool import Tool
from agentflow.wording import described

if TYPE_CHECKING:
    from agentflow.caches.speculation.predictor import Predictor

T = TypeVar("T")

TOOLS = 1024
"""Tools of earlier runs that are remembered."""

_log = structlog.get_logger("agentflow.caches")


@dataclass(slots=True)
class SpeculationStats:
    """What guessing has brought and cost.

    Attributes:
        started: Calls started before anybody asked for them.
        used: Those that were asked for then.
        wasted: Those that were not.
        seconds_saved: Waiting that the used ones saved.
        seconds_wasted: Tool time of the wasted ones.
        usd_wasted: What the wasted ones cost.
    """

    started: int = 0
    used: int = 0
    wasted: int = 0
    seconds_saved: float = 0.0
    seconds_wasted: float = 0.0
    usd_wasted: float = 0.0


class Leisure:
    """Time of the loop that may go into guesses that rest on guesses."""

    SHARE = 0.05
    MOST = 0.05  # seconds in stock, and in debt

    def __init__(self) -> None:
        self._stock = self.MOST
        self._at = 0.0

    def left(self, now: float) -> bool:
        """Whether there is any."""
        gained = max(0.0, now - self._at) * self.SHARE
        self._stock, self._at = min(self.MOST, self._stock + gained), now
        return self._stock > 0.0

    def spend(self, began: float, ended: float) -> None:
        """The loop was kept from its work."""
        self.left(ended)
        self._stock = max(-self.MOST, self._stock - (ended - began))


class Foresight:
    """The part of speculation that the runs of an engine share.

    Args:
        policy: What may be started early.
        ledger: Pays for guesses until they come true.

    Attributes:
        values: What calls gave the last time.
        guards: How often guards held.
        bar: The least probability that is worth a guess.
        depth: How deep guesses may rest on one another.
        tools: Tools of earlier runs, by workflow and name.
        leisure: How much thinking the loop can afford.
        unfit: Tools whose results cannot be kept, so that guessing them is in vain.
        stats: Of all runs together.
    """

    def __init__(self, policy: Speculation, ledger: Ledger) -> None:
        self.policy = policy
        self.ledger = ledger
        self._path = None if policy.memory is None else Path(policy.memory).expanduser()
        self._found = _stamp(self._path)
        self._learnt = False
        self._predictor = _predictor(self._path) if policy.source is None else None
        self._source: CandidateSource | None = policy.source or self._predictor
        self.values = ValueMemory()
        self.guards = GuardMemory()
        self.bar = Bar(policy.waste)
        self.depth = Depth(policy.depth)
        self.unfit: set[str] = set()
        self.tools: Recent[tuple[str, str], Tool[..., Any]] = Recent(TOOLS)
        self.leisure = Leisure()
        self.stats = SpeculationStats()

    def remember(self, workflow: str, tool: Tool[..., Any]) -> None:
        """A workflow called a tool; later runs may guess at it before they call it themselves.

        Not one that closes over variables: they may be the business of one run alone.
        """
        fn = tool.fn
        if getattr(fn, "__closure__", True) is None and not hasattr(fn, "__self__"):
            self.tools[workflow, tool.name] = tool

    def note(self, depth: int, kept: bool) -> None:
        """A guess that rested on so many came true, or did not."""
        self.depth.note(depth, kept)
        self.bar.note(kept)

    def candidates(self, trail: Trail, limit: int) -> Sequence[Candidate]:
        """The likeliest calls of the coming turn, best first."""
        found = self._ask(lambda source: _checked(source.candidates(trail, limit), limit))
        return () if found is None else found

    def learn(self, trail: Trail) -> None:
        """A trail has one more step."""
        self._learnt = True
        self._ask(lambda source: source.learn(trail))

    def close(self, trail: Trail) -> None:
        """A trail has come to its end."""
        self._ask(lambda source: source.close(trail))

    def _ask(self, question: Callable[[CandidateSource], T]) -> T | None:
        """Ask the source; one that raises is not asked again, and harms no run."""
        if self._source is None:
            return None
        try:
            return question(self._source)
        except Exception as error:  # noqa: BLE001  # a source may be the user's own
            name, why = type(self._source).__name__, described(error)
            _log.warning("no more speculation: its source raised", source=name, why=why)
            self._source = None
            return None

    async def aclose(self) -> None:
        """Keep what was learnt, unless another process has kept more meanwhile."""
        if self._path is not None and self._predictor is not None and self._learnt:
            try:
                await asyncio.to_thread(_keep, self._path, self._predictor.dump(), self._found)
            except OSError as error:
                _log.warning("what was learnt is not kept", file=str(self._path), why=str(error))


def _checked(candidates: Any, limit: int) -> list[Candidate]:
    """Candidates that are what they should be.

    Raises:
        TypeError: One is not.
    """
    if inspect.iscoroutine(candidates):
        candidates.close()
        raise TypeError("candidates() is async: it is asked between steps of the loop")
    found = list(islice(candidates, limit))
    for candidate in found:
        likely = candidate.probability, candidate.later
        names = [candidate.tool, *candidate.arguments]
        if not all(0.0 <= p <= 1.0 for p in likely) or not all(isinstance(n, str) for n in names):
            raise TypeError(f"{candidate!r} is no candidate")
    return found


def _predictor(path: Path | None) -> Predictor:
    """The predictor that was kept, or a new one if there is none or it cannot be read."""
    from agentflow.caches.speculation.predictor import Predictor

    try:
        if path is None or not path.exists():
            return Predictor()
        return Predictor.load(json.loads(path.read_text("utf-8")))
    except Exception as error:  # noqa: BLE001  # a file may hold anything
        _log.warning("the predictor starts anew", file=str(path), why=described(error))
        return Predictor()


def _stamp(path: Path | None) -> tuple[int, int] | None:
    """What tells versions of a file apart: when it was written, and its size."""
    try:
        found = None if path is None else path.stat()
    except OSError:
        return None
    return None if found is None else (found.st_mtime_ns, found.st_size)


def _keep(path: Path, learnt: Any, found: tuple[int, int] | None) -> None:
    """Write what was learnt; of two who learnt at the same time, who has more to say stays."""
    text = redact(json.dumps(learnt))
    now = _stamp(path)
    if now is None or now == found or now[1] < len(text):
        make_folder(path.parent)
        replace_text(path, text)  # private: it holds arguments, and words of users
