"""What runs do: a plan, or a workflow's function."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from typing import Any, TypeVar

from agentflow.context import recorder
from agentflow.executor.recorder import WorkflowRecorder
from agentflow.executor.run import Body, Run
from agentflow.executor.state.bind import bind
from agentflow.executor.state.commands import DONE
from agentflow.planner.passes import (
    SEGMENT_PASSES,
    fuse_batches,
    lay_out_prompts,
    rank,
    run_passes,
)
from agentflow.planner.plan import GATHER, Answer, Plan, refs
from agentflow.planner.trace import refuse_hidden
from agentflow.tools.handle import Handle, Reference, parts
from agentflow.tools.paths import resolve
from agentflow.tools.spec import ToolSpec
from agentflow.tools.values import as_text

T = TypeVar("T")


def plan_body(plan: Plan) -> Body[Any]:
    """Runs a whole plan; its value is what it returns, or all results by plan id."""

    async def body(run: Run[Any]) -> Any:
        run.extend(plan)
        run.driver.close()
        await run.driver.finished()
        state = run.driver.state
        if state.first_failure is not None:
            raise state.errors[state.first_failure]
        if isinstance(plan.result, Answer):
            return state.results()
        for ref in refs(plan.result):
            if state.status[state.slot(ref.node)] is not DONE:
                raise state.errors[state.slot(ref.node)]
        return bind(state, plan.result)

    return body


def workflow_body(
    fn: Callable[..., Coroutine[Any, Any, T]],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    check: Callable[[Any], T] | None = None,
) -> Body[T]:
    """Runs a workflow's function, whose calls become segments of the run's plan.

    `check` converts its value to the declared type, or raises.
    """

    async def body(run: Run[T]) -> T:
        record = WorkflowRecorder(run, _compiler(run))
        run.tools = record.tools
        recorder.set(record)
        if run.speculator is not None:
            for given in (*args, *kwargs.values()):
                run.said(as_text(given))
        try:
            value: T = await _settled(await fn(*args, **kwargs))
            await record.finish()
            if check is not None:
                value = check(value)
        except BaseException:
            record.abort()
            raise
        return value

    return body


async def _settled(value: Any) -> Any:
    """What a workflow returned, with handles awaited."""
    if type(value) is Handle:
        return await value
    if type(value) is Reference:
        handle, path = parts(value)
        return resolve(await handle, path)
    if type(value) in (list, tuple):
        return type(value)([await _settled(item) for item in value])
    if type(value) is dict:
        return {key: await _settled(item) for key, item in value.items()}
    refuse_hidden(value)
    return value


class _Specs(Mapping[str, ToolSpec]):
    """Specs of a run's tools, made when a pass asks."""

    def __init__(self, run: Run[Any]) -> None:
        self._run = run

    def __getitem__(self, name: str) -> ToolSpec:
        return self._run.tools[name].spec

    def __iter__(self) -> Any:
        return iter(self._run.tools)

    def __len__(self) -> int:
        return len(self._run.tools)


def _compiler(run: Run[Any]) -> Callable[[Plan], Plan]:
    """The passes that have something to do in a segment.

    The builder has merged and ordered its calls; ranks matter where not all may run at once.
    """
    specs, window = _Specs(run), run.host.services.limits.run

    def rewrite(plan: Plan) -> Plan:
        names = {node.tool for node in plan.nodes} - {GATHER}
        tools = [run.tool(name) for name in names]
        useful: dict[Any, bool] = {
            fuse_batches: any(tool.batch is not None for tool in tools),
            lay_out_prompts: any(tool.effect.kind == "samples" for tool in tools),
            rank: len(plan.nodes) > min([window, *(tool.policy.limit for tool in tools)]),
        }
        return run_passes(plan, specs, [step for step in SEGMENT_PASSES if useful[step]])

    return rewrite
