"""How ``agentflow run`` was called, as it is kept with its run: enough to go on with it.

A recipe is a folder and the words of a command, which the parser reads again. It has no key and
no password: those come from the environment whenever the run goes on.
"""

from __future__ import annotations

import argparse
import copy
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from agentflow.cli.parser import parse
from agentflow.cli.targets import PlanText, Question, Target, find, names_member
from agentflow.errors import DefinitionError
from agentflow.executor.journal.rows import RunRow
from agentflow.redaction import MASK, redacted, without_credentials
from agentflow.settings import Settings, outer_urls

_SHOWN = ("json", "events", "quiet", "debug", "log_level")
UNKEPT = frozenset(("command", "target", "args", "yes", "journal", "no_journal", *_SHOWN))
"""What of a command concerns how it is shown, and where it is kept."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a run was begun.

    Attributes:
        folder: Where the command was called.
        options: Its options, as words.
        target: What it ran, and the arguments.
        stand_in: Whether the stand-in answered.
    """

    folder: str
    options: Sequence[str]
    target: Sequence[str]
    stand_in: bool

    @property
    def words(self) -> list[str]:
        """The words of the command, as a person would type them."""
        return [*self.options, *self.target]


def recipe(options: Any, settings: Settings, *, stand_in: bool) -> Recipe:
    """What is kept of a command.

    Args:
        options: Of ``agentflow run``.
        settings: What they and the environment come to.
        stand_in: Whether the stand-in answers.
    """
    kept = copy.copy(options)
    kept.base_url = [without_credentials(url) for url in outer_urls(options.base_url)] or None
    kept.model = settings.model or None
    kept.cache = settings.cache or None
    kept.speculate = settings.speculate or None
    kept.partial = None if settings.partial else False
    if stand_in:
        kept.base_url = kept.model = None
        kept.root = options.root or "."  # it looks around where it is asked
    words = redacted(list(_words(kept)))
    return Recipe(os.getcwd(), words, redacted([options.target, *options.args]), stand_in)


def recipe_of(row: RunRow) -> Recipe | None:
    """How a run was begun; None for the run of a program.

    Raises:
        DefinitionError: It was begun by the command line, and nobody knows how.
    """
    if (data := row.target.get("cli")) is None:
        return None
    try:
        kept = Recipe(**data)
    except TypeError:
        kept = Recipe("", "", "", stand_in=False)
    texts = all(map(_are_texts, (kept.options, kept.target))) and kept.target
    if not (texts and isinstance(kept.folder, str)):
        raise DefinitionError(f"it is not known how run {row.id} was begun")
    return kept


def options_of(row: RunRow, given: Any) -> Any:
    """The options of the command that began a run, with what is given now in place of them.

    The process is then in the folder of that command, where its files and settings are.

    Raises:
        DefinitionError: It cannot be called again.
    """
    _absolute(given)
    words = ["-"]
    if (kept := recipe_of(row)) is not None:
        words = [*kept.options, "--", *kept.target]
        if any(MASK in word for word in words):
            raise DefinitionError(
                f"the command of run {row.id} had a secret, which is not kept: go on with the run "
                "in a program, engine.resume(run, target, args=...)"
            )
        _enter(kept.folder, row)
    options = parse(["run", *words])
    options.base_url = _with_credentials(options.base_url)
    for name, value in vars(given).items():
        if name in UNKEPT or value != getattr(_defaults(), name, value):
            setattr(options, name, value)
    return options


def target_of(row: RunRow, options: Any) -> Target | None:
    """What a run of the command line was of; None for the run of a program.

    A plan is the one that ran, whatever has become of its file.
    """
    if recipe_of(row) is None:
        return None
    if row.kind == "task":
        return Question(options.target)
    if row.kind == "plan" and not names_member(options.target):
        return PlanText(str(row.target.get("text")), f"run {row.id}")
    return find(options.target, options.args)


def answered_by(row: RunRow, settings: Settings, options: Any) -> Settings:
    """The settings under which a question goes on with the model that it began with.

    Raises:
        DefinitionError: That was no stand-in, and no endpoint is configured.
    """
    kept = recipe_of(row)
    if kept is not None and kept.stand_in and not options.base_url:
        return replace(settings, base_urls=())
    if row.kind == "task" and not settings.base_url:
        raise DefinitionError(
            "this run was answered by a model whose endpoint is not configured any more: name it "
            "with --base-url or OPENAI_BASE_URL"
        )
    return settings


def _words(options: Any) -> Iterator[str]:
    for name, value in vars(options).items():
        if name in UNKEPT or value == getattr(_defaults(), name):
            continue
        option = f"--{name.replace('_', '-')}"
        if isinstance(value, bool):
            yield option if value else f"--no-{option[2:]}"
        else:
            yield from (f"{option}={one}" for one in (value if type(value) is list else [value]))


@cache
def _defaults() -> argparse.Namespace:
    return parse(["run", "-"])


def _with_credentials(urls: Sequence[str] | None) -> list[str] | None:
    """Endpoints with the users that the environment has for them now."""
    known = {without_credentials(url): url for url in outer_urls(None)}
    return None if urls is None else [known.get(url, url) for url in urls]


def _absolute(given: Any) -> None:
    """Name files so that they are found from another folder."""
    for name in ("root", "sql", "prices"):
        if getattr(given, name, None) is not None:
            setattr(given, name, os.path.abspath(getattr(given, name)))
    tools = getattr(given, "tools", [])
    given.tools = [os.path.abspath(where) if where.endswith(".py") else where for where in tools]


def _enter(folder: str, row: RunRow) -> None:
    try:
        os.chdir(folder)
    except OSError as error:
        raise DefinitionError(
            f"run {row.id} began in {folder}, which cannot be entered ({error.strerror}): put it "
            "back there"
        ) from None


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(word, str) for word in value)
