"""Where a command keeps results of tools, and what a run may start early."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from agentflow.budgets.budget import Budget
from agentflow.caches.speculation.policy import Speculation
from agentflow.errors import DefinitionError
from agentflow.settings import Settings

LEARNT = "learnt.json"
"""In the directory of a cache: what speculation has learnt."""


def caching(options: Any, settings: Settings) -> str | bool:
    """What the options of a run, and the settings, say of the cache, as `Engine` takes it."""
    return False if options.no_cache else settings.cache or True


def speculation(options: Any, settings: Settings) -> Speculation | bool:
    """What a run may start early, as `Engine` takes it.

    Raises:
        DefinitionError: Guesses were asked for, but not the cache they are kept in.
    """
    if options.no_cache and options.speculate:
        raise DefinitionError("--speculate keeps its guesses in the cache: leave --no-cache out")
    if options.no_cache or not settings.speculate:
        return False
    learnt = Path(settings.cache).expanduser() / LEARNT if settings.cache else None
    # A guess would be paid for beside the run's budget.
    free = None if options.budget is None else Budget(usd=0)
    return Speculation(memory=learnt, budget=free)


def directory(settings: Settings) -> Path:
    """The directory of the cache.

    Raises:
        DefinitionError: None is named, or it is no directory.
    """
    if not settings.cache:
        raise DefinitionError(
            "no cache directory is named: use --dir DIR, AGENTFLOW_CACHE, or "
            'cache = "DIR" under [tool.agentflow] in pyproject.toml'
        )
    folder = Path(settings.cache).expanduser()
    if folder.exists() and not folder.is_dir():
        raise DefinitionError(f"{folder} is a file: name the directory of a cache")
    return folder
