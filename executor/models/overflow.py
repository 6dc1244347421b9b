"""What servers say when a request is more than the model takes: each has words of its own."""

from __future__ import annotations

import re

_TOO_LONG = re.compile(
    r"context_length_exceeded|exceed_context_size|context_?window_?exceeded"
    r"|(prompt|input) (is )?too long"
    r"|maximum prompt length"
    r"|reduce the length of the (messages|prompt|input)"
    r"|exceeds the (limit of|maximum number of tokens|maximum allowed input length)"
    r"|exceeded model token limit"
    r"|range of input length should be"
    r"|`inputs` .*must (be <=|have less than)",
    re.IGNORECASE,
)
_CONTEXT = re.compile(r"context (length|size|window|limit)|model length", re.IGNORECASE)
_COMPARED = re.compile(
    r"exceed|\blong|\blarge|greater|\bmax|\bonly\b|\bbut\b|overflow", re.IGNORECASE
)
"""What stands beside it: a parameter of that name may be refused as well."""

_WINDOW = re.compile(
    r"(?:context (?:length|size|window)|model length|prompt length is|input length of"
    r"|token limit|limit of|tokens allowed|max_new_tokens` must be|should be \[1,|n_ctx\b|>)"
    r"(?! by\b)\D{0,12}?(\d[\d,]*)"
    r"|(\d[\d,]*) maximum context",
    re.IGNORECASE,
)


def is_overflow(said: str) -> bool:
    """Whether a server says that prompt and reply are more than the model takes."""
    if _TOO_LONG.search(said):
        return True
    return _CONTEXT.search(said) is not None and _COMPARED.search(said) is not None


def window_in(said: str) -> int | None:
    """The tokens that the model takes, as far as a server says so in a refusal."""
    found = _WINDOW.search(said)
    if found is None:
        return None
    return int((found[1] or found[2]).replace(",", ""))
