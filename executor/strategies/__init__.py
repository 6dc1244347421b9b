"""How a sentence becomes work: `plan` and `react`."""
