"""A replay whose run ends with what JSON has no form for."""

from __future__ import annotations

from typing import Any

import pytest

from agentflow import workflow
from agentflow.errors import RunFailed
from agentflow.testing import ReplayDiffers, replay
from tests.durable.conftest import Desk
from tests.durable.programs import Programs
from tests.durable.test_replay import recorded


class Thing:
    """Its `repr` has its type and its address."""


class Other:
    """Another type."""


kept: list[object] = []  # so that no two have one address


def made(kind: type) -> Any:
    kept.append(kind())
    return kept[-1]


@pytest.mark.parametrize("shape", [made, lambda kind: {"found": [made(kind), 1]}])
def test_an_object_is_the_same_if_its_type_is(desk: Desk, shape: Any) -> None:
    programs, path = Programs(desk.made, desk.ended), desk.path()
    kind: type = Thing

    @workflow
    async def flow() -> Any:
        await programs.double(2)
        return shape(kind)

    desk.run(flow, path=path)
    assert replay(recorded(path), flow).whole

    kind = Other
    with pytest.raises(ReplayDiffers, match="end 1 is not as it was") as caught:
        replay(recorded(path), flow)
    assert "Thing object at 0x..." in caught.value.then and "Other object" in caught.value.now


def test_a_failure_that_names_an_object_is_the_same_if_its_type_is(desk: Desk) -> None:
    programs, path = Programs(desk.made, desk.ended), desk.path()
    kind: type = Thing

    @workflow
    async def flow() -> Any:
        await programs.double(2)
        raise ValueError(made(kind))

    with pytest.raises(RunFailed):
        desk.run(flow, path=path)
    assert replay(recorded(path), flow).whole

    kind = Other
    with pytest.raises(ReplayDiffers, match="Other object"):
        replay(recorded(path), flow)


def test_numbers_that_only_look_like_addresses_are_compared(desk: Desk) -> None:
    programs, path, number = Programs(desk.made, desk.ended), desk.path(), 31

    @workflow
    async def flow() -> str:
        await programs.double(2)
        return hex(number)

    desk.run(flow, path=path)
    assert replay(recorded(path), flow).whole
    number = 32
    with pytest.raises(ReplayDiffers, match="0x1f"):
        replay(recorded(path), flow)
