"""The entry point: which command, and what becomes of its errors."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib import import_module
from typing import Any

from agentflow.cli import codes
from agentflow.cli.parser import parse
from agentflow.cli.streams import redacting

_MODULES = {
    "run": "run",
    "runs": "runs",
    "explain": "explain",
    "resume": "resume",
    "approve": "approve",
    "deny": "approve",
    "replay": "replay",
    "plan": "plan",
    "tools": "list_tools",
    "cache": "cache",
    "estimates": "estimates",
    "doctor": "doctor",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: The words after the program's name; those of the process by default.

    Returns:
        The exit code; see `agentflow.cli.codes`.

    Raises:
        SystemExit: The words are not understood, or ask for help or the version.
    """
    options = parse(argv)
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, ValueError):
            stream.reconfigure(errors="replace")  # type: ignore[union-attr]  # real files have it
    with redacting():
        return _run(options)


def _run(options: Any) -> int:
    from agentflow.cli import logs
    from agentflow.cli.screen import Screen

    screen = Screen(sys.stderr, quiet=getattr(options, "quiet", False))
    try:
        logs.set_up(options, screen)
        code = _command(options.command)(options, screen)
        sys.stdout.flush()
    except BrokenPipeError:
        _leave_quietly()
        return codes.BROKEN_PIPE
    except KeyboardInterrupt:
        print("agentflow: interrupted", file=sys.stderr)
        return codes.INTERRUPTED
    except Exception as error:  # noqa: BLE001  # a person reads it, not a traceback
        return _report(error, options)
    return code


def _command(name: str) -> Callable[[Any, Any], int]:
    command: Callable[[Any, Any], int] = import_module(f"agentflow.cli.{_MODULES[name]}").command
    return command


def _report(error: Exception, options: Any) -> int:
    """Say what went wrong and what to do, in one paragraph."""
    from agentflow.cli.failures import explained, failure_json
    from agentflow.cli.output import print_json
    from agentflow.cli.screen import clean

    if options.debug:
        import traceback

        traceback.print_exception(error)
    print(clean(f"agentflow {options.command}: {explained(error)}"), file=sys.stderr)
    code = codes.code_of(error)
    if getattr(options, "json", False):
        print_json(failure_json(error, code))
    return code


def _leave_quietly() -> None:
    """Nobody reads the output any more: what is still buffered goes nowhere."""
    with suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
