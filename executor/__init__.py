"""Running it: the run state (no I/O), the driver, calls, model clients and strategies.

Decisions are made in `state` without I/O and carried out by `driver`; `answers` stands between
calls and the cache, and `speculator` starts calls before they are asked for. May import the
leaves, `tools`, `budgets`, `planner` and `caches`; never the face.
"""
