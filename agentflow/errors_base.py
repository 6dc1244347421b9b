"""The base of the tree in `agentflow.errors`."""

from __future__ import annotations

from agentflow.redaction import redact


class AgentflowError(Exception):
    """Base of everything agentflow raises on purpose; no known secret is in its text."""

    def __init__(self, *args: object) -> None:
        super().__init__(*(redact(each) if isinstance(each, str) else each for each in args))
