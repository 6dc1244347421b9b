"""A simple deterministic tokenizer, so that usage counts are real counts of something."""

from __future__ import annotations

import re
from collections import deque

from agentflow.caches.affinity.prompts import alike

_TOKEN = re.compile(r" ?\w{1,4}|[^\S\n]+|\n+|[^\w\s]{1,2}")


def tokens(text: str) -> list[str]:
    """Split into pieces of about four characters; joined they are the text again."""
    return _TOKEN.findall(text)


class PrefixCache:
    """Counts how much of a prompt a server would find in its KV cache.

    It remembers the last `size` prompts and never forgets a part of one.
    """

    def __init__(self, size: int = 64) -> None:
        self._prompts: deque[str] = deque(maxlen=size)

    def cached(self, prompt: str) -> int:
        """Tokens shared with the start of an earlier prompt; at least one is always computed."""
        shared = max((alike(prompt, other) for other in self._prompts), default=0)
        self._prompts.append(prompt)
        return max(0, min(len(tokens(prompt[:shared])), len(tokens(prompt)) - 1))
