"""``agentflow estimates`` shows what runs have taught."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from agentflow.budgets.estimates import Estimates, Outcome
from agentflow.cli import codes

Cli: TypeAlias = Callable[..., Any]

PRICES = '[prices]\n"big" = { input = 1.0, output = 10.0 }\n"tiny" = { input = 0, output = 1.0 }\n'


@pytest.fixture
def file(project: Path) -> Path:
    """A file of ten jobs of `extract` and of three runs of `report`."""
    path = project / "known.json"
    estimates = Estimates(path)
    for number in range(10):
        passed = number < 4
        estimates.note("extract", "tiny", Outcome(passed, 1.0 + number, 1000, 100 + number))
        counts = {"tiny": (int(passed), int(not passed))}
        if not passed:
            estimates.note("extract", "big", Outcome(True, 20.0, 1000, 400))
            counts["big"] = (1, 0)
        estimates.settled("extract", counts)
    for passed in (True, True, False):
        estimates.ran("report", passed, 0.02)
    assert estimates.save()
    return path


def test_a_table_says_what_is_known_of_models_and_workflows(cli: Cli, file: Path) -> None:
    (file.parent / "prices.toml").write_text(PRICES)

    done = cli("estimates", "--file", "known.json", "--prices", "prices.toml")

    lines = done.out.splitlines()
    assert lines[0] == "known.json: 1 tool, 1 workflow"
    assert " ".join(lines[2].split()) == (
        "tool and model jobs success 90 % seconds p90 tokens p90 $/sample $/pass"
    )
    assert lines[3].startswith("extract  (agreement 0.5")
    assert lines[4].split()[:2] == ["big", "6"]
    assert lines[4].split()[4:] == ["20", "20", "400", "400", "0.0050", "0.0055"]
    assert lines[5].split()[:2] == ["tiny", "10"]
    assert lines[5].split()[4:9] == ["5", "9", "104", "108", "0.00010"]
    assert [line.split() for line in lines[7:]] == [
        ["workflow", "runs", "passed", "$/run", "$/pass"],
        ["report", "3", "2", "0.020", "0.030"],
    ]
    assert (done.code, done.err) == (codes.OK, "")


def test_columns_stand_below_their_heads(cli: Cli, file: Path) -> None:
    lines = cli("estimates", "--file", "known.json").out.splitlines()

    assert len({len(lines[place]) for place in (2, 4, 5)}) == 1
    assert len(lines[7]) == len(lines[8])


def test_json_holds_the_numbers(cli: Cli, file: Path) -> None:
    (file.parent / "prices.toml").write_text(PRICES)

    data = cli("estimates", "--file", "known.json", "--prices", "prices.toml", "--json").json

    assert (data["ok"], data["file"], data["problem"]) == (True, "known.json", None)
    tiny = data["kinds"]["extract"]["models"]["tiny"]
    assert tiny["jobs"] == 10
    assert tiny["seconds"] == {"p50": 5.0, "p90": 9.0}
    assert tiny["usd_per_sample"] == pytest.approx(104.5e-6)
    assert tiny["cost_of_pass"] == pytest.approx(104.5e-6 / tiny["success"])
    assert tiny["interval"][0] < tiny["success"] < tiny["interval"][1]
    assert data["workflows"]["report"] == {
        "runs": 3,
        "passed": 2,
        "usd": pytest.approx(0.06),
        "cost_of_pass": pytest.approx(0.03),
    }


def test_what_has_no_price_is_not_free(cli: Cli, file: Path) -> None:
    lines = cli("estimates", "--file", "known.json").out.splitlines()

    assert lines[4].split()[-2:] == ["-", "-"]


def test_samples_that_never_ended_have_no_size(cli: Cli, project: Path) -> None:
    estimates = Estimates(project / "known.json")
    estimates.settled("extract", {"big": (0, 1)})
    estimates.save()

    lines = cli("estimates", "--file", "known.json").out.splitlines()

    assert lines[4].split()[4:] == ["-"] * 6


def test_before_the_first_run_nothing_is_known(cli: Cli, project: Path) -> None:
    done = cli("estimates", "--file", "none/known.json")

    assert (done.code, done.out) == (codes.OK, "none/known.json: nothing is known yet\n")
    assert not (project / "none").exists()


def test_the_file_is_that_of_the_environment(
    cli: Cli, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGENTFLOW_ESTIMATES", str(file))

    assert cli("estimates").out.startswith(f"{file}: 1 tool")


def test_a_broken_file_is_told_of_and_set_aside(cli: Cli, file: Path) -> None:
    file.write_text(file.read_text("utf-8")[:-40])

    done = cli("estimates", "--file", "known.json")

    assert done.code == codes.FAILED
    assert done.out == "known.json: nothing can be read\n"
    assert "known.json starts anew; what it held is now known.json.broken" in done.err
    assert (file.parent / "known.json.broken").exists()
    assert cli("estimates", "--file", "known.json").code == codes.OK


def test_a_directory_is_told_of(cli: Cli, project: Path) -> None:
    done = cli("estimates", "--file", ".", "--json")

    assert done.code == codes.FAILED
    assert (done.json["ok"], done.json["kinds"]) == (False, {})
    assert "directory" in done.json["problem"]
    assert "directory" in done.err


def test_prices_that_cannot_be_read_are_wrong_usage(cli: Cli, file: Path) -> None:
    done = cli("estimates", "--file", "known.json", "--prices", "none.toml")

    assert done.code == codes.USAGE
    assert "none.toml" in done.err
