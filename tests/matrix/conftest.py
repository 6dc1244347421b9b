"""Which seeds are played, on virtual time and without sockets."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.seeds import add_options, leaving_nothing, parametrize

SEEDS = 500
BATCH = 10

PATIENCE = 240
"""Seconds that a batch may take; one takes about two."""


def pytest_addoption(parser: pytest.Parser) -> None:
    add_options(parser, "matrix", SEEDS)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    parametrize(metafunc, "matrix", SEEDS, BATCH)


@pytest.fixture
def nothing_left() -> Iterator[None]:
    """No seed leaves threads or descriptors, and none runs for ever."""
    with leaving_nothing(PATIENCE):
        yield
