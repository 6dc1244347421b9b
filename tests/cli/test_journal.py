"""Which runs the command line keeps, where, and what it says of a run that can go on."""

from __future__ import annotations

import json
import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from agentflow.cli import codes
from agentflow.errors import DefinitionError
from agentflow.executor.journal.store import JournalStore
from agentflow.settings import Settings, outer_urls
from agentflow.testing import ScriptedServer

from .conftest import Done

Cli: TypeAlias = Callable[..., Done]
Serve: TypeAlias = Callable[..., ScriptedServer]

KEY = "sk-canary-0123456789abcdef"


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AGENTFLOW_JOURNAL", "AGENTFLOW_BASE_URL", "OPENAI_BASE_URL", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def users_own(project: Path) -> Path:
    """Where the user's own journal is."""
    return project / "state" / "agentflow" / "journal.db"


def kept_in(path: Path) -> list[str]:
    """What the runs in a journal were of, newest first."""
    store = JournalStore(path)
    names = [row.name for row in store.runs()]
    store.close()
    return names


def test_a_run_is_kept_for_its_user_alone_unless_nobody_wants_it(cli: Cli, users_own: Path) -> None:
    assert cli("run", "flow.py:total", "3", "--no-journal", "-q").code == codes.OK
    assert not users_own.exists()

    done = cli("run", "flow.py:total", "3", "--json", "-q")

    assert done.json["journal"] == str(users_own)
    assert kept_in(users_own) == ["total"]
    assert stat.S_IMODE(users_own.stat().st_mode) == 0o600


def test_a_journal_is_named_by_option_environment_or_file(
    cli: Cli, project: Path, users_own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / "pyproject.toml").write_text('[tool.agentflow]\njournal = "of-file.db"\n')
    cli("run", "flow.py:total", "1", "-q")
    monkeypatch.setenv("AGENTFLOW_JOURNAL", str(project / "of-environment.db"))
    cli("run", "flow.py:total", "2", "-q")
    cli("run", "flow.py:total", "3", "-q", "--journal", "of-option.db")

    for name in ("of-file.db", "of-environment.db", "of-option.db"):
        assert kept_in(project / name) == ["total"]
    assert not users_own.exists()


def test_the_setting_can_say_that_nothing_is_kept(
    cli: Cli, users_own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGENTFLOW_JOURNAL", "0")

    assert cli("run", "flow.py:total", "3", "--json", "-q").json["journal"] is None
    assert not users_own.exists()
    done = cli("runs")
    assert (done.code, "name a file with --journal" in done.err) == (codes.USAGE, True)


def test_a_journal_setting_is_a_file_or_a_switch(tmp_path: Path) -> None:
    def load(text: str) -> Any:
        (tmp_path / "pyproject.toml").write_text(f"[tool.agentflow]\njournal = {text}\n")
        return Settings.load(environ={}, folder=tmp_path).journal

    assert load('"kept/runs.db"') == str(tmp_path / "kept" / "runs.db")
    assert (load("false"), load("true"), load('""')) == (False, True, "")
    with pytest.raises(DefinitionError, match="journal must be text, true or false, not 5"):
        load("5")


def test_only_what_no_file_says_counts_as_an_endpoint_from_outside() -> None:
    environ = {"OPENAI_BASE_URL": "http://a, http://b"}
    assert outer_urls(None, environ) == ("http://a", "http://b")
    assert outer_urls(["http://c"], environ) == ("http://c",)
    assert outer_urls(None, {}) == ()


def test_the_users_own_journal_keeps_no_run_from_working(cli: Cli, users_own: Path) -> None:
    users_own.parent.mkdir(parents=True)
    users_own.write_text("something else, which stays as it is")

    done = cli("run", "flow.py:total", "3")

    assert (done.code, done.out) == (codes.OK, "6\n")
    assert done.err.startswith("agentflow: this run is not kept, and cannot be resumed: ")
    assert str(users_own) in done.err
    assert users_own.read_text() == "something else, which stays as it is"


def test_a_journal_that_was_named_has_to_work(cli: Cli, project: Path) -> None:
    (project / "notes.txt").write_text("no journal")

    done = cli("run", "flow.py:total", "3", "--journal", "notes.txt")

    assert (done.code, done.out) == (codes.FAILED, "")
    assert re.fullmatch(r"agentflow run: .*notes\.txt: .* it is no journal: .*\n", done.err)


def test_a_run_that_failed_says_how_it_goes_on(cli: Cli) -> None:
    done = cli("run", "flow.py:hopeless", "4", "--json", "--journal", "my runs.db")

    run, resume = done.json["run"], done.json["resume"]
    assert resume == f"agentflow resume {run} '--journal=my runs.db'"
    assert done.err.endswith(f"to go on: {resume}\n")
    assert (
        cli("run", "flow.py:hopeless", "4", "--json", "-q", "--no-journal").json["resume"] is None
    )


def test_the_command_is_kept_without_key_or_password(
    cli: Cli, serve: Serve, project: Path, monkeypatch: pytest.MonkeyPatch, users_own: Path
) -> None:
    server = serve(["It is so."])
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    address = server.base_url.replace("http://", "http://somebody:swordfish-9876@")

    done = cli(
        "run", "Why?", "--base-url", address, "--model", "scripted", "--strategy", "react", "-q"
    )

    assert done.code == codes.OK
    store = JournalStore(users_own)
    target = store.runs()[0].target
    store.close()
    assert target["cli"] == {
        "folder": str(project),
        "options": [f"--base-url={server.base_url}", "--model=scripted", "--strategy=react"],
        "target": ["Why?"],
        "stand_in": False,
    }
    written = b"".join(
        path.read_bytes() for path in users_own.parent.glob("journal.db*") if path.is_file()
    )
    assert KEY.encode() not in written and b"swordfish" not in written


def test_what_the_environment_says_of_the_model_is_kept_too(
    cli: Cli, project: Path, monkeypatch: pytest.MonkeyPatch, users_own: Path
) -> None:
    monkeypatch.setenv("AGENTFLOW_MODEL", "some-model")
    monkeypatch.setenv("AGENTFLOW_CACHE", ".results")

    cli("run", "flow.py:total", "2", "--deadline", "1m", "--no-partial", "-q")

    store = JournalStore(users_own)
    options = json.dumps(store.runs()[0].target["cli"]["options"])
    store.close()
    for word in ("--model=some-model", "--cache=.results", "--deadline=1m", "--no-partial"):
        assert f'"{word}"' in options
