"""Which seeds are played, and the machine they are played on: virtual time, no sockets."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.seeds import add_options, leaving_nothing, parametrize

SEEDS = 2000
BATCH = 100

PATIENCE = 120
"""Seconds that a batch may take; one takes about two."""


def pytest_addoption(parser: pytest.Parser) -> None:
    add_options(parser, "chaos", SEEDS)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    parametrize(metafunc, "chaos", SEEDS, BATCH)


@pytest.fixture
def nothing_left() -> Iterator[None]:
    """No seed leaves threads or descriptors, and none runs for ever."""
    with leaving_nothing(PATIENCE):
        yield
