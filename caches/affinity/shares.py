"""How much was computed for whom."""

from __future__ import annotations

from dataclasses import dataclass, field

WRITTEN = 2.0
"""What a token of output counts as, in tokens of prompt."""

SERVED_MEMORY = 10_000
"""Tenants that are remembered at most."""


@dataclass(slots=True)
class Shares:
    """How much was computed for each tenant, so that nobody waits for the appetite of another.

    Counters as in VTC (Sheng et al., 2024, section 4), but compared in steps of `quantum`: with
    a finer comparison tenants would push each other out of the caches at every request. While two
    tenants both have something waiting, their counters differ by no more than a quantum and what
    the fleet holds at once. So in no such time does either get more than twice that beyond the
    other: it can be behind by as much at first, and ahead at last.

    Attributes:
        served: Tokens by tenant; those of output count double.
    """

    served: dict[str, float] = field(default_factory=dict)
    _last: str = field(default="", init=False, repr=False)

    def active(self, tenant: str, others: set[str]) -> None:
        """A tenant has something waiting again: what it did not use before is not saved up.

        Args:
            tenant: The tenant.
            others: Who has something waiting already; where nobody has, whoever had last counts.
        """
        served = [self.served[t] for t in others or {self._last} if t in self.served]
        self.served[tenant] = max(self.served.pop(tenant, 0.0), min(served, default=0.0))
        self._last = tenant
        while len(self.served) > SERVED_MEMORY:
            del self.served[next(iter(self.served))]

    def count(self, tenant: str, computed: float, written: float) -> None:
        """Something was computed for a tenant."""
        self.served[tenant] = self.served.get(tenant, 0.0) + computed + WRITTEN * written

    def ahead(self, tenants: set[str], quantum: float) -> dict[str, int]:
        """By how many quanta, in tokens, each is ahead of the least served of these."""
        if len(tenants) < 2:
            return dict.fromkeys(tenants, 0)
        served = {tenant: self.served.get(tenant, 0.0) for tenant in tenants}
        least = min(served.values())
        return {t: int((value - least) / quantum) for t, value in served.items()}
