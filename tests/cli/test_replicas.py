"""Several endpoints that serve the same model, at the shell."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from agentflow import events
from agentflow.cli import codes
from agentflow.cli.account.prompts import Prompts, cached, told
from agentflow.cli.account.tally import Tally
from agentflow.testing import Call, Fault, ModelledReplica, ScriptedServer, Serving
from agentflow.testing.replies import Reply, Usage

Cli: TypeAlias = Callable[..., Any]
Serve: TypeAlias = Callable[..., ScriptedServer]

SERVING = Serving(prefill=1e6, step=1e-4, capacity=65_536, block=16, slots=8)
GONE = "http://127.0.0.1:9/v1"
DOWN = "127.0.0.1:9"
LOOK = Reply(Call("double", {"n": 4}), usage=Usage(1_000, 10, 0))
DONE = Reply("Eight.", usage=Usage(1_100, 5, 1_000))


def urls(*servers: Any) -> list[str]:
    """The options that name these endpoints."""
    return [word for server in servers for word in ("--base-url", getattr(server, "base_url", ""))]


def replied(**fields: Any) -> events.ModelReplied:
    known = {"prompt_tokens": 100, "completion_tokens": 10, "cached_tokens": 0, "pte": 102.0}
    return events.ModelReplied("r", 0.0, "tiny", usd="0", seconds=1.0, **{**known, **fields})


def test_a_question_goes_to_one_of_several_endpoints_and_stays(cli: Cli, serve: Serve) -> None:
    one, two = (serve([LOOK, DONE]) for _ in range(2))

    done = cli(
        "run", "What is twice four?", "--strategy", "react", "--tools", "flow.py", *urls(one, two)
    )

    assert (done.code, done.out.strip()) == (0, "Eight.")
    assert sorted([len(one.requests), len(two.requests)]) == [0, 2]
    used = one if one.requests else two
    place = used.base_url.removeprefix("http://").removesuffix("/v1")
    assert f"1 replica: {place} 2 calls, 48% of prompt tokens cached" in done.err
    assert "; 1,131 prefill token equivalents\n" in done.err
    assert "2 model calls, 2,100 + 15 tokens (48% of prompts cached)" in done.err


def test_a_run_says_what_its_prompts_came_to(cli: Cli, serve: Serve) -> None:
    one, two = (serve([LOOK, DONE]) for _ in range(2))

    data = cli(
        "run", "What is twice four?", "--strategy", "react", "--tools", "flow.py", "--json",
        *urls(one, two), "--routing", "sticky",
    ).json  # fmt: skip

    prompts = data["prompts"]
    assert prompts["pte"] == pytest.approx(1_000 + 100 + 0.002 * (1_000 * 10 + 1_100 * 5))
    assert (prompts["cached_unknown"], prompts["moved"], prompts["broken"]) == (0, {}, [])
    other, served = sorted(prompts["replicas"].values(), key=lambda found: found["calls"])
    well = {"condition": "up", "error": None}
    assert served == {"calls": 2, "cached_tokens": 1_000, "cached_share": 0.4762, **well}
    assert other == {"calls": 0, "cached_tokens": 0, "cached_share": None, **well}


def test_an_endpoint_that_is_down_is_stood_in_for(cli: Cli, serve: Serve) -> None:
    server = serve([Reply("One."), Reply("Two.")])
    given = ["--base-url", GONE, *urls(server)]

    first = cli("run", "How many?", "--strategy", "react", *given)
    listed = cli("run", "How many?", "--strategy", "react", "--model", "scripted", *given)

    assert (first.code, first.out.strip()) == (0, "One.")
    assert (listed.code, listed.out.strip()) == (0, "Two.")
    assert "replica 127.0.0.1:9 is down: " in first.err


def test_all_endpoints_that_do_not_answer_are_named(cli: Cli) -> None:
    also = GONE.replace(":9/", ":10/")
    done = cli("run", "How many?", "--base-url", GONE, "--base-url", also)

    assert done.code == codes.BACKEND
    assert GONE in done.err and also in done.err


def test_endpoints_can_come_from_the_environment(
    cli: Cli, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = (serve([Reply("Here.")]) for _ in range(2))
    monkeypatch.setenv("OPENAI_BASE_URL", f"{one.base_url}, {two.base_url}")

    assert cli("run", "Where?", "--strategy", "react").out.strip() == "Here."
    assert len(one.requests) + len(two.requests) == 1


def test_the_project_can_list_endpoints(cli: Cli, serve: Serve, project: Path) -> None:
    servers = [serve([Reply("Here.")]) for _ in range(2)]
    listed = json.dumps([server.base_url for server in servers])
    (project / "pyproject.toml").write_text(f"[tool.agentflow]\nbase_url = {listed}\n")

    assert cli("run", "Where?", "--strategy", "react").out.strip() == "Here."


def test_a_routing_that_does_not_exist_is_a_usage_error(cli: Cli) -> None:
    assert cli("run", "Why?", "--routing", "random").code == codes.USAGE


# The doctor


def test_the_doctor_looks_at_every_endpoint(cli: Cli, serve: Serve, host: Any) -> None:
    modelled = ModelledReplica(SERVING, server="vllm")
    host(modelled)
    scripted = serve(["one, two", Fault.status(400)])

    done = cli("doctor", *urls(modelled, scripted), "--base-url", GONE)
    data = cli("doctor", *urls(modelled, scripted), "--base-url", GONE, "--json").json

    blocks = done.out.split("\n\n")
    assert done.code == codes.BACKEND
    assert len(blocks) == 4
    assert "endpoint    " + modelled.base_url in blocks[1]
    assert "KV          65,536 tokens" in blocks[1]
    assert "as vllm: session_id, cache_salt" in blocks[1]
    assert "no fields beside the API's own" in blocks[2]
    assert "reachable   no" in blocks[3]
    assert [found["url"] for found in data["replicas"]] == [
        modelled.base_url, scripted.base_url, GONE,
    ]  # fmt: skip
    assert data["replicas"][0]["offers"]["metrics"]["capacity"] == 65_536
    assert "of all prompt tokens so far" not in done.out
    assert "of all prompt tokens so far" in cli("doctor", "--base-url", modelled.base_url).out
    assert data["ok"] is False


# What is told


def test_what_was_moved_and_held_is_told_with_the_reasons() -> None:
    prompts = Prompts()
    for event in (
        replied(replica="a:1", held=0.25),
        replied(replica="b:1", moved="load", cached_tokens=None),
        replied(replica="b:1", moved="lost", cached_tokens=50, held=0.15),
        replied(replica="b:1", moved="load"),
    ):
        prompts.take(event)

    assert "; ".join(told(prompts)) == (
        "2 replicas: a:1 1 call, 0% of prompt tokens cached; "
        "b:1 3 calls, 25% of prompt tokens cached; 3 moved (load 2 and lost 1); held 400 ms; "
        "408 prefill token equivalents"
    )
    assert cached(prompts) == " (17% of prompts cached; of 1 call it is not known)"
    assert prompts.as_dict()["moved"] == {"load": 2, "lost": 1}


def test_prompts_that_were_computed_ahead_cost_something_and_answer_nothing() -> None:
    tally = Tally()
    for reply in (replied(replica="a"), replied(replica="a", warmed=True)):
        tally.take(reply)

    assert (tally.usage()["model_calls"], tally.usage()["prompt_tokens"]) == (1, 200)
    assert (tally.prompts.all.calls, tally.prompts.pte, tally.prompts.warmed) == (1, 204.0, 1)
    assert "1 prompt computed ahead" in " ".join(told(tally.prompts))


def test_a_server_that_says_it_cached_more_than_there_was_is_not_believed() -> None:
    prompts = Prompts()
    for told_of in (10**9, -5):
        prompts.take(replied(cached_tokens=told_of))
    assert (prompts.all.cached, prompts.all.share) == (100, 0.5)


def test_a_backend_that_does_not_say_what_it_cached_is_said_not_to() -> None:
    prompts = Prompts()
    prompts.take(replied(cached_tokens=None))

    assert list(told(prompts)) == []
    assert cached(prompts) == ""


def test_a_prefix_that_broke_is_told_with_what_stood_there() -> None:
    prompts = Prompts()
    prompts.take(events.PrefixBroken("r", 1.0, "r/act/1", 2_048, "it is ten", "it is two"))

    assert "; ".join(told(prompts)) == (
        "a prompt did not begin as the one before it did, at byte 2,048 of session r/act/1: "
        "'it is ten' became 'it is two'"
    )
    prompts.take(events.PrefixBroken("r", 2.0, "r/act/1", 7, "x", "y"))
    assert next(told(prompts)).startswith("2 prompts did not begin as the one before them did; ")


def test_a_conversation_that_grew_too_long_is_told_with_what_became_of_it() -> None:
    prompts = Prompts()
    prompts.take(events.ContextCompacted("r", 1.0, "s-1", 1, 3, 0, 9_438, 3_926))
    assert list(told(prompts)) == [
        "the conversation grew too long: 9,438 to 3,926 tokens, 3 outputs by reference"
    ]
    prompts.take(events.ContextCompacted("r", 2.0, "s-1", 2, 1, 12, 9_000, 3_000))
    assert list(told(prompts)) == [
        (
            "conversations grew too long 2 times; last: 9,000 to 3,000 tokens, "
            "1 output by reference and 12 messages in a summary"
        )
    ]
    assert prompts.as_dict()["compacted"][0]["before"] == 9_438


# Replicas that fail


def test_all_replicas_are_listed_with_their_state_and_what_they_failed_with_last(
    cli: Cli, serve: Serve
) -> None:
    server = serve([Reply("One.")])
    idle = serve([])
    given = ["--base-url", GONE, *urls(server, idle), "--model", "scripted", "--json"]

    data = cli("run", "How many?", "--strategy", "react", "--quiet", *given).json

    gone, *others = sorted(data["prompts"]["replicas"].items(), key=lambda found: found[0] != DOWN)
    assert gone[0] == DOWN
    assert (gone[1]["calls"], gone[1]["cached_share"], gone[1]["condition"]) == (0, None, "down")
    assert "refused the connection" in gone[1]["error"]
    assert sorted(found["calls"] for _, found in others) == [0, 1]
    assert [(found["condition"], found["error"]) for _, found in others] == [("up", None)] * 2


def test_replicas_that_go_down_while_a_run_goes_on_are_told_as_it_happens(
    cli: Cli, serve: Serve
) -> None:
    given = ["--base-url", GONE, *urls(serve(["One.", "Two."])), "--model", "scripted"]
    done = cli("run", "How many?", "--strategy", "react", *given)
    listed = cli("run", "How many?", "--strategy", "react", "--events", *given).out

    assert f"replica   {DOWN} is down: {GONE} refused the connection" in done.err
    told = [json.loads(line) for line in listed.splitlines()]
    assert [event["replica"] for event in told if event["event"] == "replica_down"] == [DOWN]


def test_with_all_replicas_down_a_deadline_is_not_what_is_to_be_changed(cli: Cli) -> None:
    also = GONE.replace(":9/", ":10/")
    given = ["--base-url", GONE, "--base-url", also, "--model", "m", "--deadline", "0.5"]
    done = cli("run", "How many?", "--strategy", "react", *given)

    assert done.code == codes.BACKEND
    assert done.err.count(f"{GONE} refused the connection") >= 1
    assert "Are these servers running and well? 'agentflow doctor' looks at each" in done.err
    assert "--deadline" not in done.err


def test_replicas_that_take_a_request_and_say_nothing_are_named_at_the_deadline(
    cli: Cli, host: Any
) -> None:
    silent = [ModelledReplica(SERVING), ModelledReplica(SERVING)]
    for replica in silent:
        host(replica)
        replica.hang()
    given = [*urls(*silent), "--model", "modelled", "--deadline", "0.5"]

    done = cli("run", "How many?", "--strategy", "react", *given)
    data = cli("run", "How many?", "--strategy", "react", "--json", *given).json

    assert done.code == data["error"]["exit"] == codes.BACKEND
    assert "No replica answers: 127.0.0.1:" in data["error"]["message"]
    assert "had sent nothing for" in done.err and "agentflow doctor" in done.err
    assert "Give it longer" not in done.err


def test_a_deadline_that_passes_while_a_replica_answers_is_a_limit(cli: Cli, host: Any) -> None:
    slow = [ModelledReplica(Serving(prefill=1e6, step=0.02, capacity=65_536)) for _ in range(2)]
    for replica in slow:
        host(replica)
    given = ["--base-url", GONE, *urls(*slow), "--model", "modelled", "--deadline", "0.5"]
    given += ["--max-tokens", "1000"]

    done = cli("run", "How many?", "--strategy", "react", *given)

    assert done.code == codes.LIMIT
    assert "Give it longer with --deadline." in done.err


# What is refused


@pytest.mark.parametrize("urls", [[], ["--base-url", GONE]])
def test_a_routing_needs_endpoints_to_choose_from(cli: Cli, urls: list[str]) -> None:
    done = cli("run", "Why?", "--routing", "earliest", "--model", "m", *urls)

    assert done.code == codes.USAGE
    assert "--routing chooses between several endpoints" in done.err


@pytest.mark.parametrize("command", [("run", "Why?"), ("doctor",)])
@pytest.mark.parametrize(
    ("urls", "said"),
    [
        (["--base-url", GONE, "--base-url", f"{GONE}/"], f"{GONE} is given 2 times"),
        (["--base-url", f"{GONE}, {GONE}"], f"{GONE} is given 2 times"),
        (["--base-url", ""], "a base URL is empty"),
        (["--base-url", GONE, "--base-url", " "], "a base URL is empty"),
    ],
)
def test_endpoints_that_are_none_or_there_twice_are_a_usage_error(
    cli: Cli, command: list[str], urls: list[str], said: str
) -> None:
    done = cli(*command, *urls)

    assert done.code == codes.USAGE
    assert said in done.err
