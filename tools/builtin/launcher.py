"""Starts one program under limits, and sees to it that nothing of it stays behind.

Run as a script by `agentflow.tools.builtin.python`; it imports nothing of ours::

    python -I -S launcher.py RLIMIT_CPU=10 RLIMIT_AS=536870912 -- python -I main.py

Standard input is a lifeline: at its end, or when the program ends, every descendant is killed,
those in sessions of their own too (on Linux, where orphans come back to the launcher). So the
death of whoever started the launcher is the program's death as well. (On Linux it is also noticed
by itself.)
"""

from __future__ import annotations

import contextlib
import os
import resource
import select
import signal
import sys
from collections.abc import Iterator, Sequence

_SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER
_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG
_SPARE_PROCESSES = 64


def main(arguments: Sequence[str]) -> int:
    """Run the program; its exit code, or 128 and the number of the signal that ended it."""
    split = arguments.index("--")
    limits, command = arguments[:split], arguments[split + 1 :]
    _control(_SUBREAPER, 1)
    ended, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    pid = os.fork()
    if pid == 0:
        _become(command, limits)
    _silence(1, 2)
    status = _wait(pid, ended)
    _kill_all(pid)
    return os.waitstatus_to_exitcode(status) if status is not None else -signal.SIGKILL


def _become(command: Sequence[str], limits: Sequence[str]) -> None:
    """Turn this process into the program."""
    try:
        os.setsid()
        _control(_DEATH_SIGNAL, signal.SIGKILL)
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        _silence(0)
        for limit in limits:
            name, _, value = limit.partition("=")
            _limit(getattr(resource, name), int(value))
        if sys.platform == "linux" and os.getuid() != 0:  # the limit does not bind root
            _limit(resource.RLIMIT_NPROC, _tasks_of_user() + _SPARE_PROCESSES)
        os.execv(command[0], list(command))
    finally:
        os._exit(127)


def _limit(kind: int, value: int) -> None:
    _, hard = resource.getrlimit(kind)
    wanted = value if hard == resource.RLIM_INFINITY else min(value, hard)
    with contextlib.suppress(ValueError, OSError):  # macOS refuses some
        resource.setrlimit(kind, (wanted, wanted))


def _wait(pid: int, ended: int) -> int | None:
    """Wait for the program, or the end of the lifeline; the program's status if it ended."""
    starter = _starter()
    while True:
        readable, _, _ = select.select([0, ended, *starter], [], [])
        if ended in readable:
            os.read(ended, 512)
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return status
        if set(starter) & set(readable) or (0 in readable and not os.read(0, 512)):
            return None


def _starter() -> list[int]:
    """What can be read once whoever started us has died; empty where there is no such thing.

    The lifeline alone does not say: a process that it has forked may hold it, too.
    """
    with contextlib.suppress(AttributeError, OSError):  # before Linux 5.3, or forbidden
        return [os.pidfd_open(os.getppid())]
    return []


def _kill_all(pid: int) -> None:
    """Kill the program's group, then whatever has become a child of ours, until there is none."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):
        while True:
            for child in _children():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child, signal.SIGKILL)
            os.waitpid(-1, 0)


def _children() -> Iterator[int]:
    """Processes whose parent we are; none where there is no /proc."""
    own = str(os.getpid())
    for name in _numbers("/proc"):
        with contextlib.suppress(OSError), open(f"/proc/{name}/stat", "rb") as file:
            # The name in brackets may hold anything; state and parent follow the last one.
            fields = file.read().rpartition(b")")[2].split()
            if fields[1].decode() == own:
                yield int(name)


def _tasks_of_user() -> int:
    """Threads of all processes of this user, which is what RLIMIT_NPROC counts."""
    count = 0
    for name in _numbers("/proc"):
        with contextlib.suppress(OSError):
            if os.stat(f"/proc/{name}").st_uid == os.getuid():
                count += len(os.listdir(f"/proc/{name}/task"))
    return count


def _numbers(folder: str) -> list[str]:
    with contextlib.suppress(OSError):
        return [name for name in os.listdir(folder) if name.isdigit()]
    return []


def _silence(*descriptors: int) -> None:
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in descriptors:
        os.dup2(null, descriptor)
    os.close(null)


def _control(option: int, value: int) -> None:
    """``prctl``, which Python does not have; other systems do without."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


if __name__ == "__main__":
    code = main(sys.argv[1:])
    os._exit(code if code >= 0 else 128 - code)
