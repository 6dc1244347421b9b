"""The journal of an engine: what its runs say is gathered, and committed in groups by a thread."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import structlog

from agentflow import clock
from agentflow.budgets.estimate_file import default_path as estimates_path
from agentflow.caches.worker import Worker
from agentflow.errors import DefinitionError, JournalError
from agentflow.executor.journal.retention import PORTION
from agentflow.executor.journal.rows import LARGEST, LARGEST_RECORD, Batch, to_columns
from agentflow.executor.journal.store import Durability, JournalStore, digest_of
from agentflow.wording import described

T = TypeVar("T")

GATHER = 0.01
"""Seconds in which records are gathered that nobody waits for."""

GROUP = 512
"""Records that are committed without gathering more."""

RETRY = 1.0
"""Seconds after a failed commit until the next one that nobody waits for."""

WAITING_BYTES = 64 << 20
"""Bytes that may wait while they cannot be written; then the journal gives up."""

PRUNE = 600.0
"""Seconds of use after which runs that are too old are removed again."""

_log = structlog.get_logger("agentflow.journal")


def default_path(environ: Mapping[str, str] | None = None) -> Path:
    """``agentflow/journal.db`` in the user's state directory (``XDG_STATE_HOME``).

    Raises:
        DefinitionError: The user has no home.
    """
    environ = os.environ if environ is None else environ
    beside = estimates_path({"XDG_STATE_HOME": environ.get("XDG_STATE_HOME", "")})
    if beside is None:
        raise DefinitionError("there is no home to keep a journal in: name a file, Journal(path)")
    return beside.with_name("journal.db")


class Commit(asyncio.Future[None]):
    """A future that many wait for, none of whom can cancel it; a shield for each costs more."""

    def cancel(self, msg: Any | None = None) -> bool:
        """Refuse."""
        return False


class Journal:
    """Keeps the runs of one engine in a file, so that they can go on after their process died.

    Records are gathered and committed in groups: after 10 ms or 512 records, and at the next
    turn of the loop when somebody waits. A commit that fails is tried again, with what came
    since; whoever waits for one that fails is told.

    Args:
        path: The file, which other processes may use at the same time; by default
            ``agentflow/journal.db`` in the user's state directory. Made when first needed.
        durability: What committed words survive: the death of the ``process``, or also a
            ``power`` cut, which costs milliseconds a commit.
        keep: How long ended runs are kept, in seconds or as text; None for ever.
        max_bytes: How much all runs may take before the oldest that ended go; None for any
            amount.

    Attributes:
        store: The database; used in the journal's thread alone, see `ask`.

    Raises:
        DefinitionError: An argument is wrong.
    """

    def __init__(
        self,
        path: str | Path | None = None,
        *,
        durability: Durability = "process",
        keep: float | str | None = "30d",
        max_bytes: int | None = 1 << 30,
    ) -> None:
        if durability not in ("process", "power"):
            raise DefinitionError(f"durability is 'process' or 'power', not {durability!r}")
        try:
            self._keep = None if keep is None else clock.seconds(keep)
        except ValueError as error:
            raise DefinitionError(f"keep: {error}") from None
        self._max_bytes = max_bytes
        where = default_path() if path is None else Path(path).expanduser()
        self.store = JournalStore(where, durability=durability)
        self._worker: Worker | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._batch = Batch()
        self._gathered = 0  # records in it
        self._waited: asyncio.Future[None] | None = None  # who waits for the batch
        self._writing: asyncio.Future[None] | None = None  # who waits for the one under way
        self._handle: asyncio.Handle | None = None
        self._failed = False  # the last commit did
        self._lost: JournalError | None = None  # why records are missing
        self._prune_at = 0.0
        self._taken: dict[str, asyncio.AbstractEventLoop] = {}

    def take(self, run: str) -> None:
        """Have a run: no other engine that uses this journal goes on with it before `release`.

        Raises:
            JournalError: Somebody has it. What was left in a loop that is closed nobody has.
        """
        if (loop := self._taken.get(run)) is not None and not loop.is_closed():
            where = "in this engine, or in one that shares its journal"
            raise self._error(f"run {run} is going on {where}", run)
        self._taken[run] = asyncio.get_running_loop()

    def release(self, run: str) -> None:
        """Leave a run to whoever takes it next."""
        self._taken.pop(run, None)

    def append(self, run: str, record: str) -> None:
        """Add a record, a JSON text of one line.

        Raises:
            JournalError: It is too large.
        """
        if len(record) > LARGEST_RECORD:
            raise self._error(f"a record has {len(record)} characters, too many to keep", run)
        if self._lost is not None:
            return  # what is kept of a run has no holes
        lines = self._batch.lines.get(run)
        if lines is None:
            lines = self._batch.lines[run] = []
        lines.append(record)
        self._gathered += 1
        if self._handle is None or self._gathered == GROUP:
            self._schedule()

    def update(self, run: str, **columns: Any) -> None:
        """Set columns of a run, as `RunRow` has them; they are written with the next commit.

        The first word of a run brings its `name`, `kind`, `target` and when it `began`.

        Raises:
            DefinitionError: There is no such column, or JSON cannot say the value.
        """
        if self._lost is None:
            self._batch.runs.setdefault(run, {}).update(to_columns(columns))
            self._schedule()

    def keep_blob(self, run: str, data: bytes) -> str:
        """Keep a large value of a run, once for all runs; it is written with the next commit.

        Returns:
            Its digest.

        Raises:
            JournalError: It is too large.
        """
        if len(data) > LARGEST // 2:
            raise self._error(f"a value has {len(data)} bytes, too many to keep", run)
        digest = digest_of(data)
        if self._lost is None:
            self._batch.blobs[digest] = data
            self._batch.refs.append((run, digest))
            self._schedule()
        return digest

    def durable(self) -> asyncio.Future[None]:
        """A future that is done when all that was appended so far is committed.

        It fails with a `JournalError` when that is not possible, and cannot be cancelled: whoever
        is cancelled while waiting for it is so when it is done.
        """
        loop = self._bind()
        if self._batch:
            if self._waited is None:
                self._waited = Commit(loop=loop)
                self._schedule()
            return self._waited
        if self._writing is not None:
            return self._writing
        done: asyncio.Future[None] = loop.create_future()
        if self._lost is None:
            done.set_result(None)
        else:
            done.set_exception(self._lost)
        return done

    async def ask(self, fn: Callable[..., T], *args: Any) -> T:
        """The result of a method of the store, which runs in the journal's thread."""
        return await asyncio.get_running_loop().run_in_executor(self._thread(), fn, *args)

    async def aclose(self) -> None:
        """Commit what is pending and close the file; the next word opens it again.

        Raises:
            JournalError: Not all could be committed; what was not is given up.
        """
        try:
            while self._batch or self._writing is not None or self._lost is not None:
                await self.durable()
        finally:
            self._batch, self._gathered, self._lost = Batch(), 0, None
            if self._handle is not None:
                self._handle.cancel()
                self._handle = None
            worker, self._worker = self._worker, None
            if worker is not None:
                closed = asyncio.get_running_loop().run_in_executor(worker, self.store.close)
                worker.shutdown()
                await closed

    def _bind(self) -> asyncio.AbstractEventLoop:
        """The running loop; what an earlier one had scheduled will not happen any more."""
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._loop, self._handle, self._waited, self._writing = loop, None, None, None
        return loop

    def _thread(self) -> Worker:
        if self._worker is None:
            self._worker = Worker("agentflow-journal")
        return self._worker

    def _error(self, message: str, run: str = "") -> JournalError:
        path = str(self.store.path)
        return JournalError(f"{path}: {message}", path=path, run=run)

    def _schedule(self) -> None:
        """See to it that the batch is committed in time."""
        loop = self._bind()
        if self._writing is not None:
            return  # the end of that commit does it
        at_once = self._waited is not None or (self._gathered >= GROUP and not self._failed)
        if self._handle is not None:
            if not at_once:
                return
            self._handle.cancel()
        if at_once:
            self._handle = loop.call_soon(self._commit)
        else:
            self._handle = loop.call_later(RETRY if self._failed else GATHER, self._commit)

    def _commit(self) -> None:
        self._handle = None
        loop = asyncio.get_running_loop()
        self._writing, self._waited = self._waited or Commit(loop=loop), None
        batch, self._batch, self._gathered = self._batch, Batch(), 0
        job = loop.run_in_executor(self._thread(), self._write, batch)
        job.add_done_callback(partial(self._committed, batch))

    def _committed(self, batch: Batch, job: asyncio.Future[None]) -> None:
        waiters, self._writing = self._writing, None
        assert waiters is not None  # since the commit began
        error = job.exception()
        if error is None:
            self._failed = False
            waiters.set_result(None)
        else:
            self._fail(waiters, self._keep_back(batch, error))
        if self._batch or self._waited is not None:
            self._schedule()

    def _fail(self, waiters: asyncio.Future[None], error: JournalError) -> None:
        """Tell all who wait, also for what was said since: it may have been given up."""
        since, self._waited = self._waited, None
        for future in (waiters, since):
            if future is not None:
                future.set_exception(error)
                future.exception()  # nobody may be waiting

    def _keep_back(self, batch: Batch, error: BaseException) -> JournalError:
        """Try a batch that was not committed again later; gives what its waiters are told."""
        if not isinstance(error, JournalError):
            error = self._error(described(error))
        if not self._failed:
            _log.warning("the journal is not written", error=str(error))
        self._failed = True
        batch.add(self._batch)
        if error.run:
            batch.forget(error.run)
        if batch.size() > WAITING_BYTES:
            batch, self._lost = Batch(), error
        self._batch = batch
        return error

    # What follows runs in the thread.

    def _write(self, batch: Batch) -> None:
        self.store.write(batch)
        if clock.monotonic() >= self._prune_at:
            self._prune_at = clock.monotonic() + PRUNE
            self._prune_soon()

    def _prune_soon(self) -> None:
        """Remove some runs after the commits that wait already."""
        if self._worker is not None:
            with suppress(RuntimeError):  # closed meanwhile
                self._worker.submit(self._prune)

    def _prune(self) -> None:
        try:
            removed = self.store.prune_some(
                keep=self._keep, max_bytes=self._max_bytes, now=clock.wall()
            )
        except Exception as error:  # noqa: BLE001  # nobody waits for this, who would be told
            _log.warning("old runs are not removed", error=described(error))
        else:
            if removed == PORTION:
                self._prune_soon()
