"""Help for tests: virtual time, scripted servers and faults."""

from agentflow.testing.clock import VirtualDeadlock, VirtualLoop, run_virtual
from agentflow.testing.scripts import Called, Gate, Scripted, Timeline

__all__ = [
    "Called",
    "Gate",
    "Scripted",
    "Timeline",
    "VirtualDeadlock",
    "VirtualLoop",
    "run_virtual",
]
