"""Settings: argument over environment over ``[tool.agentflow]`` in pyproject.toml."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from agentflow.errors import DefinitionError, nearest

_ENVIRONMENT = {
    "base_url": ("AGENTFLOW_BASE_URL", "OPENAI_BASE_URL"),
    "api_key": ("AGENTFLOW_API_KEY", "OPENAI_API_KEY"),
    "model": ("AGENTFLOW_MODEL",),
}

OPENAI_URL = "https://api.openai.com/v1"
"""Where an API key without a base URL is meant for."""


@dataclass(frozen=True)
class Settings:
    """How models are reached.

    Attributes:
        base_url: OpenAI-compatible endpoint, or empty when none is configured.
        api_key: Sent as a bearer token; empty for servers that ask for none.
        model: Name of the model; empty lets the endpoint's only model be found.
    """

    base_url: str = ""
    api_key: str = field(default="", repr=False)
    model: str = ""

    @classmethod
    def load(
        cls,
        *,
        base_url: str | None = None,
        api_key: str | None = None,
        model: str | None = None,
        environ: Mapping[str, str] | None = None,
        folder: Path | None = None,
    ) -> Settings:
        """Settings for this process.

        Args:
            base_url: Wins over environment and file.
            api_key: Likewise.
            model: Likewise.
            environ: The environment; the process's own by default.
            folder: Where to look for pyproject.toml, upwards; the working folder by default.

        Raises:
            DefinitionError: ``[tool.agentflow]`` has an unknown key or a wrong type.
        """
        environ = os.environ if environ is None else environ
        values = {**_from_pyproject(folder or Path.cwd()), **_from_environment(environ)}
        given = {"base_url": base_url, "api_key": api_key, "model": model}
        values.update({name: value for name, value in given.items() if value})
        if values.get("api_key") and not values.get("base_url"):
            values["base_url"] = OPENAI_URL
        return cls(**values)


def _from_environment(environ: Mapping[str, str]) -> dict[str, str]:
    found = {}
    for name, variables in _ENVIRONMENT.items():
        if value := next((environ[v] for v in variables if environ.get(v)), None):
            found[name] = value
    return found


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
    known = sorted(f.name for f in fields(Settings))
    for name, value in table.items():
        if name not in known:
            raise DefinitionError(
                f"{path}: [tool.agentflow] has no key {name!r}. {nearest(name, known)}"
            )
        if not isinstance(value, str):
            raise DefinitionError(f"{path}: [tool.agentflow] {name} must be text, not {value!r}")
    return dict(table)
