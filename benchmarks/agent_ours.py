"""agentflow as `agent.py` runs it: one engine for all agents, with everything, or without one thing.

A task is planned if its calls can mostly be foreseen, and a loop of tool calls otherwise. Without
planning all tasks are loops; without allocation estimates are asked of one model, which is told
that its answer did not pass; without affinity requests go through the proxy of everybody else.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from agent_bounds import ESTIMATE
from agent_fleet import HOSTED, HOSTED_URL, MODEL, PRICES, PROXY
from agent_hand import ASKED, MOST, ROUNDS, TRIES, Estimate
from agent_past import teach_calls, teach_samples
from agent_programs import Program
from agent_recorded import ASK, Recorded
from agent_scene import Drive, Scene
from agent_time import Times
from agent_world import EFFECTS, price

from agentflow import Budget, Engine, Estimates, Pool, Speculation, Stream, Task, llm, said, tool
from agentflow.caches.speculation.predictor import Predictor
from agentflow.executor.affinity.replica import ReplicaSpec
from agentflow.executor.affinity.stream import PooledStream
from agentflow.executor.models.base import ChatRequest
from agentflow.executor.models.client import OpenAIBackend


@dataclass(frozen=True)
class Mechanisms:
    """What is switched on."""

    planning: bool = True
    partial: bool = True
    speculation: bool = True
    allocation: bool = True
    affinity: bool = True


GUESSES = Budget(usd=1)
"""What may be spent on guesses that do not come true."""


@asynccontextmanager
async def engine(scene: Scene, its: Mechanisms) -> AsyncIterator[Drive]:
    """agentflow with these mechanisms."""
    async with AsyncExitStack() as stack:
        if its.affinity:
            model: Any = _pool(scene)
            stack.push_async_callback(model.aclose)
        else:
            model = OpenAIBackend(PROXY, MODEL, http=scene.http, prices=PRICES)
        source, estimates = Predictor(), Estimates()
        if its.speculation:
            teach_calls(source, scene)
        teach_samples(estimates, scene)
        made = await stack.enter_async_context(
            Engine(
                tools=_tools(scene, its),
                model=model,
                models={name: _hosted(scene, name) for name in HOSTED},
                prices=PRICES,
                speculation=its.speculation and Speculation(source=source, budget=GUESSES),
                partial=its.partial,
                estimates=estimates,
                seed=scene.seed,
            )
        )

        async def drive(program: Program) -> str:
            planned = its.planning and program.strategy == "plan"
            task = Task(
                program.question,
                strategy="plan" if planned else "react",
                budget=Budget(usd=str(program.usd), deadline=program.deadline + program.waits),
                rounds=None if planned else ROUNDS,
                tools=_recorded(scene, program) if isinstance(program, Recorded) else None,
                max_tokens=MOST,
            )
            answer: str = await made.run(task)
            return answer

        yield drive


class Watched(Pool):
    """A pool of which it is noted for how long it has requests."""

    def __init__(self, times: Times, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._times = times

    @asynccontextmanager
    async def stream(self, request: ChatRequest) -> AsyncIterator[PooledStream]:
        """As the pool's."""
        with self._times.during("held"):
            async with super().stream(request) as stream:
                yield stream


def _pool(scene: Scene) -> Pool:
    its = scene.serving
    specs = [
        ReplicaSpec(url, name, its.slots, its.capacity)
        for name, url in zip(scene.fleet.replicas, scene.fleet.urls, strict=True)
    ]
    return Watched(scene.times, specs, MODEL, http=scene.http, prices=PRICES)


def _hosted(scene: Scene, name: str) -> OpenAIBackend:
    return OpenAIBackend(HOSTED_URL, name, http=scene.http, prices=PRICES)


def _tools(scene: Scene, its: Mechanisms) -> list[Any]:
    """The same tools, with what they do declared."""
    if scene.setting.sessions is not None:
        return []
    made = [
        tool(usd=price(name), **EFFECTS[name])(function)
        for name, function in scene.tools(scene.programs[0]).items()
        if name != "run"
    ]
    return [*made, _sandbox(scene), _estimate(its.allocation)]


def _recorded(scene: Scene, program: Recorded) -> list[Any]:
    """The tools of a recorded session; what the customer says is heard."""
    functions = dict(scene.tools(program))
    ask = functions.pop(ASK)

    async def ask_customer(text: str) -> str:
        answer: str = await ask(text)
        said(answer)
        return answer

    ask_customer.__doc__ = ask.__doc__
    made = [tool(name=n, **program.effects(n))(function) for n, function in functions.items()]
    return [*made, tool(**program.effects(ASK))(ask_customer)]


def _sandbox(scene: Scene) -> Any:
    @tool(**EFFECTS["run"])
    async def run(code: Stream[str]) -> Any:
        """Run a program in a sandbox, beside a copy of the files."""
        return await scene.world.execute(aiter(code))

    return run


def _estimate(allocated: bool) -> Any:
    async def estimate(page: str) -> Estimate:
        raise NotImplementedError

    estimate.__doc__ = ASKED
    if allocated:
        return llm(model=list(HOSTED), samples=(1, 2, 4), check=_passes, max_tokens=512, repairs=0)(
            estimate
        )
    return llm(model=ESTIMATE, check=_passes, max_tokens=512, repairs=TRIES - 1)(estimate)


def _passes(its: Estimate) -> bool:
    return its.figure > 0
