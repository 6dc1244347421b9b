"""Where mechanisms meet: on virtual time, with the laboratories of the mechanisms themselves."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from agentflow.testing import VirtualLoop

ROOT = str(Path(__file__).parents[2])

if ROOT not in sys.path:  # the laboratories stand beside the tests of one mechanism
    sys.path.append(ROOT)


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, object]]:
    """Virtual time."""
    return ("asyncio", {"loop_factory": VirtualLoop})


@pytest.fixture
def pen() -> Any:
    """What replies are written with that come piece by piece."""
    from tests.partial.conftest import Pen

    return Pen


@pytest.fixture
async def writing() -> AsyncIterator[Any]:
    """A model that writes at the pace of a script; nothing of any call may be left in the end."""
    from tests.partial.conftest import Lab

    made = Lab()
    yield made
    await made.aclose()


@pytest.fixture
async def guessing() -> AsyncIterator[Any]:
    """An engine that speculates as a script says, whose books are audited in the end."""
    from tests.engine.speculation.conftest import Lab

    made = Lab()
    yield made
    await made.aclose()


@pytest.fixture
def maybe() -> Any:
    """A call that may come."""
    from tests.engine.speculation.conftest import _maybe

    return _maybe
