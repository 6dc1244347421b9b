"""Help for tests: virtual time, scripted servers and faults."""

from agentflow.testing.chat import ChatCall, Exchange
from agentflow.testing.clock import VirtualDeadlock, VirtualLoop, run_virtual
from agentflow.testing.contract import StoreContract
from agentflow.testing.replaying import ReplayDiffers, Replayed, replay
from agentflow.testing.replicas import ModelledReplica
from agentflow.testing.replies import Answer, Call, Fault, Model, Pace, Piece, Raw, Reply, Usage
from agentflow.testing.scripts import Called, Gate, Scripted, Timeline
from agentflow.testing.server import ScriptedServer
from agentflow.testing.serving import Change, Serving, ServingModel

__all__ = [
    "Answer",
    "Call",
    "Called",
    "Change",
    "ChatCall",
    "Exchange",
    "Fault",
    "Gate",
    "Model",
    "ModelledReplica",
    "Pace",
    "Piece",
    "Raw",
    "ReplayDiffers",
    "Replayed",
    "Reply",
    "Scripted",
    "ScriptedServer",
    "Serving",
    "ServingModel",
    "StoreContract",
    "Timeline",
    "Usage",
    "VirtualDeadlock",
    "VirtualLoop",
    "replay",
    "run_virtual",
]
