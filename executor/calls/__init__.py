"""How calls are made: composed, limited, timed, tried again, answered from what is known.

`running` has the calls under way, `bound` composes each once per tool, `answers` spares those that
need not be made. Whatever a call may have to do with meets here: imports all parts of the executor
but `strategies`, `sessions`, `allocation` and `affinity`.
"""
