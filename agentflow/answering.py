"""How somebody answers what the runs of an engine ask."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agentflow.errors import DefinitionError
from agentflow.tools.approval import Answer, Answerer
from agentflow.tools.policy import UNSET

if TYPE_CHECKING:
    from agentflow.executor.asking.questions import Questions
    from agentflow.executor.journal.journal import Journal


class Answering:
    """The part of an engine that takes answers.

    Args:
        answerer: Asked before calls that are not to be made unasked, or None.

    Attributes:
        journal: Where runs are kept, or None.
        answerer: As given.
        asking: What outermost runs ask at the moment, by their ids.
    """

    journal: Journal | None

    def __init__(self, answerer: Answerer | None) -> None:
        if answerer is not None and not callable(answerer):
            raise DefinitionError(
                f"approve={answerer!r}: give a function of a Question that returns True, False, "
                "an Answer, or None to leave it open"
            )
        self.answerer = answerer
        self.asking: dict[str, Questions] = {}

    async def approve(
        self, run: str, question: str | None = None, *, value: Any = UNSET, by: str = ""
    ) -> None:
        """Say that a call may be made; the run goes on, or does when it is resumed.

        Args:
            run: Id of the run, or with a journal how it begins.
            question: Its id, the name of the tool, or the call as plans name it (``$3``); None for
                the only one that is open.
            value: For a call in doubt: it was made, and this is its value. Without it the call is
                made again.
            by: Who says so.

        Raises:
            JournalError: There is no such run or question, there are several, or it was denied.
            DefinitionError: There is no journal and the run asks nothing now, or `value` is
                given for a call that is not in doubt.
        """
        given = Answer("approve", by=by) if value is UNSET else Answer("done", value=value, by=by)
        await self._take(run, question, given)

    async def deny(
        self, run: str, question: str | None = None, why: str = "", *, by: str = ""
    ) -> None:
        """Say that a call may not be made: it fails with `ApprovalDenied`, or `CallInDoubt`.

        Args:
            run: As for `approve`.
            question: As for `approve`.
            why: What a model that made the call is told.
            by: Who says so.

        Raises:
            JournalError: There is no such run or question, there are several, or it was approved.
            DefinitionError: There is no journal, and the run asks nothing now.
        """
        await self._take(run, question, Answer("deny", why, by=by))

    async def _take(self, run: str, question: str | None, given: Answer) -> None:
        if (journal := self.journal) is not None:
            from agentflow.executor.asking.answering import answer

            await journal.durable()
            await journal.ask(answer, journal.store, run, question, given)
            for each in self.asking.values():
                each.nudge()
        elif (questions := self.asking.get(run)) is not None:
            try:
                questions.answer(question, given)
            except LookupError as error:
                raise DefinitionError(str(error)) from None
        else:
            raise DefinitionError(
                f"run {run!r} asks nothing now, and there is no journal of others"
            )
