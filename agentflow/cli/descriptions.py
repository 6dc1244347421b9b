"""What ``agentflow COMMAND --help`` says of each command."""

from __future__ import annotations

RUN = """\
Run a question, a plan or a workflow.

TARGET is one of
  "a question in quotes"     a model plans, the plan runs meanwhile, the answer is streamed
  file.plan, any text file   a plan in the notation (- reads it from standard input)
  module:name, file.py:name  a workflow or a tool, with its arguments: name=value or in order
"""

PLAN = """\
Show a plan without running it.

TARGET is a plan file, - for standard input, or module:name (file.py:name) with its arguments.
"""


RUNS = """\
List the runs that are kept, and look after them.

ACTION is nothing for a list, or one of
  show RUN          its calls, with what they gave, took and cost; and what it asks
  delete RUN        forget it
  export RUN FILE   write it to a file of JSON lines (- is standard output)
  prune             forget what ended long ago (--keep 7d), or takes too much (--max-size 100MB)
  check             read everything, and say what is damaged
"""

EXPLAIN = """\
Say why each call of a run began when it did, where it was made, and what it kept waiting.

RUN is the id of a run that is kept, how it begins, or 'last'. CALL is its line ($3), an element of
a map ($3[0]), a call within another ($1/$2), or its tool: then everything that is known of it.
"""

RESUME = """\
Go on with a run that broke off, was paused, was cancelled or failed.

Calls that have ended are not made again, what was spent counts, and what failed is tried again.
It is run as it was then: in the same folder, with the same options.
"""

APPROVE = """\
Let a call be made that a run asks for.

A run that is going on hears of it; one that rests goes on with 'agentflow resume RUN'.
"""

DENY = """\
Refuse a call that a run asks for: it fails, and is not made.
"""

REPLAY = """\
Run the decisions of a run again, on what its calls gave then: nothing is called.

Says whether the program still does the same, and if not, which call is the first difference.
"""

CACHE = """\
Look after the results of tools that are kept on disk. Other processes may be using them.

ACTION is one of
  stats    how much is kept, by tool
  clear    forget everything, in every process
  export   every result as a line of JSON: key, tool, value, cost, expires
"""

ESTIMATES = """\
Show what runs have taught: how likely a model passes at a tool, how long it takes, how much it
writes, and what that costs; of workflows, what a run that passed has cost.

The agreement of a tool says how much the samples of one call have in common, from 0 (nothing) to 1
(all pass or none does). What was seen 30 days ago counts half.
"""
