"""What a server offers beside the API: what it can be told of sessions, and what it tells."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from agentflow import _http
from agentflow.engine import Engine
from agentflow.errors import DefinitionError, NoReplica
from agentflow.executor.affinity.dialects import UNKNOWN, Dialect, asked
from agentflow.executor.affinity.metrics import Reader, ServerState
from agentflow.executor.models.probe import Endpoint

if TYPE_CHECKING:
    from agentflow.executor.affinity.replica import ReplicaReport


@dataclass(frozen=True)
class Offers:
    """What a server offers beside the API.

    Attributes:
        dialect: Name of the make whose fields it is sent.
        accepts: These fields.
        metrics: What it tells of itself, by name; empty if it tells nothing.
    """

    dialect: str = UNKNOWN.name
    accepts: tuple[str, ...] = ()
    metrics: dict[str, Any] = field(default_factory=dict)

    @property
    def rows(self) -> Iterator[tuple[str, str]]:
        """It in words."""
        sent = ", ".join(self.accepts) or "no fields beside the API's own"
        yield "sessions", f"as {self.dialect}: {sent}" if self.accepts else sent
        if (slots := self.metrics.get("slots")) is not None:
            yield "slots", f"{slots:,} requests at once"
        if (capacity := self.metrics.get("capacity")) is not None:
            yield "KV", f"{capacity:,} tokens"
        if queries := self.metrics.get("prefix_queries"):
            share = self.metrics.get("prefix_hits", 0) / queries
            yield "cached", f"{share:.0%} of all prompt tokens so far"
        yield "metrics", ", ".join(self.metrics) or "none are offered"


async def offers(endpoint: Endpoint, api_key: str) -> Offers:
    """Ask a server what it offers.

    Args:
        endpoint: What it is.
        api_key: Empty if it asks for none.
    """
    headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    async with _http.client() as http:
        reader = Reader(http, endpoint.url, headers, endpoint.server)
        state = await reader.state() or ServerState()  # before it is asked, which it counts
        dialect = await asked(endpoint, http, headers)
    told = {name: value for name, value in asdict(state).items() if value is not None}
    return Offers(dialect.name, _accepted(dialect), told)


def replicas(engine: Engine) -> list[ReplicaReport]:
    """How the replicas fare that answer an engine's questions; none without a pool."""
    from agentflow.executor.affinity.pool import Pool

    try:
        model = engine.model()
    except DefinitionError:
        return []
    return model.replicas if isinstance(model, Pool) else []


def unwell(reports: Iterable[ReplicaReport]) -> Iterator[str]:
    """The replicas that questions could not be sent to in the end, and why."""
    for replica in reports:
        if replica.complaint:
            yield f"replica {replica.name} is {replica.condition}: {replica.complaint}"


def unanswered(reports: Iterable[ReplicaReport]) -> NoReplica | None:
    """What is wrong where every replica that was asked has failed, or given no answer."""
    tried = [replica for replica in reports if replica.requests]
    if not tried or not all(replica.error for replica in tried):
        return None
    said = "; ".join(f"{replica.name}: {replica.error}" for replica in tried)
    why = {replica.name: replica.error for replica in tried}
    return NoReplica(f"No replica answers: {said}", url=tried[0].url, replicas=why)


def _accepted(dialect: Dialect) -> tuple[str, ...]:
    """The fields that a server of this dialect is sent."""
    rank = dialect.rank if dialect.by_rank else ""
    names = (dialect.session, dialect.attempt, dialect.salt, rank, dialect.slot, *dialect.always)
    return tuple(filter(None, names))
