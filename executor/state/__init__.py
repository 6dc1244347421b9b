"""What a run decides, without I/O: happenings in, commands out.

`run_state` reacts; what is ready begins by `schedule`, where `gates` let it through, which runs
share; joins end by `joins`, plans that still grow are `growth`. Imports `planner`, `tools` and the
leaves, and no other part of the executor.
"""
