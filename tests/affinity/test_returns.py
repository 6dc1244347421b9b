"""Which kinds of conversations come back, and who may join without room."""

from __future__ import annotations

from agentflow.caches.affinity.completion import EarliestCompletion
from agentflow.caches.affinity.dispatcher import Dispatcher
from agentflow.caches.affinity.jobs import Job, Pause
from agentflow.caches.affinity.load import LATELY, Busy
from agentflow.caches.affinity.prompts import Prompt
from agentflow.caches.affinity.rates import Rates
from agentflow.caches.affinity.returns import KINDS, Returns

BLOCK = 16


def test_a_kind_is_taken_to_come_back_until_most_of_its_replies_were_the_last() -> None:
    returns = Returns()
    for _ in range(20):
        returns.ended("act", 6)
        returns.ended("plan", 1)

    assert returns.expected("act")
    assert not returns.expected("plan")
    assert returns.expected("never seen")


def test_what_a_kind_does_is_learnt_anew_when_it_changes() -> None:
    returns = Returns()
    for _ in range(50):
        returns.ended("join", 1)
    for _ in range(50):
        returns.ended("join", 8)

    assert returns.expected("join")


def test_nothing_is_learnt_where_nobody_says_what_a_conversation_is_about() -> None:
    returns = Returns()
    for _ in range(50):
        returns.ended("", 1)

    assert returns.expected("")


def test_only_so_many_kinds_are_remembered() -> None:
    returns = Returns()
    for number in range(KINDS + 1):
        for _ in range(20):
            returns.ended(f"kind {number}", 1)

    assert returns.expected("kind 0")
    assert not returns.expected("kind 1")


def test_what_was_done_is_forgotten_in_time() -> None:
    busy = Busy()
    busy.note(LATELY, 100.0)

    assert busy.share(100.0) == 1.0
    assert busy.share(100.0, LATELY) == 2.0
    assert 0.3 < busy.share(100.0 + LATELY) < 0.4


class Desk:
    """One replica that computes 1,000 tokens a second and holds 3,200."""

    def __init__(self) -> None:
        self.dispatcher = Dispatcher(EarliestCompletion(), block=BLOCK)
        self.dispatcher.join("a", 0.0, capacity=3200, rates=Rates(1000.0, 0.01))
        self._number = 0

    def ask(self, session: str, tokens: int, kind: str = "act", *, at: float = 0.0) -> int | None:
        """A request; its number if it was sent at once."""
        self._number += 1
        keys = tuple((session, index) for index in range(tokens // BLOCK))
        returns = self.dispatcher.fleet.returns.expected(kind)
        prompt = Prompt(keys, tokens)
        job = Job(self._number, session, prompt, 50.0, at, kind=kind, returns=returns)
        sends = self.dispatcher.arrive(job, at)
        return self._number if any(send.job is job for send in sends) else None

    def answer(self, number: int, at: float) -> None:
        """The reply has come."""
        self.dispatcher.began(number, at)
        self.dispatcher.finished(number, at, made=50)


def served(desk: Desk, session: str, tokens: int, kind: str = "act") -> float:
    """A whole turn of a session at the speed that was promised, and when it was over.

    The session is away for a moment then.
    """
    number = desk.ask(session, tokens, kind)
    assert number is not None
    ended = tokens / 1000.0
    desk.answer(number, ended)
    desk.dispatcher.away(session, Pause(0.1, 0.5), ended)
    return ended


def test_nothing_is_kept_for_a_conversation_of_a_kind_that_does_not_come_back() -> None:
    desk = Desk()
    for _ in range(20):
        desk.dispatcher.fleet.returns.ended("plan", 1)

    served(desk, "planner", 800, "plan")
    served(desk, "loop", 800)

    pins = desk.dispatcher.fleet.replicas["a"].pins
    assert "planner" not in pins
    assert "loop" in pins


def test_it_is_learnt_from_conversations_that_end() -> None:
    desk = Desk()
    for number in range(20):
        served(desk, f"p{number}", 100, "plan")
        desk.dispatcher.ended(f"p{number}", 0.1)

    assert not desk.dispatcher.fleet.returns.expected("plan")


def test_a_short_session_joins_without_room_where_prompts_take_little_time() -> None:
    desk = Desk()
    desk.dispatcher.fleet.growth = 10.0
    ended = served(desk, "long", 2800)

    assert desk.ask("short", 500, at=ended + 0.1) is not None


def test_who_will_be_back_with_much_more_waits_for_room_and_who_will_not_does_not() -> None:
    desk = Desk()
    for _ in range(20):
        desk.dispatcher.fleet.returns.ended("plan", 1)
    ended = served(desk, "long", 2800)
    desk.dispatcher.fleet.growth = 500.0

    assert desk.ask("loop", 500, "act", at=ended + 0.1) is None
    assert desk.ask("planner", 500, "plan", at=ended + 0.1) is not None


def test_a_session_waits_for_room_where_prompts_take_most_of_the_time() -> None:
    desk = Desk()
    desk.dispatcher.fleet.growth = 10.0
    ended = served(desk, "long", 2800)
    desk.dispatcher.fleet.replicas["a"].prompts.note(LATELY, ended)

    assert desk.ask("short", 500, at=ended + 0.1) is None


def test_a_session_that_would_take_much_of_a_replicas_time_for_itself_waits_for_room() -> None:
    desk = Desk()
    desk.dispatcher.fleet.growth = 10.0
    ended = served(desk, "long", 2800)

    assert desk.ask("longer", 3000, at=ended + 0.1) is None
