"""``agentflow doctor``: what answers at the endpoint."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import pytest

from agentflow.cli import codes
from agentflow.testing import Call, Fault, ModelledReplica, ScriptedServer, Serving

Cli: TypeAlias = Callable[..., Any]
Serve: TypeAlias = Callable[..., ScriptedServer]


def test_a_good_endpoint_is_described(
    cli: Cli, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve(["one, two, three", Call("list_files", {"pattern": "*.py"})])
    monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")

    done = cli("doctor")

    rows = dict(line.split(None, 1) for line in done.out.splitlines() if line[0] != " ")
    assert done.code == 0
    assert rows["endpoint"] == server.base_url
    assert rows["reachable"] == "yes"
    assert rows["models"] == "scripted"
    assert rows["streaming"].startswith("yes, ")
    assert rows["usage"] == "counted by the server"
    assert "tool calls  yes" in done.out
    assert "sk-secret" not in done.out


def test_a_model_that_calls_no_tools_is_no_fault(cli: Cli, serve: Serve) -> None:
    server = serve(["one", "I would rather not.", "one", Fault.status(400)])

    told = cli("doctor", "--base-url", server.base_url)
    refused = cli("doctor", "--base-url", server.base_url)

    assert (told.code, refused.code) == (0, 0)
    assert "the model called none" in told.out
    assert "the server refuses them" in refused.out


def test_several_models_have_to_be_chosen_from(cli: Cli, serve: Serve) -> None:
    server = serve(["one", "two"], models=("small", "large"))

    assert "choose a model with --model" in cli("doctor", "--base-url", server.base_url).out
    assert server.requests == []
    assert cli("doctor", "--base-url", server.base_url, "--model", "large").code == 0
    assert {exchange.body["model"] for exchange in server.requests} == {"large"}


def test_an_endpoint_that_is_down_is_readable(cli: Cli) -> None:
    done = cli("doctor", "--base-url", "http://127.0.0.1:9/v1")

    assert done.code == codes.BACKEND
    assert "reachable   no: http://127.0.0.1:9/v1 refused the connection" in done.out


def test_a_model_that_fails_is_told_from_an_endpoint_that_is_down(cli: Cli, serve: Serve) -> None:
    server = serve([Fault.status(500)])

    done = cli("doctor", "--base-url", server.base_url)

    assert done.code == codes.BACKEND
    assert "reachable   yes" in done.out
    assert "calls       scripted failed: " in done.out


def test_what_a_server_offers_is_told_also_when_its_model_fails(
    cli: Cli, host: Callable[..., Any]
) -> None:
    modelled = ModelledReplica(Serving(prefill=1e6, step=1e-4), server="vllm")
    host(modelled)
    modelled.fail(Fault.status(500))

    done = cli("doctor", "--base-url", modelled.base_url)

    assert done.code == codes.BACKEND
    assert "as vllm: cache_salt" in done.out
    assert "modelled failed: " in done.out


def test_a_model_that_is_not_offered_is_said_not_to_be(cli: Cli, serve: Serve) -> None:
    server = serve(["one", "two"])

    done = cli("doctor", "--base-url", server.base_url, "--model", "other")

    assert "other is not among them" in done.out
    assert "not among" not in cli("doctor", "--base-url", server.base_url).out


def test_without_an_endpoint_the_stand_in_is_examined(cli: Cli) -> None:
    plain, data = cli("doctor"), cli("doctor", "--json").json

    assert plain.code == 0
    assert "none configured: questions go to the rule-based stand-in" in plain.out
    assert (data["ok"], data["stand_in"], data["tool_calls"]) == (True, True, True)


def test_a_wrong_base_url_is_a_usage_error(cli: Cli) -> None:
    done = cli("doctor", "--base-url", "localhost:8000")

    assert done.code == codes.USAGE
    assert "is not a base URL" in done.err
