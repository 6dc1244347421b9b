"""Runs a serving model on the loop's clock: whoever waits for a token is woken when it is due."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Sequence

from agentflow.clock import now
from agentflow.testing.replies import Usage
from agentflow.testing.serving import Change, ChangeKind, Serving, ServingModel

Report = Callable[[int], "int | None"]
"""From the tokens that were found in the cache to what usage says of them."""


class Engine:
    """A serving model in real or virtual time.

    Args:
        serving: Its rates and sizes.
        size: Tokens sent together when streaming.

    Attributes:
        model: The model; another one after a restart.
        size: Tokens sent together when streaming.
        report: What usage says of the tokens that were found.
        generated: Tokens said since the last restart.
    """

    def __init__(self, serving: Serving, size: int) -> None:
        self.model = ServingModel(serving)
        self.size = size
        self.report: Report = _honest
        self.generated = 0
        self._turns: dict[int, Turn] = {}
        self._submitted = 0
        self._alarm: asyncio.TimerHandle | None = None
        self._sleepers: set[asyncio.Future[None]] = set()

    def begin(
        self,
        blocks: Sequence[Hashable],
        prompt: int,
        output: int,
        *,
        written: Sequence[Hashable] = (),
        priority: int = 0,
    ) -> Turn:
        """Submit a request; `ServingModel.submit` says what the arguments mean.

        Raises:
            ValueError: It can never be served.
        """
        number = self._submitted = self._submitted + 1
        self.model.submit(number, blocks, prompt, output, now(), written=written, priority=priority)
        turn = self._turns[number] = Turn(self, number, prompt, output)
        self._look(now())
        return turn

    def leave(self, turn: Turn) -> None:
        """The request has been answered, or nobody waits for the answer any longer."""
        if self._turns.pop(turn.number, None) is not None:
            self.generated += turn.said
            self.model.cancel(turn.number, now())
            self._look(now())

    def restart(self, serving: Serving | None = None) -> None:
        """Begin anew: with nothing to do, nothing cached and nothing counted."""
        self.model = ServingModel(serving or self.model.serving)
        self.generated = 0
        self._turns.clear()
        self._look(now())

    async def wait(self, until: float | None) -> bool:
        """Wait for that moment or for the next change; says whether it was the moment."""
        sleeper: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._sleepers.add(sleeper)
        try:
            async with asyncio.timeout_at(until):
                await sleeper
        except TimeoutError:
            return True
        finally:
            self._sleepers.discard(sleeper)
        return False

    def _look(self, at: float) -> None:
        """Tell everybody what has happened by then, and look again at the next change."""
        changes = self.model.advance(at)
        for change in changes:
            if change.number in self._turns:
                self._turns[change.number].notice(change)
        if self._alarm is not None:
            self._alarm.cancel()
        due = self.model.next_change()
        if due is not None:
            self._alarm = asyncio.get_running_loop().call_at(due, self._look, due)
        for sleeper in self._sleepers if changes else ():
            if not sleeper.done():
                sleeper.set_result(None)


class Turn:
    """One request at an engine: a `Service`.

    Attributes:
        number: Its number at the model.
        size: Tokens sent together when streaming.
        limit: Tokens it makes.
        said: Tokens of the answer that were waited for so far.
        moments: When each kind of change happened to it first, in seconds on the loop's clock.
    """

    def __init__(self, engine: Engine, number: int, prompt: int, output: int) -> None:
        self.number = number
        self.size = engine.size
        self.limit: int | None = output
        self.said = 0
        self.moments: dict[ChangeKind, float] = {}
        self._engine = engine
        self._prompt = prompt
        self._cached = 0
        self._made = 0
        self._ended = False

    def notice(self, change: Change) -> None:
        """Take note of something that happened to it."""
        self.moments.setdefault(change.kind, change.at)
        self._cached = change.cached
        self._made = change.made
        self._ended = change.kind == "finished"

    async def first(self) -> None:
        """Wait until the first token is made."""
        await self._until(1)

    async def tokens(self, count: int) -> None:
        """Wait until the last of `count` further tokens is made."""
        await self._until(self.said + count)
        self.said += count

    def catch_up(self) -> None:
        """Nothing to catch up: the whole answer was known when it began."""

    def usage(self, completion_tokens: int) -> Usage:
        """What was counted, told as the engine tells it."""
        return Usage(self._prompt, completion_tokens, self._engine.report(self._cached))

    async def _until(self, made: int) -> None:
        while self._made < made and not self._ended:
            due = self._engine.model.due(self.number, made)
            if due is not None and due <= now():
                return
            if await self._engine.wait(due):
                return


def _honest(cached: int) -> int:
    return cached
