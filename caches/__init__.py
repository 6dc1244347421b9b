"""What need not run again: the tool cache, speculation, KV residency and routing.

Empty for now: results are shared within a run by value numbering (`agentflow.planner`).
May import the leaves, `tools`, `budgets` and `planner`.
"""
