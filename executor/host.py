"""The engine, as its runs see it."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from agentflow.executor.services import Services
from agentflow.tools.approval import Answerer

if TYPE_CHECKING:
    from agentflow.executor.asking.questions import Questions
    from agentflow.executor.journal.journal import Journal
    from agentflow.executor.run import Run


class Host(Protocol):
    """What runs of one engine share, and ask of it.

    Attributes:
        services: Shared by its runs.
        plain_models: Names of models whose backend takes no JSON schema.
        journal: Where runs are kept, or None.
        answerer: Asked before calls that are not to be made unasked, or None.
        asking: What outermost runs ask at the moment, by their ids.
    """

    services: Services
    plain_models: set[str]
    journal: Journal | None
    answerer: Answerer | None
    asking: dict[str, Questions]

    @property
    def tools(self) -> Mapping[str, Any]:
        """Its own tools by name."""
        ...

    def start_child(
        self,
        workflow: Any,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        parent: Run[Any],
        place: int | str,
    ) -> Awaitable[Any]:
        """Run a workflow within another run."""
        ...

    def model(self, name: str | None) -> Any:
        """A model client by name, or the default one."""
        ...
