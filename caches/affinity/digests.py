"""Digests of names, which may hold anything: what the system gives for odd bytes as well."""

from __future__ import annotations

from hashlib import blake2b


def digest(*texts: str, size: int = 16) -> bytes:
    """A digest of some texts together: the same after a restart, and for everybody.

    Args:
        *texts: Lone surrogates are texts too.
        size: In bytes.
    """
    joined = "\0".join(texts).encode("utf-8", "surrogatepass")
    return blake2b(joined, digest_size=size).digest()
