"""The ways to drive agents that `agent.py` compares, and one run of one of them.

    python benchmarks/agent_rows.py CASE

plays one case, given as JSON, and prints what came of it: peers are run so, by the Python that has
them.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import agent_hand
from agent_fleet import FAST, Balance
from agent_ours import Mechanisms, engine
from agent_programs import ALL, EAGER, RECORDED, Habits
from agent_scene import Played, Row, Setting, play

HERE = Path(__file__).parent
HAND, STICKY = "ReAct by hand", "ReAct by hand, sticky proxy"
OURS = "agentflow"
MECHANISMS = ("planning", "partial", "speculation", "allocation", "affinity")
WITHOUT = {name: f"without {name}" for name in MECHANISMS}
PEERS = {
    "LangGraph": "peers.langgraph_agent:agent",
    "pydantic-ai": "peers.pydantic_agent:agent",
}
HABITS: Mapping[str, Mapping[int, int]] = {"recorded": RECORDED, "eager": EAGER, "all": ALL}


@dataclass(frozen=True)
class Case:
    """One run.

    Attributes:
        row: Name of the way.
        seed: Of programs and chance.
        agents: How many work at the same time.
        replicas: How many serve them.
        habits: How many calls models of loops make at once; a name in `HABITS`.
        servers: Rates of the replicas; a name in `SERVERS`.
        memory: Their KV, over what all conversations at one time have in it.
        sessions: A file of recorded sessions that are played instead; empty for none.
    """

    row: str
    seed: int = 0
    agents: int = 48
    replicas: int = 3
    habits: str = "recorded"
    servers: str = FAST
    memory: float = 0.5
    sessions: str = ""

    @property
    def setting(self) -> Setting:
        """The agents and what serves them."""
        habits = Habits(HABITS[self.habits])
        path = Path(self.sessions) if self.sessions else None
        return Setting(
            self.agents,
            replicas=self.replicas,
            memory=self.memory,
            habits=habits,
            servers=self.servers,
            sessions=path,
        )


def row(name: str) -> tuple[Row, Balance]:
    """A way by its name, and how the proxy balances for it."""
    if name in PEERS:
        module, _, attribute = PEERS[name].partition(":")
        return getattr(importlib.import_module(module), attribute), "least"
    if name in (HAND, STICKY):
        return agent_hand.loop, "sticky" if name == STICKY else "least"
    off = name.removeprefix("without ")
    its = replace(Mechanisms(), **{off: False}) if off in MECHANISMS else Mechanisms()
    return partial(engine, its=its), "least"


def played(case: Case) -> Played:
    """One run, in this process."""
    way, balance = row(case.row)
    return play(way, case.setting, balance, case.seed)


def played_by(python: Path, case: Case) -> Played | str:
    """One run in a process of another Python; why not, if it cannot be."""
    if not python.exists():
        return f"{python} does not exist: `make peers` makes it"
    root = str(HERE.parent)
    done = subprocess.run(
        [str(python), str(HERE / "agent_rows.py"), json.dumps(asdict(case))],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": root, "LANGSMITH_TRACING": "false"},
    )
    if done.returncode:
        return (done.stderr.strip().splitlines() or ["it failed"])[-1]
    data: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return Played.from_dict(data)


if __name__ == "__main__":
    print(json.dumps(played(Case(**json.loads(sys.argv[1]))).as_dict()))
