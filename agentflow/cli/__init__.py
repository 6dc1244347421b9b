"""The command line: ``agentflow run``, ``plan``, ``tools``, ``cache``, ``estimates``, ``doctor``.

Everything heavy is imported by the command that needs it, so that ``--help`` is quick. May
import every part.
"""
