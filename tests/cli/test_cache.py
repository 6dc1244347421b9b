"""``agentflow cache``, and what ``agentflow run`` keeps and reuses."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from agentflow import Budget, Speculation
from agentflow.caches.diskstore import DiskStore
from agentflow.caches.shared_epochs import SharedEpochs
from agentflow.caches.store import Entry
from agentflow.cli import codes
from agentflow.cli.endpoint import Endpoint
from agentflow.cli.jobs import job_for
from agentflow.cli.keeping import LEARNT, speculation
from agentflow.cli.targets import find
from agentflow.settings import Settings

Cli: TypeAlias = Callable[..., Any]


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AGENTFLOW_CACHE", "AGENTFLOW_SPECULATE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def kept(project: Path) -> Path:
    """A directory in which three results of two tools are kept."""
    folder = project / "kept"
    put(folder, "k1", Entry(b'{"name": "kettle"}', 2.0, None, (), "search"))
    put(folder, "k2", Entry(b"[1, 2]", 0.5, 4e9, (7,), "search"))
    put(folder, "k3", Entry(b"null", 0.25, None, (), "count"))
    return folder


def put(folder: Path, key: str, entry: Entry) -> None:
    async def main() -> None:
        store = DiskStore(folder)
        store.put(key, entry)
        await store.aclose()

    asyncio.run(main())


def test_stats_say_what_is_kept_by_tool(cli: Cli, kept: Path) -> None:
    done = cli("cache", "stats", "--dir", "kept")

    lines = [line.split() for line in done.out.splitlines()]
    assert lines[0][:3] == ["kept:", "3", "results,"]
    assert lines[2:] == [
        ["search", "2", "24", "bytes", "2.5", "s"],
        ["count", "1", "4", "bytes", "250", "ms"],
    ]
    assert (done.code, done.err) == (codes.OK, "")


def test_stats_in_json(cli: Cli, kept: Path) -> None:
    data = cli("cache", "stats", "--dir", "kept", "--json").json

    assert data["bytes_on_disk"] > 0
    assert (data["ok"], data["directory"], data["results"]) == (True, "kept", 3)
    assert data["tools"]["search"] == {"results": 2, "bytes": 24, "seconds": 2.5}


def test_export_gives_every_result_as_a_line_of_json(cli: Cli, kept: Path) -> None:
    done = cli("cache", "export", "--dir", "kept")

    assert [json.loads(line) for line in done.out.splitlines()] == [
        {"key": "k1", "tool": "search", "value": {"name": "kettle"}, "cost": 2.0, "expires": None},
        {"key": "k2", "tool": "search", "value": [1, 2], "cost": 0.5, "expires": 4e9},
        {"key": "k3", "tool": "count", "value": None, "cost": 0.25, "expires": None},
    ]
    assert done.code == codes.OK


def test_what_has_expired_is_not_told_of(cli: Cli, project: Path) -> None:
    put(project / "kept", "old", Entry(b"1", 1.0, 1.0, (), "search"))

    assert cli("cache", "export", "--dir", "kept").out == ""
    assert cli("cache", "stats", "--dir", "kept").out == "kept: no results are kept there\n"


def test_clear_removes_results_and_what_was_learnt_from_them(cli: Cli, kept: Path) -> None:
    (kept / LEARNT).write_text("{}")

    done = cli("cache", "clear", "--dir", "kept")

    assert (done.code, done.out) == (codes.OK, "kept: nothing is kept there any more\n")
    assert cli("cache", "stats", "--dir", "kept", "--json").json["results"] == 0
    assert not (kept / LEARNT).exists()


def test_clear_removes_what_was_damaged(cli: Cli, kept: Path) -> None:
    for name in ("values.damaged-0a1b2c3d", "epochs.damaged-0a1b2c3d", "values.cleared-00"):
        (kept / name).mkdir()
        (kept / name / "cache.db").write_bytes(b"damaged")
    (kept / "notes.damaged-1").mkdir()

    assert cli("cache", "clear", "--dir", "kept").code == codes.OK
    assert [path.name for path in kept.iterdir() if "-" in path.name] == ["notes.damaged-1"]


def test_clear_makes_what_others_hold_in_memory_old(cli: Cli, kept: Path) -> None:
    async def epoch() -> tuple[int, ...] | None:
        epochs = SharedEpochs(kept)
        try:
            return await epochs.look([("shelf",)])
        finally:
            await epochs.aclose()

    before = asyncio.run(epoch())
    cli("cache", "clear", "--dir", "kept")

    assert before is not None
    assert asyncio.run(epoch()) not in (None, before)


def test_it_works_while_another_process_uses_the_store(cli: Cli, project: Path) -> None:
    with asyncio.Runner() as other:  # a loop of its own, as another process would have
        store = DiskStore(project / "kept")
        store.put("k1", Entry(b"1", 1.0, None, (), "search"))
        other.run(store.flush())
        before = cli("cache", "stats", "--dir", "kept", "--json").json["results"]
        cleared = cli("cache", "clear", "--dir", "kept")
        found = other.run(store.get(["k1"]))
        store.put("k2", Entry(b"2", 1.0, None, (), "search"))
        other.run(store.flush())
        after = cli("cache", "export", "--dir", "kept").json["key"]
        other.run(store.aclose())

    assert (before, cleared.code, found, after) == (1, codes.OK, [None], "k2")


@pytest.mark.parametrize("action", ["stats", "clear", "export"])
def test_looking_where_nothing_is_kept_is_no_error_and_makes_nothing(
    cli: Cli, project: Path, action: str
) -> None:
    done = cli("cache", action, "--dir", "nowhere")

    assert (done.code, done.err) == (codes.OK, "")
    assert not (project / "nowhere").exists()


def test_a_damaged_store_is_said_to_be_damaged(cli: Cli, kept: Path) -> None:
    (kept / "values" / "cache.db").write_bytes(b"garbage" * 1000)

    done = cli("cache", "stats", "--dir", "kept", "--json")

    assert (done.code, done.json["ok"]) == (codes.FAILED, False)
    assert "the cache was damaged and starts empty" in done.err
    assert "some of it could not be read" in done.err


def test_a_folder_that_others_may_write_to_is_not_read(cli: Cli, kept: Path) -> None:
    kept.chmod(0o777)

    done = cli("cache", "export", "--dir", "kept")

    assert (done.code, done.out) == (codes.FAILED, "")
    assert f"chmod go-w {kept.name}" in done.err


def test_the_directory_may_come_from_the_environment_or_the_project(
    cli: Cli, kept: Path, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / "pyproject.toml").write_text('[tool.agentflow]\ncache = "kept"\n')
    assert cli("cache", "stats", "--json").json["results"] == 3

    monkeypatch.setenv("AGENTFLOW_CACHE", "nowhere")
    assert cli("cache", "stats", "--json").json["results"] == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["stats"], "no cache directory is named: use --dir DIR, AGENTFLOW_CACHE"),
        (["stats", "--dir", "flow.py"], "flow.py is a file"),
        (["shrink"], "invalid choice: 'shrink'"),
        ([], "ACTION"),
    ],
)
def test_what_is_asked_wrongly_is_explained(cli: Cli, words: list[str], said: str) -> None:
    done = cli("cache", *words)

    assert done.code == codes.USAGE
    assert said in done.err


# What a run keeps and reuses


def test_a_run_says_what_it_did_not_have_to_do(cli: Cli) -> None:
    done = cli("run", "flow.py:thrice", "5")

    assert done.out == "63\n"
    assert "  2 calls not made again, from memory\n" in done.err
    assert "done      $2 looked_up" in done.err
    assert "(2 elements)" in done.err and ", 1 reused: 2 items" in done.err


def test_a_run_without_a_cache_makes_every_call(cli: Cli) -> None:
    done = cli("run", "flow.py:thrice", "5", "--no-cache", "--json")

    assert done.json["reuse"] == {
        "calls": 4, "reused": 0, "share": 0.0, "by": {}, "seconds_saved": 0.0
    }  # fmt: skip
    assert "reused" not in done.err


def test_a_later_run_finds_what_an_earlier_one_kept(cli: Cli) -> None:
    words = ("run", "flow:outer", "3", "--cache", "kept", "--json")
    first, second = cli(*words).json, cli(*words).json

    assert first["reuse"]["by"] == {}
    assert second["reuse"]["by"] == {"disk": 3}
    assert second["result"] == first["result"] == 6
    assert second["calls"][1]["reused"] == {"disk": 1}


def test_speculating_keeps_what_it_learns_beside_the_results(cli: Cli, project: Path) -> None:
    done = cli("run", "flow.py:outer", "2", "--cache", "kept", "--speculate", "--json")

    data = done.json["speculation"]
    assert data["started"] == data["used"] + data["wasted"]
    assert (project / "kept" / LEARNT).exists()


def test_a_workflow_may_guess_at_the_tools_beside_it(project: Path) -> None:
    options = argparse.Namespace(budget=None, budget_tokens=None, deadline=None, session=None)
    job = job_for(find("flow.py:thrice", ["5"]), options, Endpoint(Settings()))

    assert {"looked_up", "double"} <= {tool.name for tool in job.tools}


def test_with_a_budget_only_guesses_that_cost_nothing_are_made() -> None:
    options = argparse.Namespace(no_cache=False, speculate=True, budget="0.05")
    found = speculation(options, Settings(speculate=True))

    assert isinstance(found, Speculation)
    assert found.budget == Budget(usd=0)


def test_guesses_need_a_cache_to_be_kept_in(cli: Cli) -> None:
    done = cli("run", "flow.py:outer", "1", "--no-cache", "--speculate")

    assert done.code == codes.USAGE
    assert "leave --no-cache out" in done.err


def test_a_project_that_speculates_can_still_run_without_a_cache(cli: Cli, project: Path) -> None:
    (project / "pyproject.toml").write_text("[tool.agentflow]\nspeculate = true\n")

    assert cli("run", "flow.py:outer", "2", "--no-cache", "-q").out == "2\n"


def test_a_cache_that_cannot_be_used_is_said_and_harms_no_run(cli: Cli) -> None:
    done = cli("run", "flow.py:outer", "3", "--cache", "flow.py")

    assert (done.code, done.out) == (codes.OK, "6\n")
    assert "everything is a miss" in done.err


def test_other_commands_do_not_load_the_disk_tier(cli: Cli) -> None:
    for name in ("agentflow.caches.diskstore", "agentflow.caches.disk"):
        sys.modules.pop(name, None)
    cli("run", "flow.py:outer", "1")

    assert "agentflow.caches.disk" not in sys.modules
