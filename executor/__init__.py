"""Running it: the run state (no I/O), the driver, calls, model clients and strategies.

Decisions are made in `state` without I/O and carried out by `driver`. May import the
leaves, `tools`, `budgets`, `planner` and `caches`; never the face.
"""
