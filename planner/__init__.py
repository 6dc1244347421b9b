"""What to run: the notation, the `Plan`, its builder, passes and printers.

Everything here is a decision on data: a plan can be read, built, rewritten and printed
without a loop, a network or a disk. May import the leaves, `tools` and `budgets`;
never `caches`, `executor` or the face.
"""
