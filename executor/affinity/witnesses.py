"""Who hears when a replica of a pool goes down, and when it is back: runs, and the log."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from agentflow import events
from agentflow.clock import now
from agentflow.context import run_scope

if TYPE_CHECKING:
    from agentflow.executor.affinity.replica import Member
    from agentflow.executor.run import Run


class Witnesses:
    """The runs that use a pool: those that have asked it something, and are not done."""

    def __init__(self) -> None:
        self._runs: WeakKeyDictionary[Run[Any], None] = WeakKeyDictionary()

    def join(self) -> None:
        """The run that the current code belongs to asks something."""
        if (run := run_scope.get()) is not None:
            self._runs[run] = None

    def see(self, member: Member) -> None:
        """Tell of a member if it has gone down or come back since it was seen last."""
        state, since = member.breaker.state, member.down_since
        if state == "open" and since is None:
            member.down_since = now()
            self._tell_down(member.name, member.breaker.why)
        elif state == "closed" and since is not None:
            member.down_since = None
            self._tell_up(member.name, now() - since)

    def _tell_down(self, replica: str, why: str) -> None:
        _log("a replica is down", replica=replica, why=why)
        for run in self._listening():
            run.emit(events.ReplicaDown(run.id, run.now(), replica, why))

    def _tell_up(self, replica: str, seconds: float) -> None:
        _log("a replica is back", replica=replica, seconds=round(seconds, 3))
        for run in self._listening():
            run.emit(events.ReplicaUp(run.id, run.now(), replica, seconds))

    def _listening(self) -> list[Run[Any]]:
        return [run for run in self._runs if run.watched]  # nobody watches one that is done


def _log(said: str, **told: object) -> None:
    import structlog

    structlog.get_logger("agentflow.affinity").info(said, **told)
