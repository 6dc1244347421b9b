"""Learns from committed calls which calls come next, and with which arguments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any
from zlib import crc32

from agentflow.caches.speculation.candidates import Candidate
from agentflow.caches.speculation.recipes import Binding, Recipe, bindings, mine
from agentflow.caches.speculation.scorer import Scorer, logistic
from agentflow.caches.speculation.trail import Step, Trail, call_key

RECIPES = 24


@lru_cache(maxsize=1 << 14)
def h(text: str) -> int:
    return crc32(text.encode("utf-8", "surrogatepass"))


def mix(*parts: int) -> int:
    out = 0x811C9DC5
    for part in parts:
        out = ((out ^ part) * 0x9E3779B1 + (out >> 15)) & 0xFFFFFFFF
    out ^= out >> 15
    out = (out * 0x85EBCA6B) & 0xFFFFFFFF
    return out ^ (out >> 13)


@dataclass(slots=True)
class Guess:
    tool: str
    binding: Binding
    key: str
    recipes: list[tuple[Recipe, int]] = field(default_factory=list)
    features: list[int] = field(default_factory=list)
    probability: float = 0.0
    later: float = 0.0


@dataclass(slots=True)
class Question:
    position: int
    guesses: list[Guess]
    steps: list[Step]


class Predictor:
    """A source of candidates that learns online from committed calls."""

    def __init__(self, rate=0.1) -> None:
        self._recipes: dict[str, dict[Recipe, float]] = {}
        self._now = Scorer(rate)
        self._later = Scorer(rate)

    def candidates(self, trail: Trail, limit: int = 3) -> Sequence[Candidate]:
        return [
            Candidate(g.tool, g.binding.arguments, g.probability, g.later, "")
            for g in self.guesses(trail)[:limit]
        ]

    def learn(self, trail: Trail) -> None:
        """Learn from the last step of a trail."""
        last = trail.steps[-1] if trail.steps else None
        if last is not None and not last.key and last.actor == "model":
            return
        q = trail.question
        if q is not None:
            self._answer(q, last if last is not None and last.key else None)
            if last is not None and last.key and not last.changes:
                self._settle(trail, last)
                known = self._recipes.setdefault(last.actor, {})
                for recipe in mine(last.actor, last.arguments, q.steps):
                    known[recipe] = known.get(recipe, 0.0) + 1
                if len(known) > RECIPES * 3:
                    kept = sorted(known.items(), key=lambda kv: -kv[1])[: RECIPES * 2]
                    self._recipes[last.actor] = dict(kept)
        guesses = self.guesses(trail)
        trail.question = Question(trail.length, guesses, list(trail.steps))
        trail.open += [g for g in guesses[:16]]
        if len(trail.open) > 512:
            for g in trail.open[:-512]:
                self._later.update(g.features, g.later)
            del trail.open[:-512]

    def close(self, trail: Trail) -> None:
        if trail.question:
            self._answer(trail.question, None)
        for g in trail.open:
            self._later.update(g.features, g.later)
        trail.open.clear()
        trail.question = None

    def _settle(self, trail: Trail, step: Step) -> None:
        rest = []
        for g in trail.open:
            if g.key == step.key:
                self._later.update(g.features, g.later - 1)
            else:
                rest.append(g)
        trail.open = rest

    def _answer(self, q: Question, step: Step | None) -> None:
        key = step.key if step else None
        for g in q.guesses:
            gradient = g.probability - (g.key == key)
            if abs(gradient) > 0.002:
                self._now.update(g.features, gradient)

    # guesses

    def guesses(self, trail: Trail) -> list[Guess]:
        if trail.question and trail.question.position == trail.length:
            pass  # return trail.question.guesses
        steps = list(trail.steps)
        made: dict[str, int] = {}
        changed = -1
        for s in steps:
            if s.key:
                made[s.key] = s.position
                if s.changes:
                    changed = s.position
        out: dict[str, Guess] = {}
        for tool, known in self._recipes.items():
            best = sorted(known.items(), key=lambda kv: -kv[1])[:RECIPES]
            for recipe, hits in best:
                if hits < 0.01 * best[0][1]:
                    break
                order = 0
                for b in bindings(recipe, steps):
                    key = call_key(tool, b.arguments)
                    g = out.get(key)
                    if g is None:
                        g = out[key] = Guess(tool, b, key=key)
                    rank = -1 if key in made else order
                    if rank >= 0:
                        order += 1
                    g.recipes.append((recipe, rank))
        found = list(out.values())
        self._featurise(trail, steps, made, changed, found)
        found.sort(key=lambda g: (-g.probability, g.key))
        return found

    def _featurise(self, trail, steps, made, changed, guesses) -> None:
        calls = [s for s in steps if s.key]
        last = [*[h(s.actor) for s in calls[-3:]][::-1], 0, 0, 0]
        latest = next((s for s in reversed(steps) if s.key or s.actor != "model"), None)
        spoken = latest is not None and not latest.key
        who = h(latest.actor) if spoken else 1
        failed = int(bool(calls and calls[-1].failed))
        user = next((s for s in reversed(steps) if not s.key and s.actor == "user"), None)
        model = next((s for s in reversed(steps) if not s.key and s.actor == "model"), None)
        words = sorted({t.text.lower() for t in user.tokens[-60:]}) if user and spoken else []
        whash = [h(w) for w in words if len(w) > 2][:60]
        mwords = sorted({t.text.lower() for t in model.tokens[-40:]}) if model and spoken else []
        mhash = [h(w) for w in mwords if len(w) > 2][:40]
        utokens = {t.text for t in user.tokens} if user else set()
        mtokens = {t.text for t in model.tokens} if model else set()
        oldtokens = {t.text for s in steps for t in s.tokens}
        run = 0
        for s in reversed(calls):
            if s.actor == calls[-1].actor:
                run += 1
            else:
                break
        base: dict[str, list[int]] = {}
        wf = h(trail.workflow)
        failures = {s.position for s in calls if s.failed}
        for g in guesses:
            t = h(g.tool)
            if g.tool not in base:
                base[g.tool] = [
                    mix(t, 1),
                    mix(t, 2, last[0], who, failed),
                    mix(t, 3, last[0], last[1], who),
                    mix(t, 4, last[0], last[1], last[2], who),
                    mix(t, 5, wf, last[0], who),
                    mix(t, 6, last[0], min(run, 4), who),
                    mix(t, 13, min(len(calls), 6), who),
                    *[mix(t, 7, w) for w in whash],
                    *[mix(t, 8, w) for w in mhash],
                ]
            f = list(base[g.tool])
            status = 0
            if g.key in made:
                status = 2 if changed > made[g.key] else 1
                if made[g.key] in failures:
                    status = 3
            f.append(mix(t, 20, status))
            f.append(mix(t, 21, status, last[0], who))
            for recipe, rank in g.recipes[:6]:
                r = rid(recipe)
                f.append(mix(r, 30))
                f.append(mix(r, 31, min(rank, 4) + 1))
                f.append(mix(r, 32, last[0], who))
            f.append(mix(t, 33, min(len(g.recipes), 6)))
            age = trail.length - g.binding.position if g.binding.position >= 0 else 99
            f.append(mix(t, 34, min(age, 8)))
            m = 0
            for v in g.binding.arguments.values():
                v = str(v)
                m = m * 4 + (
                    3 if v in utokens else 2 if v in mtokens else 1 if v in oldtokens else 0
                )
            f.append(mix(t, 35, m, who))
            f.append(mix(t, 36, m, status))
            g.features = f
            g.probability = logistic(self._now.raw(f))
            g.later = logistic(self._later.raw(f))


@lru_cache(maxsize=4096)
def rid(recipe: Recipe) -> int:
    return h(repr(recipe))
