"""Requests as prompts: the text a server sees of them, cut into chained blocks."""

from __future__ import annotations

import json
from collections import OrderedDict

from agentflow.caches.affinity.prompts import Chain, Prompt
from agentflow.executor.models.base import ChatRequest
from agentflow.executor.models.usage import BYTES_PER_TOKEN

KEPT_BYTES = 64 * 1024 * 1024
"""Bytes of prompts that are kept at most, so that what they begin with is not hashed again."""

MEMORY = 0.98
"""Weight that what was learnt keeps when the next reply comes."""

_JSON = json.JSONEncoder(
    ensure_ascii=False, separators=(",", ":"), sort_keys=True, default=str, allow_nan=True
)


def prompt_bytes(request: ChatRequest) -> bytes:
    """The text of a request as far as it becomes the prompt: the tools, then the messages.

    How a chat template lays it out is the server's affair; two prompts begin alike about as
    far as these texts do.
    """
    parts = [_JSON.encode(part) for part in (*request.tools, *request.messages)]
    return "\n".join(parts).encode("utf-8", "surrogatepass")


class Chains:
    """The prompts of sessions, each as a chain that grows with it.

    Attributes:
        tokens_per_byte: As the replies' token counts say.
    """

    def __init__(self) -> None:
        self.tokens_per_byte = 1.0 / BYTES_PER_TOKEN
        self._chains: OrderedDict[str, tuple[Chain, int]] = OrderedDict()
        self._kept = 0
        self._tokens = self._bytes = 0.0

    def prompt(self, text: bytes, session: str | None, salt: str = "") -> Prompt:
        """The prompt that a text is.

        Args:
            text: See `prompt_bytes`.
            session: Whose prompt is expected to go on with the next one, or None.
            salt: Prompts of different salts have nothing in common.
        """
        known = None if session is None else self._chains.pop(session, None)
        chain, size = known or (Chain(salt), 0)
        chain.extend(text)
        if session is not None:
            self._keep(session, chain, len(text), size)
        return chain.prompt(self.tokens_per_byte)

    def learn(self, size: int, tokens: int) -> None:
        """A server counted so many tokens in a text of that size."""
        if size and tokens:
            self._tokens = MEMORY * self._tokens + tokens
            self._bytes = MEMORY * self._bytes + size
            self.tokens_per_byte = self._tokens / self._bytes

    def forget(self, session: str) -> None:
        """A session asks nothing more."""
        if (known := self._chains.pop(session, None)) is not None:
            self._kept -= known[1]

    def _keep(self, session: str, chain: Chain, size: int, before: int) -> None:
        self._chains[session] = (chain, size)
        self._kept += size - before
        while self._kept > KEPT_BYTES:
            _, (_, freed) = self._chains.popitem(last=False)
            self._kept -= freed
