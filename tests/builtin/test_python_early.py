"""What the `python` tool does while the program is written, and that nobody can tell."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agentflow.tools.builtin import python_tool
from agentflow.tools.builtin.python import PythonResult
from agentflow.tools.streaming import Commit, TextBuffer, TextStream

FOREVER = "import signal; signal.pause()\n"


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where the folders of programs are made; none may be left."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    assert list(folder.iterdir()) == []


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where programs find modules: the packages of an environment of its own."""
    home, python = tmp_path / "environment", Path(sys.executable).resolve()
    packages = home / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
    packages.mkdir(parents=True)
    (home / "bin").mkdir()
    (home / "bin" / "python").symlink_to(python)
    (home / "pyvenv.cfg").write_text(f"home = {python.parent}\n")
    monkeypatch.setattr(sys, "executable", str(home / "bin" / "python"))
    return packages


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Where programs and modules say what they do."""
    return tmp_path / "log"


def note(log: Path, what: str = "os.getpid()") -> str:
    """A line that says something there."""
    return f"import os; f = open({str(log)!r}, 'a'); print({what}, file=f); f.close()\n"


def noted(log: Path) -> list[str]:
    """What has been said."""
    return log.read_text().splitlines() if log.exists() else []


class Author:
    """A model that writes a program for a call of the tool."""

    def __init__(self, program: str = "", **options: Any) -> None:
        self._text, self._certain = TextBuffer(), asyncio.get_running_loop().create_future()
        stream, commit = TextStream(self._text), Commit(self._certain)
        self.call: asyncio.Task[PythonResult] = asyncio.ensure_future(
            python_tool(**options).fn(stream, commit=commit)
        )
        self.write(program)

    def write(self, text: str) -> None:
        self._text.add(text)

    async def go_on_until(self, condition: Callable[[], Any]) -> None:
        """Write comments while something is not the case."""
        while not condition():
            assert not self.call.done(), self.call.result()
            self.write("# and so on\n")
            await asyncio.sleep(0)

    async def commit(self) -> PythonResult:
        self._text.end()
        self._certain.set_result(None)
        return await self.call

    async def take_back(self) -> None:
        self._text.end()
        self._certain.cancel()
        with pytest.raises(asyncio.CancelledError):
            await self.call

    async def cancel(self) -> None:
        self.call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await self.call


def alive(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    return True


def anywhere(result: PythonResult) -> PythonResult:
    """The result, as if all folders had one name."""
    return replace(result, stderr=re.sub(r"/\S+/agentflow-\w+", "FOLDER", result.stderr))


async def streamed(program: str, size: int, **options: Any) -> PythonResult:
    author = Author(**options)
    for place in range(0, len(program), size):
        author.write(program[place : place + size])
        await asyncio.sleep(0)
    return anywhere(await author.commit())


async def whole(program: str, **options: Any) -> PythonResult:
    return anywhere(await python_tool(**options)(program))


async def natively(program: str, folder: Path) -> PythonResult:
    """What ``python main.py`` does."""
    place = folder / "agentflow-native"
    place.mkdir()
    (place / "main.py").write_text(program, newline="")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-I", "-u", "-X", "utf8", "main.py"),
        cwd=place,
        env={"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    out, err = await process.communicate()
    code = process.returncode or 0
    return anywhere(PythonResult(out.decode(), err.decode(), code if code >= 0 else 128 - code))


PROGRAMS = {
    "exception": "import json\ndef f():\n    return json.loads('{')\n\nf()\n",
    "chained": "try:\n    1 / 0\nexcept Exception as e:\n    raise ValueError('x') from e\n",
    "group": "raise ExceptionGroup('g', [ValueError(1), TypeError(2)])",
    "says why it exits": "import sys\nprint('a')\nsys.exit('bye')\nprint('b')\n",
    "exit code": "raise SystemExit(3)",
    "interrupted": "print('a')\nraise KeyboardInterrupt\n",
    "does not compile": "x = 1\nreturn 5\n",
    "syntax error": "x = (\ny = 2\n",
    "old syntax": "import os\n\n\ndef f():\n    print 'a'\n",
    "warning": "import re\n\nx = '\\d'\nif x is 'a': pass\n",
    "future": (
        "'''Doc.'''\nfrom __future__ import annotations\nimport json\nprint(__doc__)\n"
        "def f(x: Missing): pass\nprint(f.__annotations__)\n"
    ),
    "names": (
        "print(sorted(globals()), __name__, __doc__, __spec__, __package__, __loader__.name)\n"
        "import sys\nprint(sys.argv, sys.flags, sys.path, __loader__.path == __file__)\n"
        "print(vars(sys.modules['__main__']) is globals(), sys.orig_argv[1:])\n"
    ),
    "own annotations": "def f(x: int): pass\nprint(f.__annotations__)\n",
    "not a docstring": "x = 1\n'a string'\nprint(__doc__)\n",
    "excepthook": "import sys\nsys.excepthook = lambda *a: print(a[0], a[2].tb_lineno)\n\n1 / 0\n",
    "atexit": "import atexit\natexit.register(print, 'bye')\n1 / 0\n",
    "thread": "import threading\nthreading.Thread(target=lambda: 1 / 0, name='t').start()\n",
    "destructor": "class A:\n    def __del__(self): print('gone')\n\na = A()\n",
    "own source": "import inspect\ndef f():\n    return 1\n\nprint(inspect.getsource(f))\n",
    "pickle": "import pickle\nclass A: pass\n\nprint(pickle.loads(pickle.dumps(A)))\n",
    "spawn": (
        "import multiprocessing\ndef f(x): return 2 * x\n"
        "if __name__ == '__main__':\n"
        "    with multiprocessing.get_context('spawn').Pool(1) as p: print(p.map(f, [1, 2]))\n"
    ),
    "asyncio": "import asyncio\nasync def f():\n    1 / 0\n\nasyncio.run(f())\n",
    "deep": "def f(): f()\ntry:\n    f()\nexcept RecursionError as e:\n    print(e)\n",
    "deprecated": "import warnings\ndef f():\n    warnings.warn('x', DeprecationWarning, 2)\n\nf()\n",
    "missing module": "import json\nimport nothing_of_this_name\nimport decimal\n",
    "missing name": "import json\nfrom json import nothing\n",
    "relative": "from . import x\n",
    "prints when imported": "import this\n",
    "windows": "x = '''a\r\nb'''\r\nprint(repr(x))\r\n1 / 0\r\n",
    "nothing": "",
}


@pytest.mark.parametrize("name", PROGRAMS)
async def test_a_program_runs_as_python_runs_it(name: str, tmp_path: Path) -> None:
    program = PROGRAMS[name]
    native, *ours = await asyncio.gather(
        natively(program, tmp_path),
        whole(program),
        streamed(program, 11),
        streamed(program, 11, isolated=True),
    )

    assert ours == [native] * 3


async def test_imports_are_made_while_the_program_is_written(modules: Path, log: Path) -> None:
    (modules / "told.py").write_text(note(log))
    (modules / "late.py").write_text("raise ValueError('this is not imported early')")
    author = Author("import json, told\nimport nothing_of_this_name\nimport late\n")

    await author.go_on_until(lambda: noted(log))
    result = await author.commit()

    assert "No module named 'nothing_of_this_name'" in result.stderr
    assert len(noted(log)) == 1


@pytest.mark.parametrize(
    "body",
    [
        "print('out')",
        "import sys; print('err', file=sys.stderr)",
        "import os; os.write(1, b'x' * 10**6)",
        "raise ValueError('when it was imported')",
        "import sys; sys.exit(4)",
        "import os; os._exit(5)",
        "open('file', 'w').close()",
        "import os; os.chdir('/')",
        "import warnings; warnings.warn('old', DeprecationWarning, 2)",
        "import subprocess, sys; subprocess.Popen([sys.executable, '-c', 'input()'], stdin=-1)",
    ],
)
async def test_a_process_in_which_an_import_can_be_noticed_is_not_used(
    modules: Path, log: Path, body: str
) -> None:
    program = "import told, os\nprint(sorted(os.listdir()), '# and' in open(__file__).read())\n"
    (modules / "told.py").write_text(note(log) + body)
    author = Author(program)

    await author.go_on_until(lambda: noted(log))
    author.write("print('end')\n")
    result = anywhere(await author.commit())
    early, fresh = noted(log)

    assert early != fresh
    assert not alive(early) and not alive(fresh)
    assert result == await whole(program + "# and so on\nprint('end')\n")


async def test_a_program_waits_until_it_is_committed(modules: Path, log: Path) -> None:
    (modules / "told.py").write_text(note(log, "'imported'"))
    author = Author(f"import told\n{note(log, repr('run'))}")

    await author.go_on_until(lambda: noted(log))
    await author.cancel()

    assert noted(log) == ["imported"]


async def test_an_import_that_hangs_counts_as_the_program(modules: Path, log: Path) -> None:
    (modules / "told.py").write_text(note(log) + FOREVER)
    author = Author("import told\n", timeout=0.01)

    await author.go_on_until(lambda: noted(log))

    assert await author.commit() == PythonResult("", "", 137, timed_out=True)
    assert len(noted(log)) == 1


@pytest.mark.parametrize("isolated", [False, True])
async def test_time_counts_from_the_commit(log: Path, isolated: bool) -> None:
    program = note(log) + FOREVER if isolated else FOREVER
    author = Author(program, timeout=0.001, isolated=isolated)

    if isolated:
        await author.go_on_until(lambda: noted(log))  # takes a Python much more than that to say
    result = await author.commit()

    assert (result.timed_out, result.exit_code) == (True, 137)


@pytest.mark.parametrize("isolated", [False, True])
async def test_cancelling_leaves_no_process_and_no_descriptor(
    modules: Path, log: Path, isolated: bool
) -> None:
    (modules / "told.py").write_text(note(log))
    before = len(os.listdir("/dev/fd"))
    author = Author("import told\n" + FOREVER, isolated=isolated)

    await author.go_on_until(lambda: noted(log))
    await author.cancel()
    await asyncio.sleep(0)  # in which the loop closes what was aborted

    assert not alive(noted(log)[0])
    assert len(os.listdir("/dev/fd")) == before


async def test_a_program_whose_commit_is_taken_back_does_not_run(log: Path) -> None:
    author = Author(note(log))

    await author.take_back()

    assert noted(log) == []


async def test_a_commit_that_is_taken_back_ends_what_has_begun(log: Path) -> None:
    author = Author(note(log) + FOREVER, isolated=True)

    await author.go_on_until(lambda: noted(log))
    await author.take_back()

    assert not alive(noted(log)[0])


async def test_isolated_statements_run_as_they_come(log: Path) -> None:
    author = Author(isolated=True)
    author.write(note(log, "'first'"))
    await author.go_on_until(lambda: noted(log) == ["first"])
    author.write(note(log, "'second', 1 +\n 1"))
    await author.go_on_until(lambda: noted(log) == ["first", "second 2"])
    author.write("print('end')")

    assert await author.commit() == PythonResult("end\n", "", 0)


@pytest.mark.parametrize(
    ("program", "stdout", "stderr", "exit_code"),
    [
        ("print(1)\nx = (\nprint(2)\n", "1\n", "'(' was never closed", 1),
        ("print(1)\nprint(2)\nx = )\nprint(3)", "1\n2\n", 'main.py", line 3', 1),
        ("print(1)\n\n1 / 0\nprint(2)\n", "1\n", 'main.py", line 3, in <module>\n    1 / 0', 1),
        ("print(1)\nreturn\nprint(2)\n", "1\n", "line 2\n    return\n", 1),
        ("print(1)\nimport sys; sys.exit(3)\nx = (", "1\n", "", 3),
        ("x = 1\nprint(open(__file__).read())\ny = 2\n", "x = 1\nprint(o", "", 0),
        ("import os\nos.remove('main.py')\nprint(os.listdir())\n", "['main.py']", "", 0),
        ("import os\nos.chdir('/')\nprint(1)\n1 / 0\n", "1\n", "1 / 0", 1),
        ("import os\nos.mkdir('main')\nos.chmod('.', 0)\nprint(1)\n", "1\n", "", 0),
        ("'doc'\n'text'\nx = 1\n'text'\nprint(__doc__)\n", "doc\n", "", 0),
        ("\ufeffprint(1)\nprint(2)\n", "1\n2\n", "", 0),
        ("print(sorted(map(int, __import__('os').listdir('/dev/fd'))))", "[0, 1, 2, 3, ", "", 0),
        ("import os\nif os.fork() == 0: print('child')\nos.wait()\nprint(1)", "child\n1\n", "", 0),
        (
            "import os\nos.system('echo /dev/fd/*')",
            "/dev/fd/0 /dev/fd/1 /dev/fd/2 /dev/fd/3\n",
            "",
            0,
        ),
        ("x = '\ud800'\nprint(1)", "", "can't decode", 1),
    ],
)
async def test_isolated_programs_end_where_they_fail_however_they_come(
    program: str, stdout: str, stderr: str, exit_code: int
) -> None:
    result, *others = await asyncio.gather(
        whole(program, isolated=True),
        streamed(program, 3, isolated=True),
        streamed(program, 40, isolated=True),
    )

    assert others == [result] * 2
    assert result.stdout.startswith(stdout)
    assert stderr in result.stderr and bool(stderr) == bool(result.stderr)
    assert result.exit_code == exit_code


async def test_an_isolated_program_that_floods_is_stopped_at_once(log: Path) -> None:
    program = note(log) + "[print('x' * 1000) for _ in iter(int, 1)]\n"
    author = Author(program, isolated=True, max_output=5000, timeout="1h")

    await author.go_on_until(lambda: noted(log) and not alive(noted(log)[0]))
    result = await author.commit()

    assert (len(result.stdout), result.truncated, result.timed_out) == (5000, True, False)


async def test_an_isolated_program_that_is_killed_says_so_when_it_is_committed(log: Path) -> None:
    author = Author(note(log) + "os.kill(os.getpid(), 15)\nprint(1)\n", isolated=True)

    await author.go_on_until(lambda: noted(log) and not alive(noted(log)[0]))

    assert await author.commit() == PythonResult("", "", 128 + signal.SIGTERM)


def test_only_isolated_programs_may_start_early() -> None:
    isolated = python_tool(isolated=True)

    assert (isolated.name, isolated.effect.kind, isolated.effect.starts_early) == (
        *("python", "samples"),
        True,
    )
    assert not python_tool().effect.starts_early
    assert isolated.spec.description == python_tool().spec.description
