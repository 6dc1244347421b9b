"""How long the dispatcher thinks: many sessions, many replicas."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from time import thread_time
from typing import Any

from affinity_agents import Agent, Played, Setting, lives, serving
from affinity_rivals import OURS, POLICIES
from affinity_scoring import quantile
from affinity_simulator import Simulation

from agentflow.caches.affinity.dispatcher import Dispatcher

CALLS = ("arrive", "began", "finished", "away", "ended", "tick")


@dataclass(frozen=True)
class Thinking:
    """Seconds of the processor for one call of the dispatcher."""

    sessions: int
    replicas: int
    calls: int
    p50: float
    p99: float
    worst: float


def thinking(sessions: int = 1000, replicas: int = 64) -> Thinking:
    """Sessions that are all there at once, each with some turns."""
    setting = Setting(agents=sessions, replicas=replicas, window=10.0, turns=(2, 3))
    agents = lives(setting, 0)
    simulation = Simulation(POLICIES[OURS], serving(setting, agents), replicas)
    took: list[float] = []
    for name in CALLS:
        timed(simulation.dispatcher, name, took)
    played = Played()
    for life in agents:
        simulation.at(life.start, Agent(life, setting, simulation, played).turn)
    simulation.run()
    ordered = sorted(took)
    return Thinking(
        sessions, replicas, len(took), quantile(ordered, 0.5), quantile(ordered, 0.99), ordered[-1]
    )


def timed(dispatcher: Dispatcher, name: str, took: list[float]) -> None:
    """Note how long each call of a method takes."""
    method: Callable[..., Any] = getattr(dispatcher, name)

    @wraps(method)
    def call(*args: Any, **more: Any) -> Any:
        began = thread_time()
        result = method(*args, **more)
        took.append(thread_time() - began)
        return result

    setattr(dispatcher, name, call)
