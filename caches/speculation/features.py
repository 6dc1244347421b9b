"""What speaks for and against a call: numbers of features, which a `Scorer` weighs.

A feature is a small tuple of facts, hashed. The same facts are told with and without the tool, so
that what is true of every tool is learned from all of them, and what is special from few calls.
"""

from __future__ import annotations

from collections.abc import Mapping

from agentflow.caches.speculation.guesses import Guess
from agentflow.caches.speculation.history import CALL, History, number
from agentflow.caches.speculation.trail import Offer, Step

SUPPORTS = 4
"""Recipes of one guess that are looked at, the best known first."""


def context(tool: str, history: History) -> list[int]:
    """Features of the situation: what the session did and said last, told for one tool."""
    t = number(tool)
    last, before, earlier = history.last
    after = history.after
    failed = bool(history.calls) and history.calls[-1].failed
    salt = mix(t, after)
    return [
        mix(1, t),
        mix(2, t, last, after, failed),
        mix(3, t, last, before, after),
        mix(4, t, last, before, earlier, after),
        mix(5, t, last, after, number(history.trail.workflow)),
        mix(8, t, number(history.trail.workflow)),
        mix(6, t, last, after, min(history.run, 4)),
        mix(7, t, after, min(len(history.calls), 6)),
        *[word ^ salt for word in history.asked],
        *[word ^ salt ^ _MODEL for word in history.answered if after != CALL],
        *[value ^ salt ^ _RESULT for value in history.outcome],
    ]


def particular(guess: Guess, history: History, came_from: int) -> list[int]:
    """Features of one call: its past, its habit, its recipes and what was said about it."""
    t = number(guess.tool)
    return [
        *_past(guess, t, history),
        *_habit(guess, t, history),
        *_recipes(guess, t, history, came_from),
        *_mentions(guess, t, history),
    ]


def mix(*facts: int) -> int:
    """One number for some facts, the same in every process (the hash of numbers is not salted)."""
    return hash(facts) & 0xFFFFFFFF


_MODEL = mix(71)
_RESULT = mix(72)


def _past(guess: Guess, t: int, history: History) -> list[int]:
    """Whether this very call has been made before, and what happened since."""
    status = _status(guess.key, history)
    after = history.after
    last = history.last[0]
    repeats = min(history.repeats, 4) if guess.key == history.last_key else 0
    return [
        mix(20, t, status),
        mix(21, t, status, last, after),
        mix(22, status, after),
        mix(23, repeats, after),
        mix(24, min(history.counts.get(guess.key, 0), 4), status),
    ]


def _status(key: str, history: History) -> int:
    if key not in history.made:
        return 0
    status = 1 if history.made[key] > history.changed else 2
    if key in history.failed:
        status = 3
    return status + 4 if key == history.last_key else status


def _habit(guess: Guess, t: int, history: History) -> list[int]:
    """Whether this call came when the session stood here before."""
    exact, alike = history.followed, history.followed_alike
    times = min(exact.get(guess.key, 0), 3)
    return [
        mix(30, times, _quarter(guess.key, exact), history.after),
        mix(31, t, times, history.after),
        mix(32, min(alike.get(guess.key, 0), 4), _quarter(guess.key, alike), history.after),
    ]


def _quarter(key: str, followed: Mapping[str, int]) -> int:
    total = sum(followed.values())
    return 4 * followed.get(key, 0) // total if total else 9


def _recipes(guess: Guess, t: int, history: History, came_from: int) -> list[int]:
    """Which recipes give the call, and where it stands among the calls they give."""
    last, after = history.last[0], history.after
    best = guess.supports[0]
    ages = [history.trail.length - step.position for step, _ in guess.binding.places]
    age = min(min(ages, default=9), 9)
    found = [
        mix(40, best.fresh, best.ahead, after),
        mix(41, t, min(len(guess.supports), 6)),
        mix(42, t, age),
    ]
    for support in guess.supports[:SUPPORTS]:
        recipe = support.known.number
        found += (
            mix(43, recipe),
            mix(44, recipe, support.fresh, support.ahead),
            mix(45, recipe, last, after),
            mix(46, recipe, came_from, support.ahead),
        )
    return found


def _mentions(guess: Guess, t: int, history: History) -> list[int]:
    """Whether its arguments, or the record they stand in, have been spoken of."""
    mentioned = 0
    values = [str(value) for value in guess.binding.arguments.values()]
    for value in values:
        mentioned = 4 * mentioned + _mentioned(value, history)
    found = [
        mix(50, t, mentioned, history.after),
        mix(51, t, mentioned, guess.key in history.made),
        mix(52, t, len(set(values)) < len(values)),
    ]
    if guess.binding.places:
        recipe = guess.supports[0].known.number
        near = history.near(guess.binding.places)
        now, ever = min(len(near & history.now), 3), min(len(near & history.wanted), 3)
        found += (
            mix(53, t, now, history.after),
            mix(54, t, now, ever),
            mix(55, recipe, number(_word_before(*guess.binding.places[0]))),
        )
    return found


def _word_before(step: Step, offer: Offer) -> str:
    """The word that leads up to a value in what somebody said."""
    before = offer.at[0] - 1 if offer.at else -1
    return step.tokens[before].text.lower() if 0 <= before < len(step.tokens) else ""


def _mentioned(value: str, history: History) -> int:
    if value in history.heard:
        return 3
    if value in history.shown:
        return 2
    return int(value in history.told)
