"""The script that runs programs, told what to do by hand."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from agentflow.tools.builtin import runner

RUNNER = str(Path(runner.__file__))


def told(commands: bytes, folder: Path, descriptor: int | None = None) -> tuple[bytes, int, bytes]:
    """What a runner prints, its exit code and its answer."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        if descriptor is None:
            descriptor = theirs.fileno()
        else:
            os.dup2(theirs.fileno(), descriptor)
        process = subprocess.Popen(
            [sys.executable, "-I", RUNNER, str(descriptor)],
            cwd=folder,
            pass_fds=[descriptor],
            stdout=subprocess.PIPE,
        )
        if descriptor != theirs.fileno():
            os.close(descriptor)
        theirs.close()
        ours.sendall(commands)
        ours.shutdown(socket.SHUT_WR)
        output, _ = process.communicate()
        return output, process.returncode, ours.recv(10)


def test_a_program_is_announced_and_run(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text("import json\nprint(json.dumps(1))")

    assert told(b"import json dumps\nprogram\n", tmp_path) == (b"1\n", 0, b"!")


def test_statements_are_run_until_there_are_no_more(tmp_path: Path) -> None:
    commands = b"opening 1 6\nx = 1\nstatement 2 10\nprint(x)\n\nend\n"

    assert told(commands, tmp_path) == (b"1\n", 0, b"")
    assert (tmp_path / "main.py").read_text() == "x = 1\nprint(x)\n\n"


@pytest.mark.parametrize("commands", [b"", b"import json\n", b"opening 1 9\nprint(1)\n"])
def test_without_anybody_who_gives_commands_it_ends(tmp_path: Path, commands: bytes) -> None:
    assert told(commands, tmp_path)[1:] == (1, b"")


def test_its_commands_may_come_on_the_descriptor_that_it_keeps_them_on(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(63)  # ours to use

    assert told(b"opening 1 9\nprint(1)\nend\n", tmp_path, 63) == (b"1\n", 0, b"")
