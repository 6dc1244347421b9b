"""What passes know of the tools a plan calls."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

from agentflow.planner.builder import effect_of
from agentflow.tools.effects import Effect
from agentflow.tools.spec import ToolSpec

Tools: TypeAlias = Mapping[str, ToolSpec]
"""Specs by name, as plans call them."""


def effect(tools: Tools, tool: str) -> Effect:
    """The effect of calls of a tool; one that is not known declares nothing."""
    return effect_of(tool, tools.get(tool))
