"""What a run decides, without I/O: happenings in, commands out.

`run_state` reacts; what is ready begins by `schedule`, joins end by `joins`, plans that still grow
are `growth`. Imports `planner` and the leaves, and nothing that awaits.
"""
