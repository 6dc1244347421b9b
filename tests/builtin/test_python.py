"""The `python` tool: what a program is given, and that nothing of it stays."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agentflow.errors import DefinitionError
from agentflow.tools.builtin import python_tool
from agentflow.tools.builtin.python import PythonResult

FOREVER = "import signal; signal.pause()"


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where the folders of programs are made; none may be left."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    assert list(folder.iterdir()) == []


async def run(code: str, **limits: Any) -> PythonResult:
    result: PythonResult = await python_tool(**limits)(code)
    return result


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def test_what_a_program_prints_is_given_back() -> None:
    result = await run("import sys\nprint('out ü')\nprint('err', file=sys.stderr)")

    assert result == PythonResult("out ü\n", "err\n", exit_code=0)


@pytest.mark.parametrize(
    ("code", "exit_code", "stderr"),
    [
        ("import sys; sys.exit(3)", 3, ""),
        ("1 / 0", 1, "ZeroDivisionError"),
        ("print(", 1, "SyntaxError"),
        ("\0", 1, "null bytes"),
        ("'\ud800'", 1, "can't decode"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGTERM)", 143, ""),
        ("import os; os.abort()", 134, ""),
    ],
)
async def test_how_it_ended_is_told(code: str, exit_code: int, stderr: str) -> None:
    result = await run(code)

    assert result.exit_code == exit_code
    assert stderr in result.stderr


async def test_it_gets_nothing_of_ours(monkeypatch: pytest.MonkeyPatch, temporary: Path) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "hidden")
    monkeypatch.setenv("PYTHONPATH", "hidden")

    result = await run(
        "import os, sys\n"
        "print(sorted(os.environ))\n"
        "print(os.listdir(), os.getcwd(), repr(sys.stdin.read()))\n"
        "print(sorted(int(fd) for fd in os.listdir('/dev/fd'))[:4], os.getsid(0) == os.getpid())"
    )

    names, place, descriptors = result.stdout.splitlines()
    assert set(names.strip("[]").replace("'", "").split(", ")) <= {
        *("HOME", "LANG", "LC_CTYPE", "PATH", "TMPDIR", "__CF_USER_TEXT_ENCODING")
    }
    assert place.startswith("['main.py']") and str(temporary) in place and place.endswith("''")
    assert descriptors == "[0, 1, 2, 3] True"  # 3 is the listing itself


async def test_programs_do_not_see_each_other() -> None:
    code = "import os; print(os.listdir()); open('left', 'w').write('x')"

    first, second = await asyncio.gather(run(code), run(code))

    assert first.stdout == second.stdout == "['main.py']\n"


async def test_a_program_that_runs_too_long_is_stopped() -> None:
    result = await run(f"print('so far')\n{FOREVER}", timeout=1)

    assert result == PythonResult("so far\n", "", 137, truncated=False, timed_out=True)


async def test_a_flood_of_output_is_stopped_at_the_limit() -> None:
    result = await run("while True: print('x' * 1000)", max_output=5000)

    assert (len(result.stdout), result.truncated, result.timed_out) == (5000, True, False)


async def test_output_of_exactly_the_limit_is_whole() -> None:
    result = await run("import sys; sys.stderr.write('x' * 5000)", max_output=5000)

    assert (len(result.stderr), result.truncated, result.exit_code) == (5000, False, 0)


@pytest.mark.skipif(sys.platform != "linux", reason="macOS does not limit address space")
async def test_memory_is_limited() -> None:
    result = await run("x = bytearray(10 ** 9)", memory=2**28)

    assert (result.exit_code, "MemoryError" in result.stderr) == (1, True)


async def test_files_are_limited() -> None:
    result = await run("open('f', 'wb').write(bytes(10 ** 6))", max_file=1000)

    assert "File too large" in result.stderr


async def test_a_daemon_does_not_outlive_its_program() -> None:
    if sys.platform != "linux":
        pytest.skip("orphans come back to the launcher on Linux only")
    code = (
        "import os, signal\n"
        "read, write = os.pipe()\n"
        "if os.fork() == 0:\n"
        "    os.setsid()\n"
        "    if os.fork() == 0:\n"
        "        os.write(write, b'%d' % os.getpid())\n"
        "        signal.pause()\n"
        "    os._exit(0)\n"
        "print(os.read(read, 20).decode())\n"
    )

    result = await run(code)

    assert result.exit_code == 0
    assert not alive(int(result.stdout))


@pytest.mark.parametrize(
    "locked", ["os.chmod('a', 0)", "os.chmod('.', 0)", "import shutil; shutil.rmtree(os.getcwd())"]
)
async def test_locked_folders_are_removed(locked: str) -> None:
    code = f"import os; os.makedirs('a/b'); os.symlink('/', 'a/root'); {locked}"

    assert (await run(code)).exit_code == 0


@pytest.fixture
def fifo(tmp_path: Path) -> Path:
    """What a program holds open for writing; reading it ends when the program does."""
    path = tmp_path / "fifo"
    os.mkfifo(path)
    return path


def holding(fifo: Path) -> str:
    return f"f = open({str(fifo)!r}, 'w'); f.write('ready\\n'); f.flush(); {FOREVER}"


async def test_cancelling_kills_the_program_before_it_returns(fifo: Path) -> None:
    task = asyncio.ensure_future(run(holding(fifo), timeout=60))
    with await asyncio.to_thread(fifo.open) as reader:
        assert await asyncio.to_thread(reader.readline) == "ready\n"
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        os.set_blocking(reader.fileno(), False)
        assert os.read(reader.fileno(), 10) == b""  # nobody has it open any more


@pytest.mark.parametrize("session", ["", "os.setsid()"])
async def test_cancelling_leaves_no_process_of_a_bomb_of_forks(fifo: Path, session: str) -> None:
    if session and sys.platform != "linux":
        pytest.skip("orphans come back to the launcher on Linux only")
    bomb = (
        "import os, signal\n"
        "for _ in range(5):\n"
        f"    if os.fork() == 0: {session or 'pass'}\n"
        f"f = os.open({str(fifo)!r}, os.O_WRONLY)\n"
        "os.write(f, b'%d\\n' % os.getpid())\n"
        "signal.pause()"
    )
    task = asyncio.ensure_future(run(bomb, timeout=60))
    with await asyncio.to_thread(fifo.open) as reader:
        pids = [int(await asyncio.to_thread(reader.readline)) for _ in range(32)]
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    assert not any(map(alive, pids))


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no parent-death signal")
async def test_a_program_that_kills_the_launcher_dies_with_it(fifo: Path) -> None:
    suicide = "import os; os.kill(os.getppid(), 9)"
    task = asyncio.ensure_future(run(holding(fifo).replace(FOREVER, f"{suicide}; {FOREVER}")))
    with await asyncio.to_thread(fifo.open) as reader:
        assert await asyncio.to_thread(reader.read) == "ready\n"

    assert (await task).exit_code != 0


def test_the_death_of_the_engine_is_the_end_of_the_program(fifo: Path, temporary: Path) -> None:
    engine = (
        "import asyncio, sys\n"
        "from agentflow.tools.builtin import python_tool\n"
        "asyncio.run(python_tool(timeout=60)(sys.argv[1]))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", engine, holding(fifo)],
        cwd=Path(__file__).parents[2],
        env={"TMPDIR": str(temporary), "PATH": os.environ["PATH"]},
    )
    with fifo.open() as reader:
        assert reader.readline() == "ready\n"
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert reader.read() == ""  # ends when the program does

    [left] = temporary.iterdir()  # the folder's owner is dead
    (left / "main.py").unlink()
    left.rmdir()


def test_it_is_undeclared_and_waits_long_enough() -> None:
    tool = python_tool(timeout="3s")

    assert (tool.name, str(tool.effect)) == ("python", "undeclared")
    assert tool.policy.timeout is not None and tool.policy.timeout > 3


def test_it_needs_to_know_python(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "")

    with pytest.raises(DefinitionError, match=r"sys\.executable"):
        python_tool()
