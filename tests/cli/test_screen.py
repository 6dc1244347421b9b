"""What is written to a terminal, and how wide it is."""

from __future__ import annotations

import io
import os

import pytest

from agentflow.cli.screen import Screen, clean, columns, fit


class Terminal(io.StringIO):
    """A terminal of some width that remembers what was written to it."""

    def __init__(self, width: int = 40, encoding: str = "utf-8") -> None:
        super().__init__()
        self.width = width
        self._encoding = encoding

    @property
    def encoding(self) -> str:  # type: ignore[override]  # an attribute there
        return self._encoding

    def isatty(self) -> bool:
        return True

    def taken(self) -> str:
        """What was written since the last time."""
        text = self.getvalue()
        self.seek(0)
        self.truncate()
        return text


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    made = Terminal()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr(Screen, "size", property(lambda _: os.terminal_size((made.width, 24))))
    return made


@pytest.mark.parametrize(
    ("text", "width"),
    [("plain", 5), ("日本", 4), ("e\u0301", 1), ("👍", 2), ("a\u200bb", 2), ("", 0)],
)
def test_width_is_what_a_terminal_shows(text: str, width: int) -> None:
    assert columns(text) == width


@pytest.mark.parametrize(
    ("text", "width", "shown"),
    [
        ("short", 10, "short"),
        ("exactly ten", 11, "exactly ten"),
        ("somewhat longer", 8, "somewha…"),
        ("日本語日本語", 6, "日本…"),
        ("two\nlines\tand", 20, "two lines and"),
        ("anything", 1, "…"),
        ("anything", 0, ""),
    ],
)
def test_text_is_cut_to_a_width(text: str, width: int, shown: str) -> None:
    assert fit(text, width) == shown
    assert columns(fit(text, width)) <= width


def test_without_unicode_dots_are_written_out() -> None:
    assert fit("somewhat longer", 8, unicode=False) == "somew..."


def test_text_of_others_cannot_move_the_cursor() -> None:
    assert clean("a\x1b[2Jb\x9b1Ac\u202ed\re\n\tf") == "a[2Jb1Acde\n\tf"


def test_lines_that_stay_and_lines_that_are_redrawn_go_out_together(terminal: Terminal) -> None:
    screen = Screen(terminal)

    screen.draw(["bar"])
    assert terminal.taken() == "bar\n"
    screen.line("one")
    screen.line("two", "green", "+")
    assert terminal.taken() == ""
    screen.draw(["bar", "busy"])

    assert terminal.taken() == "\x1b[1A\r\x1b[Jone\n\x1b[32m+\x1b[0m two\nbar\nbusy\n"
    screen.clear()
    assert terminal.taken() == "\x1b[2A\r\x1b[J"
    screen.clear()
    assert terminal.taken() == ""


def test_rows_are_counted_anew_when_the_terminal_has_become_narrower(terminal: Terminal) -> None:
    screen = Screen(terminal)
    screen.draw(["x" * 35, "y"])
    terminal.taken()

    terminal.width = 10
    screen.draw(["z"])

    assert terminal.taken() == "\x1b[5A\r\x1b[Jz\n"  # 35 columns are now 4 rows


def test_lines_never_wrap(terminal: Terminal) -> None:
    screen = Screen(terminal)

    screen.draw(["x" * 100])
    screen.line("y" * 100, "red", "!")
    screen.clear()

    assert all(columns(line) < 40 for line in terminal.taken().split("\x1b[1A\r\x1b[J")[0].split())


def test_what_is_to_be_shown_whole_goes_on_below_its_mark(terminal: Terminal) -> None:
    screen = Screen(terminal)

    screen.line("model stopped after 9 tokens: search: argument 'query'", "red", "!", whole=True)
    screen.line("")
    screen.clear()

    assert terminal.taken().splitlines() == [
        "\x1b[31m!\x1b[0m model stopped after 9 tokens: search:",
        "  argument 'query'",
        "",
    ]


def test_nothing_is_written_while_standard_output_is_in_the_middle_of_a_line(
    terminal: Terminal,
) -> None:
    screen = Screen(terminal)
    screen.draw(["bar"])
    screen.hold()
    terminal.taken()

    screen.line("later")
    screen.insist("much later")
    screen.draw(["bar"])
    screen.clear()
    assert terminal.taken() == ""
    screen.release()

    assert terminal.taken() == "later\nmuch later\n"


def test_no_color_takes_the_colours_and_leaves_the_rest(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    screen = Screen(terminal)

    screen.line("done", "green", "+")
    screen.draw(["bar"])

    assert terminal.taken() == "+ done\nbar\n"


@pytest.mark.parametrize("term", ["", "dumb"])
def test_a_terminal_without_cursor_gets_plain_lines(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch, term: str
) -> None:
    monkeypatch.setenv("TERM", term)
    screen = Screen(terminal)

    screen.draw(["bar"])

    assert not screen.live
    assert terminal.taken() == ""


def test_paragraphs_are_wrapped_on_a_terminal_only(terminal: Terminal) -> None:
    text = "some words " * 8
    file = io.StringIO()

    Screen(terminal).paragraph(text)
    Screen(file).paragraph(text)

    assert all(columns(line) < 40 for line in terminal.taken().splitlines())
    assert file.getvalue() == f"{text}\n"


def test_an_encoding_without_the_marks_is_noticed() -> None:
    assert Screen(Terminal()).unicode
    assert not Screen(Terminal(encoding="latin-1")).unicode
    assert not Screen(Terminal(encoding="no-such-encoding")).unicode


def test_loggers_write_whole_lines_and_keep_only_colours(terminal: Terminal) -> None:
    screen = Screen(terminal)

    screen.write("\x1b[1mkey\x1b[0m\x1b[2J\n")
    screen.clear()

    assert terminal.taken() == "\x1b[1mkey\x1b[0m[2J\n"
