"""A dispatcher on the event loop: whoever waits for a replica is woken when one is chosen."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator

from agentflow.caches.affinity.dispatcher import Dispatcher
from agentflow.caches.affinity.jobs import Job, Send
from agentflow.clock import now
from agentflow.errors import BackendError
from agentflow.executor.affinity.alarm import Alarm


class Desk:
    """Takes jobs to a `Dispatcher`, and what it decides to those who wait for it.

    Args:
        dispatcher: Decides. Whatever its methods return has to be handed to `heed`.

    Attributes:
        dispatcher: As given.
    """

    def __init__(self, dispatcher: Dispatcher) -> None:
        self.dispatcher = dispatcher
        dispatcher.on_error = self._policy_failed
        self._waiting: dict[int, tuple[float, asyncio.Future[Send]]] = {}
        self._failed: dict[int, Exception] = {}  # jobs that arrive now, which the policy failed at
        self._why_closed: Callable[[], BackendError] | None = None
        self._alarm = Alarm(self._tick)

    def waiting(self) -> Iterator[tuple[int, float]]:
        """Who waits, by the number of the job, and since when."""
        return ((number, since) for number, (since, _) in self._waiting.items())

    def arrive(self, job: Job) -> Send | None:
        """Have a job sent now; None if it has to `wait`, or else to be `withdraw`n.

        Raises:
            BackendError: The desk is closed.
            Exception: Whatever the policy raised that was to place it.
        """
        if self._why_closed is not None:
            raise self._why_closed()
        at = now()
        sends = self.dispatcher.arrive(job, at)
        own = next((send for send in sends if send.job is job), None)
        error = self._failed.pop(job.number, None)
        if own is None and error is None:
            self._waiting[job.number] = (at, asyncio.get_running_loop().create_future())
        self.heed(send for send in sends if send is not own)
        if error is not None:
            raise error
        return own

    async def wait(self, job: Job, until: float | None) -> Send:
        """Wait until a job that has arrived may be sent.

        Args:
            job: The job.
            until: Loop time after which nobody waits any more; None for never.

        Raises:
            TimeoutError: It may not be sent by then.
            BackendError: See `refuse`.
            Exception: Whatever the policy raised that was to place it.
        """
        _, future = self._waiting[job.number]
        try:
            async with asyncio.timeout_at(until):
                send = await future
        except BaseException:
            self.withdraw(job)
            raise
        del self._waiting[job.number]
        return send

    def withdraw(self, job: Job) -> None:
        """Nobody wants a job done any more."""
        self._waiting.pop(job.number, None)
        self.heed(self.dispatcher.withdrawn(job.number, now()))

    def leaves(self, job: Job, replica: str) -> None:
        """A job that was sent goes out only now: what came before was not the replica's time."""
        self.dispatcher.fleet.replicas[replica].flights[job.number].sent = now()

    def is_sent(self, send: Send) -> bool:
        """Whether a job is still where it was sent: its replica may have left, or come anew."""
        replica = self.dispatcher.fleet.replicas.get(send.replica)
        return replica is not None and send.job.number in replica.flights

    def refuse(self, number: int, error: BackendError) -> None:
        """Let somebody who waits have an error instead."""
        _, future = self._waiting[number]
        if not future.done():
            future.set_exception(error)

    def heed(self, sends: Iterable[Send]) -> None:
        """Wake those whose jobs may be sent."""
        for send in sends:
            _, future = self._waiting[send.job.number]
            if not future.done():
                future.set_result(send)
        if self._why_closed is None:
            self._alarm.set(self.dispatcher.wake_at)

    def close(self, why: Callable[[], BackendError]) -> None:
        """Refuse who waits and who arrives, each with an error of its own; look at no clock."""
        self._why_closed = why
        for number in list(self._waiting):
            self.refuse(number, why())
        self._alarm.stop()

    def _policy_failed(self, job: Job, error: Exception) -> None:
        if (known := self._waiting.get(job.number)) is None:
            self._failed[job.number] = error
        elif not known[1].done():
            known[1].set_exception(error)

    def _tick(self) -> float | None:
        self.heed(self.dispatcher.tick(now()))
        return self.dispatcher.wake_at
