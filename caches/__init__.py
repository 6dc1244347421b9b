"""What need not run again: the tool cache and its tiers; and what may run before it is asked for.

KV residency and routing will live here too. May import the leaves, `tools`, `budgets` and
`planner`.
"""
