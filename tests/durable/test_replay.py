"""A recorded run is run again without calling anything: same plan, same order, same results."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agentflow import tool, workflow
from agentflow.errors import RunFailed
from agentflow.executor.journal.portable import RecordedRun, export, load
from agentflow.executor.journal.store import JournalStore
from agentflow.testing import ReplayDiffers, replay
from tests.durable.conftest import Desk, rows
from tests.durable.programs import Programs
from tests.durable.test_every_cut import NAMES
from tests.durable.test_tasks_cut import run as run_task


def recorded(path: Path) -> RecordedRun:
    """The newest run of a journal, as it is exported."""
    store, file = JournalStore(path), path.with_suffix(".jsonl")
    with file.open("w") as out:
        export(store, rows(path)[0].id, out)
    store.close()
    return load(file)


@pytest.mark.parametrize("name", NAMES)
def test_a_workflow_does_again_what_it_did(desk: Desk, name: str) -> None:
    program, path = Programs(desk.made, desk.ended).all()[name], desk.path()
    desk.run(program, path=path)
    desk.made.clear()

    seen = replay(recorded(path), program)

    assert seen.whole and seen.commits and desk.made == []


@pytest.mark.parametrize("name", NAMES)
def test_a_run_that_went_on_is_replayed_as_one(desk: Desk, name: str) -> None:
    program, path = Programs(desk.made, desk.ended).all()[name], desk.path()
    desk.run(program, path=path)
    whole = recorded(path)
    for count in range(3, len(whole.records), 5):
        cut = desk.cut(path, count)
        desk.resume(program, path=cut, in_doubt="retry")
        assert replay(recorded(cut), program).whole, f"after {count} records"


@pytest.mark.parametrize("strategy", ["react", "plan"])
def test_a_task_does_again_what_it_did(desk: Desk, strategy: Any) -> None:
    path, programs = desk.path(), Programs(desk.made, desk.ended)
    run_task(desk, strategy, path, [])
    desk.made.clear()

    tools: list[Any] = [programs.double, programs.look, programs.note, programs.put]
    seen = replay(recorded(path), tools=tools)

    assert seen.whole and len(seen.calls) == 4 and desk.made == []


def test_what_broke_off_is_followed_as_far_as_it_is_recorded(desk: Desk) -> None:
    program, path = Programs(desk.made, desk.ended).chain(), desk.path()
    desk.run(program, path=path)
    whole = recorded(path)
    half = replace(whole, records=whole.records[: len(whole.records) // 2])

    seen = replay(half, program)

    assert not seen.whole and 0 < len(seen.commits) < len(replay(whole, program).commits)


def test_another_call_is_named(desk: Desk) -> None:
    programs, path = Programs(desk.made, desk.ended), desk.path()
    desk.run(programs.chain(), path=path)

    @workflow
    async def chain() -> None:
        await programs.double(2)
        await programs.note("else")

    with pytest.raises(ReplayDiffers, match=r"(?s)look\(\"pearpear.*else"):
        replay(recorded(path), chain)


def test_another_value_is_named(desk: Desk) -> None:
    programs, path = Programs(desk.made, desk.ended), desk.path()
    desk.run(programs.chain(), path=path)

    @workflow
    async def chain() -> Any:
        n = await programs.double(2)
        item = await programs.look("pear" * n)
        await programs.put(item.name, item.count)
        await programs.note(f"{item.count}")
        await programs.note(f"{item.count}")
        await programs.large(3000)
        return "another"

    with pytest.raises(ReplayDiffers, match="another") as caught:
        replay(recorded(path), chain)
    assert json.loads(caught.value.now.removeprefix("value ")) == "another"


def test_nothing_is_called_for_what_was_not_kept(desk: Desk) -> None:
    @tool(writes="shop", idempotent=True)
    async def odd():  # type: ignore[no-untyped-def]  # it declares no result
        desk.made.append("odd")
        return 1, 2

    @workflow
    async def flow() -> int:
        return len(await odd())

    path = desk.path()
    desk.run(flow, path=path)
    desk.made.clear()

    assert not replay(recorded(path), flow).whole
    assert desk.made == []


def test_a_run_that_was_mended_is_followed_as_far_as_it_can_be(desk: Desk) -> None:
    programs, path, broken = Programs(desk.made, desk.ended), desk.path(), [True]

    @tool(reads="shop")
    async def shaky() -> str:
        if broken:
            raise ConnectionError(broken.pop())
        return "well"

    @workflow
    async def flow() -> list[Any]:
        return [await programs.double(1), await shaky(), await programs.double(2)]

    with pytest.raises(RunFailed):
        desk.run(flow, path=path)
    assert desk.resume(flow, path=path) == [2, "well", 4]
    seen = replay(recorded(path), flow)
    assert not seen.whole and seen.commits
