"""An answer that breaks off is written once, or from its start where it comes differently."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import pytest

from agentflow.testing import Fault, ScriptedServer

Cli: TypeAlias = Callable[..., Any]
Serve: TypeAlias = Callable[..., ScriptedServer]

BROKEN = Fault.unfinished("It is forty", after=4)


@pytest.mark.parametrize(
    ("again", "out"),
    [
        ("It is forty two.", "It is forty two.\n"),
        ("It may be 42.", "It is forty\nIt may be 42.\n"),
    ],
    ids=["repeated", "different"],
)
def test_what_is_written_of_an_answer_that_broke_off(
    cli: Cli, serve: Serve, again: str, out: str
) -> None:
    url = serve([BROKEN, again]).base_url

    done = cli("run", "What is it?", "--base-url", url, "--strategy", "react", "-q")

    assert (done.code, done.out, done.err) == (0, out, "")
