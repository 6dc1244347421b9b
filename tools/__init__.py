"""What can be called: `Tool`, its signature, effects and policy, handles, and the built-in tools.

A tool is an ordinary function outside a workflow, and a node of a plan inside one.
May import the leaves only.
"""
