"""Learns from committed calls which calls come next, and with which arguments."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

from agentflow.caches.speculation.bindings import Finder
from agentflow.caches.speculation.calibration import Calibration
from agentflow.caches.speculation.candidates import Candidate
from agentflow.caches.speculation.features import context, mix, particular
from agentflow.caches.speculation.guesses import Guess, gather
from agentflow.caches.speculation.history import History
from agentflow.caches.speculation.repertoire import Repertoire
from agentflow.caches.speculation.scorer import Scorer, logistic
from agentflow.caches.speculation.trail import Step, Trail

SETTLED = 0.001
"""Errors below this are not worth learning from."""

SETTLING = 32
"""Predictions that did not come true from which is learned at a time."""

OPEN = 600
"""Predictions of one session that wait for their call."""

SAMPLE = 8
"""Of unlikely predictions, one in so many waits for its call, and counts as many times."""

UNLIKELY = 0.02
"""Probability below which a prediction is unlikely."""

BIAS = -3.0
"""Logit of a call of which nothing is known: most calls that could be made are not."""

HABIT = 6.0
"""Logit of a call that a session always makes where it stands; how sure that is, is learned."""

FORMAT = 1


@dataclass(slots=True)
class _Question:
    """What is expected at one place of a trail."""

    length: int
    steps: Sequence[Step]
    guesses: list[Guess]
    contexts: dict[str, list[int]]


@dataclass(slots=True)
class _Waiting:
    """A prediction that its call will be made at some time."""

    guess: Guess
    context: list[int]
    weight: float


@dataclass(slots=True)
class _Session:
    """What is open in one session."""

    workflow: str = ""
    question: _Question | None = None
    waiting: list[_Waiting] = field(default_factory=list)
    finder: Finder = field(default_factory=Finder)


class Predictor:
    """A source of candidates that learns online, in bounded memory.

    Calls are put together by recipes mined from the calls that were made, and weighed by what
    the session did and said before. Two probabilities are learned: that a call is the very next
    one, before anybody but the model speaks, and that it is made before anything is changed.
    """

    def __init__(self) -> None:
        self._repertoire = Repertoire()
        self._next = Scorer()
        self._later = Scorer()
        self._next_calibration = Calibration()
        self._later_calibration = Calibration()
        self._unlikely = 0
        self._overdue: deque[_Waiting] = deque()
        self._sessions: WeakKeyDictionary[Trail, _Session] = WeakKeyDictionary()

    def candidates(self, trail: Trail, limit: int = 3) -> list[Candidate]:
        """The likeliest next calls, best first, without I/O and without learning."""
        question = self._question(trail)
        return [self._candidate(guess) for guess in question.guesses[:limit]]

    def learn(self, trail: Trail) -> None:
        """Learn from the last step of a trail; to be called after each step, and at the start.

        Trails between whose steps it is not called are predicted, and not learned from.
        """
        self._settle(SETTLING)
        session = self._session(trail)
        step = trail.steps[-1] if trail.steps else None
        if step is not None and not step.awaits:
            return
        if session.question is not None:
            self._answer(session, step if step is not None and step.key else None)
        session.question = self._question(trail)
        session.waiting += self._sample(session.question)
        del session.waiting[:-OPEN]

    def close(self, trail: Trail) -> None:
        """Learn that a session has ended, and what was therefore not called."""
        session = self._sessions.pop(trail, _Session())
        if session.question is not None:
            self._answer(session, None)
        self._give_up(session)
        self._settle(SETTLING)

    def dump(self) -> dict[str, Any]:
        """All that was learned, as JSON."""
        self._settle(len(self._overdue))
        return {
            "format": FORMAT,
            "hash": mix(1, 2, 3),
            "unlikely": self._unlikely,
            "recipes": self._repertoire.dump(),
            "scorers": [self._next.dump(), self._later.dump()],
            "calibrations": [self._next_calibration.dump(), self._later_calibration.dump()],
        }

    @classmethod
    def load(cls, dumped: Any) -> Predictor:
        """The predictor that `dump` gave.

        Raises:
            ValueError: It did not give this, or another version or kind of Python did.
        """
        try:
            if (dumped["format"], dumped["hash"]) != (FORMAT, mix(1, 2, 3)):
                raise ValueError("it was written by another version")
            predictor = cls()
            predictor._unlikely = int(dumped["unlikely"]) % SAMPLE
            predictor._repertoire = Repertoire.load(dumped["recipes"])
            predictor._next, predictor._later = map(Scorer.load, dumped["scorers"])
            predictor._next_calibration, predictor._later_calibration = map(
                Calibration.load, dumped["calibrations"]
            )
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise ValueError(f"this is not a predictor: {error}") from error
        return predictor

    # Predicting

    def _session(self, trail: Trail) -> _Session:
        if (session := self._sessions.get(trail)) is None:
            original = None if trail.original is None else self._sessions.get(trail.original)
            finder = Finder(None if original is None else original.finder)
            session = self._sessions[trail] = _Session(trail.workflow, finder=finder)
        return session

    def _question(self, trail: Trail) -> _Question:
        session = self._session(trail)
        if session.question is not None and session.question.length == trail.length:
            return session.question
        history = History(trail)
        guesses = gather(self._repertoire, history, session.finder)
        tools = dict.fromkeys(guess.tool for guess in guesses)
        contexts = {tool: context(tool, history) for tool in tools}
        self._weigh(guesses, contexts, history)
        guesses.sort(key=lambda guess: (-guess.logit, guess.key))
        return _Question(trail.length, tuple(trail.steps), guesses, contexts)

    def _weigh(
        self, guesses: Sequence[Guess], contexts: dict[str, list[int]], history: History
    ) -> None:
        last = next((guess for guess in guesses if guess.key == history.last_key), None)
        came_from = last.supports[0].known.number if last else 0
        bases = {
            tool: (self._next.score(features), self._later.score(features))
            for tool, features in contexts.items()
        }
        for guess in guesses:
            base, base_later = bases[guess.tool]
            guess.features = particular(guess, history, came_from)
            guess.logit = (
                BIAS + base + self._next.score(guess.features) + HABIT * history.habit(guess.key)
            )
            guess.later = BIAS + base_later + self._later.score(guess.features)

    def _candidate(self, guess: Guess) -> Candidate:
        probability = self._next_calibration.probability(guess.logit)
        later = self._later_calibration.probability(guess.later)
        reason = str(guess.supports[0].known.recipe)
        return Candidate(
            guess.tool, guess.binding.arguments, probability, max(probability, later), reason
        )

    # Learning

    def _answer(self, session: _Session, step: Step | None) -> None:
        question = session.question
        assert question is not None
        key = None if step is None else step.key
        self._learn_next(question, key)
        if step is None:
            return
        rest = []
        for waiting in session.waiting:
            if waiting.guess.key == key:
                self._learn_later(waiting, True)
            else:
                rest.append(waiting)
        session.waiting = rest
        if step.changes:
            self._give_up(session)
        else:
            self._repertoire.learn(session.workflow, step, question.steps)

    def _give_up(self, session: _Session) -> None:
        """Note that what was predicted has not been called while it was worth having."""
        self._overdue += session.waiting
        session.waiting.clear()

    def _settle(self, count: int) -> None:
        """Learn from so many of the predictions that did not come true, the oldest first."""
        for _ in range(min(count, len(self._overdue))):
            self._learn_later(self._overdue.popleft(), False)

    def _learn_next(self, question: _Question, key: str | None) -> None:
        errors: dict[str, float] = {}
        for guess in question.guesses:
            made = guess.key == key
            error = logistic(guess.logit) - made
            self._next_calibration.learn(guess.logit, made)
            if abs(error) > SETTLED:
                self._next.update(guess.features, error)
                errors[guess.tool] = errors.get(guess.tool, 0.0) + error
        for tool, error in errors.items():
            self._next.update(question.contexts[tool], error)

    def _learn_later(self, waiting: _Waiting, made: bool) -> None:
        guess, weight = waiting.guess, waiting.weight
        error = weight * (logistic(guess.later) - made)
        self._later_calibration.learn(guess.later, made, weight)
        self._later.update(guess.features, error)
        self._later.update(waiting.context, error)

    def _sample(self, question: _Question) -> Iterator[_Waiting]:
        for guess in question.guesses:
            weight = 1.0
            if logistic(guess.later) < UNLIKELY:
                self._unlikely = (self._unlikely + 1) % SAMPLE
                if self._unlikely:
                    continue
                weight = float(SAMPLE)
            yield _Waiting(guess, question.contexts[guess.tool], weight)
