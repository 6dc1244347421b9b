"""A key goes only to an endpoint that its own source names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agentflow import Engine, Task
from agentflow.errors import DefinitionError
from agentflow.settings import OPENAI_URL, Settings

KEY = {"OPENAI_API_KEY": "sk-of-the-environment"}
OTHER = "https://elsewhere.example/v1"


def load(folder: Path, table: str, environ: dict[str, str], **given: Any) -> Settings:
    (folder / "pyproject.toml").write_text(f"[tool.agentflow]\n{table}\n", "utf-8")
    return Settings.load(environ=environ, folder=folder, **given)


@pytest.mark.parametrize(
    "url",
    [
        OTHER,
        f"http://127.0.0.1:8000/v1 {OTHER}",
        "http://api.openai.com/v1",
        "https://api.openai.com.elsewhere.example/v1",
        "https://api.openai.com@elsewhere.example/v1",
        "http://localhost.elsewhere.example/v1",
        "http://llm.localhost/v1",
        "http://0.0.0.0:8000/v1",
        "http://10.0.0.7:8000/v1",
        "http://[::ffff:10.0.0.7]/v1",
        "http://[::1",
        "elsewhere.example/v1",
    ],
)
def test_a_file_cannot_draw_a_key_to_its_endpoint(tmp_path: Path, url: str) -> None:
    with pytest.raises(DefinitionError, match="set OPENAI_BASE_URL") as caught:
        load(tmp_path, f'base_url = "{url}"', KEY)
    assert str(tmp_path / "pyproject.toml") in str(caught.value)
    assert KEY["OPENAI_API_KEY"] not in str(caught.value)

    with pytest.raises(DefinitionError, match="set OPENAI_BASE_URL"):
        load(tmp_path, f'base_url = "{url}"', {}, api_key="sk-of-the-caller")


@pytest.mark.parametrize(
    "url", [OPENAI_URL, "http://127.0.0.1:1/v1", "http://localhost:1/v1", "http://[::1]:1/v1"]
)
def test_this_machine_and_openai_may_have_it(tmp_path: Path, url: str) -> None:
    found = load(tmp_path, f'base_url = "{url}"', KEY)
    assert (found.base_urls, found.api_key) == ((url,), "sk-of-the-environment")


def test_whoever_names_the_endpoint_outside_of_the_file_sends_the_key(tmp_path: Path) -> None:
    table = 'base_url = "https://file.example/v1"'
    for found in (
        load(tmp_path, table, {**KEY, "OPENAI_BASE_URL": OTHER}),
        load(tmp_path, table, KEY, base_url=OTHER),
    ):
        assert (found.base_url, found.api_key) == (OTHER, "sk-of-the-environment")


def test_an_endpoint_of_a_file_has_the_key_beside_it(tmp_path: Path) -> None:
    found = load(tmp_path, f'base_url = "{OTHER}"\napi_key = "of-the-file"', KEY)
    assert (found.base_url, found.api_key) == (OTHER, "of-the-file")


def test_the_key_beside_an_endpoint_goes_to_no_other(tmp_path: Path) -> None:
    table = f'base_url = "{OTHER}"\napi_key = "of-the-file"'
    environ = {"OPENAI_BASE_URL": "https://mine.example/v1"}
    assert load(tmp_path, table, environ).api_key == ""
    assert load(tmp_path, table, {**environ, **KEY}).api_key == "sk-of-the-environment"


def test_a_file_without_an_endpoint_changes_nothing(tmp_path: Path) -> None:
    found = load(tmp_path, 'model = "m"', KEY)
    assert (found.base_url, found.api_key) == (OPENAI_URL, "sk-of-the-environment")
    assert load(tmp_path, 'api_key = "of-the-file"', {}).api_key == "of-the-file"


def test_an_endpoint_of_a_file_needs_no_key(tmp_path: Path) -> None:
    found = load(tmp_path, f'base_url = "{OTHER}"', {})
    assert (found.base_url, found.api_key) == (OTHER, "")


async def test_an_engine_is_stopped_when_it_asks_a_model_and_not_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pyproject.toml").write_text(f'[tool.agentflow]\nbase_url = "{OTHER}"\n', "utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENAI_API_KEY", KEY["OPENAI_API_KEY"])

    async with Engine() as engine:
        assert await engine.run(engine.plan("return 7")) == 7
        with pytest.raises(Exception, match="set OPENAI_BASE_URL"):
            await engine.run(Task("Why?"))
