"""What it may cost: budgets, the ledger that keeps them, deadlines and prices.

May import the leaves only.
"""
