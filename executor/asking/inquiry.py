"""What has to be clear before a call of one run is made: whether it may, and whether it was."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from agentflow.errors import ApprovalDenied, CallInDoubt
from agentflow.executor.asking.questions import Questions
from agentflow.executor.calls.bound import BoundCall
from agentflow.executor.calls.site import CallSite
from agentflow.executor.state.commands import Finished, Happening
from agentflow.planner.printer import print_value
from agentflow.redaction import redact
from agentflow.tools.approval import Answer, Kind, Question, reason
from agentflow.tools.doubt import Done, NotDone, Verifier
from agentflow.tools.effects import Effect
from agentflow.tools.tool import Tool
from agentflow.wording import described

if TYPE_CHECKING:
    from agentflow.executor.journal.book import InDoubt
    from agentflow.executor.journal.history import Intent
    from agentflow.executor.run import Run

SHOWN = 4000
"""Characters of a call that are shown to whoever is asked."""


class Inquiry:
    """Asks before calls of one run.

    Args:
        run: The run.

    Attributes:
        questions: What the outermost run asks.
    """

    def __init__(self, run: Run[Any]) -> None:
        self._run = run
        self.questions: Questions = (
            Questions(run) if run.parent is None else run.root.inquiry.questions
        )

    async def before(self, slot: int, call: BoundCall) -> Happening | None:
        """Clear up whether a call was made, and may be.

        Returns:
            How it ended, or None: it is to be made.

        Raises:
            CallInDoubt: It may have been made, and is not made again.
            ApprovalDenied: It may not be made.
            ArgumentError: The arguments are wrong.
        """
        if (intent := self._intent(slot)) is not None:
            ended = await self._clear_up(slot, call, intent)
            if ended is not None:
                return ended
        await self.approved(slot, call)
        return None

    # Approval

    async def approved(self, slot: int, call: BoundCall) -> None:
        """Wait until a call may be made, if somebody is to be asked.

        Raises:
            ApprovalDenied: It may not.
        """
        notes = self._run.notes
        replays = notes is not None and notes.recall is not None and not notes.recall.live
        if not call.policy.approve or replays:
            return
        args, kwargs = self._arguments(slot, call)
        why = await reason(call.policy.approve, args, kwargs)
        if why is None:
            return
        step, own = self._step(slot), self._run.driver.state.nodes[slot].tool == call.tool.name
        name = step if own else f"{step}:{call.tool.name}"  # a fallback is another question
        question = self._question(slot, call, "approval", name, why)
        answer = await self.questions.ask(self._run, slot, question)
        if answer.verdict == "deny":
            because = f": {answer.why}" if answer.why else ""
            node = self._run.driver.state.where(slot)[0]
            raise ApprovalDenied(
                f"{call.tool.name} was not called: approval was denied{because}",
                tool=call.tool.name,
                node=node,
            )

    # Doubt

    def _intent(self, slot: int) -> Intent | None:
        """What is known of a call that may have been made; None if it is clear that it was not."""
        notes = self._run.notes
        if notes is None or notes.recall is None:
            return None
        return notes.recall.history.in_doubt(self._step(slot))

    async def _clear_up(self, slot: int, call: BoundCall, intent: Intent) -> Happening | None:
        """A call may have been made: how it ended, or None if it is to be made again."""
        if _effect_of(intent.tool, call).repeats_safely:
            return None
        why, found = intent.why, None
        if intent.tool != call.tool.name:
            why = f"its fallback {intent.tool} was called: {why}"
        if call.policy.verify is not None:
            try:
                found = await self._verified(
                    slot, call, Verifier(call.policy.verify, call.tool.name)
                )
            except Exception as error:  # noqa: BLE001  # whatever the user's function raises
                why = f"{why}; verify failed: {described(error)}"
        if isinstance(found, Done):
            return Finished(slot, found.value)
        if isinstance(found, NotDone):
            return None
        return await self._decided(slot, call, intent, why)

    async def _verified(
        self, slot: int, call: BoundCall, verifier: Verifier
    ) -> Done[Any] | NotDone | None:
        """What the tool's own function finds out, within the time that a call may take."""
        args, kwargs = self._arguments(slot, call)
        driver = self._run.driver
        context = CallSite(driver, slot, 1, call).context()
        async with asyncio.timeout(call.timeout):
            if verifier.in_thread:
                threads = self._run.host.services.threads
                job = driver.loop.run_in_executor(threads, verifier.ask, args, kwargs, context)
                found = verifier.read(await job)
            else:
                found = verifier.read(await verifier.ask(args, kwargs, context))
        check = call.tool.signature.check_result
        return Done(check(found.value)) if check is not None and isinstance(found, Done) else found

    async def _decided(
        self, slot: int, call: BoundCall, intent: Intent, why: str
    ) -> Happening | None:
        """What somebody says, or said beforehand when the run was resumed."""
        notes, name = self._run.notes, f"{self._step(slot)}?{intent.count}"
        assert notes is not None, "it is in doubt because of what was written down"
        while True:
            question = self._question(slot, call, "doubt", name, why)
            answer = await self._answer(slot, question, notes.book.in_doubt)
            if answer is None or answer.verdict == "deny":
                raise self._in_doubt(slot, call, why, answer)
            if answer.verdict == "approve":
                return None
            try:
                data = str(answer.value).encode()
                return Finished(slot, notes.book.encoder.decode(call.tool, data, typed=True))
            except Exception as error:  # noqa: BLE001  # whatever the tool's own type raises
                why = f"{why}; it cannot have given {_head(data)}: {_problem(error)}"
                name += "!"

    async def _answer(self, slot: int, question: Question, policy: InDoubt) -> Answer | None:
        """The answer about a call in doubt; None if nobody is to be asked."""
        known = await self.questions.known(question)
        if policy == "retry" and (known is None or known.verdict == "deny"):
            return Answer("approve")
        if policy == "fail" and known is None:
            return None
        return await self.questions.ask(self._run, slot, question)

    def _in_doubt(self, slot: int, call: BoundCall, why: str, answer: Answer | None) -> CallInDoubt:
        said = "it is not to be made again" if answer is not None else "nobody was to be asked"
        because = f" ({answer.why})" if answer is not None and answer.why else ""
        return CallInDoubt(
            f"{call.tool.name} is in doubt: {why}; {said}{because}",
            tool=call.tool.name,
            node=self._run.driver.state.where(slot)[0],
        )

    # What is asked about

    def _step(self, slot: int) -> str:
        return self._run.naming.step(*self._run.driver.state.where(slot))

    def _arguments(self, slot: int, call: BoundCall) -> tuple[Any, dict[str, Any]]:
        args, kwargs = self._run.driver.arguments(slot)
        return call.tool.signature.validate(tuple(args), kwargs)

    def _question(self, slot: int, call: BoundCall, kind: Kind, name: str, why: str) -> Question:
        node, element = self._run.driver.state.where(slot)
        arguments = call.tool.spec.bind(*self._arguments(slot, call))
        text = redact(_shown(call.tool.name, arguments))
        root, why = self._run.root.id, redact(why)
        return Question(name, root, node, element, call.tool.name, kind, text, why, arguments)


def _effect_of(tool: str, call: BoundCall) -> Effect:
    """The effect of the tool that was about to be called: a call's own, or its fallback."""
    fallback = call.policy.fallback
    if tool != call.tool.name and isinstance(fallback, Tool) and fallback.name == tool:
        return fallback.effect
    return call.tool.effect if tool == call.tool.name else Effect()


def _head(data: bytes) -> str:
    """A value that somebody gave as JSON, as far as it is shown."""
    text = data.decode()
    return text if len(text) <= 80 else f"{text[:80]}..."


def _problem(error: Exception) -> str:
    """What is wrong with a value, in one line."""
    from pydantic import ValidationError

    if not isinstance(error, ValidationError):
        return described(error)
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    place = "".join(f"{part}: " for part in first["loc"])
    return f"{place}{first['msg'][0].lower()}{first['msg'][1:]}"


def _shown(tool: str, arguments: Mapping[str, Any]) -> str:
    """A call as text, in one line; a long one is cut, and says so."""
    given = ", ".join(f"{name}={print_value(value)}" for name, value in arguments.items())
    text = f"{tool}({given})"
    if len(text) <= SHOWN:
        return text
    return f"{text[:SHOWN]}… ({len(text) - SHOWN} more characters)"
