"""A pool in virtual time: what is served when, to agents and from traces."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from affinity_agents import Setting, lives, play, serving
from affinity_contest import Run, foreseen, run
from affinity_fairness import _ahead
from affinity_report import closes, figures, speedups, sticky
from affinity_rivals import HASH, LEAST, OURS, POLICIES, SAGA, TABLE
from affinity_scoring import figures as scored
from affinity_scoring import reusable
from affinity_simulator import Ask, Served, Simulation
from affinity_traces import Fleet, pace, read, send
from affinity_wire import agreement

from agentflow.caches.affinity.fleet import Fleet as Pool
from agentflow.caches.affinity.jobs import Job, Pause
from agentflow.caches.affinity.policies import Choice, Routing
from agentflow.caches.affinity.prompts import Prompt
from agentflow.testing.serving import Serving

SMALL = Setting(agents=12, replicas=2, window=10.0, turns=(3, 6))
SERVING = Serving(prefill=1000.0, step=0.01, capacity=64_000, block=64)


def prompt(name: str, blocks: int) -> Prompt:
    return Prompt(tuple(f"{name}{index}" for index in range(blocks)), 64 * blocks + 1)


class Never:
    """Sends nothing."""

    period: float | None = 0.1

    def order(self, waiting: Sequence[Job], fleet: Pool, now: float) -> Iterable[Job]:
        return waiting

    def choose(self, job: Job, fleet: Pool, now: float) -> Choice:
        return None


class First(Routing):
    """Everything to one."""

    def choose(self, job: Job, fleet: Pool, now: float) -> Choice:
        return fleet.replicas["r0"], "home"


def test_a_request_takes_its_prompt_and_its_reply() -> None:
    simulation, answers = Simulation(lambda servers: First(), SERVING, 2), list[Served]()
    ask = Ask("s", prompt("a", 10), 51)
    simulation.at(5.0, lambda: simulation.ask(ask, answers.append))
    simulation.run()
    (its,) = answers
    assert (its.arrived, its.sent, its.cached) == (5.0, 5.0, 0)
    assert its.first == pytest.approx(5.0 + 0.641)
    assert its.finished == pytest.approx(5.0 + 0.641 + 0.5)
    assert simulation.busy == pytest.approx(1.141)


def test_the_next_request_finds_what_the_last_one_left() -> None:
    simulation, answers = Simulation(lambda servers: First(), SERVING, 1), list[Served]()

    def again(served: Served) -> None:
        answers.append(served)
        simulation.away("s", Pause(1.0, 2.0))
        if len(answers) < 2:
            ask = Ask("s", prompt("a", 12), 1)
            simulation.at(simulation.now + 3.0, lambda: simulation.ask(ask, again))

    first = Ask("s", prompt("a", 10), 1, returns=True)
    simulation.at(0.0, lambda: simulation.ask(first, again))
    simulation.run()
    assert [its.cached for its in answers] == [0, 640]


def test_a_policy_that_forgets_a_request_is_found_out() -> None:
    simulation = Simulation(lambda servers: Never(), SERVING, 1)
    simulation.at(0.0, lambda: simulation.ask(Ask("s", prompt("a", 1), 1), lambda served: None))
    with pytest.raises(RuntimeError, match="1 requests are never sent"):
        simulation.run()


@pytest.mark.parametrize("name", POLICIES)
def test_every_policy_serves_the_same_agents_to_their_end(name: str) -> None:
    agents = lives(SMALL, 1)
    played = play(SMALL, POLICIES[name], 1)
    asked = sorted((its.ask.session, its.ask.prompt.tokens) for its in played.served)
    assert asked == sorted((f"s{a.index}", turn.prompt) for a in agents for turn in a.turns)
    assert played.took.keys() == {life.index for life in agents}
    for its in played.served:
        assert its.arrived <= its.sent <= its.first <= its.finished
    found = scored(SMALL, agents, played)
    assert 0.0 < found.cached <= found.ceiling + 1e-9
    assert 0.0 <= found.again < 1.0


def test_one_replica_with_room_for_all_finds_everything_there_is_to_find() -> None:
    ample = replace(SMALL, replicas=1, memory=2.0, window=1000.0)
    agents = lives(ample, 2)
    cached = sum(its.cached for its in play(ample, POLICIES[TABLE], 2).served)
    assert cached == pytest.approx(reusable(agents), rel=0.002)  # some begin at the same time


def test_agents_do_the_same_whoever_serves_them() -> None:
    assert lives(SMALL, 7) == lives(SMALL, 7)
    assert lives(SMALL, 7) != lives(SMALL, 8)
    for life in lives(SMALL, 7):
        for turn, later in pairwise(life.turns):
            assert later.prompt > turn.prompt + turn.output
        ask, after = life.ask(0, "s"), life.ask(1, "s")
        known = (*ask.prompt.blocks, *ask.written)
        assert after.prompt.blocks[: len(known)] == known
        assert ask.returns
        assert not life.ask(len(life.turns) - 1, "s").returns


def test_agents_share_the_beginning_and_nothing_else() -> None:
    one, other = (set(life.blocks) for life in lives(SMALL, 1)[:2])
    assert len(one & other) == SMALL.shared // SMALL.block


def test_memory_is_a_share_of_what_all_sessions_hold() -> None:
    agents = lives(Setting(), 1)
    distinct = 3000 + sum(life.tokens - 3000 for life in agents)
    assert serving(Setting(), agents).capacity == round(0.5 * distinct / 8)


def test_there_is_room_for_two_sessions_at_least() -> None:
    agents = lives(SMALL, 1)
    scarce = replace(SMALL, memory=0.01)
    assert serving(scarce, agents).capacity == 2 * max(life.tokens for life in agents)


def test_knowing_the_future_finds_no_less_than_what_was_found() -> None:
    agents, played = lives(SMALL, 1), play(SMALL, POLICIES[TABLE], 1)
    found = scored(SMALL, agents, played)
    assert found.cached <= foreseen(SMALL, agents, played) <= found.ceiling + 1e-9


def test_agents_wait_for_their_tools() -> None:
    slow = replace(SMALL, slower=100.0)
    took = play(slow, POLICIES[LEAST], 1).took
    for life in lives(slow, 1):
        assert took[life.index] > sum(turn.pause for turn in life.turns[:-1])


def test_figures_are_compared_seed_by_seed() -> None:
    runs = {name: [run(SMALL, name, seed) for seed in (1, 2)] for name in (HASH, TABLE, OURS)}
    rival = sticky(runs)
    expected = [
        theirs.figures.mean / ours.figures.mean
        for theirs, ours in zip(runs[rival], runs[OURS], strict=True)
    ]
    assert speedups(runs, rival) == expected
    assert figures(runs, rival).mean <= min(figures(runs, HASH).mean, figures(runs, TABLE).mean)


def test_the_gap_that_is_closed_is_that_between_the_table_and_the_future() -> None:
    base = run(SMALL, TABLE, 1).figures

    def cached(share: float, future: float | None = None) -> list[Run]:
        return [Run(replace(base, cached=share), future)]

    assert closes({TABLE: cached(0.5, 0.9), OURS: cached(0.8)}) == pytest.approx(0.75)
    assert closes({TABLE: cached(0.9, 0.9), OURS: cached(0.8)}) is None


def test_saga_keeps_a_session_where_it_was_while_that_is_not_loaded() -> None:
    simulation, went = Simulation(POLICIES[SAGA], SERVING, 3), list[str]()

    def again(served: Served) -> None:
        went.append(served.replica)
        if len(went) < 4:
            ask = Ask("s", prompt("a", 10 + len(went)), 2)
            simulation.at(simulation.now + 0.05, lambda: simulation.ask(ask, again))

    simulation.at(0.0, lambda: simulation.ask(Ask("s", prompt("a", 10), 2), again))
    simulation.run()
    assert len(set(went)) == 1


def test_an_idle_replica_steals_what_is_queued_under_saga() -> None:
    simulation = Simulation(POLICIES[SAGA], SERVING, 2)
    policy = simulation.dispatcher.policy
    for number in range(6):
        policy._table[f"s{number}"] = "r0"  # type: ignore[attr-defined]  # as after earlier requests
        ask = Ask(f"s{number}", prompt(f"p{number}-", 20), 5)
        simulation.at(0.2, partial(simulation.ask, ask, lambda served: None))
    simulation.run()
    assert {its.replica for its in simulation.served} == {"r0", "r1"}


def written(path: Path, lines: list[dict[str, Any]]) -> Path:
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)
    return path


def test_a_trace_in_tokens_has_the_blocks_that_are_full(tmp_path: Path) -> None:
    line = {
        "id": "1",
        "t_ms": 3000,
        "input": 1100,
        "output": 0,
        "session": 4,
        "hash_ids": [7, 8, 9],
    }
    trace = read(written(tmp_path / "chat.open.jsonl.gz", [line]))
    (its,) = trace.requests
    assert (trace.name, trace.block, trace.agents) == ("chat", 512, False)
    assert (its.at, its.session, its.prompt, its.output) == (3.0, "4", Prompt((7, 8), 1100), 1)


def test_sessions_in_characters_start_at_random_and_keep_their_pauses(tmp_path: Path) -> None:
    lines = [
        {"id": f"{s}{t}", "session": s, "t_ms": 1e6 * index + 2000 * t, "input_chars": 1024 + t,
         "output_chars": 40, "hash_ids": [index, 9]}
        for index, s in enumerate("ab")
        for t in range(2)
    ]  # fmt: skip
    trace = read(written(tmp_path / "agents.jsonl.gz", lines))
    times = {s: [its.at for its in trace.requests if its.session == s] for s in "ab"}
    assert (trace.block, trace.agents) == (128, True)
    assert times["a"][1] - times["a"][0] == pytest.approx(2.0)
    assert times["b"][1] - times["b"][0] == pytest.approx(2.0)
    assert 0 < times["a"][0] < times["b"][0] < 20
    assert trace.requests[0].prompt == Prompt((0, 9), 256)
    assert trace.requests[0].output == 10


def chat(path: Path) -> Any:
    return read(
        written(
            path / "t.jsonl.gz",
            [
                {"id": f"{n}", "t_ms": 100 * n, "input": 512 * (2 + n // 8) + 1, "output": 60,
                 "session": n % 8, "hash_ids": [n % 8, 10 + n % 8, 20 + n % 8, 30 + n % 8]}
                for n in range(24)
            ],
        )
    )  # fmt: skip


def test_nobody_goes_on_before_being_answered(tmp_path: Path) -> None:
    simulation = send(chat(tmp_path), Fleet(2, 1.0), POLICIES[LEAST], 1e-3)
    talks: dict[str, list[Served]] = {}
    for its in sorted(simulation.served, key=lambda its: its.arrived):
        talks.setdefault(its.ask.session, []).append(its)
    assert {len(talk) for talk in talks.values()} == {3}
    for talk in talks.values():
        for its, after in pairwise(talk):
            assert after.arrived >= its.finished


def test_the_pace_is_what_the_fleet_can_do(tmp_path: Path) -> None:
    trace, fleet = chat(tmp_path), Fleet(2, 1.0)
    half, full = pace(trace, fleet, 0.5), pace(trace, fleet, 1.0)
    assert half == pytest.approx(2 * full)
    ends = send(trace, fleet, POLICIES[LEAST], half).now
    assert ends >= half * (trace.requests[-1].at - trace.requests[0].at)


def served(tenant: str, arrived: float, sent: float, finished: float, tokens: int) -> Served:
    ask = Ask("s", Prompt((), tokens), 0, tenant=tenant)
    return Served(ask, arrived, "r0", "new", sent, sent, finished)


def test_a_tenant_is_ahead_only_while_another_waits() -> None:
    waits = [served("b", 0.0, 10.0, 11.0, 5)]
    alone = [served("a", 20.0, 21.0, 22.0, 1000)]
    beside = [served("a", 0.0, t, t + 0.5, 100) for t in (1.0, 2.0, 3.0, 10.0)]
    assert _ahead([*waits, *alone], "a", "b") == 0.0
    assert _ahead([*waits, *beside], "a", "b") == 300.0
    assert _ahead([*waits, *beside], "b", "a") == 300.0


def test_what_a_tenant_got_another_time_does_not_count() -> None:
    first = [served("b", 0.0, 5.0, 5.5, 5), served("a", 0.0, 4.0, 3.0, 100)]
    later = [served("b", 10.0, 15.0, 15.5, 5), served("a", 10.0, 14.0, 13.0, 100)]
    assert _ahead([*first, *later], "a", "b") == 100.0


def test_the_pool_does_what_the_simulator_says() -> None:
    simulated, real = agreement(OURS, replace(SMALL, agents=8))
    assert simulated.seconds == pytest.approx(real.seconds, rel=0.1)
    assert simulated.prompts == pytest.approx(real.prompts, rel=0.01)
    assert simulated.cached == pytest.approx(real.cached, abs=0.05)
