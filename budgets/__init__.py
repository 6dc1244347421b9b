"""What it may cost: budgets, the ledger that keeps them, deadlines and prices.

And what is to be expected of models (`estimates`), by which `allocation` decides who tries
what. May import the leaves only.
"""

from agentflow.budgets.budget import Budget as Budget
from agentflow.budgets.ledger import Amount as Amount
from agentflow.budgets.ledger import Ledger as Ledger
from agentflow.budgets.ledger import Reservation as Reservation
