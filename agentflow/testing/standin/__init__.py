"""A rule-based stand-in for a model: no weights, no canned text, only what it finds.

It recognises the requests of agentflow's planner, joiner and tool-calling loop by their
messages, searches with the tools they offer, and answers with the passages that fit best,
cited as ``file:line``. Deciding (`question`, `moves`, `ranking`, `composing`) is separate
from reading requests and writing plans (`protocol`).
"""

from agentflow.testing.standin.model import MODEL, serve_standin, standin

__all__ = ["MODEL", "serve_standin", "standin"]
