"""A store keeps what runs did: in order, exactly once, and for one owner at a time."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from agentflow.errors import DefinitionError, JournalError
from agentflow.executor.journal.rows import LARGEST_RECORD, ROW, Answer, Batch, RunRow
from agentflow.executor.journal.store import JournalStore, digest_of

Open = Callable[..., JournalStore]
Begun = Callable[..., Batch]


def numbered(first: int, last: int) -> list[str]:
    return [json.dumps({"n": n}) for n in range(first, last)]


def numbers(store: JournalStore, run: str) -> list[object]:
    return [record["n"] for record in store.records(run)]


def test_records_come_back_in_order_also_from_another_store(
    store: JournalStore, opened: Open, begun: Begun
) -> None:
    store.write(begun("a", "b", lines=numbered(0, 3)))
    store.write(Batch(lines={"b": numbered(3, 4)}))
    store.write(Batch(lines={"a": numbered(3, 9), "b": numbered(4, 5)}))

    assert numbers(store, "a") == list(range(9))
    assert numbers(opened(), "b") == list(range(5))


def test_a_run_has_what_was_said_of_it(store: JournalStore, begun: Begun) -> None:
    store.write(begun("a", lines=['{"n":1}']))
    ask = {"question": "q", "kind": "approval"}
    store.write(
        Batch(
            lines={"a": ['{"n":2}']},
            runs={"a": {"state": "paused", "usd": "0.25", "tokens": 9, "asks": [ask]}},
        )
    )

    assert store.run("a") == RunRow(
        id="a",
        name="brief",
        kind="workflow",
        target={"module": "m"},
        state="paused",
        began=1.0,
        updated=100.0,
        seconds=0.0,
        usd="0.25",
        tokens=9,
        asks=(ask,),
        note="",
        size=14,
    )


def test_a_batch_with_an_unknown_run_is_refused_as_a_whole(
    store: JournalStore, begun: Begun
) -> None:
    with pytest.raises(JournalError, match="run b is not in the journal") as caught:
        store.write(Batch(lines={"b": ["{}"]}, runs=begun("a").runs))

    assert caught.value.run == "b"
    assert caught.value.path == str(store.path)
    assert store.runs() == []


def test_a_value_of_an_unknown_run_is_refused(store: JournalStore) -> None:
    with pytest.raises(JournalError, match="run b is not in the journal"):
        store.write(Batch(blobs={digest_of(b"1"): b"1"}, refs=[("b", digest_of(b"1"))]))


@pytest.mark.parametrize(
    ("column", "value", "says"),
    [("colour", "red", "no column 'colour'"), ("asks", [{1, 2}], "is no JSON")],
)
def test_a_column_that_cannot_be_is_refused(
    store: JournalStore, begun: Begun, column: str, value: object, says: str
) -> None:
    with pytest.raises(DefinitionError, match=says):
        store.write(begun("a", **{column: value}))

    assert store.runs() == []


def test_runs_are_listed_newest_first_by_state_up_to_a_limit(
    store: JournalStore, begun: Begun
) -> None:
    states = ["finished", "running", "failed", "finished", "paused"]
    for run, state in zip("abcde", states, strict=True):
        store.write(begun(run, state=state))

    def listed(**which: object) -> str:
        return "".join(row.id for row in store.runs(**which))  # type: ignore[arg-type]  # of runs

    assert listed() == "edcba"
    assert listed(limit=2) == "ed"
    assert listed(limit=0) == ""
    assert listed(states=["finished", "paused"]) == "eda"
    assert listed(states=["finished"], limit=1) == "d"
    assert listed(states=["interrupted"]) == ""


def test_a_run_is_found_by_the_beginning_of_its_id(store: JournalStore, begun: Begun) -> None:
    store.write(begun("brief-7f3a", "brief-7fc1", "brief-7", "other%"))

    assert store.run("brief-7f3").id == "brief-7f3a"
    assert store.run("o").id == "other%"
    assert store.run("brief-7").id == "brief-7"  # the id itself goes before others


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("brief-7f", "several runs begin with 'brief-7f': brief-7fc1, brief-7f3a"),
        ("brief_7f3a", r"no run 'brief_7f3a'. Did you mean 'brief-7f3a'\?"),
        ("%", r"no run '%'. Known: brief-7f3a, brief-7fc1\."),
        ("", r"no run ''. Known: "),
        ("brief-\udcff", "nothing by a name that is no text"),
    ],
)
def test_a_name_that_is_not_one_run_is_explained(
    store: JournalStore, begun: Begun, name: str, says: str
) -> None:
    store.write(begun("brief-7f3a", "brief-7fc1"))

    with pytest.raises(JournalError, match=says):
        store.run(name)


def test_a_journal_without_runs_says_so(store: JournalStore) -> None:
    with pytest.raises(JournalError, match=r"no run 'a'. It has no runs yet\."):
        store.run("a")
    with pytest.raises(JournalError, match="no run 'a'"):
        list(store.records("a"))


def test_half_a_surrogate_pair_survives(store: JournalStore, begun: Begun) -> None:
    text = "half \ud83d, é, 😀\0"
    lines = [json.dumps({"n": text}, ensure_ascii=False), json.dumps({"n": text})]
    store.write(begun("a", lines=lines, note=text))

    assert numbers(store, "a") == [text, text]
    assert store.run("a").note == "half \\ud83d, é, 😀\0"


def test_what_is_too_much_for_a_row_is_spread_over_several(
    store: JournalStore, begun: Begun
) -> None:
    large = json.dumps({"n": "x" * ROW})
    small = json.dumps({"n": "y" * (ROW // 3)})
    store.write(begun("a", lines=[small, large, *[small] * 7]))
    store.write(Batch(lines={"a": ['{"n":"last"}']}))

    assert [str(n)[0] for n in numbers(store, "a")] == ["y", "x", *"yyyyyyy", "l"]
    ends_of_lines = 3  # small | large | small small | small small | small small | small | last
    size = 8 * len(small) + len(large) + len('{"n":"last"}') + ends_of_lines
    assert store.run("a").size == size


def test_the_largest_record_can_be_read_again(store: JournalStore, begun: Begun) -> None:
    wide = json.dumps({"n": "\ud83d" * (LARGEST_RECORD - 9)}, ensure_ascii=False)
    assert len(wide) == LARGEST_RECORD

    store.write(begun("a", lines=[wide]))

    assert len(str(numbers(store, "a")[0])) == LARGEST_RECORD - 9


def test_large_values_are_kept_once_by_their_content(store: JournalStore, begun: Begun) -> None:
    data = b"[1,2,3]" * 1000
    digest = digest_of(data)
    for run in "ab":
        store.write(begun(run))
        store.write(Batch(blobs={digest: data}, refs=[(run, digest), (run, digest)]))

    assert store.blob(digest) == data
    with pytest.raises(JournalError, match=f"the value {digest_of(b'')} is missing"):
        store.blob(digest_of(b""))


def test_an_owner_that_lives_keeps_its_run(store: JournalStore, opened: Open, begun: Begun) -> None:
    store.write(begun("a"))
    other = opened()

    with pytest.raises(JournalError, match="run a is going on in another process") as caught:
        other.claim("a")

    assert caught.value.run == "a"
    assert other.run("a").state == "running"
    store.claim("a")  # its own


def test_an_owner_that_is_gone_gives_way(store: JournalStore, opened: Open, begun: Begun) -> None:
    store.write(begun("a", lines=numbered(0, 2)))
    store.close()
    other = opened()

    assert other.run("a").state == "interrupted"
    assert [row.id for row in other.runs(states=["interrupted"])] == ["a"]
    assert other.runs(states=["running"]) == []

    other.claim("a")
    other.write(Batch(lines={"a": numbered(2, 3)}))

    assert other.run("a").state == "running"
    assert numbers(other, "a") == [0, 1, 2]


@pytest.mark.parametrize("state", ["paused", "failed", "cancelled", "finished"])
def test_of_several_that_claim_a_run_that_waits_one_wins(
    store: JournalStore, opened: Open, begun: Begun, state: str
) -> None:
    store.write(begun("a", state=state))
    one, other = opened(), opened()

    one.claim("a")
    with pytest.raises(JournalError, match="going on in another process"):
        other.claim("a")

    with pytest.raises(JournalError, match="run a is gone on with by another process") as caught:
        store.write(Batch(lines={"a": ["{}"]}))  # who had it before
    assert caught.value.run == "a"


def test_a_run_that_is_not_there_cannot_be_claimed_answered_or_deleted(
    store: JournalStore,
) -> None:
    for act in (store.claim, store.answers, store.delete):
        with pytest.raises(JournalError, match="no run 'a'"):
            act("a")
    with pytest.raises(JournalError, match="no run 'a'"):
        store.answer("a", "q", "approve", None, "me")


def test_the_first_answer_stays(store: JournalStore, opened: Open, begun: Begun) -> None:
    store.write(begun("a"))
    other = opened(wall=lambda: 5.0)
    other.answer("a", "q1", "done", '{"id":1}', "Ann")
    other.answer("a", "q2", "approve", None, "Ann")
    store.answer("a", "q2", "approve", None, "Bob")  # nothing new

    with pytest.raises(JournalError, match="was answered with 'approve' by Ann already"):
        store.answer("a", "q2", "deny", None, "Bob")
    with pytest.raises(JournalError, match="was answered with 'done'"):
        store.answer("a", "q1", "done", '{"id":2}', "Bob")

    assert store.answers("a") == {
        "q1": Answer("done", '{"id":1}', "Ann", 5.0),
        "q2": Answer("approve", None, "Ann", 5.0),
    }


def test_an_answer_is_one_of_three(store: JournalStore, begun: Begun) -> None:
    store.write(begun("a"))

    with pytest.raises(DefinitionError, match="one of approve, deny, done, not 'perhaps'"):
        store.answer("a", "q", "perhaps", None, "me")  # type: ignore[arg-type]  # that is the point
    assert store.answers("a") == {}


def test_a_run_that_is_deleted_leaves_nothing(
    store: JournalStore, opened: Open, begun: Begun
) -> None:
    shared, own = digest_of(b"shared"), digest_of(b"own")
    store.write(begun("a", "b", lines=["{}"], state="finished"))
    store.write(Batch(blobs={shared: b"shared", own: b"own"}, refs=[("a", shared), ("a", own)]))
    store.write(Batch(refs=[("b", shared)]))
    store.answer("a", "q", "deny", None, "me")

    opened().delete("a")

    assert [row.id for row in store.runs()] == ["b"]
    assert store.blob(shared) == b"shared"
    with pytest.raises(JournalError, match="is missing"):
        store.blob(own)
    store.write(begun("a"))
    assert (numbers(store, "a"), store.answers("a")) == ([], {})
    assert store.check() == []


def test_a_run_that_goes_on_is_not_deleted(store: JournalStore, opened: Open, begun: Begun) -> None:
    store.write(begun("a"))

    for one in (store, opened()):
        with pytest.raises(JournalError, match="run a is going on: cancel it first"):
            one.delete("a")


def test_a_store_is_opened_again_after_it_was_closed(store: JournalStore, begun: Begun) -> None:
    store.close()
    store.write(begun("a", lines=numbered(0, 1)))
    store.close()
    store.close()

    assert numbers(store, "a") == [0]


def test_nothing_is_made_for_a_reader(store: JournalStore, path: Path) -> None:
    with pytest.raises(JournalError, match="there is no journal yet"):
        store.open(create=False)

    assert not path.parent.exists()


def test_readers_leave_no_lock(store: JournalStore, path: Path) -> None:
    store.runs()

    assert list(path.with_name("journal.db.owners").iterdir()) == []


def test_a_file_that_is_removed_meanwhile_is_not_written_to(
    store: JournalStore, opened: Open, path: Path, begun: Begun
) -> None:
    store.write(begun("a", lines=numbered(0, 2)))
    for file in path.parent.glob("journal.db*"):
        if file.is_file():
            file.unlink()

    with pytest.raises(JournalError, match="run a is not in the journal, or no more") as caught:
        store.write(Batch(lines={"a": numbered(2, 3)}))
    assert caught.value.run == "a"

    store.write(begun("b", lines=numbered(0, 2)))
    assert opened().run("b").state == "running"


def test_an_owner_lives_on_when_the_whole_folder_was_removed(
    store: JournalStore, opened: Open, path: Path, begun: Begun
) -> None:
    store.write(begun("a"))
    path.parent.rename(path.parent.with_name("moved"))

    store.write(begun("b"))

    assert opened().run("b").state == "running"


def test_a_whole_journal_has_nothing_to_complain_of(store: JournalStore, begun: Begun) -> None:
    store.write(begun("a", lines=numbered(0, 2)))
    store.write(Batch(blobs={digest_of(b"1"): b"1"}, refs=[("a", digest_of(b"1"))]))

    assert store.check() == []


@pytest.mark.parametrize(("durability", "synchronous"), [("process", 1), ("power", 2)])
def test_durability_decides_whether_commits_are_synced(
    opened: Open, durability: str, synchronous: int
) -> None:
    with opened(durability=durability)._file.read() as db:
        assert db.execute("PRAGMA synchronous").fetchone() == (synchronous,)
        assert db.execute("PRAGMA fullfsync").fetchone() == (synchronous - 1,)
        assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)


@pytest.mark.parametrize("kind", ["link", "second name"])
def test_a_journal_of_two_names_is_refused(tmp_path: Path, kind: str) -> None:
    """Who goes on with a run is known by locks beside the file's name."""
    path, other = tmp_path / "journal.db", tmp_path / "other.db"
    store = JournalStore(path)
    store.open()
    store.close()
    if kind == "link":
        other.symlink_to(path)
    else:
        other.hardlink_to(path)
    with pytest.raises(JournalError, match="link" if kind == "link" else "another name"):
        JournalStore(other).open()
