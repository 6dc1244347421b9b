"""Running it: the run state (no I/O), the driver, calls, model clients and strategies.

Decisions are made in `state` without I/O and carried out by `driver`; `calls` makes calls, limits
them, and spares those whose value is known. Two kinds of calls begin before the state knows of
them: those that are likely (`speculation`), and those that a model still writes (`partial`). Calls
that several models may try are tried as `allocation` has it decided; a model that several
replicas serve is a pool (`affinity`). `strategies` answer sentences, `sessions` are what was said
before. What runs do is kept, and found again, by the `journal`; before some calls somebody is asked
(`asking`). May import the leaves, `tools`, `budgets`, `planner` and `caches`; never the face.
"""
