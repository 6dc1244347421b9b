"""The fast planner answers as the published one does, worked out literally."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest
from allocation_mcpp import ROLLOUTS, Option, Portfolio, Rollouts, Tail, candidates, distinct
from allocation_rivals import idle
from allocation_simulator import Batch, drained

from agentflow.budgets.allocation.situation import Job, Profile, Sample, Situation

LIMITS = (12.0, 15.0)
QUICK = Profile(0.4, [(1.0, 1.0), (2.0, 1.5)], [(2.0, 1.0), (3.0, 2.0), (1.0, 0.5)])
SOUND = Profile(0.75, [(3.0, 2.0), (4.0, 4.0), (6.0, 5.0)], [(5.0, 3.0)])
MODELS = {"quick": QUICK, "sound": SOUND}


def jobs(
    *after: tuple[int, ...], running: Mapping[int, tuple[Sample, ...]] | None = None
) -> Situation:
    under_way = running or {}
    made = tuple(
        Job(id, before, MODELS, (1, 4), ready=not before, running=under_way.get(id, ()))
        for id, before in enumerate(after)
    )
    return Situation(made, *LIMITS)


CHAIN = jobs((), (0,))
JOIN = jobs((), (), (0, 1))
UNDER_WAY = jobs(
    (), (), (0, 1), running={0: (Sample("sound", 3.5, 4.0), Sample("quick", 0.5, 2.0))}
)
CASES = {"chain": CHAIN, "join": JOIN, "under way": UNDER_WAY}


@dataclass
class Literal:
    """One rollout of one pair as it is written down: event by event, draw by draw."""

    situation: Situation
    first: Mapping[int, Option]
    policy: Option
    cancel: bool
    chance: random.Random
    paid: float = 0.0
    ends: dict[int, float] = field(default_factory=dict)

    def succeeds(self) -> bool:
        for job in self.situation.jobs:
            self.ends[job.id] = self.end(job)
        usd, seconds = self.situation.usd, self.situation.seconds
        assert usd is not None and seconds is not None
        usd += sum(sample.reserved for job in self.situation.jobs for sample in job.running)
        return max(self.ends.values()) <= seconds and self.paid <= usd

    def end(self, job: Job) -> float:
        now = max((self.ends[before] for before in job.after), default=0.0)
        if job.running:
            took, passed = self.rest(job)
        else:
            took, passed = self.batch(*self.first.get(job.id, self.policy))
        now += took
        while not passed:
            took, passed = self.batch(*self.policy)
            now += took
        return now

    def batch(self, model: str, width: int) -> tuple[float, bool]:
        return self.pay([(*self.sample(MODELS[model]), 0.0) for _ in range(width)], self.cancel)

    def rest(self, job: Job) -> tuple[float, bool]:
        made = []
        for sample in job.running:
            profile = job.models[sample.model]
            passed = self.chance.random() < profile.probability
            records = profile.won if passed else profile.lost
            left = [record for record in records if record[0] > sample.age] or [max(records)]
            seconds, usd = self.chance.choice(left)
            made.append((seconds - sample.age, usd, passed, 0.0))
        for _, usd, _, _ in made:
            self.paid += usd
        passing = [seconds for seconds, _, passed, _ in made if passed]
        if self.cancel and passing:
            return min(passing), True
        return max(seconds for seconds, _, _, _ in made), bool(passing)

    def sample(self, profile: Profile) -> tuple[float, float, bool]:
        passed = self.chance.random() < profile.probability
        return (*self.chance.choice(profile.won if passed else profile.lost), passed)

    def pay(
        self, samples: list[tuple[float, float, bool, float]], cancel: bool
    ) -> tuple[float, bool]:
        passing = [seconds for seconds, _, passed, _ in samples if passed]
        if not cancel or not passing:
            self.paid += sum(usd for _, usd, _, _ in samples)
            return max(seconds for seconds, _, _, _ in samples), bool(passing)
        first = min(passing)
        self.paid += sum(usd * min(1.0, first / seconds) for seconds, usd, _, _ in samples)
        return first, True


PORTFOLIOS = {cancel: Portfolio(cancel) for cancel in (False, True)}


def share(situation: Situation, first: Mapping[int, Option], policy: Option, cancel: bool) -> float:
    """The success of a pair by the columns, over many decisions."""
    portfolio, chance = PORTFOLIOS[cancel], random.Random(3)
    ready = list(idle(situation))
    successes = 0
    for _ in range(30):
        tail = Tail(Rollouts(portfolio, situation, ready, chance), policy)
        row = [first[job.id] for job in ready]
        successes += (tail.hopeful(row) & tail.affordable(row)).bit_count()
    return successes / (30 * ROLLOUTS)


@pytest.mark.parametrize("cancel", [False, True], ids=["waits", "cancels"])
@pytest.mark.parametrize("case", CASES)
def test_columns_give_the_success_of_literal_rollouts(case: str, cancel: bool) -> None:
    situation, chance = CASES[case], random.Random(5)
    ready = [job.id for job in idle(situation)]
    for option in (("quick", 1), ("sound", 1), ("quick", 4)):
        for policy in (("quick", 1), ("sound", 1), ("quick", 4)):
            first = dict.fromkeys(ready, option)
            literal = sum(
                Literal(situation, first, policy, cancel, chance).succeeds() for _ in range(1500)
            )
            assert share(situation, first, policy, cancel) == pytest.approx(
                literal / 1500, abs=0.05
            )


@pytest.mark.parametrize("case", CASES)
def test_skipping_pairs_does_not_change_the_answer(case: str) -> None:
    fast, slow = PORTFOLIOS[False], Portfolio(prune=False)
    for seed in range(10):
        answer, _, _ = drained(fast, CASES[case], random.Random(seed))
        assert answer == drained(slow, CASES[case], random.Random(seed))[0]


def test_the_same_for_all_nodes_comes_first_and_one_node_has_all_its_options() -> None:
    options = [(model, width) for model in MODELS for width in (1, 4)]
    rows = distinct(candidates({7: options}, {7: "quick"}, random.Random(0)), [7])
    assert [row[0] for row in rows] == [("quick", 1), ("sound", 1), ("quick", 4), ("sound", 4)]


def test_of_many_ready_nodes_three_are_free_and_the_others_take_the_first_model() -> None:
    options = {job: [(model, width) for model in MODELS for width in (1, 4)] for job in range(5)}
    rows = distinct(
        candidates(options, dict.fromkeys(options, "quick"), random.Random(0)), list(options)
    )
    uniform = [row for row in rows if len(set(row)) == 1]
    assert len(uniform) == 4 and rows[:4] == uniform
    fixed = [
        job for job in range(5) if all(row[job][0] == "quick" for row in rows if row not in uniform)
    ]
    assert len(fixed) == 2


def test_a_tie_goes_to_the_earliest_although_it_is_dearer() -> None:
    dear, cheap = Profile(1.0, [(1.0, 5.0)], []), Profile(1.0, [(1.0, 1.0)], [])
    job = Job(0, (), {"dear": dear, "cheap": cheap}, (1, 4), ready=True)
    decision, _, _ = drained(Portfolio(), Situation((job,), 100.0, 100.0), random.Random(0))
    assert [(start.model, start.samples) for start in decision.starts] == [("dear", 1)]
    assert decision.probability == 1.0


def test_a_batch_that_has_passed_needs_no_more() -> None:
    never = Profile(0.0, [], [(1.0, 1.0)])
    models = {"never": never}
    waits = Batch(
        0, (), models, (1,), ready=True, running=(Sample("never", 0.5, 1.0),), passed=True
    )
    other = Job(1, (), {"never": Profile(1.0, [(1.0, 1.0)], [])}, (1,), ready=True)
    decision, _, _ = drained(Portfolio(), Situation((waits, other), 5.0, 5.0), random.Random(0))
    assert decision.probability == 1.0
