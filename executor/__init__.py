"""Running it: the run state (no I/O), the driver, calls, model clients and strategies.

Decisions are made in `state` without I/O and carried out by `driver`; `answers` stands between
calls and the cache. Two kinds of calls begin before the state knows of them: those that are
likely (`speculation`), and those that a model still writes (`partial`). Calls that several
models may try are tried as `allocation` has it decided; a model that several replicas serve is
a pool (`affinity`). What runs do is kept, and found again, by the `journal`; before some calls
somebody is asked (`inquiry`, `questions`). May import the leaves, `tools`, `budgets`, `planner` and `caches`; never the
face.
"""
