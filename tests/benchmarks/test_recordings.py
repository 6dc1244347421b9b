"""Recorded sessions give the same answers, whatever is switched on (``--sessions FILE``)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from replay import Stage, kinds_of
from rivals import Random
from sessions import Session, read, timed

from agentflow import Engine, Speculation
from agentflow.testing import run_virtual

SESSIONS = 100

WITHOUT = {"cache": False}
SWITCHES: dict[str, dict[str, Any]] = {
    "cache": {},
    "guesses": {"speculation": True},
    "eager guesses": {"speculation": Speculation(load_price=0.0, depth=3, breadth=16)},
    "random guesses": {"speculation": Speculation(source=Random(), wait_price=1.0)},
}


@pytest.fixture(scope="module")
def sessions(request: pytest.FixtureRequest) -> list[Session]:
    """About a hundred recorded sessions, of all domains."""
    file = request.config.getoption("--sessions")
    if file is None:
        pytest.skip("no recorded sessions: give --sessions FILE")
    every = timed(read(Path(file)))
    return every[:: max(1, len(every) // SESSIONS)]


def answers(sessions: Sequence[Session], *, deceitful: bool = False, **options: Any) -> list[Any]:
    """What the committed calls of each session gave, in the order of the program."""

    async def main() -> list[Any]:
        stage = Stage(kinds_of(sessions), deceitful=deceitful)
        async with Engine(tools=stage.tools.values(), seed=7, **options) as engine:
            return [await stage.play(engine, session) for session in sessions]

    return [
        [(answer.call, answer.failed, answer.text) for answer in replay.answers]
        for replay in run_virtual(main())
    ]


@pytest.fixture(scope="module")
def plain(sessions: list[Session]) -> list[Any]:
    """The answers with nothing switched on."""
    return answers(sessions, **WITHOUT)


@pytest.mark.parametrize("switched", SWITCHES)
def test_recorded_sessions_give_the_same_answers(
    sessions: list[Session], plain: list[Any], switched: str
) -> None:
    assert answers(sessions, **SWITCHES[switched]) == plain


def test_they_would_not_if_writes_did_not_say_what_they_write(
    sessions: list[Session], plain: list[Any]
) -> None:
    assert answers(sessions, deceitful=True, speculation=True) != plain
