"""Settings: argument over environment over ``[tool.agentflow]`` in pyproject.toml."""

from __future__ import annotations

import os
import re
import tomllib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agentflow.errors import DefinitionError, nearest

_ENVIRONMENT = {
    "base_url": ("AGENTFLOW_BASE_URL", "OPENAI_BASE_URL"),
    "api_key": ("AGENTFLOW_API_KEY", "OPENAI_API_KEY"),
    "model": ("AGENTFLOW_MODEL",),
    "cache": ("AGENTFLOW_CACHE",),
    "speculate": ("AGENTFLOW_SPECULATE",),
    "partial": ("AGENTFLOW_PARTIAL",),
}

_SWITCHES = ("speculate", "partial")
_WORDS = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}

ROUTINGS = ("earliest", "sticky", "least-loaded")
"""Names of the policies by which one of several endpoints is chosen, the default first."""

OPENAI_URL = "https://api.openai.com/v1"
"""Where an API key without a base URL is meant for."""


@dataclass(frozen=True)
class Settings:
    """How models are reached, and what the command line keeps and starts early.

    Attributes:
        base_urls: OpenAI-compatible endpoint, or several that serve the same models; empty when
            none is configured.
        api_key: Sent as a bearer token; empty for servers that ask for none.
        model: Name of the model; empty lets the endpoint's only model be found.
        cache: Directory in which results of tools are kept; empty for memory alone.
        speculate: Whether calls that are likely to come are started early.
        partial: Whether calls begin while a model still writes them.
    """

    base_urls: tuple[str, ...] = ()
    api_key: str = field(default="", repr=False)
    model: str = ""
    cache: str = ""
    speculate: bool = False
    partial: bool = True

    @property
    def base_url(self) -> str:
        """The first endpoint, or empty when none is configured."""
        return self.base_urls[0] if self.base_urls else ""

    @classmethod
    def load(
        cls,
        *,
        base_url: str | Sequence[str] | None = None,
        api_key: str | None = None,
        model: str | None = None,
        cache: str | None = None,
        speculate: bool | None = None,
        partial: bool | None = None,
        environ: Mapping[str, str] | None = None,
        folder: Path | None = None,
    ) -> Settings:
        """Settings for this process.

        Args:
            base_url: Wins over environment and file; several as a list, or in one text with
                commas or spaces between them.
            api_key: Likewise.
            model: Likewise.
            cache: Likewise.
            speculate: Likewise, unless it is None.
            partial: Likewise.
            environ: The environment; the process's own by default.
            folder: Where to look for pyproject.toml, upwards; the working folder by default.

        Raises:
            DefinitionError: ``[tool.agentflow]`` has an unknown key or a wrong type, a switch in
                the environment is neither on nor off, or a base URL is empty or there twice.
        """
        environ = os.environ if environ is None else environ
        values = {**_from_pyproject(folder or Path.cwd()), **_from_environment(environ)}
        given = {"base_url": base_url, "api_key": api_key, "model": model, "cache": cache}
        values.update({name: value for name, value in given.items() if value})
        switches = {"speculate": speculate, "partial": partial}
        values.update({name: value for name, value in switches.items() if value is not None})
        base_urls = _urls(values.pop("base_url", ""))
        if values.get("api_key") and not base_urls:
            base_urls = (OPENAI_URL,)
        return cls(base_urls, **values)


def _urls(given: str | Sequence[str]) -> tuple[str, ...]:
    """The endpoints that a text, or a list of texts, names."""
    texts = [given] if isinstance(given, str) else given
    named = [[url for url in re.split(r"[\s,]+", text) if url] for text in texts]
    if not isinstance(given, str) and not all(named):
        raise DefinitionError("a base URL is empty: write it out, or leave it out")
    urls = [url for some in named for url in some]
    bare = (re.sub(r"//[^/@]*@", "//", url).rstrip("/") for url in urls)  # without a password
    for url, times in Counter(bare).items():
        if times > 1:
            raise DefinitionError(f"{url} is given {times} times as base URL: give it once")
    return tuple(urls)


def _from_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, variables in _ENVIRONMENT.items():
        if variable := next((v for v in variables if environ.get(v)), None):
            found[name] = environ[variable]
            if name in _SWITCHES:
                found[name] = _switch(variable, environ[variable])
    return found


def _switch(variable: str, word: str) -> bool:
    try:
        return _WORDS[word.lower()]
    except KeyError:
        raise DefinitionError(f"{variable} must be 1 or 0, not {word!r}") from None


def _from_pyproject(folder: Path) -> dict[str, Any]:
    for place in (folder, *folder.parents):
        path = place / "pyproject.toml"
        if path.is_file():
            return _table(path)
    return {}


def _table(path: Path) -> dict[str, Any]:
    try:
        tool = tomllib.loads(path.read_text(encoding="utf-8")).get("tool")
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError):
        return {}  # whoever owns the file will hear of it from its own tools
    table = tool.get("agentflow", {}) if isinstance(tool, dict) else {}
    if not isinstance(table, dict):
        raise DefinitionError(f"{path}: [tool.agentflow] must be a table, not {table!r}")
    for name, value in table.items():
        if name not in _ENVIRONMENT:
            known = nearest(name, sorted(_ENVIRONMENT))
            raise DefinitionError(f"{path}: [tool.agentflow] has no key {name!r}. {known}")
        if (kind := _wrong(name, value)) is not None:
            raise DefinitionError(f"{path}: [tool.agentflow] {name} must be {kind}, not {value!r}")
    if table.get("cache"):
        return {**table, "cache": str(path.parent / Path(table["cache"]).expanduser())}
    return dict(table)


def _wrong(name: str, value: Any) -> str | None:
    """What a value should have been; None if it is that."""
    if name in _SWITCHES:
        return None if isinstance(value, bool) else "true or false"
    if isinstance(value, str):
        return None
    if name != "base_url":
        return "text"
    urls = isinstance(value, list) and all(isinstance(url, str) for url in value)
    return None if urls else "text or a list of texts"
