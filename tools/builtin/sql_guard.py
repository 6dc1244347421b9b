"""What a statement may not do to a SQLite database, whatever it may write: SQLite asks us."""

from __future__ import annotations

import sqlite3

_NEVER = frozenset(
    (
        sqlite3.SQLITE_ATTACH,  # VACUUM INTO asks for it too: both write files anywhere
        sqlite3.SQLITE_DETACH,
        sqlite3.SQLITE_TRANSACTION,
        sqlite3.SQLITE_SAVEPOINT,
    )
)
_ABOUT = frozenset(  # pragmas that tell about what they are given
    (
        *("table_list", "table_info", "table_xinfo", "index_list", "index_info", "index_xinfo"),
        *("foreign_key_list", "foreign_key_check", "quick_check", "integrity_check"),
    )
)
_PLAIN = frozenset(("user_version", "page_size", "data_version"))  # that would set what they get
_FUNCTIONS = frozenset(("load_extension", "fts3_tokenizer"))  # foreign code, raw pointers


def authorize(action: int, first: str | None, second: str | None, *_: str | None) -> int:
    """SQLite's authorizer: keeps a statement within its own transaction and its own file."""
    if action == sqlite3.SQLITE_PRAGMA:
        name = (first or "").lower()
        allowed = name in _ABOUT or (name in _PLAIN and second is None)
    elif action == sqlite3.SQLITE_FUNCTION:
        allowed = (second or "").lower() not in _FUNCTIONS
    else:
        allowed = action not in _NEVER
    return sqlite3.SQLITE_OK if allowed else sqlite3.SQLITE_DENY
