"""Running something from code that has no event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, ParamSpec, TypeVar, overload

from agentflow.engine import Engine
from agentflow.executor.strategies.task import Task
from agentflow.planner.plan import Plan
from agentflow.workflows import Workflow

P = ParamSpec("P")
T = TypeVar("T")


@overload
def run_sync(target: Workflow[P, T], *args: P.args, **kwargs: P.kwargs) -> T: ...
@overload
def run_sync(
    target: Workflow[..., T], *args: Any, engine: Mapping[str, Any] | None = ..., **kwargs: Any
) -> T: ...
@overload
def run_sync(
    target: Task | str, *, engine: Mapping[str, Any] | None = ..., **fields: Any
) -> str: ...
@overload
def run_sync(target: Plan, *, engine: Mapping[str, Any] | None = ..., **options: Any) -> Any: ...
def run_sync(
    target: Any, *args: Any, engine: Mapping[str, Any] | None = None, **kwargs: Any
) -> Any:
    """Run something from synchronous code, with an engine of its own.

    Args:
        target: As for `Engine.start`.
        *args: As for `Engine.start`.
        engine: Arguments of the engine.
        **kwargs: As for `Engine.start`.

    Raises:
        RuntimeError: A loop is running already in this thread.
        RunError: It failed, was cancelled, or passed its deadline.
    """
    if asyncio._get_running_loop() is not None:
        raise RuntimeError(
            "run_sync cannot be used where an event loop is running (a notebook, an async "
            "function): write 'await engine.run(...)' there"
        )

    async def main() -> Any:
        async with Engine(**(engine or {})) as made:
            return await made.run(target, *args, **kwargs)

    return asyncio.run(main())
