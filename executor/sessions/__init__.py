"""Sessions: conversations that outlast a run, and that are made to fit when they grow too long.

What was said is a `history`, and what of it is shown follows from that alone. `fitting` decides
what becomes of one that is too long, `dialogue` carries it out, with a model that a run pays.
"""
