"""Plays a case in one configuration of the engine: some lanes of runs, in a world of their own."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from agentflow import Caching, CheapestFirst, MonteCarlo, Speculation, Task, clock, events
from agentflow.clock import now
from agentflow.errors import JournalError, RunError
from agentflow.testing import VirtualDeadlock, run_virtual
from tests.chaos.endpoint import Author
from tests.chaos.faults import Fate
from tests.chaos.guests import Whims
from tests.chaos.laws import IN_TIME, Audit, check_left, watching
from tests.matrix.bills import Bills, asked_again
from tests.matrix.breaking import Remains, copied
from tests.matrix.cases import AMPLE, Case, Pass
from tests.matrix.covering import PLAIN, Row
from tests.matrix.programs import likely
from tests.matrix.record import Record, Stenographer, Watched, encoded, failure
from tests.matrix.servers import Servers
from tests.matrix.stage import flow, prompted
from tests.matrix.world import State, World, tools

SOON = (0.0001, 0.003, 0.02, 0.3)
"""Seconds after an event at which a process dies: what it writes is on its way then, or there."""

BEHIND = 0.05
"""Seconds within which what has come is written down."""

ALLOCATORS: dict[str, Any] = {"cheapest": CheapestFirst, "monte carlo": lambda: MonteCarlo(64)}


@dataclass(frozen=True)
class Setting:
    """How a case is played.

    Attributes:
        case: What a seed has decided.
        row: What is switched on.
        calm: Nothing goes wrong at its servers.
        at: The event soon after which the process dies; 0 for none.
        caching: How results of tools are kept, if they are.
    """

    case: Case
    row: Row = PLAIN
    calm: bool = False
    at: int = 0
    caching: type[Caching] = Caching

    def play(self) -> Record:
        """Play it: what came of it, and of what went on after it was broken off."""
        with TemporaryDirectory() as name:
            fate = Fate(self.case.seed, "calm" if self.calm else "bearable")
            player = Player(self, Path(name) / "first", fate)
            record = perform(player)
            if player.remains is None or record.wrong:
                return record
            return perform(Player(self, player.remains.folder, fate, player.remains))


def perform(player: Player) -> Record:
    """Have a player play, on a loop of its own; on the wall no time passes."""
    wall, clock.wall = clock.wall, lambda: 1e9
    try:
        run_virtual(player.play())
    except VirtualDeadlock as deadlock:
        player.world.wrong.append(str(deadlock))
    finally:
        clock.wall = wall
    return player.record


class Player:
    """Plays one case in one configuration.

    Args:
        setting: Which.
        folder: Where the engine keeps its files.
        fate: What happens to requests.
        before: What a process has left that died, to be gone on with.

    Attributes:
        world: What the tools work on.
        record: What came of it.
        remains: What is left, if the process died.
    """

    def __init__(
        self, setting: Setting, folder: Path, fate: Fate, before: Remains | None = None
    ) -> None:
        self._setting, self._folder, self._fate, self._before = setting, folder, fate, before
        mood = f"{setting.case.seed} {setting.row} {setting.calm} {before is not None}"
        self._chance = random.Random(mood)
        self.world = World(mood, State() if before is None else before.state)
        self.record = Record(state=self.world.state, wrong=self.world.wrong)
        if before is not None:
            self.record.results |= before.results
            self.record.calls |= before.calls
        self.audit = Audit(self.world)
        self.remains: Remains | None = None
        self._death: asyncio.TimerHandle | None = None
        self._ids: dict[str, str] = {}
        self._lanes: list[asyncio.Task[None]] = []

    async def play(self) -> None:
        """Everything, from the first run to the last check."""
        asyncio.get_running_loop().set_exception_handler(self._complain)
        case = self._setting.case
        author = Author(case.programs, prompted)
        self._servers = servers = Servers(self._setting.row, author, self._fate)
        self.engine = engine = self._make(servers)
        watching(engine, self.audit)
        self._notes = Stenographer(engine, self.record)
        engine.subscribe(self._notes)
        self._bills = Bills(engine)
        if self._setting.at and self._before is None:
            engine.subscribe(self._befall)
        servers.decay(self._chance)
        self._lanes = [asyncio.ensure_future(self._lane(lane)) for lane in case.lanes]
        ends = await asyncio.gather(*self._lanes, return_exceptions=True)
        if self._death is not None:
            self._death.cancel()
        left = await engine.aclose()
        self.world.wrong += await servers.aclose()
        if self.remains is None:
            for error in filter(None, ends):
                raise error
            self._check(servers, left)

    def _make(self, servers: Servers) -> Watched:
        row, models = self._setting.row, servers.models()
        self._folder.mkdir(exist_ok=True)
        guesses = Whims(self._setting.case.seed, likely(self._setting.case.programs))
        source = guesses if row.speculation == "whims" else None
        return Watched(
            tools=tools().values(),
            model=models.pop("tiny"),
            models=models,
            budget=AMPLE if row.allocation != "in turn" else None,
            cache=self._caching(),
            speculation=row.speculation != "off" and Speculation(source=source, load_price=0),
            partial=row.partial == "on",
            allocator=ALLOCATORS.get(row.allocation),
            journal=row.durability != "off" and self._folder / "journal.db",
            seed=self._setting.case.seed,
        )

    def _caching(self) -> Caching | bool:
        match self._setting.row.cache:
            case "off":
                return False
            case "disk":
                return self._setting.caching(directory=self._folder / "cache")
        return self._setting.caching()

    def _complain(self, _loop: Any, context: dict[str, Any]) -> None:
        """Something that nobody handles."""
        self.world.wrong.append(f"{context['message']}: {context.get('exception')!r}")

    # Passes

    async def _lane(self, lane: Sequence[Pass]) -> None:
        for one in lane:
            if one.owner not in self.record.results:
                self.record.results[one.owner] = await self._pass(one)

    async def _pass(self, one: Pass) -> str:
        begun = now()
        try:
            value = encoded(await self._value(one))
        except RunError as error:
            value = f"failed: {failure(error.__cause__ or error)}"
        deadline = None if one.tight is None else one.tight.deadline
        if deadline is not None and now() > begun + deadline + IN_TIME:
            self.world.wrong.append(f"{one.owner} was answered after {now() - begun:g} s")
        return value

    async def _value(self, one: Pass) -> Any:
        """Begin the run of a pass, or go on with it, and wait for its value."""
        before = {} if self._before is None else self._before.ids
        target, options = self._target(one)
        if one.owner in before:
            self._notes.owners[before[one.owner]] = one.owner
            try:
                return await self.engine.resume(before[one.owner], target, kwargs=options)
            except JournalError as error:
                if "there is no run" not in str(error):
                    raise
        elif one.outside:
            await self._write_outside(one.owner)
        run = self.engine.start(target, **options)
        self._ids[one.owner] = run.id
        self._notes.owners[run.id] = one.owner
        return await run

    async def _write_outside(self, owner: str) -> None:
        """Somebody else writes, once; who begins a run hears of it."""
        state = self.world.state
        if owner not in state.outside:
            state.outside.add(owner)
            self.world.set(f"{owner.partition('-')[0]}/a", "x", 100)
        await self.engine.changed("tree")

    def _target(self, one: Pass) -> tuple[Any, dict[str, Any]]:
        program, ample = one.program, self._setting.row.allocation != "in turn"
        budget = one.tight or (AMPLE if ample else None)
        if program.kind == "workflow":
            return flow(one.owner, program, budget), {}
        if program.kind == "plan":
            return self.engine.plan(program.text(one.owner)), {"budget": budget}
        strategy: Any = program.kind.partition(" ")[0]
        return Task(
            f"Do task {one.owner}",
            strategy,
            budget=budget,
            show_remaining=False,
            commit="line" if one.line else "plan",
        ), {}

    # Dying

    def _befall(self, _event: events.Event) -> None:
        """At some event it becomes certain that the process dies."""
        if self._death is None and self.audit.seen >= self._setting.at:
            loop = asyncio.get_running_loop()
            self._death = loop.call_later(self._chance.choice(SOON), self._die)

    def _die(self) -> None:
        """What the process has done is there; what it does from now on nobody sees."""
        folder, record = self._folder.with_name("second"), self.record
        copied(self._folder, folder)
        self.remains = Remains(
            folder,
            dict(self._ids),
            dict(record.results),
            dict(record.calls),
            record.state.copy(),
            list(self._servers.exchanges),
            now() - BEHIND,
        )
        for lane in self._lanes:
            lane.cancel()

    # The end

    def _check(self, servers: Servers, left: list[str]) -> None:
        wrong, spent = self.world.wrong, self.engine.ledger.spent
        self.audit.check_ended()
        check_left(self.world, left, stubborn=False)
        if self._before is None:
            paid = self.world.paid if self._setting.row.speculation == "off" else None
            wrong += self._bills.compared(servers.exchanges, spent, paid)
        else:
            wrong += asked_again(self._before.exchanges, servers.exchanges, self._before.written)
        wrong += [
            f"{what} was made {n} times" for what, n in self.record.state.wrote.items() if n > 1
        ]
        if self.world.open:
            wrong.append(f"{self.world.open} warm-ups are not cleaned up")
        self.record.heard = self.audit.seen
        self.record.used = dict(self.audit.kinds)
        self.record.used["went on"] = self._before is not None
