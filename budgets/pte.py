"""Prefill token equivalents: what model calls cost a server, as tokens of prompt to be computed.

After "Prefill token equivalents" (arXiv 2604.05404), section 3, with what a server had cached left
out: a call costs its uncached prompt, and for each token that it makes reading the KV of all before.
"""

from __future__ import annotations

GAMMA = 0.002
"""What a token made costs for each token before it, of a token of prompt.

The median of the models that the paper lists for an H100; see `Price` for those of others.
"""


def prefill_equivalents(
    prompt: int, completion: int, cached: int | None = None, gamma: float = GAMMA
) -> float:
    """What one call cost, in tokens of prompt.

    Args:
        prompt: Tokens of its prompt, what was cached included.
        completion: Tokens that it made.
        cached: Tokens of the prompt that the server had; None, for unknown, counts as 0.
        gamma: See `GAMMA`.
    """
    uncached = prompt - min(cached or 0, prompt)
    return uncached + gamma * prompt * completion
