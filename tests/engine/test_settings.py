from __future__ import annotations

from pathlib import Path

import pytest

from agentflow.errors import DefinitionError
from agentflow.settings import OPENAI_URL, Settings


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder below one with settings in its pyproject.toml."""
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    write(tmp_path, 'base_url = "http://file"\nmodel = "of-file"\n')
    return below


def write(folder: Path, table: str) -> None:
    (folder / "pyproject.toml").write_text(f"[tool.agentflow]\n{table}", "utf-8")


def test_without_anything_nothing_is_configured(tmp_path: Path) -> None:
    assert Settings.load(environ={}, folder=tmp_path) == Settings()


def test_the_file_is_looked_for_upwards(folder: Path) -> None:
    assert Settings.load(environ={}, folder=folder) == Settings(("http://file",), "", "of-file")


def test_the_nearest_file_counts_alone(folder: Path) -> None:
    (folder / "pyproject.toml").write_text("[project]\n", "utf-8")
    assert Settings.load(environ={}, folder=folder) == Settings()


def test_the_environment_wins_over_the_file_and_an_argument_over_both(folder: Path) -> None:
    environ = {"OPENAI_BASE_URL": "http://environment", "AGENTFLOW_MODEL": "of-environment"}
    found = Settings.load(environ=environ, folder=folder)
    assert (found.base_url, found.model) == ("http://environment", "of-environment")
    found = Settings.load(base_url="http://argument", environ=environ, folder=folder)
    assert (found.base_url, found.model) == ("http://argument", "of-environment")


def test_variables_of_our_own_win_over_those_of_others(tmp_path: Path) -> None:
    environ = {"OPENAI_BASE_URL": "http://theirs", "AGENTFLOW_BASE_URL": "http://ours"}
    assert Settings.load(environ=environ, folder=tmp_path).base_url == "http://ours"


TWO = ("http://a/v1", "http://b/v1")


@pytest.mark.parametrize("text", ["{},{}", "{} {}", " {} , {},", "{}\n{}"])
def test_several_endpoints_can_be_named_in_one_text(tmp_path: Path, text: str) -> None:
    environ = {"OPENAI_BASE_URL": text.format(*TWO)}
    found = Settings.load(environ=environ, folder=tmp_path)
    assert (found.base_urls, found.base_url) == (TWO, TWO[0])
    assert Settings.load(base_url=text.format(*TWO)).base_urls == TWO


@pytest.mark.parametrize(
    "given",
    ["http://a/v1 http://a/v1", ["http://a/v1", "http://me:secret@a/v1"], ["http://a/v1/"] * 2],
)
def test_an_endpoint_that_is_there_twice_is_refused(given: str | list[str]) -> None:
    with pytest.raises(DefinitionError, match=r"^http://a/v1 is given 2 times"):
        Settings.load(base_url=given, environ={})


def test_several_endpoints_can_be_listed(tmp_path: Path) -> None:
    write(tmp_path, 'base_url = ["http://a/v1", "http://b/v1"]\n')
    assert Settings.load(environ={}, folder=tmp_path).base_urls == TWO
    found = Settings.load(base_url=["http://c/v1"], environ={}, folder=tmp_path)
    assert found.base_urls == ("http://c/v1",)
    assert Settings.load(base_url=[], environ={}, folder=tmp_path).base_urls == TWO


def test_an_empty_value_is_none(folder: Path) -> None:
    environ = {"OPENAI_BASE_URL": "", "AGENTFLOW_MODEL": ""}
    found = Settings.load(base_url="", environ=environ, folder=folder)
    assert (found.base_url, found.model) == ("http://file", "of-file")


def test_a_cache_directory_in_the_file_lies_beside_the_file(folder: Path, tmp_path: Path) -> None:
    write(tmp_path, 'cache = ".results"\nspeculate = true\n')
    found = Settings.load(environ={}, folder=folder)
    assert (found.cache, found.speculate) == (str(tmp_path / ".results"), True)
    environ = {"AGENTFLOW_CACHE": "elsewhere", "AGENTFLOW_SPECULATE": "0"}
    found = Settings.load(environ=environ, folder=folder)
    assert (found.cache, found.speculate) == ("elsewhere", False)
    assert Settings.load(cache="there", speculate=True, environ=environ).cache == "there"
    assert Settings.load(speculate=True, environ=environ, folder=folder).speculate


def test_a_switch_in_the_environment_is_on_or_off(tmp_path: Path) -> None:
    assert Settings.load(environ={"AGENTFLOW_SPECULATE": "True"}, folder=tmp_path).speculate
    with pytest.raises(DefinitionError, match="AGENTFLOW_SPECULATE must be 1 or 0, not 'maybe'"):
        Settings.load(environ={"AGENTFLOW_SPECULATE": "maybe"}, folder=tmp_path)


def test_a_key_without_an_endpoint_is_for_openai(tmp_path: Path) -> None:
    found = Settings.load(environ={"OPENAI_API_KEY": "sk-1"}, folder=tmp_path)
    assert found == Settings((OPENAI_URL,), "sk-1")
    assert "sk-1" not in repr(found)


@pytest.mark.parametrize(
    ("table", "text"),
    [
        ('base_ur = "x"\n', "has no key 'base_ur'. Did you mean 'base_url'?"),
        ("model = 5\n", "model must be text, not 5"),
        ('model = ["a"]\n', "model must be text, not ['a']"),
        ("base_url = [5]\n", "base_url must be text or a list of texts, not [5]"),
        ('speculate = "yes"\n', "speculate must be true or false, not 'yes'"),
        ("[tool]\nagentflow = 5\n", "must be a table, not 5"),
    ],
)
def test_a_mistake_in_the_file_is_named(tmp_path: Path, table: str, text: str) -> None:
    if table.startswith("["):
        (tmp_path / "pyproject.toml").write_text(table, "utf-8")
    else:
        write(tmp_path, table)
    with pytest.raises(DefinitionError) as wrong:
        Settings.load(environ={}, folder=tmp_path)
    assert text in str(wrong.value) and str(tmp_path) in str(wrong.value)


@pytest.mark.parametrize("content", [b"not = [toml", b"\xff\xfe", b"tool = 5"])
def test_a_file_that_cannot_be_read_is_left_to_its_owner(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "pyproject.toml").write_bytes(content)
    assert Settings.load(environ={}, folder=tmp_path) == Settings()
