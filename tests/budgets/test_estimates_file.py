"""Estimates on disk: shared, whole or set aside, and never a reason for a run to fail."""

from __future__ import annotations

import fcntl
import json
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from agentflow.budgets import estimate_file
from agentflow.budgets.estimate_records import Outcome, Records
from agentflow.budgets.estimates import Estimates, default_path
from agentflow.budgets.prices import FREE

NOW = 1_700_000_000


def wall() -> float:
    return NOW


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "agentflow" / "estimates.json"


def learnt(path: Path | None, count: int = 5, kind: str = "k") -> Estimates:
    estimates = Estimates(path, wall=wall)
    teach(estimates, count, kind)
    return estimates


def teach(estimates: Estimates, count: int, kind: str = "k") -> None:
    for number in range(count):
        estimates.note(kind, "m", Outcome(number % 2 == 0, 1.5 + number, 100, 50))
        estimates.settled(kind, {"m": (int(number % 2 == 0), number % 2)})
    estimates.ran("flow", True, 0.01)


def test_what_was_learnt_is_there_for_the_next_process(path: Path) -> None:
    first = learnt(path)

    assert first.save()

    second = Estimates(path, wall=wall)
    assert second.success("k", "m") == first.success("k", "m")
    assert second.outcomes("k", "m") == first.outcomes("k", "m")
    assert second.passes("flow") == first.passes("flow")
    assert second.agreement("k") == first.agreement("k")
    one, other = (each.profile("k", "m", FREE) for each in (first, second))
    assert (one.won, one.lost, one.probability) == (other.won, other.lost, other.probability)
    assert not first.problem + second.problem


def test_only_the_owner_may_read_it(path: Path) -> None:
    learnt(path).save()

    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert sorted(entry.name for entry in path.parent.iterdir()) == [path.name, f"{path.name}.lock"]


def test_nothing_is_written_before_something_was_learnt(path: Path) -> None:
    assert Estimates(path).save()

    assert not path.parent.exists()


def test_without_a_path_nothing_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    assert learnt(None).save()
    assert not list(tmp_path.iterdir())


def test_of_two_who_save_neither_loses_anything(path: Path) -> None:
    first, second = learnt(path, 4), learnt(path, 6)

    assert first.save() and second.save() and first.save()
    teach(first, 2)
    assert first.save()

    for estimates in (first, Estimates(path, wall=wall)):
        assert estimates.known("k", "m") == 12
        assert estimates.passes("flow").runs == 3


SAVE_OFTEN = """
import sys
from agentflow.budgets.estimates import Estimates, Outcome

estimates = Estimates(sys.argv[1], wall=lambda: 1_700_000_000)
for _ in range(20):
    estimates.note("k", "m", Outcome(True, 1.0))
    estimates.settled("k", {"m": (1, 0)})
    assert estimates.save(), estimates.problem
"""


def test_processes_that_save_at_once_lose_nothing(path: Path) -> None:
    command = [sys.executable, "-c", SAVE_OFTEN, str(path)]
    workers = [subprocess.Popen(command) for _ in range(3)]

    assert [worker.wait(60) for worker in workers] == [0] * 3
    assert Estimates(path, wall=wall).known("k", "m") == 3 * 20


def test_what_is_learnt_while_it_is_saved_is_kept(path: Path) -> None:
    learnt(path, 1).save()
    estimates = learnt(path, 1)
    descriptor = os.open(path.with_name("estimates.json.lock"), os.O_RDWR)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    saver = threading.Thread(target=estimates.save)
    saver.start()
    while estimates._unsaved:  # until it waits for the lock
        threading.Event().wait(0.001)
    teach(estimates, 3)
    os.close(descriptor)
    saver.join(30)

    assert estimates.known("k", "m") == 1 + 1 + 3
    assert estimates.save()
    assert Estimates(path, wall=wall).known("k", "m") == 1 + 1 + 3


BROKEN: dict[str, Callable[[str], str]] = {
    "cut in half": lambda text: text[: len(text) // 2],
    "empty": lambda _: "",
    "an older version": lambda text: text.replace('"format":1', '"format":0'),
    "no version": lambda text: text.replace('"format":1,', ""),
    "a version that is text": lambda text: text.replace('"format":1', '"format":"1"'),
    "not a number": lambda text: text.replace("1.5", "NaN"),
    "infinite": lambda text: text.replace("1.5", "1e999"),
    "negative": lambda text: text.replace("1.5", "-1.5"),
    "text for a number": lambda text: text.replace("1.5", '"1.5"'),
    "a list": lambda _: "[1, 2]",
    "lists for tables": lambda _: '{"format":1,"kinds":[],"workflows":[]}',
    "a job nobody tried": lambda text: text.replace('[["m",1,0]]', "[]"),
    "a huge job": lambda text: text.replace('["m",1,0]', '["m",100000,0]'),
    "a short row": lambda text: text.replace("1.5,100,50", "1.5,100"),
    "nested": lambda _: "[" * 100_000,
}


@pytest.mark.parametrize("how", BROKEN)
def test_a_broken_file_is_set_aside_and_told_of_once(path: Path, how: str) -> None:
    learnt(path).save()
    text = BROKEN[how](path.read_text("utf-8"))
    path.write_text(text, "utf-8")

    with capture_logs() as logs:
        estimates = learnt(path)
        assert estimates.save()

    assert [log["log_level"] for log in logs] == ["warning"]
    assert str(path) in estimates.problem
    assert path.with_name("estimates.json.broken").read_text("utf-8") == text
    assert Estimates(path, wall=wall).known("k", "m") == 5


def test_a_file_that_is_not_text_is_set_aside(path: Path) -> None:
    path.parent.mkdir(parents=True)
    path.write_bytes(b"\xff\xfe\x00" * 100)

    assert learnt(path).save()
    assert path.with_name("estimates.json.broken").exists()


def test_a_file_that_is_too_large_is_set_aside(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    learnt(path).save()
    monkeypatch.setattr(estimate_file, "LARGEST", 100)

    assert "too large" in Estimates(path).problem


def test_a_file_of_a_newer_version_is_left_alone(path: Path) -> None:
    learnt(path).save()
    text = path.read_text("utf-8").replace('"format":1', '"format":2')
    path.write_text(text, "utf-8")

    with capture_logs() as logs:
        estimates = learnt(path)
        assert not estimates.save()

    assert len(logs) == 1
    assert "newer" in estimates.problem
    assert path.read_text("utf-8") == text
    assert estimates.known("k", "m") == 5


def test_a_directory_in_its_place_is_left_alone(tmp_path: Path) -> None:
    with capture_logs() as logs:
        estimates = learnt(tmp_path)
        assert not estimates.save()
        assert not estimates.save()

    assert len(logs) == 1
    assert str(tmp_path) in estimates.problem
    assert tmp_path.is_dir()
    assert estimates.known("k", "m") == 5


def test_a_file_in_the_place_of_its_directory_is_no_reason_to_fail(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("mine")

    estimates = learnt(tmp_path / "state" / "estimates.json")

    assert not estimates.save()
    assert (tmp_path / "state").read_text() == "mine"


def test_what_could_not_be_written_is_written_later(tmp_path: Path) -> None:
    path = tmp_path / "estimates.json"
    path.mkdir()
    estimates = learnt(path)
    assert not estimates.save()

    path.rmdir()
    teach(estimates, 3)

    assert estimates.save()
    assert Estimates(path, wall=wall).known("k", "m") == 8


def test_nothing_is_left_behind_of_what_could_not_be_written(path: Path) -> None:
    learnt(path).save()
    before = {each.name: each.read_bytes() for each in path.parent.iterdir()}

    with pytest.raises(ValueError, match="JSON"):
        estimate_file.EstimateFile(path).write({"usd": float("nan")})

    assert {each.name: each.read_bytes() for each in path.parent.iterdir()} == before


def test_a_lock_that_is_never_given_back_is_not_waited_for(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learnt(path).save()
    estimates = learnt(path)
    monkeypatch.setattr(estimate_file, "PATIENCE", 0.04)
    descriptor = os.open(path.with_name("estimates.json.lock"), os.O_RDWR)
    fcntl.flock(descriptor, fcntl.LOCK_EX)

    assert not estimates.save()
    os.close(descriptor)
    assert estimates.save()
    assert Estimates(path, wall=wall).known("k", "m") == 10


def test_a_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "link.json").symlink_to("real.json")

    learnt(tmp_path / "link.json").save()

    assert (tmp_path / "link.json").is_symlink()
    assert json.loads((tmp_path / "real.json").read_text())["format"] == 1


def test_a_file_from_the_future_is_taken_for_one_of_today(path: Path) -> None:
    future = Estimates(path, wall=lambda: NOW + 1e9)
    teach(future, 10)
    future.save()

    estimates = learnt(path, 10)

    assert estimates.known("k", "m") == 20


def test_what_is_from_the_future_is_forgotten_in_its_time(path: Path) -> None:
    future = Estimates(path, wall=lambda: NOW + 1e9)
    for _ in range(30):
        future.note("k", "m", Outcome(True, 50.0, 100, 50))
    future.save()

    estimates = Estimates(path, half_life="1d", wall=wall)
    estimates.ran("flow", True, 0.0)
    estimates.save()  # from now on it is of today
    later = Estimates(path, half_life="1d", wall=lambda: NOW + 8 * 86_400)
    for _ in range(30):
        later.note("k", "m", Outcome(True, 1.0, 100, 50))

    assert median(took for took, _ in later.profile("k", "m", FREE).won) < 2.0


def test_what_takes_long_to_work_out_is_kept(path: Path) -> None:
    estimates = Estimates(path, wall=wall)
    for number in range(40):
        estimates.settled("k", {"m": (0, 8) if number % 2 else (8, 0)})
    estimates.save()

    agreement, _ = json.loads(path.read_text())["kinds"]["k"]["agreement"]

    assert agreement > 0.8
    assert Estimates(path, wall=wall).agreement("k") == agreement


def test_what_cannot_be_saved_is_bounded(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentflow.budgets.estimates.UNSAVED", 6)
    estimates = learnt(path, 20)

    assert estimates.unsaved == 6
    assert estimates.save()
    assert estimates.unsaved == 0


def test_the_file_stays_small(path: Path) -> None:
    estimates = Estimates(path, wall=wall)
    for number in range(40):
        for model in "abcd":
            for _ in range(200):
                estimates.note(f"k{number}", model, Outcome(True, 1.23456789, 1234, 567))
    estimates.save()

    assert path.stat().st_size < 500_000


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"AGENTFLOW_ESTIMATES": "/a/b.json", "XDG_STATE_HOME": "/state"}, "/a/b.json"),
        ({"XDG_STATE_HOME": "/state"}, "/state/agentflow/estimates.json"),
        ({"XDG_STATE_HOME": "relative"}, "/of/a/user/.local/state/agentflow/estimates.json"),
        ({}, "/of/a/user/.local/state/agentflow/estimates.json"),
    ],
)
def test_where_the_file_is(
    environ: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/of/a/user")

    assert default_path(environ) == Path(expected)


def test_without_a_home_there_is_no_place_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)

    assert default_path({}) is None


NAME = st.text(max_size=8)
COUNT = st.integers(0, 70)
SECONDS = st.floats(0, 1e6)
NOTED = st.builds(
    Outcome, st.sampled_from([True, False, None]), SECONDS, st.integers(0, 10**6), COUNT
)
CHANGES = st.one_of(
    st.tuples(st.just("note"), NAME, NAME, NOTED),
    st.tuples(st.just("settle"), NAME, st.dictionaries(NAME, st.tuples(COUNT, COUNT), max_size=3)),
    st.tuples(st.just("ran"), NAME, st.booleans(), SECONDS),
)


@given(changes=st.lists(st.tuples(st.integers(NOW, NOW + 10**7), CHANGES), max_size=20))
def test_what_is_read_is_what_was_written(changes: list[tuple[int, tuple[Any, ...]]]) -> None:
    records = Records(1e6)
    for at, (method, *args) in changes:
        getattr(records, method)(at, *args)

    dumped = json.loads(json.dumps(records.dump(), allow_nan=False))
    again = Records.load(dumped, 1e6, NOW + 10**7)

    assert json.loads(json.dumps(again.dump())) == dumped
    assert (again.kinds, again.workflows) == (records.kinds, records.workflows)


@given(
    junk=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAME, inner, max_size=4),
        max_leaves=10,
    )
)
def test_whatever_stands_in_a_file_is_read_or_refused(junk: Any) -> None:
    kind = {"at": 1, "changes": 1, "agreement": [0.5, -1], "jobs": [], "models": {}}
    for dumped in (
        junk,
        {"kinds": junk, "workflows": {}},
        {"kinds": {}, "workflows": {"w": junk}},
        *({"kinds": {"k": {**kind, name: junk}}, "workflows": {}} for name in kind),
        {"kinds": {"k": {**kind, "models": {"m": junk}}}, "workflows": {}},
    ):
        try:
            Records.load(dumped, 1e6, NOW)
        except ValueError:
            continue
