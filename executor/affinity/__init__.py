"""A pool of replicas behind one model: carries out what `agentflow.caches.affinity` decides.

Sends, watches and repeats requests, reads what servers tell of themselves, and keeps the
conversations of a run together. Imports `caches`, `executor.models` and what they import.
"""
