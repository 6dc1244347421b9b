"""What may be called before it is asked for: who names it, how likely, and whether it pays.

Decides and learns, and starts nothing: `agentflow.executor.speculation` does. May import what
`agentflow.caches` may.
"""
