"""Which replica a model call goes to: what each one probably holds, and what a call would cost there.

Decisions only: nothing here waits, reads a clock or talks to a server. `Dispatcher` takes what
happened and says what to send where; `agentflow.executor.affinity` carries it out. Imports nothing
else of agentflow.
"""
