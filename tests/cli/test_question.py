"""``agentflow run "a question"``: against a scripted endpoint, and with the stand-in."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from agentflow.cli import codes
from agentflow.testing import Call, Fault, Reply, ScriptedServer
from agentflow.testing.standin import MODEL

Cli: TypeAlias = Callable[..., Any]
Serve: TypeAlias = Callable[..., ScriptedServer]

PLAN = "$1 = calculate('6 * 7')\njoin()"


def test_the_answer_is_streamed_to_standard_output(cli: Cli, serve: Serve) -> None:
    server = serve([PLAN, "Answer: It is 42."])

    done = cli("run", "What is 6 times 7?", "--base-url", server.base_url)

    assert (done.code, done.out) == (0, "It is 42.\n")
    assert 'plan      $1 = calculate("6 * 7")' in done.err
    assert "round     plan 1\n" in done.err
    assert "round     join 1\n" in done.err
    assert "model     scripted " in done.err
    assert "\nran       1 call in " in done.err
    assert "\n          2 model calls, " in done.err


def test_react_answers_too(cli: Cli, serve: Serve) -> None:
    server = serve([Call("calculate", {"expression": "6 * 7"}), "It is 42."])

    done = cli(
        "run", "What is 6 times 7?", "--base-url", server.base_url, "--strategy", "react", "-q"
    )

    assert (done.code, done.out, done.err) == (0, "It is 42.\n", "")


def test_what_a_model_says_before_it_calls_tools_is_told_from_the_answer(
    cli: Cli, serve: Serve
) -> None:
    script = [Reply("Let me see.", Call("calculate", {"expression": "1"})), "One."]
    url = serve(script).base_url

    done = cli("run", "Count.", "--base-url", url, "--strategy", "react", "-q")

    assert done.out == "Let me see.\nOne.\n"


def test_json_has_the_answer_the_usage_and_the_calls(cli: Cli, serve: Serve) -> None:
    server = serve([PLAN, "Answer: 42"])

    done = cli("run", "What?", "--base-url", server.base_url, "--json", "-q")

    data = done.json
    assert (data["ok"], data["answer"], data["stand_in"]) == (True, "42", False)
    assert data["usage"]["model_calls"] == 2
    assert data["usage"]["prompt_tokens"] > 0
    assert [call["tool"] for call in data["calls"]] == ["calculate"]


def test_files_are_shown_to_an_endpoint_only_if_a_root_is_named(
    cli: Cli, serve: Serve, project: Path
) -> None:
    server = serve(["join()", "Answer: a", "join()", "Answer: b"])

    cli("run", "What?", "--base-url", server.base_url, "-q")
    cli("run", "What?", "--base-url", server.base_url, "-q", "--root", ".")

    offered = [json.dumps(exchange.body) for exchange in server.requests]
    assert "read_file" not in offered[0]
    assert "read_file" in offered[2]


def test_the_only_model_of_an_endpoint_need_not_be_named(cli: Cli, serve: Serve) -> None:
    one, two = serve(["$1 = calculate('1')\nreturn $1"]), serve([], models=("small", "large"))

    assert cli("run", "What?", "--base-url", one.base_url, "-q").out == "1\n"
    done = cli("run", "What?", "--base-url", two.base_url, "-q")
    assert done.code == codes.USAGE
    assert "small, large" in done.err
    assert "--model" in done.err


def test_tokens_of_a_reply_are_bounded(cli: Cli, serve: Serve) -> None:
    server = serve(["$1 = calculate('1')\nreturn $1"])

    cli("run", "What?", "--base-url", server.base_url, "-q", "--max-tokens", "77")

    assert server.requests[0].body["max_tokens"] == 77


def test_a_budget_that_is_too_small_ends_the_run_before_it_costs(cli: Cli, serve: Serve) -> None:
    server = serve([PLAN])

    done = cli("run", "What?", "--base-url", server.base_url, "-q", "--budget-tokens", "10")

    assert done.code == codes.LIMIT
    assert "--budget-tokens" in done.err
    assert server.requests == []


def test_prices_make_a_budget_in_dollars_count(cli: Cli, serve: Serve, project: Path) -> None:
    (project / "prices.toml").write_text('[prices]\n"scripted" = { input = 1000, output = 1000 }\n')
    url = serve([PLAN, "Answer: 42"]).base_url
    priced = ("run", "What?", "--base-url", url, "--prices", "prices.toml")

    assert cli(*priced, "--budget", "0.01", "-q").code == codes.LIMIT
    done = cli(*priced, "--budget", "100", "--json", "-q")
    assert (done.code, float(done.json["usage"]["usd"]) > 0) == (0, True)


@pytest.mark.parametrize(
    ("answers", "code", "said"),
    [
        ([Fault.html()], codes.BACKEND, "agentflow doctor"),
        ([Fault.status(401)], codes.BACKEND, "401"),
        (["", "Replan: more", "", "Replan: more", "", ""], codes.FAILED, "answer"),
    ],
)
def test_what_the_endpoint_does_wrong_is_one_paragraph(
    cli: Cli, serve: Serve, answers: list[Any], code: int, said: str
) -> None:
    server = serve(answers)

    done = cli("run", "What?", "--base-url", server.base_url, "--model", "scripted", "-q")

    assert (done.code, done.out) == (code, "")
    assert done.err.startswith("agentflow run: ")
    assert done.err.count("\n") == 1
    assert said in done.err


def test_an_endpoint_that_is_down_is_said(cli: Cli) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"  # nobody listens

        done = cli("run", "What?", "--base-url", url, "-q")

    assert done.code == codes.BACKEND
    assert url in done.err


def test_without_an_endpoint_a_stand_in_answers_and_says_so(cli: Cli, project: Path) -> None:
    (project / "kettle.md").write_text("# Kettle\n\nThe kettle whistles when the water boils.\n")

    done = cli("run", "When does the kettle whistle?", "--root", ".")

    assert done.code == 0
    assert "kettle.md:3" in done.out
    assert done.out.count("rule-based stand-in, not a language model") == 1
    assert done.err.startswith("No endpoint is configured, so the model is a rule-based stand-in")
    assert "--base-url URL --model NAME" in done.err
    assert f"model     {MODEL} " in done.err


def test_the_stand_in_looks_into_the_working_folder_and_json_names_it(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")  # it is on this machine: no proxy

    done = cli("run", "How many python files are there?", "--json", "-q")

    assert done.json["stand_in"] is True
    assert "1 file matches" in done.json["answer"]
