"""Recorded sessions through the engine: the environment, the sources, and what is counted."""

from __future__ import annotations

import math

import pytest
from replay import LATENCY_MS, Replay, Stage, ToolFailed, World, kinds_of, latency
from rivals import Frozen, Markov, Oracle, Random
from scoring import calibration_error, score, teach
from sessions import Call, Outside, Said, Session, Turn
from tally import Figures, Tally, ceiling

from agentflow import Engine, Speculation
from agentflow.caches.speculation.trail import Trail

pytestmark = pytest.mark.virtual


def look(result: str, *, failed: bool = False, **arguments: object) -> Call:
    return Call("look", "read", arguments, result, failed)


def write(result: str = "done") -> Call:
    return Call("write", "write", {}, result, False)


def session(*steps: Turn | Said | Outside, name: str = "s") -> Session:
    return Session(name, "shop", name, (Said("look at 7", 0.0), *steps))


def turns(*calls: Call) -> list[Turn]:
    return [Turn("", 10_000.0, (call,)) for call in calls]


CHANGING = session(*turns(look("old", id=7), look("old", id=7), write(), look("new", id=7)))


async def played(
    it: Session, *, deceitful: bool = False, oracle: bool = False, cache: bool = True
) -> tuple[Replay, Tally]:
    stage, tally = Stage(kinds_of([it]), deceitful=deceitful), Tally()
    source = Oracle(stage.next_reply, stage.ready)
    async with Engine(
        tools=stage.tools.values(),
        cache=cache,
        speculation=oracle and Speculation(source=source),
        subscribers=[tally.hear],
    ) as engine:
        replay = await stage.play(engine, it)
    tally.note(replay)
    return replay, tally


def texts(replay: Replay) -> list[str]:
    return [answer.text for answer in replay.answers]


async def test_the_environment_answers_as_recorded_at_its_version() -> None:
    world = World(CHANGING)
    assert await world.perform("look", "read", {"id": 7}) == "old"
    await world.perform("write", "write", {})
    assert await world.perform("look", "read", {"id": 7}) == "new"


async def test_what_was_not_recorded_at_a_version_is_never_equal_to_what_was() -> None:
    world = World(CHANGING)
    world.version = 5
    assert await world.perform("look", "read", {"id": 7}) not in ("old", "new")
    assert "null" in await world.perform("look", "read", {"id": 8})


async def test_a_fault_passes_when_it_did() -> None:
    world = World(session(*turns(look("503", failed=True, id=7), look("old", id=7))))
    with pytest.raises(ToolFailed, match="503"):
        await world.perform("look", "read", {"id": 7})
    world.step = 2
    assert await world.perform("look", "read", {"id": 7}) == "old"


async def test_a_cache_and_an_oracle_change_no_answer() -> None:
    base, _ = await played(CHANGING, cache=False)
    for oracle in (False, True):
        replay, _ = await played(CHANGING, oracle=oracle)
        assert texts(replay) == texts(base) == ["old", "old", "done", "new"]


async def test_a_write_that_does_not_say_what_it_writes_shows() -> None:
    replay, _ = await played(CHANGING, deceitful=True)
    assert texts(replay) == ["old", "old", "done", "old"]


async def test_changes_by_others_count_as_writes() -> None:
    it = session(*turns(look("old", id=7)), Outside(), *turns(look("new", id=7)))
    assert texts((await played(it, oracle=True))[0]) == ["old", "new"]
    assert texts((await played(it, deceitful=True))[0]) == ["old", "old"]


def test_an_oracle_looks_no_further_than_the_next_write() -> None:
    coming = [look("old", id=7), look("old", id=8), write(), look("new", id=7)]
    oracle = Oracle(lambda: coming, lambda: True)
    assert [c.arguments["id"] for c in oracle.candidates(Trail(), 8)] == [7, 8]
    assert [c.arguments["id"] for c in oracle.candidates(Trail(), 1)] == [7]
    assert not Oracle(lambda: coming, lambda: False).candidates(Trail(), 8)


async def test_an_oracle_answers_every_read_without_waiting_if_the_model_is_slow() -> None:
    base = (await played(CHANGING, cache=False))[1]
    _, tally = await played(CHANGING, oracle=True)
    figures = Figures(tally, base, tally)
    assert (tally.reads, tally.at_once, tally.started, tally.used, tally.wasted) == (3, 3, 2, 2, 0)
    assert figures.removed == 1.0
    assert figures.faster == pytest.approx(ceiling(base))
    assert figures.differences == 0


async def test_a_read_after_a_write_of_its_reply_waits_only_its_own_time() -> None:
    it = session(Turn("", 1.0, (look("old", id=7), write(), look("new", id=7))))
    replay, tally = await played(it, cache=False)
    assert texts(replay) == ["old", "done", "new"]
    assert tally.wait == pytest.approx(tally.elapsed)


def test_latencies_have_the_declared_median_and_95th_percentile() -> None:
    drawn = sorted(latency("web", n) * 1e3 for n in range(20_000))
    for share, declared in zip((0.5, 0.95), LATENCY_MS["web"], strict=True):
        assert math.isclose(drawn[int(share * len(drawn))], declared, rel_tol=0.05)


def test_markov_copies_arguments_from_where_they_came_from() -> None:
    source = Markov()
    learnt = [
        Session(f"{n}", "shop", f"{n}", (Said(f"look at {n}", 0.0), *turns(look("x", id=str(n)))))
        for n in range(1, 9)
    ]
    teach(source, learnt)
    words = (Said("look at 0", 0.0), Turn("Sure?", 1.0, ()), Said("no, at 9", 0.0))
    asked = Session("s", "shop", "s", (*words, *turns(look("x", id="9"))))
    found = score(Frozen(source), [asked])
    assert found.before_call.as_dict() == {"calls": 1, "top1": 1.0, "top3": 1.0}


def test_random_fills_tools_it_has_seen_with_values_that_are_there() -> None:
    source = Random(seed=1)
    teach(source, [Session("s", "shop", "s", (Said("see 7", 0.0), *turns(look("x", id="7"))))])
    trail = Trail()
    trail.said("see 8 or 9")
    drawn = source.candidates(trail, 16)
    assert {candidate.tool for candidate in drawn} == {"look"}
    assert {candidate.arguments["id"] for candidate in drawn} == {"8", "9"}


def test_calibration_error_is_the_gap_between_what_was_said_and_what_came() -> None:
    honest = [(0.9, n % 10 > 0) for n in range(100)] + [(0.1, n % 10 == 0) for n in range(100)]
    assert calibration_error(honest) == pytest.approx(0.0)
    assert calibration_error([(0.9, False)] * 100) == pytest.approx(0.9)
    assert calibration_error([]) == 0.0
