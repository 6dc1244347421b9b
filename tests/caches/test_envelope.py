"""Entries as bytes: whole, or refused."""

from __future__ import annotations

import json
from hashlib import blake2b
from struct import Struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.caches.envelope import Damaged, pack, unpack
from agentflow.caches.store import Entry

ENTRY = Entry(b'{"rows":[1,2,3]}', 0.25, 1_800_000_000.5, (3, 2**62 + 5), "search")

finite = st.floats(allow_nan=False, allow_infinity=False)
entries = st.builds(
    Entry,
    value=st.binary(),
    cost=finite,
    expires=st.none() | finite,
    epochs=st.lists(st.integers(0, 2**63)).map(tuple),
    tool=st.text(),
)


@given(st.text(), entries)
def test_every_entry_comes_back(key: str, entry: Entry) -> None:
    assert unpack(key, pack(key, entry)) == entry


def test_every_truncation_is_refused() -> None:
    packed = pack("k", ENTRY)
    for length in range(len(packed)):
        with pytest.raises(Damaged):
            unpack("k", packed[:length])


def test_every_altered_byte_is_refused() -> None:
    packed = pack("k", ENTRY)
    for at in range(len(packed)):
        altered = bytearray(packed)
        altered[at] ^= 1
        with pytest.raises(Damaged):
            unpack("k", bytes(altered))


def test_trailing_bytes_are_refused() -> None:
    with pytest.raises(Damaged):
        unpack("k", pack("k", ENTRY) + b"\0")


def test_the_entry_of_another_key_is_refused() -> None:
    with pytest.raises(Damaged, match="another key"):
        unpack("other", pack("k", ENTRY))


def test_another_version_is_refused() -> None:
    with pytest.raises(Damaged, match="version"):
        unpack("k", b"AFE0" + pack("k", ENTRY)[4:])


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"[]",
        b"null",
        b"{}",
        b'{"cost":1,"expires":null,"epochs":[]}',
        b'{"cost":"1","expires":null,"epochs":[],"tool":""}',
        b'{"cost":true,"expires":null,"epochs":[],"tool":""}',
        b'{"cost":NaN,"expires":null,"epochs":[],"tool":""}',
        b'{"cost":1,"expires":"soon","epochs":[],"tool":""}',
        b'{"cost":1,"expires":null,"epochs":[1.5],"tool":""}',
        b'{"cost":1,"expires":null,"epochs":7,"tool":""}',
        b'{"cost":1,"expires":null,"epochs":[],"tool":7}',
        b'{"cost":1' + b"0" * 5000 + b',"expires":null,"epochs":[],"tool":""}',
        b"[" * 100_000,
        b"\xff\xfe",
    ],
)
def test_a_header_that_is_none_is_refused_even_with_its_digest(header: bytes) -> None:
    digest = blake2b(b"1 %d k" % len(header) + header + b"v", digest_size=16).digest()
    made = Struct("<4s16sIQ").pack(b"AFE1", digest, len(header), 1) + header + b"v"

    with pytest.raises(Damaged, match="header"):
        unpack("k", made)


def test_the_digest_of_the_test_above_is_the_right_one() -> None:
    header = json.dumps({"cost": 1, "expires": None, "epochs": [], "tool": "t"}).encode()
    digest = blake2b(b"1 %d k" % len(header) + header + b"v", digest_size=16).digest()
    made = Struct("<4s16sIQ").pack(b"AFE1", digest, len(header), 1) + header + b"v"

    assert unpack("k", made) == Entry(b"v", 1, tool="t")
