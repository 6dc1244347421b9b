"""`python`: run a program in a process of its own, under limits.

The process starts when a model names the tool, and gets ready while the program is written:
see `python_tool`. All of it stops accidents. It is no sandbox: the program can read what
this user can read, and reach the network.
"""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from agentflow.clock import now, seconds
from agentflow.errors import DefinitionError
from agentflow.tools.builtin.python_imports import OpeningImports, is_future_import
from agentflow.tools.builtin.python_process import GRACE, Limits, Process, process
from agentflow.tools.builtin.statements import Statement, Statements
from agentflow.tools.effects import SAMPLES, UNDECLARED
from agentflow.tools.policy import DEFAULT
from agentflow.tools.streaming import Commit, Stream, TextStream
from agentflow.tools.tool import Tool


@dataclass(frozen=True, slots=True)
class PythonResult:
    """How a program ended.

    Attributes:
        stdout: What it printed, cut at the limit.
        stderr: What it reported, cut at the limit; a traceback is here.
        exit_code: 0 is success; 128 and a signal's number if one ended it (137 is killed).
        truncated: Whether it was stopped because it wrote too much.
        timed_out: Whether it was stopped because it took too long.
    """

    stdout: str
    stderr: str
    exit_code: int
    truncated: bool = False
    timed_out: bool = False


def python_tool(
    *,
    timeout: float | str = "10s",
    memory: int = 2**30,
    max_output: int = 64 * 2**10,
    max_file: int = 64 * 2**20,
    isolated: bool = False,
) -> Tool[..., Any]:
    """The `python` tool; a toolbox has it only if it is put there.

    The program runs when its call is certain. The imports it begins with are made before, in
    the process that waits for it, unless that could be noticed.

    Args:
        timeout: Seconds (or ``"10s"``) a program may run, once its call is certain.
        memory: Bytes of address space of each of its processes (not enforced on macOS).
        max_output: Bytes kept of each of stdout and stderr; a program that writes more is stopped.
        max_file: Bytes of each file it may write.
        isolated: Each statement at top level runs as soon as it is written, as in an interactive
            session, also if the call is given up later. Whoever asks for it declares that
            what programs do outside of their folder does not matter.

    Raises:
        DefinitionError: The system has no process limits, or Python's path is not known.
    """
    if os.name != "posix" or not sys.executable:
        raise DefinitionError("the python tool needs a POSIX system and sys.executable")
    limits = Limits(seconds(timeout), memory, max_output, max_file)
    run = run_statements if isolated else run_program

    async def python(code: Stream[str], *, commit: Commit) -> PythonResult:
        """Run a Python program in a fresh folder; only what it prints is given back."""
        return await run(code, commit, limits)

    return Tool(
        python,
        effect=SAMPLES if isolated else UNDECLARED,
        policy=DEFAULT.revised(timeout=limits.timeout + 2 * GRACE),
    )


async def run_program(code: TextStream, commit: Commit, limits: Limits) -> PythonResult:
    """Run a program once it is committed; nothing of it is left, however this ends."""
    async with process(limits) as waiting:
        await _import_early(waiting, code)
        program = await code.whole()
        await commit()
        deadline = now() + limits.timeout
        waiting.run(program)
        await waiting.wait(deadline)
    if waiting.has_begun or waiting.timed_out:
        return _result(waiting)
    async with process(limits) as fresh:
        fresh.run(program)
        await fresh.wait(deadline)
    return _result(fresh)


async def run_statements(code: TextStream, commit: Commit, limits: Limits) -> PythonResult:
    """Run a program statement by statement; nothing of it is left, however this ends."""
    async with process(limits) as running:
        async for statement in _statements(code):
            opening = statement.line == 1 or is_future_import(statement)
            running.run_statement(statement.text, statement.line, opening=opening)
        running.end_statements()
        await commit()
        await running.wait(now() + limits.timeout)
    return _result(running)


async def _statements(code: TextStream) -> AsyncIterator[Statement]:
    statements = Statements()
    async for piece in code:
        for statement in statements.feed(piece):
            yield statement
    for statement in statements.finish():
        yield statement


async def _import_early(waiting: Process, code: TextStream) -> None:
    """Have the imports that a program begins with made while the rest of it is written.

    The last piece that came is not looked at: nothing is left to hide its imports behind.
    """
    imports, last = OpeningImports(), ""
    async for piece in code:
        for module, names in imports.feed(last):
            waiting.import_early(module, names)
        last = piece


def _result(ended: Process) -> PythonResult:
    return PythonResult(
        stdout=ended.stdout,
        stderr=ended.stderr,
        exit_code=ended.exit_code,
        truncated=ended.truncated,
        timed_out=ended.timed_out,
    )
