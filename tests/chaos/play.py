"""Plays one seed: a world, an engine, some passes of a program, and what befalls them."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from pprint import pformat
from tempfile import TemporaryDirectory
from typing import Any

from agentflow import Caching, Engine, Pool, Speculation, Task, _http, clock, events
from agentflow.clock import now
from agentflow.errors import DefinitionError, JournalError
from agentflow.executor.models.client import OpenAIBackend
from agentflow.testing import VirtualDeadlock, VirtualLoop, run_virtual
from tests.chaos.cases import Case, Pass
from tests.chaos.endpoint import Endpoint
from tests.chaos.faults import Blow, Fate
from tests.chaos.guests import BrokenReader, FailingStore, Whims, shocked
from tests.chaos.laws import IN_TIME, Audit, check_error, check_left, watching
from tests.chaos.programs import placed
from tests.chaos.stage import flow
from tests.chaos.world import OWNER, World

LONGEST = 40_000.0
"""Virtual seconds that nothing can take: every wait has an end long before."""


@dataclass
class Report:
    """What came of a case.

    Attributes:
        results: What each pass gave, by its name.
        wrong: What must not be.
        counts: What happened, and how often.
    """

    case: Case
    results: dict[str, Any] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    tree: dict[tuple[str, str], str] = field(default_factory=dict)
    wrote: Counter[str] = field(default_factory=Counter)

    def differs(self, other: Report) -> str:
        """Where what was answered and done is not the same; empty if nowhere."""
        mine, others = (
            (one.results, one.tree, dict(one.wrote) if one.case.mood == "calm" else None)
            for one in (self, other)
        )
        for name, here, there in zip(("results", "tree"), mine, others, strict=False):
            if here != there:
                return f"the {name} are\n{pformat(here)}\nand undisturbed\n{pformat(there)}"
        return ""

    def story(self) -> str:
        """The case and what is wrong with it."""
        return "\n\n".join([self.case.show(), *self.wrong])


def report(case: Case) -> Report:
    """Play a case."""
    if not (case.switches.journal or case.switches.disk):
        return perform(Player(case))
    with TemporaryDirectory() as folder:
        return perform(Player(case, Path(folder)))


def perform(player: Player) -> Report:
    """Have a player play, on a loop of its own."""
    wall = clock.wall
    clock.wall = lambda: 1e9 + player.wall
    try:
        run_virtual(player.play())
    except VirtualDeadlock as deadlock:
        player.world.wrong.append(str(deadlock))
    finally:
        clock.wall = wall
    return player.report()


class Player:
    """Plays one case.

    Args:
        case: What a seed has decided.
        folder: Where the engine keeps its files, if it has any.

    Attributes:
        journal: File of the journal, or None.
        world: What the tools work on.
        wall: Seconds on the wall's clock.
        ids: Ids of runs, by the name of their pass.
        results: What each pass gave, by its name.
    """

    def __init__(self, case: Case, folder: Path | None = None) -> None:
        self.case = case
        self._folder = folder
        self.journal = folder / "journal.db" if folder and case.switches.journal else None
        self._fate = Fate(case.seed, case.mood)
        self.world = World(self._fate, hedge=case.switches.hedge)
        self.world.shares = case.switches.cache
        self.world.until = {one.owner: math.inf for one in case.passes}
        self.wall = 0.0
        self.audit = Audit(self.world)
        self._report = Report(case)
        self.results: dict[str, Any] = {}
        self._tasks: dict[str, asyncio.Task[Any]] = {}
        self._runs: list[Any] = []
        self.ids: dict[str, str] = {}
        self._blows = sorted(case.blows, key=lambda blow: blow.event)
        self._closing: list[asyncio.Task[Any]] = []
        self._leaving = False
        self._answered: dict[str, float] = {}  # when the last event of a stream came
        self._pools: list[Pool] = []

    def report(self) -> Report:
        """What came of it."""
        found = self._report
        found.results, found.wrong = self.results, self.world.wrong
        found.tree, found.wrote = self.world.cells, self.world.wrote
        found.counts += self._fate.struck + self.audit.kinds
        return found

    # The set

    async def play(self) -> None:
        """Everything, from the first task to the last check."""
        asyncio.get_running_loop().set_exception_handler(self._complain)
        programs = {one.owner: one.program for one in self.case.passes}
        server = Endpoint(programs, self._fate)
        http = _http.client(transport=server.transport())
        self.engine = engine = self._make(http, tasks=server)
        watching(engine, self.audit)
        engine.subscribe(self.befall)
        for one in self.case.passes:
            self._tasks[one.owner] = asyncio.ensure_future(self._pass(one))
        for end in await asyncio.gather(*self._tasks.values(), return_exceptions=True):
            if isinstance(end, Exception):
                raise end
        left = await self._close()
        if left:
            await asyncio.sleep(LONGEST)  # what was given up on ends by itself
        await asyncio.gather(*self._closing)
        for pool in self._pools:
            await pool.aclose()
        await http.aclose()
        await server.aclose()
        self.audit.check_ended()
        self._check_writes()
        if self.case.mood == "calm":
            self.check_results()
        stubborn = bool(self._fate.struck["tool: deaf"])
        check_left(self.world, left, stubborn=stubborn)
        if now() > LONGEST * (2 if left else 1) + self.world.slack:
            self.world.wrong.append(f"it took {now():g} s")

    async def _close(self) -> list[str]:
        """Close the engine; one whose journal was ruined says so, when all is closed."""
        try:
            return await self.engine.aclose()
        except JournalError:
            if not self._report.counts["blow: ruin"]:
                raise
            return []

    def _make(self, http: Any, tasks: Endpoint) -> Engine:
        case, on = self.case, self.case.switches
        asks = any(one.program.asks for one in case.passes)
        models = {name: self._model(name, http) for name in ("tiny", "small", "large")}
        source = Speculation(source=Whims(case.seed), waste=4, load_price=0)
        self.world.may_write = lambda tag: self.world.issued[tag] > 0 or tasks.spoke(tag)
        return Engine(
            tools=self.world.tools.values(),
            model=models.pop("tiny") if asks else None,
            models=models,
            budget=case.budget,
            cache=self._caching() if on.cache else False,
            speculation=source if on.speculation else False,
            partial=on.partial,
            subscribers=[shocked] if on.deaf_reader else [],
            journal=self.journal or False,
            seed=case.seed,
        )

    def _model(self, name: str, http: Any) -> Any:
        if self.case.switches.pool and name == "tiny":
            pool = Pool(["http://one/v1", "http://two/v1"], name, http=http, dialect=None)
            self._pools.append(pool)
            return pool
        return OpenAIBackend("http://one/v1", name, http=http)

    def _caching(self) -> Caching:
        if self.case.switches.disk:
            return Caching(directory=self._cached())
        if not self.case.switches.store:
            return Caching()
        store = FailingStore()
        store.fate = self._fate
        return Caching(store=store, memory=2000)

    def _cached(self) -> Path:
        """Where the disk tier of the cache is."""
        assert self._folder is not None, "a case with a disk tier has a folder"
        return self._folder / "cache"

    def _complain(self, _loop: Any, context: dict[str, Any]) -> None:
        """Something that nobody handles, apart from a subscriber that breaks."""
        if not isinstance(context.get("exception"), BrokenReader):
            self.world.wrong.append(f"{context['message']}: {context.get('exception')!r}")

    # Passes

    async def _pass(self, one: Pass) -> None:
        """One pass: what it gives, or how it ends, and when."""
        OWNER.set(one.owner)
        await asyncio.sleep(one.delay)
        begun = now()
        try:
            value = await self.value(one)
        except asyncio.CancelledError:
            self._end(one, "cancelled")
            raise
        except DefinitionError as error:
            if "closed" not in str(error):
                raise
            self._end(one, "closed")
        except Exception as error:  # noqa: BLE001  # what it is, is checked
            check_error(self.world, error)
            self._end(one, type(error).__name__)
        else:
            self._end(one, "finished")
            self.results[one.owner] = value
        self._check_time(one, begun)

    def _end(self, one: Pass, how: str) -> None:
        self._report.counts[f"{one.program.kind}: {how}"] += 1

    def _check_time(self, one: Pass, begun: float) -> None:
        """See that the answer came by the deadline; a stream ends when nothing is left."""
        if one.budget is None or one.budget.deadline is None:
            return
        answered = self._answered.get(one.owner, now())
        until = begun + one.budget.deadline + IN_TIME + self.world.slack
        if answered > until:
            self.world.wrong.append(f"the answer came at {answered:g}, and not by {until:g}")

    async def value(self, one: Pass) -> Any:
        """Start a run in the way that the pass says, and wait for it."""
        starter: Any = self.engine
        if self.case.switches.tenant:
            starter = self.engine.tenant(one.owner, self.case.budget)
        target, options = self.target(one)
        if one.budget is not None and one.budget.deadline is not None:
            self.world.until[one.owner] = now() + one.budget.deadline
        if one.way == "run":
            return await starter.run(target, **options)
        if one.way == "start":
            run = starter.start(target, **options)
            self._runs.append(run)
            self.ids[one.owner] = run.id
            return await run
        return await self._streamed(one.owner, starter.stream(target, **options))

    async def _streamed(self, owner: str, stream: Any) -> Any:
        last: events.Event | None = None
        async for event in stream:
            last = event
            self._answered[owner] = now()
            if self._leaving:
                self._leaving = False
                await stream.aclose()
                raise asyncio.CancelledError
        if isinstance(last, events.RunFailed):
            raise last.error
        if isinstance(last, events.RunFinished):
            return last.value
        if not isinstance(last, events.RunCancelled):
            self.world.wrong.append(f"the last event of a stream is {last}")
        raise asyncio.CancelledError

    def target(self, one: Pass) -> tuple[Any, dict[str, Any]]:
        program, owner = one.program, one.owner
        if program.kind == "workflow":
            return flow(self.world, program, owner, one.budget), {}
        if program.kind == "plan":
            for line in program.lines:
                if line.call.writes:
                    self.world.issued[placed(line.call, owner)["tag"]] += 1
            return self.engine.plan(program.text(owner)), {"budget": one.budget}
        strategy: Any = program.kind.partition(" ")[0]
        return Task(f"Do task {owner}", strategy, budget=one.budget, show_remaining=False), {}

    # What befalls them

    def befall(self, _event: events.Event) -> None:
        while self._blows and self._blows[0].event <= self.audit.seen:
            blow = self._blows.pop(0)
            self._report.counts[f"blow: {blow.kind}"] += 1
            self._strike(blow)

    def _strike(self, blow: Blow) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        match blow.kind:
            case "cancel":
                for run in self._runs:
                    run.cancel(reason="fate")
            case "cancel the waiter":
                for task in self._tasks.values():
                    task.cancel()
            case "cancel a call":
                for run in self._runs:
                    with suppress(LookupError):
                        run.cancel(call=int(blow.event) % 4)
            case "close":
                self._closing.append(loop.create_task(self._close()))
            case "leave the stream":
                self._leaving = True
            case "jump" | "long jump":
                seconds = blow.amount * (100.0 if blow.kind == "long jump" else 1.0)
                loop._now += seconds
                self.world.slack += seconds
            case "wall":
                self.wall += blow.amount * (-1.0 if blow.event % 2 else 1.0)
            case "ruin":
                self._ruin(whole=blow.event % 2 == 0)
            case "changed":
                self._closing.append(loop.create_task(self.engine.changed("tree")))

    def _ruin(self, *, whole: bool) -> None:
        """The files of the engine are overwritten under it, or gone."""
        for path in () if self._folder is None else sorted(self._folder.rglob("*.db*")):
            with suppress(OSError):
                if whole:
                    path.unlink()
                else:
                    path.write_bytes(b"no database" * 1000)

    # The end

    def check_results(self) -> None:
        """See that everything was done, where nothing went wrong."""
        found = self.results
        if len(found) < len(self.case.passes) or "lost: " in repr(found):
            self.world.wrong.append(f"nothing went wrong, and yet the results are {found}")

    def _check_writes(self) -> None:
        asked = self.world.issued
        for tag, times in self.world.wrote.items():
            if asked[tag] and times > asked[tag] and tag not in self.world.repeatable:
                self.world.wrong.append(f"{tag} was written {times} times, asked {asked[tag]}")
        limit = self.case.budget.usd if self.case.budget is not None else None
        if limit is not None and self.world.paid > limit:
            self.world.wrong.append(f"{self.world.paid} was paid of {limit}")
