"""Runs a program as ``python main.py`` would, at once or statement by statement.

Run as a script by `agentflow.tools.builtin.python`, in a folder of its own. It imports nothing of
ours, and nothing that Python does not import when it starts: the program finds what it would
find without it::

    python -I -u -X utf8 runner.py 7

What to do comes on that descriptor, a line for each command:

    import json.decoder JSONDecoder     import a module, and what is named of it
    program                             run main.py, and end
    opening 1 30                        run the next 30 bytes, which begin on line 1
    statement 2 345                     the same, where no docstring or future import may be
    end                                 there are no more statements

A byte goes back before main.py runs. A process in which an early import could be noticed, because
it failed, wrote something or changed the folder, ends instead.
"""

from __future__ import annotations
import __future__ as future

import os
import sys

_COMMANDS = 63  # out of the way of the files that the program opens
_FOLDER = os.getcwd()
_FUTURES = [getattr(future, name).compiler_flag for name in future.all_feature_names]


def main(descriptor: int) -> None:
    """Do what comes on a descriptor; returns, or raises, as the program does."""
    os.dup2(descriptor, _COMMANDS)
    os.set_inheritable(_COMMANDS, False)
    if descriptor != _COMMANDS:
        os.close(descriptor)
    program, imports = _Program(), True
    with open(_COMMANDS, "rb") as commands:
        while command := commands.readline().decode().split():
            match command:
                case ["import", module, *names]:
                    imports = imports and _import_early(module, names)
                case ["opening" | "statement" as kind, line, size]:
                    program.run_statement(commands.read(int(size)), int(line), kind == "opening")
                case ["program"]:
                    os.write(_COMMANDS, b"!")
                    break
                case _:
                    return
        else:
            os._exit(1)  # whoever gave the commands is gone
    program.run_file()


class _Program:
    """What is ``__main__`` from now on."""

    def __init__(self) -> None:
        self._process = os.getpid()
        self._path = os.path.join(_FOLDER, "main.py")
        self._flags = 0
        module = type(sys)("__main__")
        self._names = module.__dict__
        self._names.update({name: value for name, value in globals().items() if name[:2] == "__"})
        self._names.update(__doc__=None, __file__=self._path)
        self._names["__loader__"] = type(self._names["__loader__"])("__main__", self._path)
        sys.modules["__main__"] = module
        sys.argv = sys.orig_argv[-2:] = ["main.py"]

    def run_file(self) -> None:
        """Run the program."""
        with open(self._path, "rb") as file:
            source = file.read()
        self._run(source)

    def run_statement(self, text: bytes, line: int, opening: bool) -> None:
        """Run the next statement; its text is in the file when it does.

        A newline costs the parser 15 ns, and gives all that is reported the right line.
        """
        self._append(text)
        self._run((b"" if opening else b"pass") + b"\n" * (line - 1) + text)
        if os.getpid() != self._process:
            os._exit(0)  # a fork: the next statements do not come to it

    def _run(self, source: bytes) -> None:
        try:
            code = compile(source, self._path, "exec", self._flags, dont_inherit=True)
            for flag in _FUTURES:
                self._flags |= code.co_flags & flag
            exec(code, self._names)  # noqa: S102  # this is what the process is for
        except BaseException as error:
            _report_without_us(error)
            raise

    def _append(self, text: bytes) -> None:
        try:
            with open(self._path, "ab") as file:
                file.write(text)
        except OSError:
            return  # the program has taken it away, or it is too large
        if "linecache" in sys.modules:  # what has shown a line of it, and would not look again
            sys.modules["linecache"].checkcache(self._path)


def _report_without_us(error: BaseException) -> None:
    """Have an exception reported that leaves this module, as if it left the program's."""
    trace = error.__traceback__ and error.__traceback__.tb_next
    report = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, _: object) -> None:
        error.__traceback__ = trace
        report(kind, error, trace)

    sys.excepthook = hook


def _import_early(module: str, names: list[str]) -> bool:
    """Import a module unless there is none; if that could be noticed, the process ends."""
    trap, out = os.pipe()
    os.set_blocking(trap, False)
    os.set_blocking(out, False)
    kept = [os.dup(1), os.dup(2)]
    os.dup2(out, 1)
    os.dup2(out, 2)
    os.close(out)
    try:
        found = _exists(module.partition(".")[0])
        if found:
            __import__(module, fromlist=names)
        for descriptor, saved in enumerate(kept, 1):
            os.dup2(saved, descriptor)
            os.close(saved)
        changed = os.getcwd() != _FOLDER or set(os.listdir(_FOLDER)) - {"main.py"}
        if os.read(trap, 1) or changed:
            os._exit(1)
    except BaseException:  # noqa: BLE001  # of the module, or of a trap that is still in use
        os._exit(1)
    os.close(trap)
    return found


def _exists(name: str) -> bool:
    """Whether there is a module, as far as can be told without importing it."""
    return any(finder.find_spec(name, None) is not None for finder in sys.meta_path)


if __name__ == "__main__":
    main(int(sys.argv[1]))
