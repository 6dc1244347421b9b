"""Fixtures every test shares."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from agentflow.testing import VirtualLoop

ROOT = str(Path(__file__).parents[1])

if ROOT not in sys.path:  # tests that play random cases share modules
    sys.path.append(ROOT)

_PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


# Examples are the same in every run, and a busy machine is no reason to fail.
settings.register_profile(
    "agentflow", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("agentflow")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--sessions", help="recorded tool-calling sessions to replay, as JSON lines")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "virtual: run the test on virtual time (VirtualLoop)")


@pytest.fixture
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """asyncio; on virtual time for tests marked `virtual`."""
    virtual = request.node.get_closest_marker("virtual") is not None
    return ("asyncio", {"loop_factory": VirtualLoop} if virtual else {})


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees the endpoints, keys or proxies of the machine it runs on."""
    for name in os.environ:
        if name.startswith(("OPENAI_", "AGENTFLOW_")) or name.lower() in _PROXIES:
            monkeypatch.delenv(name)
