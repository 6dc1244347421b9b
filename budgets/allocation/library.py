"""The tables of the jobs of a run, for as long as they are not done."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import replace

from agentflow.budgets.allocation.draws import Draws
from agentflow.budgets.allocation.options import kind
from agentflow.budgets.allocation.pools import Pool
from agentflow.budgets.allocation.situation import Job, Profile
from agentflow.budgets.allocation.tables import Tables

Making = Generator[float, None, list[Tables]]
"""Tables, in steps."""


class Library:
    """Makes tables anew only when something has changed.

    Args:
        scenarios: How many rows their columns have.
        seed: Of all chance.
    """

    def __init__(self, scenarios: int, seed: int) -> None:
        self.scenarios = scenarios
        self._seed = seed
        self._draws: dict[int, Draws] = {}
        self._tables: dict[int, Tables] = {}
        self._pools: dict[int, tuple[Profile, Pool]] = {}

    def tables(self, jobs: Sequence[Job]) -> Making:
        """Those of these jobs; what belongs to others is forgotten."""
        self._forget(jobs)
        found = []
        for job in jobs:
            table = self._tables.get(job.id)
            if table is None or not table.hold(job):
                table = self._tables[job.id] = self._made(job)
            found.append(table)
            yield 0.0
        return found

    def apart(self, tables: Sequence[Tables]) -> Making:
        """Those of the same jobs, as if samples of one had no more in common than those of two."""
        found = []
        alike: dict[object, dict[str, Profile]] = {}
        for table in tables:
            if (key := kind(table.job)) not in alike:
                alike[key] = {
                    name: replace(profile, probability=_mean(table.chances[name]), doubt=0.0)
                    for name, profile in table.job.models.items()
                }
            job = replace(table.job, models=alike[key], agreement=0.0, failed={})
            found.append(self._made(job))
            yield 0.0
        return found

    def _made(self, job: Job) -> Tables:
        if job.id not in self._draws:
            self._draws[job.id] = Draws(self.scenarios, f"{self._seed} {job.id}")
        pools = {name: self._pool(profile) for name, profile in job.models.items()}
        return Tables(job, self._draws[job.id], pools)

    def _pool(self, profile: Profile) -> Pool:
        known = self._pools.get(id(profile))
        if known is None or known[0] is not profile:
            known = self._pools[id(profile)] = (profile, Pool(profile))
        return known[1]

    def _forget(self, jobs: Sequence[Job]) -> None:
        ids = {job.id for job in jobs}
        profiles = {id(profile) for job in jobs for profile in job.models.values()}
        self._draws = {key: draws for key, draws in self._draws.items() if key in ids}
        self._tables = {key: table for key, table in self._tables.items() if key in ids}
        self._pools = {key: pool for key, pool in self._pools.items() if key in profiles}


def _mean(column: Sequence[float]) -> float:
    return sum(column) / len(column)
