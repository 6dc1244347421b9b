"""Who is told what happens in a run, and what is kept from them until it is certain."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property, partial
from typing import TYPE_CHECKING, TypeAlias, overload

from agentflow import events
from agentflow.errors import RunCancelled, RunError, RunPaused
from agentflow.planner.builder import rewired
from agentflow.planner.plan import Node, Plan, Ref
from agentflow.planner.printer import print_node

if TYPE_CHECKING:
    from agentflow.executor.journal.notes import Notes

ENDS = (events.NodeFinished, events.NodeFailed, events.NodeCancelled)

Subscriber: TypeAlias = Callable[[events.Event], None]


class Audience:
    """The subscribers of one run.

    Args:
        run: Id of the run.
        loop: Whose clock the events carry.
        subscribers: Called with every event; one that raises is told nothing more.

    Attributes:
        notes: Writes down what happens, or None; then subscribers hear of it when that is durable.
        last_words: Called before the last event is told, the newest first: what goes on then is
            not heard later.
    """

    def __init__(
        self, run: str, loop: asyncio.AbstractEventLoop, subscribers: Iterable[Subscriber]
    ) -> None:
        self._run = run
        self._loop = loop
        self._subscribers = list(subscribers)
        self.notes: Notes | None = None
        self._deaf: list[Subscriber] = []
        self.last_words: dict[Callable[[], None], None] = {}
        self._held: dict[int, list[events.Event]] = {}
        self._labels: dict[int, int] = {}  # ids of lines in a model's text, by plan id
        self._over = False

    @property
    def subscribers(self) -> tuple[Subscriber, ...]:
        """Those who are still told."""
        return tuple(self._subscribers)

    @property
    def listens(self) -> bool:
        """Whether anybody is told, or it is written down."""
        return bool(self._subscribers) or self.notes is not None

    def tell(self, event: events.Event) -> None:
        """Tell the subscribers."""
        if self.notes is None:
            self._tell(event, self.subscribers)
        elif not self._over or isinstance(event, ENDS):
            self.notes.take(event)
            if self._subscribers:
                self.notes.book.tell(partial(self._tell, event, self.subscribers))

    def _tell(self, event: events.Event, subscribers: Iterable[Subscriber]) -> None:
        for subscriber in subscribers:
            if subscriber in self._deaf:
                continue
            try:
                subscriber(event)
            except (KeyboardInterrupt, SystemExit):
                raise
            except BaseException as error:  # noqa: BLE001  # its fault must not end the run
                self._deaf.append(subscriber)
                self._subscribers = [s for s in self._subscribers if s is not subscriber]
                self._loop.call_exception_handler(
                    {"message": f"a subscriber of run {self._run} raised", "exception": error}
                )

    def tell_of_call(self, event: events.NodeEvent) -> None:
        """Tell of a call, once it is certain that it belongs to the plan."""
        if self._held and event.node in self._held:
            self._held[event.node].append(event)
        else:
            self.tell(event)

    def joined(self, plan: Plan, *, held: bool, writing: bool) -> None:
        """Nodes joined the plan; of `held` ones nobody hears before `release`."""
        if held:
            self._held.update({index: [] for index, _ in plan.items()})
        if not self.listens or not plan.nodes:
            return
        for index, node in plan.items():
            if node.label is not None:
                self._labels[index] = node.label
        ids = range(plan.base, plan.base + len(plan.nodes))
        lines = _Lines(plan, self._labels)
        event = events.PlanExtended(self._run, self._loop.time(), ids, lines, writing)
        if held:
            self._held[plan.base].append(event)
        else:
            self.tell(event)

    def release(self, node: int) -> None:
        """A held node belongs to the plan: its events are told, and so are further ones."""
        for event in self._held.pop(node, ()):
            self.tell(event)

    def holds(self, node: int) -> bool:
        """Whether a node is held."""
        return node in self._held

    def end(self, value: object, error: RunError | None) -> None:
        """Tell how the run ended; nobody hears of anything after it.

        Of what goes on in the grace, only how calls end is written down.
        """
        for say in reversed(list(self.last_words)):
            say()
        self.tell(self._last(value, error))
        self._subscribers.clear()
        self._over = True

    def _last(self, value: object, error: RunError | None) -> events.Event:
        at = self._loop.time()
        if error is None:
            return events.RunFinished(self._run, at, value)
        if isinstance(error, RunCancelled):
            return events.RunCancelled(self._run, at, str(error))
        if isinstance(error, RunPaused):
            return events.RunPaused(self._run, at, [dict(ask) for ask in error.asks])
        return events.RunFailed(self._run, at, error)


class _Lines(Sequence[str]):
    """The nodes of a plan in the notation, printed when somebody looks."""

    def __init__(self, plan: Plan, labels: dict[int, int]) -> None:
        self._plan = plan
        self._labels = labels

    @cached_property
    def _printed(self) -> list[str]:
        return [self._line(index, node) for index, node in self._plan.items()]

    def _line(self, index: int, node: Node) -> str:
        """A node under the ids that its text gives to lines."""
        labels = self._labels
        if not labels:
            return print_node(index, node)

        def named(ref: Ref) -> Ref:
            return Ref(labels.get(ref.node, ref.node + 1) - 1, ref.path)

        return print_node(labels.get(index, index + 1) - 1, rewired(node, named))

    def __len__(self) -> int:
        return len(self._plan.nodes)

    @overload
    def __getitem__(self, place: int) -> str: ...
    @overload
    def __getitem__(self, place: slice) -> list[str]: ...
    def __getitem__(self, place: int | slice) -> str | list[str]:
        return self._printed[place]

    def __repr__(self) -> str:
        return repr(self._printed)
