"""The command line: a module for each command of ``agentflow``, and what they share.

Everything heavy is imported by the command that needs it, so that ``--help`` is quick. May
import every part.
"""
