"""Reading recorded sessions, and dividing them."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from sessions import Call, Outside, Said, Session, Turn, chance, folds, read, timed


def line(*events: dict[str, Any], **fields: str) -> str:
    return json.dumps({"id": "s", "domain": "shop", "group": "g", **fields, "events": events})


def call(by: str = "agent", kind: str = "read", **fields: Any) -> dict[str, Any]:
    return {
        "e": "call",
        "by": by,
        "kind": kind,
        "name": "look",
        "args": {},
        "result": "1",
        **fields,
    }


def reply(calls: int, **fields: float) -> dict[str, Any]:
    return {"e": "llm", "text": "", "n_calls": calls, **fields}


def written(path: Path, *lines: str) -> Path:
    path.write_bytes(gzip.compress("\n".join(lines).encode()))
    return path


def test_a_reply_comes_with_the_calls_made_in_it(tmp_path: Path) -> None:
    user = {"e": "user", "text": "hello"}
    failed = call(name="find", args={"id": 3}, result="none", error=True)
    path = written(tmp_path / "s.gz", line(user, reply(2), call(), failed, reply(0)))
    (session,) = read(path)
    look = Call("look", "read", {}, "1", False)
    find = Call("find", "read", {"id": 3}, "none", True)
    assert session.steps == (Said("hello", 0.0), Turn("", None, (look, find)), Turn("", None, ()))


def test_of_the_users_calls_only_the_writes_are_kept_as_changes_by_others(tmp_path: Path) -> None:
    path = tmp_path / "s.jsonl"
    path.write_text(line(reply(0), call("user"), call("user", "write"), call("user", "effect")))
    (session,) = read(path)
    assert session.steps == (Turn("", 0.0, ()), Outside(), Outside())


def test_a_reply_without_the_calls_it_promises_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not followed by its calls"):
        read(written(tmp_path / "s.gz", line(reply(1), {"e": "user", "text": "?"})))


def test_durations_run_from_the_end_of_the_event_before(tmp_path: Path) -> None:
    events = (reply(1, t=1.0), call(t=1.0, t_res=4.0), reply(0, t=6.0), {"e": "user", "text": "a"})
    (session,) = read(written(tmp_path / "s.gz", line(*events)))
    assert [step.seconds for step in session.steps] == [0.0, 2.0, None]


def test_durations_that_were_not_recorded_are_drawn_from_those_of_the_domain() -> None:
    known = Session("a", "shop", "g", (Said("", 0.0), Turn("", 7.0, ()), Said("", 3.0)))
    unknown = Session("b", "shop", "g", (Said("", 0.0), Turn("", None, ()), Said("", None)))
    _, filled = timed([known, unknown])
    assert [step.seconds for step in filled.steps] == [0.0, 7.0, 3.0]


def test_every_session_is_scored_once_and_never_with_its_group_in_training() -> None:
    sessions = [Session(f"{n}", "shop", f"{n % 7}", ()) for n in range(40)]
    pairs = folds(sessions, 3)
    assert sorted(s.id for _, scored in pairs for s in scored) == sorted(s.id for s in sessions)
    for known, scored in pairs:
        assert len(known) + len(scored) == 40
        assert not {s.group for s in known} & {s.group for s in scored}


def test_parts_are_about_equal_though_groups_are_not() -> None:
    sizes = {"a": 6, "b": 1, "c": 4, "d": 1, "e": 3, "f": 3}
    sessions = [Session(f"{g}{n}", "shop", g, ()) for g, size in sizes.items() for n in range(size)]
    assert sorted(len(scored) for _, scored in folds(sessions, 3)) == [6, 6, 6]
    assert len(folds(sessions, 50)) == len(sizes)


def test_chance_depends_on_the_names_alone() -> None:
    drawn = [chance("a", n) for n in range(1_000)]
    assert drawn == [chance("a", n) for n in range(1_000)]
    assert 0.0 < min(drawn) < 0.01 and 0.99 < max(drawn) < 1.0
    assert abs(sum(drawn) / 1_000 - 0.5) < 0.05
