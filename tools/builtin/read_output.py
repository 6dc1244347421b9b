"""`read_output`: the rest of a result that was too long to be shown."""

from __future__ import annotations

from agentflow.context import run_scope
from agentflow.tools.tool import tool


@tool(reads="outputs", ttl=0)
async def read_output(id: str, start: int = 0, end: int | None = None) -> str:
    """Read on in a long result, by characters; ask for a further part if one is not enough."""
    run = run_scope.get()
    if run is None:
        raise LookupError("there are outputs only in the run of a task")
    text: str = run.driver.outputs.read(id, start, end)
    return text
