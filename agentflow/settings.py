"""Settings: argument over environment over ``[tool.agentflow]`` in pyproject.toml."""

from __future__ import annotations

import os
import re
import tomllib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from agentflow._loopback import is_loopback
from agentflow.errors import DefinitionError
from agentflow.redaction import MASK, conceal, conceal_url, without_credentials
from agentflow.wording import nearest

_ENVIRONMENT = {
    "base_url": ("AGENTFLOW_BASE_URL", "OPENAI_BASE_URL"),
    "api_key": ("AGENTFLOW_API_KEY", "OPENAI_API_KEY"),
    "model": ("AGENTFLOW_MODEL",),
    "cache": ("AGENTFLOW_CACHE",),
    "journal": ("AGENTFLOW_JOURNAL",),
    "speculate": ("AGENTFLOW_SPECULATE",),
    "partial": ("AGENTFLOW_PARTIAL",),
}

_SWITCHES = ("speculate", "partial")
_FILES = ("cache", "journal")
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
        journal: File in which runs are kept; True for the user's own, False or empty for none.
        speculate: Whether calls that are likely to come are started early.
        partial: Whether calls begin while a model still writes them.
    """

    base_urls: tuple[str, ...] = ()
    api_key: str = ""
    model: str = ""
    cache: str = ""
    journal: str | bool = True
    speculate: bool = False
    partial: bool = True

    def __repr__(self) -> str:
        urls = ", ".join(map(without_credentials, self.base_urls)) or "no endpoint"
        return f"<settings: {urls}, model {self.model or 'unnamed'}>"

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
        journal: str | bool | None = None,
        speculate: bool | None = None,
        partial: bool | None = None,
        environ: Mapping[str, str] | None = None,
        folder: Path | None = None,
    ) -> Settings:
        """Settings for this process.

        A key stays with its endpoint. One of the environment or the caller is not sent to what
        only pyproject.toml names, which may have come with somebody else's code; this machine
        and OpenAI's endpoint are exceptions. A file may hold the key of the endpoint it names,
        and that key goes nowhere else.

        Args:
            base_url: Wins over environment and file; several as a list, or in one text with
                commas or spaces between them. None or an empty one leaves it to them.
            api_key: Likewise.
            model: Likewise.
            cache: Likewise.
            journal: Wins over environment and file, also when it is False or empty. None leaves
                it to them.
            speculate: Likewise.
            partial: Likewise.
            environ: The environment; the process's own by default.
            folder: Where to look for pyproject.toml, upwards; the working folder by default.

        Raises:
            DefinitionError: ``[tool.agentflow]`` has an unknown key or a wrong type, a switch in
                the environment is neither on nor off, a base URL is empty or there twice, or a
                key would go to an endpoint that it was not configured with.
        """
        path, table = _from_pyproject(folder or Path.cwd())
        environment = _from_environment(os.environ if environ is None else environ)
        texts = {"base_url": base_url, "api_key": api_key, "model": model, "cache": cache}
        switches = {"journal": journal, "speculate": speculate, "partial": partial}
        argued = _given(texts, switches)
        for source in (table, environment, argued):
            conceal(source.get("api_key", ""))
        values = _paired(path, table, environment, argued)
        base_urls = _urls(values.pop("base_url", ""))
        if values.get("api_key") and not base_urls:
            base_urls = (OPENAI_URL,)
        return cls(base_urls, **values)


def outer_urls(
    base_url: str | Sequence[str] | None, environ: Mapping[str, str] | None = None
) -> tuple[str, ...]:
    """The endpoints of an argument, else those of the environment; no file is asked.

    Raises:
        DefinitionError: One is empty, or there twice.
    """
    environment = _from_environment(os.environ if environ is None else environ)
    return _urls(base_url or environment.get("base_url", ""))


def _paired(
    path: Path, table: dict[str, Any], environment: dict[str, Any], argued: dict[str, Any]
) -> dict[str, Any]:
    """The values that count, so that every key goes where its own source says.

    Raises:
        DefinitionError: A key is configured for no endpoint, and the file would take it.
    """
    outer = {**environment, **argued}
    if not table.get("base_url"):
        return {**table, **outer}
    if "base_url" in outer:
        table = {name: value for name, value in table.items() if name != "api_key"}
    elif table.get("api_key") and "api_key" not in argued:
        outer.pop("api_key", None)
    elif "api_key" in outer:
        for url in _urls(table["base_url"]):
            if not _may_have(url):
                raise DefinitionError(
                    f"{path} names the endpoint {without_credentials(url)}, and the API key is "
                    f"not from there: set OPENAI_BASE_URL (or --base-url, Engine(base_url=...)) "
                    f'to send the key to it, or write api_key = "..." beside base_url, "none" '
                    f"if it needs none"
                )
    return {**table, **outer}


def _given(texts: Mapping[str, Any], switches: Mapping[str, Any]) -> dict[str, Any]:
    """What the caller says: texts that are not empty, and switches that are not left alone."""
    said = {name: text for name, text in texts.items() if text}
    return said | {name: switch for name, switch in switches.items() if switch is not None}


def _may_have(url: str) -> bool:
    """Whether an endpoint of a file may have a key that is not from the file."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    if parts.hostname == urlsplit(OPENAI_URL).hostname:
        return parts.scheme == "https"
    return is_loopback(url)


def _urls(given: str | Sequence[str]) -> tuple[str, ...]:
    """The endpoints that a text, or a list of texts, names; their credentials are secret."""
    texts = [given] if isinstance(given, str) else given
    named = [[url for url in re.split(r"[\s,]+", text) if url] for text in texts]
    if not isinstance(given, str) and not all(named):
        raise DefinitionError("a base URL is empty: write it out, or leave it out")
    urls = [url for some in named for url in some]
    for url in urls:
        conceal_url(url)
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
            elif name == "journal":
                found[name] = _WORDS.get(environ[variable].lower(), environ[variable])
    return found


def _switch(variable: str, word: str) -> bool:
    try:
        return _WORDS[word.lower()]
    except KeyError:
        raise DefinitionError(f"{variable} must be 1 or 0, not {word!r}") from None


def _from_pyproject(folder: Path) -> tuple[Path, dict[str, Any]]:
    """The nearest file, upwards, and what it says."""
    for place in (folder, *folder.parents):
        path = place / "pyproject.toml"
        if path.is_file():
            return path, _table(path)
    return folder, {}


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
            shown = MASK if name == "api_key" else repr(value)
            raise DefinitionError(f"{path}: [tool.agentflow] {name} must be {kind}, not {shown}")
    files = {name: table[name] for name in _FILES if table.get(name) not in (None, "", True, False)}
    return table | {n: str(path.parent / Path(file).expanduser()) for n, file in files.items()}


def _wrong(name: str, value: Any) -> str | None:
    """What a value should have been; None if it is that."""
    if name in _SWITCHES:
        return None if isinstance(value, bool) else "true or false"
    if isinstance(value, str):
        return None
    if name == "journal":
        return None if isinstance(value, bool) else "text, true or false"
    if name != "base_url":
        return "text"
    urls = isinstance(value, list) and all(isinstance(url, str) for url in value)
    return None if urls else "text or a list of texts"
