"""What need not run again: the tool cache and its tiers; and what may run before it is asked for.

Also what servers need not compute again (`affinity`): which replica holds what, and which request
goes where. May import the leaves, `tools`, `budgets` and `planner`.
"""
