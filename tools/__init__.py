"""What can be called: `Tool`, its signature, effects and policy, handles, and the built-in tools.

A tool is an ordinary function outside a workflow, and a node of a plan inside one. Arguments
that a model still writes are read here too, and are what tools may begin with (`streaming`).
May import the leaves only.
"""
