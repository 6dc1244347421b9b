"""`sql`: what a statement may do to a database, and how it is stopped."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from agentflow.context import Context
from agentflow.errors import ArgumentError, DefinitionError
from agentflow.tools.builtin import sql_tool
from agentflow.tools.builtin.sql import Rows, SqlFailed
from agentflow.tools.builtin.sql_database import MAX_RESULT, MAX_TEXT
from agentflow.tools.builtin.sql_guard import authorize
from agentflow.tools.streaming import Commit

ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A database with a table of people, in a folder of its own."""
    path = tmp_path / "data" / "app #1?.db"
    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE people (name TEXT, age INTEGER)")
        rows = [("Ada", 36), ("Grace", 85), ("Alan", 41)]
        connection.executemany("INSERT INTO people VALUES (?, ?)", rows)
    return path


@pytest.fixture
def ask(path: Path) -> Any:
    return sql_tool(path)


@pytest.fixture
def change(path: Path) -> Any:
    return sql_tool(path, write=True)


def contents(path: Path) -> list[Any]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute("SELECT * FROM people").fetchall()


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    """No descriptor stays open, and no thread busy."""
    before = len(os.listdir("/dev/fd"))
    yield
    assert len(os.listdir("/dev/fd")) == before


# What is given


async def test_a_statement_gives_its_columns_and_rows(ask: Any) -> None:
    found = await ask("SELECT name, age / 2.0 AS half FROM people WHERE age < ? ORDER BY age", [50])

    assert found == Rows(["name", "half"], [["Ada", 18.0], ["Alan", 20.5]])


async def test_values_are_such_as_json_can_have(ask: Any) -> None:
    found = await ask("SELECT NULL, 9e999, -9e999, x'00ff00', CAST(x'ff41' AS TEXT), 1 << 62")

    assert found.rows == [[None, "inf", "-inf", "<3 bytes>", "\ufffdA", 2**62]]


async def test_parameters_are_text_numbers_and_null(ask: Any) -> None:
    assert (await ask("SELECT ?, ?, ?, ?", ["'); --", 2, 1.5, None])).rows == [
        ["'); --", 2, 1.5, None]
    ]
    with pytest.raises(ArgumentError):
        ask.signature.argument("params", [[1]])


@pytest.mark.parametrize(("limit", "truncated"), [(2, True), (3, False), (4, False)])
async def test_rows_are_given_up_to_the_limit(path: Path, limit: int, truncated: bool) -> None:
    found = await sql_tool(path, max_rows=limit)("SELECT name FROM people")

    assert (len(found.rows), found.truncated) == (min(limit, 3), truncated)


@pytest.mark.parametrize(("length", "cut"), [(MAX_TEXT, False), (MAX_TEXT + 1, True)])
async def test_a_long_text_is_cut(ask: Any, length: int, cut: bool) -> None:
    found = await ask("SELECT printf('%.*c', ?, 'x')", [length])

    [[text]] = found.rows
    assert (len(text), text.endswith("…"), found.truncated) == (MAX_TEXT, cut, cut)


async def test_not_more_is_given_in_all_than_somebody_can_read(path: Path) -> None:
    wide = (
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 1000) "
        "SELECT printf('%.*c', 9000, 'x') FROM n"
    )

    found = await sql_tool(path)(wide)

    assert found.truncated
    assert MAX_RESULT < sum(len(row[0]) for row in found.rows) < MAX_RESULT + MAX_TEXT


async def test_the_tables_can_be_looked_at(ask: Any) -> None:
    assert (await ask("SELECT name FROM sqlite_master")).rows == [["people"]]
    for query in ("PRAGMA table_info(people)", "SELECT * FROM pragma_table_info('people')"):
        assert [row[1] for row in (await ask(query)).rows] == ["name", "age"]
    assert (await ask("EXPLAIN QUERY PLAN SELECT * FROM people")).rows
    assert (await ask("SELECT value FROM json_each('[1, 2]')")).rows == [[1], [2]]


async def test_what_was_changed_is_counted(change: Any, path: Path) -> None:
    assert (await change("UPDATE people SET age = age + 1 WHERE age > 40")).changed == 2
    assert (await change("SELECT 1")).changed == 0
    found = await change("INSERT INTO people VALUES ('Bob', 7) RETURNING name")

    assert found == Rows(["name"], [["Bob"]], changed=1)
    assert contents(path) == [("Ada", 36), ("Grace", 86), ("Alan", 42), ("Bob", 7)]


async def test_a_change_is_made_in_full_also_if_not_all_of_its_rows_are_given(path: Path) -> None:
    change = sql_tool(path, write=True, max_rows=1)

    found = await change("UPDATE people SET age = 0 RETURNING name")

    assert (len(found.rows), found.truncated, found.changed) == (1, True, 3)
    assert {age for _, age in contents(path)} == {0}


async def test_tables_can_be_made_and_changed(change: Any) -> None:
    for query in (
        "CREATE TABLE pets (name, owner)",
        "ALTER TABLE pets ADD COLUMN legs INTEGER NOT NULL DEFAULT 4 CHECK (legs >= 0)",
        "CREATE INDEX by_owner ON pets (owner)",
        "CREATE VIRTUAL TABLE notes USING fts5(body)",
        "INSERT INTO notes VALUES ('hello world')",
        "CREATE VIRTUAL TABLE boxes USING rtree(id, low, high)",
        "INSERT INTO boxes VALUES (1, 2, 3)",
        "DROP TABLE pets",
    ):
        await change(query)

    assert (await change("SELECT body FROM notes WHERE notes MATCH 'world'")).rows


async def test_indexes_of_texts_and_places_can_be_asked_read_only(change: Any, ask: Any) -> None:
    await change("CREATE VIRTUAL TABLE notes USING fts5(body)")
    await change("CREATE VIRTUAL TABLE boxes USING rtree(id, low, high)")

    assert (await ask("SELECT * FROM notes WHERE notes MATCH 'world'")).rows == []
    assert (await ask("SELECT * FROM boxes WHERE low > 1")).rows == []


# What is refused


async def test_what_only_reads_is_kept_from_writing_more_than_once(ask: Any) -> None:
    async with ask.warm_up.open({}, Context()) as database:
        connection = database._connection
        assert connection.getlimit(sqlite3.SQLITE_LIMIT_ATTACHED) == 0
        assert connection.execute("PRAGMA trusted_schema").fetchone() == (0,)
        assert connection.execute("PRAGMA query_only").fetchone() == (1,)
        connection.execute("PRAGMA query_only=OFF")
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            connection.execute("DELETE FROM people")


@pytest.mark.parametrize(
    "query",
    [
        "INSERT INTO people VALUES ('Eve', 1)",
        "UPDATE people SET age = 0",
        "DELETE FROM people",
        "DROP TABLE people",
        "CREATE TABLE more (x)",
        "CREATE TEMP TABLE more (x)",
        "ALTER TABLE people RENAME TO others",
        "WITH old AS (SELECT 1) DELETE FROM people",
        "REPLACE INTO people VALUES ('Eve', 1)",
        "ANALYZE",
        "PRAGMA user_version = 5",
        "PRAGMA query_only = OFF",
        "PRAGMA journal_mode = WAL",
        "PRAGMA writable_schema = ON",
    ],
)
async def test_nothing_changes_unless_that_was_allowed(path: Path, ask: Any, query: str) -> None:
    before = path.read_bytes()

    with pytest.raises(SqlFailed, match=r"can only be read|not authorized"):
        await ask(query)

    assert path.read_bytes() == before


@pytest.mark.parametrize("write", [False, True])
@pytest.mark.parametrize(
    "query",
    [
        "ATTACH '{folder}/other.db' AS other",
        "VACUUM INTO '{folder}/other.db'",
        "VACUUM",
        "SELECT load_extension('{folder}/evil.so')",
        "SELECT LOAD_EXTENSION('{folder}/evil.so')",
        "SELECT fts3_tokenizer('simple')",
        "PRAGMA Journal_Mode = MEMORY",
        "PRAGMA user_version = 5",
        "SELECT * FROM pragma_journal_mode('off')",
        "UPDATE sqlite_master SET sql = ''",
        "DETACH main",
        "BEGIN",
        "COMMIT",
        "ROLLBACK",
        "SAVEPOINT here",
        "SELECT 1; SELECT 2",
        "SELECT 1; ATTACH '{folder}/other.db' AS other",
    ],
)
async def test_no_other_file_and_no_other_transaction_is_reached(
    path: Path, write: bool, query: str
) -> None:
    before = path.read_bytes()

    with pytest.raises(SqlFailed):
        await sql_tool(path, write=write)(query.format(folder=path.parent))

    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_it_is_the_rules_that_keep_vacuum_from_writing_elsewhere(path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.set_authorizer(authorize)
        with pytest.raises(sqlite3.DatabaseError, match="authoriz"):
            connection.execute(f"VACUUM INTO '{path.parent}/other.db'")

    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(
    ("query", "params", "message"),
    [
        ("SELECT * FROM peeple", [], "no such table: peeple. Did you mean 'people'"),
        ("SELECT agee FROM people", [], r"no such column: agee. PRAGMA table_info"),
        ("SELEC", [], 'near "SELEC": syntax error'),
        ("SELECT 1; SELECT 2", [], "one statement at a time. Make one call for each"),
        ("SELECT ?", [], "params holds one value for each"),
        ("SELECT ?", [2**63], "too large"),
        ("SELECT '\0'", [], "null character"),
        ("SELECT '\ud800'", [], "surrogates not allowed"),
        ("SELECT zeroblob(1000000000)", [], "too big"),
    ],
)
async def test_errors_say_what_to_do(ask: Any, query: str, params: list[Any], message: str) -> None:
    with pytest.raises(SqlFailed, match=message):
        await ask(query, params)


@pytest.mark.parametrize("write", [False, True])
async def test_a_database_that_is_not_there_is_never_created(tmp_path: Path, write: bool) -> None:
    with pytest.raises(SqlFailed, match=r"no database '.*missing\.db'"):
        await sql_tool(tmp_path / "missing.db", write=write)("SELECT 1")

    assert not list(tmp_path.iterdir())


async def test_what_is_no_database_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "odd").write_bytes(b"x" * 4096)

    with pytest.raises(SqlFailed, match=r"file is not a database\. It has to be a SQLite file"):
        await sql_tool(tmp_path / "odd")("SELECT 1")
    with pytest.raises(SqlFailed, match="there is no database"):
        await sql_tool(tmp_path)("SELECT 1")


def test_limits_are_checked_where_they_are_written(path: Path) -> None:
    for options in ({"max_rows": 0}, {"timeout": 0}):
        with pytest.raises(DefinitionError):
            sql_tool(path, **options)  # type: ignore[arg-type]  # of two types


def test_it_says_what_it_is(path: Path, ask: Any, change: Any) -> None:
    assert str(ask.effect) == "reads(sql/app #1?.db)"
    assert str(change.effect) == "writes(sql/app #1?.db)"
    assert [parameter.name for parameter in ask.spec.parameters] == ["query", "params"]
    assert sql_tool("{odd}.db", name="books").effect.resources == ("sql/odd.db",)


# Before and after the commit


class Asked(Commit):
    """Tells when the tool waits for it."""

    def __init__(self, certain: asyncio.Future[None]) -> None:
        super().__init__(certain)
        self.waiting = asyncio.Event()

    async def __call__(self) -> None:
        self.waiting.set()
        await super().__call__()


async def test_a_change_waits_for_the_commit(path: Path, change: Any) -> None:
    certain: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    commit = Asked(certain)
    async with change.warm_up.open({}, Context()) as database:
        task = asyncio.ensure_future(
            change.fn("DELETE FROM people", database=database, commit=commit)
        )
        await asyncio.wait_for(commit.waiting.wait(), 5)
        assert len(contents(path)) == 3
        certain.set_result(None)

        assert (await task).changed == 3
    assert contents(path) == []


async def test_the_database_is_open_before_the_call_and_closed_after(path: Path, ask: Any) -> None:
    before = len(os.listdir("/dev/fd"))
    async with ask.warm_up.open({}, Context()) as database:
        assert len(os.listdir("/dev/fd")) > before
        found = await ask.fn("SELECT count(*) FROM people", database=database)
    assert (found.rows, len(os.listdir("/dev/fd"))) == ([[3]], before)


async def test_what_was_written_after_it_was_opened_is_seen(
    path: Path, ask: Any, change: Any
) -> None:
    async with ask.warm_up.open({}, Context()) as database:
        await change("DELETE FROM people")
        assert (await ask.fn("SELECT * FROM people", database=database)).rows == []


async def test_a_file_that_took_the_place_of_the_one_opened_is_read(path: Path, ask: Any) -> None:
    other = path.with_name("other.db")
    shutil.copy(path, other)
    async with ask.warm_up.open({}, Context()) as database:
        await sql_tool(other, write=True)("DELETE FROM people")
        other.rename(path)
        assert (await ask.fn("SELECT * FROM people", database=database)).rows == []


async def test_a_database_that_comes_after_the_warm_up_is_opened_by_the_call(
    tmp_path: Path,
) -> None:
    ask = sql_tool(tmp_path / "late.db")
    async with ask.warm_up.open({}, Context()) as database:  # type: ignore[union-attr]  # it has one
        (tmp_path / "late.db").touch()
        assert (await ask.fn("SELECT 1", database=database)).rows == [[1]]


# Time


@pytest.mark.parametrize("write", [False, True])
async def test_a_statement_that_takes_too_long_is_stopped(path: Path, write: bool) -> None:
    with pytest.raises(SqlFailed, match=r"stopped after 0\.05 s: ask for less"):
        await sql_tool(path, write=write, timeout="50ms")(ENDLESS)


async def test_a_call_that_is_cancelled_stops_at_once_and_changes_nothing(
    path: Path, change: Any
) -> None:
    task = asyncio.ensure_future(change(f"UPDATE people SET age = ({ENDLESS})"))
    with closing(sqlite3.connect(path, timeout=0, isolation_level=None)) as other:
        async with asyncio.timeout(5):
            while not locked(other):
                await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(task, 5)
        assert not locked(other)

    assert contents(path) == [("Ada", 36), ("Grace", 85), ("Alan", 41)]


def locked(connection: sqlite3.Connection) -> bool:
    """Whether another connection is writing."""
    try:
        connection.execute("BEGIN IMMEDIATE")
    except sqlite3.OperationalError:
        return True
    connection.execute("ROLLBACK")
    return False


@pytest.mark.parametrize("query", [ENDLESS, "DELETE FROM people"])
async def test_a_statement_that_is_stopped_before_it_has_begun_does_nothing(
    path: Path, change: Any, query: str
) -> None:
    async with change.warm_up.open({}, Context()) as database:
        database._stop()
        with pytest.raises(SqlFailed, match="interrupted"):
            await asyncio.wait_for(database.run(query, ()), 5)

    assert len(contents(path)) == 3


@pytest.mark.virtual
async def test_a_locked_database_is_waited_for(path: Path, change: Any) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        task = asyncio.ensure_future(change("DELETE FROM people"))
        await asyncio.sleep(1)
        assert not task.done()
        other.execute("COMMIT")

        assert (await task).changed == 3


@pytest.mark.virtual
async def test_a_change_waits_for_those_who_read(path: Path, change: Any) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN")
        other.execute("SELECT * FROM people").fetchone()
        task = asyncio.ensure_future(change("DELETE FROM people"))
        await asyncio.sleep(1)
        assert not task.done()
        other.execute("COMMIT")

        assert (await task).changed == 3


@pytest.mark.virtual
@pytest.mark.parametrize("write", [False, True])
async def test_a_database_that_stays_locked_is_given_up(path: Path, write: bool) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(SqlFailed, match="another program has locked the database"):
            await sql_tool(path, write=write, timeout=3)("SELECT count(*) FROM people")

    assert asyncio.get_running_loop().time() == pytest.approx(3, abs=0.1)


async def test_calls_at_once_wait_for_one_another(path: Path, change: Any) -> None:
    await asyncio.gather(*(change("UPDATE people SET age = age + 1") for _ in range(10)))

    assert contents(path) == [("Ada", 46), ("Grace", 95), ("Alan", 51)]
