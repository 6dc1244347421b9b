"""Gates, scripted callables and timelines."""

from __future__ import annotations

import asyncio

import pytest

from agentflow.clock import now
from agentflow.testing import Gate, Scripted, Timeline

pytestmark = pytest.mark.virtual


async def test_a_gate_tells_who_came_and_lets_them_through_when_released() -> None:
    gate = Gate()
    task = asyncio.create_task(gate.wait())
    await gate.entered.wait()
    assert not task.done()
    gate.release.set()
    await task


async def test_a_script_raises_pauses_and_answers_in_order() -> None:
    call: Scripted[str] = Scripted(OSError("reset"), 30.0, "ok")
    with pytest.raises(OSError, match="reset"):
        await call("a")
    assert await call("b", k=1) == "ok"
    assert now() == 30.0
    assert [(c.args, c.kwargs, c.at) for c in call.calls] == [
        (("a",), {}, 0.0),
        (("b",), {"k": 1}, 0.0),
    ]


async def test_a_script_that_is_used_up_says_so() -> None:
    call: Scripted[str] = Scripted("only")
    await call()
    with pytest.raises(AssertionError, match="call number 2"):
        await call()


async def test_a_timeline_notes_spans_however_they_end() -> None:
    timeline = Timeline()
    with pytest.raises(ValueError), timeline.span("fetch"):
        await asyncio.sleep(2)
        raise ValueError
    assert timeline.notes == [(0.0, "fetch started"), (2.0, "fetch ended")]
    assert timeline.at("fetch ended") == 2.0
    with pytest.raises(KeyError, match="'parse' was never noted"):
        timeline.at("parse")
