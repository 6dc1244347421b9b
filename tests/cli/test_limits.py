"""``--budget`` and ``--deadline``: what is said before, while and after they bind."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from agentflow.budgets.estimates import Estimates, Outcome
from agentflow.cli import codes
from agentflow.testing import Raw, ScriptedServer

Cli: TypeAlias = Callable[..., Any]
Serve: TypeAlias = Callable[..., ScriptedServer]

FLOW = '''
from agentflow import Budget, llm, tool, workflow


@llm(model=["small", "large"], samples=(1, 2), check=lambda text: "good" in text, max_tokens=40)
async def write(topic: str) -> str:
    """Write about {topic}."""
    raise NotImplementedError


@llm(max_tokens=40)
async def sum_up(text: str) -> str:
    """Sum up: {text}"""
    raise NotImplementedError


@tool(pure=True)
async def measure(text: str) -> int:
    return len(text)


@workflow
async def brief(topic: str) -> int:
    return await measure(write(topic).ref)


@llm(model="judge", max_tokens=5)
async def is_kind(text: str) -> bool:
    """Is this kind? {text}"""
    raise NotImplementedError


@llm(model=["small", "large"], samples=(1, 2), check=is_kind, max_tokens=40)
async def reply(letter: str) -> str:
    """Reply to {letter}."""
    raise NotImplementedError


@workflow
async def chapters(titles: list[str]) -> int:
    return await measure("".join(await write.map(titles)))


@workflow
async def twice(topic: str) -> int:
    return await measure(write(write(topic).ref).ref)


@workflow(budget=Budget(usd="0.000001"))
async def poor(topic: str) -> str:
    return await write(topic)


@workflow
async def default(topic: str) -> str:
    return await sum_up(topic)
'''
PRICES = "small = { input = 0.1, output = 0.4 }\nlarge = { input = 1, output = 4 }\n"
LIMITS = ("--budget", "0.01", "--deadline", "20s")


@pytest.fixture(autouse=True)
def _briefs(project: Path) -> None:
    (project / "briefs.py").write_text(FLOW)
    (project / "prices.toml").write_text(PRICES)
    (project / "trip.plan").write_text('$1 = write("tea")\n$2 = measure($1)\nreturn $2')


@pytest.fixture
def plan(cli: Cli) -> Cli:
    """Asks what limits come to."""

    def run(*words: str, target: str = "briefs.py:brief") -> Any:
        return cli("plan", target, "tea", *words, "--prices", "prices.toml")

    return run


@pytest.fixture
def ask(cli: Cli, serve: Serve) -> Cli:
    """Runs a brief against models that are good at it."""
    server = serve(lambda call: "good", models=("small", "large"))

    def run(*words: str, target: str = "briefs.py:brief") -> Any:
        given = ("--prices", "prices.toml", "--base-url", server.base_url)
        return cli("run", target, "tea", *given, *words)

    return run


def test_a_plan_says_what_its_limits_come_to_and_that_it_is_a_guess(plan: Cli) -> None:
    lines = plan(*LIMITS).out.splitlines()

    assert lines[:3] == ['$1 = write("tea")', "$2 = measure($1)", ""]
    assert lines[3].startswith("within $0.01 and 20.0 s it is finished with a probability of ")
    assert lines[4].startswith("90% within 20.0 s takes a budget of $0.000")
    assert lines[5:] == [
        "write: no call is known, which makes this a guess",
        "measure: 1.0 s a call is assumed",
    ]


def test_json_has_the_same_as_numbers(plan: Cli) -> None:
    told = plan(*LIMITS, "--format", "json").json["forecast"]

    assert (told["usd"], told["tokens"], told["deadline"]) == ("0.01", None, 20.0)
    assert 0.9 < told["probability"] <= 1
    assert 0 < told["usd_for_90_percent"] < 0.01
    assert 0 < told["usd_expected"] < 0.01
    assert told["calls_known"] == {"write": {"small": 0, "large": 0}}


def test_without_limits_nothing_is_said_of_them(plan: Cli) -> None:
    assert plan().out == '$1 = write("tea")\n$2 = measure($1)\n'
    assert "forecast" not in plan("--format", "json").json


def test_the_same_limits_come_to_the_same_every_time(plan: Cli) -> None:
    assert plan(*LIMITS).out == plan(*LIMITS).out


def test_more_money_and_more_time_are_no_worse(plan: Cli) -> None:
    def chance(usd: str, deadline: str) -> float:
        words = ("--budget", usd, "--deadline", deadline, "--format", "json")
        return float(plan(*words).json["forecast"]["probability"])

    assert chance("0.00002", "20s") < chance("0.0001", "20s") <= chance("0.01", "20s")
    assert chance("0.01", "500ms") < chance("0.01", "20s")


def test_what_runs_taught_is_what_a_plan_rests_on(plan: Cli, project: Path) -> None:
    taught = Estimates(project / "known.json")
    for _ in range(12):
        taught.note("write", "small", Outcome(False, 0.5, 10, 20))
        taught.settled("write", {"small": (0, 1)})
    for _ in range(30):
        taught.note("write", "large", Outcome(True, 1.0, 10, 20))
        taught.settled("write", {"large": (1, 0)})
    taught.save()

    done = plan(*LIMITS, "--estimates", "known.json")

    assert "write: calls known are 12 by small and 30 by large\n" in done.out
    told = plan(*LIMITS, "--estimates", "known.json", "--format", "json").json["forecast"]
    assert told["probability"] > 0.93
    assert "which makes this a guess" in plan(*LIMITS, "--no-estimates").out


def test_a_plan_that_cannot_make_it_says_so(plan: Cli) -> None:
    done = plan("--budget", "0.01", "--deadline", "1ms")

    assert "with a probability of under 1%" in done.out
    assert "no budget makes that 90%\n" in done.out


def test_where_tokens_are_limited_or_prices_not_known_it_is_told_in_tokens(
    plan: Cli, cli: Cli
) -> None:
    assert "takes a budget of" in (limited := plan("--budget-tokens", "5000").out)
    assert "within 5,000 tokens it is finished" in limited
    assert limited.count(" tokens") == 3
    unpriced = cli("plan", "briefs.py:brief", "tea", "--deadline", "20s")
    assert " tokens on average\n" in unpriced.out


def test_tokens_that_are_limited_beside_money_are_said_not_to_count(plan: Cli) -> None:
    both = (*LIMITS, "--budget-tokens", "5")
    said = "the limit of 5 tokens is not counted in that: to have it told, leave --budget out\n"

    assert said in plan(*both).out
    assert "not counted" not in plan(*LIMITS).out + plan("--budget-tokens", "5").out
    assert plan(*both, "--format", "json").json["forecast"]["tokens_counted"] is False
    assert plan(*LIMITS, "--format", "json").json["forecast"]["tokens_counted"] is True


def test_the_limits_of_a_workflow_itself_count(plan: Cli) -> None:
    told = plan(*LIMITS, "--format", "json", target="briefs.py:poor").json["forecast"]

    assert (told["usd"], told["deadline"], told["probability"]) == ("0.000001", 20.0, 0)


def test_a_plan_file_and_a_single_tool_have_chances_too(cli: Cli, plan: Cli) -> None:
    words = ("--tools", "briefs.py", "--prices", "prices.toml", *LIMITS)

    assert "it is finished with a probability" in cli("plan", "trip.plan", *words).out
    assert "it is finished with a probability" in plan(*LIMITS, target="briefs.py:write").out


def test_each_element_of_a_list_that_is_known_counts(cli: Cli) -> None:
    def told(titles: str) -> Any:
        words = ("plan", "briefs.py:chapters", f"titles={titles}", *LIMITS, "--format", "json")
        return cli(*words, "--prices", "prices.toml").json["forecast"]

    one, three = told('["a"]'), told('["a", "b", "c"]')
    assert 2 < three["usd_expected"] / one["usd_expected"] < 4
    assert three["probability"] < one["probability"]
    assert (told("[]")["probability"], told("[]")["usd_expected"]) == (1, 0)


def test_who_judges_counts_too(plan: Cli, project: Path) -> None:
    unpriced = plan(*LIMITS, target="briefs.py:reply")
    assert (unpriced.code, "'judge' is not known" in unpriced.err) == (codes.USAGE, True)

    (project / "prices.toml").write_text(f"{PRICES}judge = {{ input = 100, output = 100 }}")
    told = plan(*LIMITS, "--format", "json", target="briefs.py:reply").json["forecast"]
    assert told["calls_known"]["is_kind"] == {"judge": 0}
    assert told["usd_for_90_percent"] is None or told["usd_for_90_percent"] > 0.001


def test_the_default_model_is_the_one_that_is_named(cli: Cli) -> None:
    words = ("plan", "briefs.py:default", "tea", *LIMITS, "--prices", "prices.toml")

    done = cli(*words, "--model", "small", "--format", "json")
    assert done.json["forecast"]["calls_known"] == {"sum_up": {"small": 0}}
    unnamed = cli(*words)
    assert (unnamed.code, "use --model or AGENTFLOW_MODEL" in unnamed.err) == (codes.USAGE, True)


def test_what_tools_from_elsewhere_take_is_not_known(cli: Cli, project: Path) -> None:
    (project / "elsewhere.py").write_text(
        "import briefs\n"
        "from agentflow import workflow\n"
        "@workflow\n"
        "async def indirect(topic: str) -> str:\n"
        "    return await briefs.write(topic)\n"
    )

    done = cli("plan", "elsewhere.py:indirect", "tea", "--deadline", "20s")

    assert (done.code, done.out) == (codes.USAGE, "")
    assert "'write' is no tool of the module" in done.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--budget", "0.01"], "the price of model 'small' is not known: give it with --prices"),
        (["--budget", "much"], "'much' is not an amount"),
        (["--budget=-1"], "cannot be -1"),
        (["--budget", "inf"], "cannot be inf"),
        (["--budget", "nan"], "cannot be nan"),
        (["--budget", ""], "'' is not an amount"),
        (["--budget-tokens=-5"], "tokens cannot be -5"),
        (["--budget-tokens", "1.5"], "invalid int value"),
        (["--deadline", "soon"], "'soon' is not a duration"),
        (["--deadline=-3s"], "is not a duration"),
        (["--deadline", "inf"], "cannot be inf"),
        (["--deadline", "1s", "--prices", "gone.toml"], "gone.toml"),
        (["--deadline", "1s", "--format", "dot"], "use --format text or json"),
        (["--deadline", "1s", "--tools-json", "x"], "has tools of its own"),
        (["--deadline", "1s", "--estimates", "x", "--no-estimates"], "not allowed with"),
    ],
)
def test_limits_that_are_none_are_wrong_usage(cli: Cli, words: list[str], said: str) -> None:
    done = cli("plan", "briefs.py:brief", "tea", *words)

    assert (done.code, done.out) == (codes.USAGE, "")
    assert said in done.err


def test_what_tools_that_are_only_described_take_is_not_known(cli: Cli, project: Path) -> None:
    tools = [{"name": name, "params": ["text"], "required": 1} for name in ("write", "measure")]
    (project / "tools.json").write_text(json.dumps(tools))

    done = cli("plan", "trip.plan", "--tools-json", "tools.json", "--deadline", "1s")

    assert (done.code, done.out) == (codes.USAGE, "")
    assert "name them with --tools" in done.err


def test_a_run_says_what_it_tried_spent_and_thought_of_its_chances(ask: Cli) -> None:
    done = ask(*LIMITS)

    assert (done.code, done.out) == (0, "4\n")
    told = done.err.splitlines()
    assert any(line.startswith("sample    $1 write, sample 1 of ") for line in told)
    assert any(" of 1 call: 1 passed" in line for line in told)
    assert any(line.lstrip().startswith("success within the limits was ") for line in told)
    [spent] = [line for line in told if " of $0.01 spent; " in line]
    assert " of 20.0 s taken" in spent


def test_a_deadline_alone_is_no_reason_to_give_up(ask: Cli, plan: Cli) -> None:
    done = ask("--deadline", "20s", target="briefs.py:twice")

    assert (done.code, done.out) == (0, "4\n")
    assert " of 20.0 s taken" in done.err
    words = ("--deadline", "20s", "--format", "json", "--no-estimates")
    told = plan(*words, target="briefs.py:twice").json["forecast"]
    assert told["probability"] > 0.7 and 0 < told["usd_expected"] < 0.01


def test_a_run_has_it_all_in_json(ask: Cli) -> None:
    data = ask(*LIMITS, "--json", "-q").json

    limits, tried = data["limits"], data["allocation"]
    assert (limits["usd"], limits["tokens"], limits["deadline"]) == ("0.01", None, 20.0)
    assert 0 < float(limits["usd_spent"]) <= 0.01
    assert limits["usd_spent"] == data["usage"]["usd"]
    assert 0 < tried["probability"]["start"] <= 1
    assert tried["passed"] == sum(model["passed"] for model in tried["models"].values()) == 1
    assert tried["samples"] == tried["passed"] + tried["cancelled"]
    assert (data["passes"]["runs"], data["passes"]["passed"]) == (1, 1)


def test_runs_teach_the_next_one_and_their_cost_is_told(ask: Cli, plan: Cli, project: Path) -> None:
    err = [ask(*LIMITS).err for _ in range(3)]

    assert "runs of brief passed" not in err[0]
    assert "3 of the last 3 runs of brief passed, at $0.0" in err[2]
    assert "write: calls known are " in plan(*LIMITS).out
    assert (project / "state" / "agentflow" / "estimates.json").exists()


def test_a_run_learns_nothing_where_nobody_wants_it(ask: Cli, project: Path) -> None:
    users_own = project / "state" / "agentflow" / "estimates.json"
    ask(*LIMITS, "-q", "--no-estimates")
    assert not users_own.exists()

    ask(*LIMITS, "-q", "--estimates", "mine.json")
    assert (project / "mine.json").exists() and not users_own.exists()


def test_estimates_that_cannot_be_read_are_set_aside_and_the_run_goes_on(
    ask: Cli, plan: Cli, project: Path
) -> None:
    known = project / "known.json"
    known.write_text('{"version": 1, "kinds": {"wri')

    done = ask(*LIMITS, "-q", "--estimates", "known.json")

    assert (done.code, done.out) == (0, "4\n")
    assert "known.json.broken" in done.err
    assert (project / "known.json.broken").exists() and known.exists()
    assert plan(*LIMITS, "--estimates", "known.json").err == ""


def test_a_budget_below_the_first_call_is_told_with_what_would_do(ask: Cli) -> None:
    done = ask("--budget", "0.00000001", "-q")

    assert (done.code, done.out) == (codes.LIMIT, "")
    assert done.err.startswith("agentflow run: $1 write failed: ")
    assert "0.00000001" in done.err and "--budget" in done.err


def test_a_run_that_is_out_of_reach_has_its_figures_in_json(ask: Cli) -> None:
    done = ask("--budget", "0.00000001", "-q", "--json")

    error, limits = done.json["error"], done.json["limits"]
    assert error["kind"] in ("BudgetExceeded", "OutOfReach")
    assert error["exit"] == done.code == codes.LIMIT
    assert (limits["usd"], limits["usd_spent"]) == ("0.00000001", "0")


def test_a_budget_of_nothing_is_a_limit_like_any_other(ask: Cli) -> None:
    assert ask("--budget", "0", "-q").code == codes.LIMIT


def test_a_deadline_that_has_passed_is_told(ask: Cli) -> None:
    done = ask("--deadline", "0s", "-q")

    assert done.code == codes.LIMIT
    assert "brief passed its deadline" in done.err
    assert "Give it longer with --deadline." in done.err


def test_what_remains_can_be_asked_for_where_there_are_limits(cli: Cli, project: Path) -> None:
    (project / "left.plan").write_text("$1 = remaining()\nreturn $1")

    left = cli("run", "left.plan", "--budget", "0.5", "--deadline", "1h", "-q").json
    assert (left["usd"], left["tokens"]) == (0.5, None)
    assert 0 < left["seconds"] <= 3600
    assert cli("run", "left.plan", "-q").code == codes.PLAN


def test_a_model_without_a_price_cannot_meet_a_budget(cli: Cli, project: Path) -> None:
    (project / "prices.toml").write_text("small = { input = 0.1, output = 0.4 }")
    given = ("--prices", "prices.toml", "--base-url", "http://models.invalid/v1")

    done = cli("run", "briefs.py:brief", "tea", *given, "--budget", "0.01", "-q")

    assert done.code == codes.USAGE
    assert "the price of model 'large' is not known" in done.err


def test_a_model_that_the_endpoint_does_not_know_is_the_endpoints_error(
    cli: Cli, serve: Serve
) -> None:
    unknown = Raw(b'{"error": {"message": "no model small"}}', 404, "application/json")
    server = serve(lambda call: unknown)

    done = cli("run", "briefs.py:brief", "tea", *LIMITS, "--base-url", server.base_url, "-q")

    assert done.code == codes.BACKEND
    assert "no model small" in done.err
