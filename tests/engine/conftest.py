"""An engine per test, on virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from agentflow import Engine
from agentflow.testing import VirtualLoop


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, object]]:
    """Virtual time."""
    return ("asyncio", {"loop_factory": VirtualLoop})


@pytest.fixture
async def engine() -> AsyncIterator[Engine]:
    """An engine that leaves nothing behind."""
    async with Engine(seed=7) as made:
        yield made
    left = [task for task in asyncio.all_tasks() if "TestRunner" not in repr(task.get_coro())]
    assert not left, "tasks were left behind"
    assert made.services.abandoned == []
