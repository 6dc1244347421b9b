"""The strategy ``plan``: a model writes a plan, it runs meanwhile, a joiner answers or replans.

After LLMCompiler (Kim et al., 2024), section 3, with typed values, effects, and plans that
continue where the last one stopped.
"""

from __future__ import annotations

import re
from typing import Any

from agentflow.errors import AnswerInvalid
from agentflow.executor.bind import bind
from agentflow.executor.models.base import ChatRequest, Message, TextPiece
from agentflow.executor.run import Run
from agentflow.executor.strategies.bench import Workbench
from agentflow.executor.strategies.streamed import (
    PlanStream,
    PlanWriter,
    StreamedPlan,
    line_identity,
)
from agentflow.executor.strategies.task import Task
from agentflow.planner.plan import Answer, refs
from agentflow.planner.printer import print_line
from agentflow.planner.prompting import observation, planner_prompt, prompt
from agentflow.planner.script import Line
from agentflow.tools.paths import resolve
from agentflow.tools.values import as_text

ROUNDS = 3
"""Plans at most, unless the task says otherwise."""

OBSERVED_LIMIT = 32_000
"""Characters of observations that a model is shown at once."""

_VERDICT = re.compile(
    r"\s*(?:Thought:.*\n+\s*)?[*_#>\s]*(Answer|Replan)[*_]*\s*:[*_]*\s*", re.IGNORECASE
)
_UNDECIDED = 400  # characters after which a reply without a verdict is an answer


async def plan_task(run: Run[Any], task: Task) -> str:
    """Answer a task by planning.

    Raises:
        AnswerInvalid: After the last plan there was still no answer.
        BackendError: The model could not be asked.
    """
    return await _Planning(run, task).answer()


class _Planning:
    """One task: its conversation with the planner, and everything observed so far."""

    def __init__(self, run: Run[Any], task: Task) -> None:
        self._task = task
        self._bench = Workbench(run, task.model)
        self._run = run
        self._ids: dict[int, int] = {}
        self._written: dict[Any, int] = {}
        self._observed: list[str] = []
        self._rounds = task.rounds or ROUNDS
        self._messages: list[Message] = [
            {"role": "system", "content": planner_prompt(self._bench.specs.values())},
            {"role": "user", "content": f"Question: {task.question}"},
        ]

    async def answer(self) -> str:
        reason = ""
        for number in range(1, self._rounds + 1):
            self._bench.round("plan", number, reason)
            plan = await self._plan()
            new = self._observe(plan)
            reason = self._problem(plan)
            if not reason and not isinstance(plan.result, Answer):
                return self._returned(plan.result)
            if not reason or number == self._rounds:
                self._bench.round("join", number, reason)
                verdict, text = await self._join(last=number == self._rounds, problem=reason)
                if verdict == "answer":
                    return text
                reason = text
            self._ask_again(plan, new, reason)
        raise AnswerInvalid(
            f"no answer after {self._rounds} plans: {reason} (Task(rounds=...) allows more)",
            problems=reason,
        )

    # Planning

    async def _plan(self) -> StreamedPlan:
        """Have a plan written, and run it until all of its calls have ended."""
        stream = PlanStream(
            self._bench,
            self._ids,
            self._written,
            commit_lines=self._task.commit == "line",
        )
        request = ChatRequest(messages=self._messages, max_tokens=self._task.max_tokens)
        writer = PlanWriter(self._bench, request, stream)
        try:
            plan = await writer.plan()
            self._ids = stream.ids
            await self._bench.settled(self._ids[line] for line in plan.lines if line in self._ids)
        finally:
            await writer.aclose()
        return plan

    def _ask_again(self, plan: StreamedPlan, observed: list[str], reason: str) -> None:
        """Extend the conversation: the plan as written, what came of it, and why it goes on."""
        self._messages.append({"role": "assistant", "content": plan.text or "(no plan)"})
        parts = []
        if observed:
            parts.append("Observations:\n\n" + _cut("\n".join(observed)))
        done = [f"${line}" for line in sorted(set(self._written.values()))]
        if done:
            parts.append(f"Done already, do not do it again: {', '.join(done)}")
        parts.append(f"Why another plan is needed: {reason}")
        following = max(self._ids, default=0) + 1
        parts.append(f"Write the next plan. Number its lines from ${following} on.")
        self._messages.append({"role": "user", "content": "\n\n".join(parts)})

    def _problem(self, plan: StreamedPlan) -> str:
        """Why this plan cannot be joined: it could not be read, or what it returns is not there."""
        if plan.error is not None:
            return f"the plan could not be run: {plan.error.kind}: {plan.error}"
        if isinstance(plan.result, Answer):
            return ""
        for ref in refs(plan.result):
            outcome = self._bench.outcome(ref.node)
            if not outcome.ok:
                return f"what the plan returns is not there: {self._bench.report(ref.node)}"
            try:
                resolve(outcome.value, ref.path)
            except LookupError as error:
                return f"what the plan returns is not there: {error}"
        return ""

    def _returned(self, result: Any) -> str:
        text = as_text(bind(self._run.driver.state, result))
        self._bench.say(text, "answer")
        return text

    # Observing

    def _observe(self, plan: StreamedPlan) -> list[str]:
        """Note what came of a plan's lines; what is new."""
        new = []
        for line in plan.lines.values():
            if line.id not in self._ids:
                continue
            node = self._ids[line.id]
            new.append(observation(print_line(_bare(line)), self._bench.report(node)))
            if self._bench.effect(line.tool) == "writes" and self._bench.outcome(node).ok:
                self._written[line_identity(line, self._bench)] = line.id
        self._observed += new
        return new

    # Joining

    async def _join(self, *, last: bool, problem: str) -> tuple[str, str]:
        """Ask for the answer; ``answer`` or ``replan``, and the text."""
        parts = [f"Question: {self._task.question}"]
        parts.append("Observations:\n\n" + (_cut("\n".join(self._observed)) or "(none)"))
        if problem:
            parts.append(f"The last plan failed: {problem}")
        if last:
            parts.append("There is no further plan: answer with what there is.")
        request = ChatRequest(
            messages=[
                {"role": "system", "content": prompt("join")},
                {"role": "user", "content": "\n\n".join(parts)},
            ],
            max_tokens=self._task.max_tokens,
        )
        verdict = _Verdict(self._bench)
        async with self._bench.model.stream(request) as reply:
            async for piece in reply:
                if isinstance(piece, TextPiece):
                    verdict.feed(piece.text)
                else:
                    self._bench.show(piece, "answer")
        return verdict.read()


class _Verdict:
    """Reads a joiner's reply, and passes an answer on while it is written."""

    def __init__(self, bench: Workbench) -> None:
        self._bench = bench
        self._text = ""
        self._kind = ""

    def feed(self, text: str) -> None:
        self._text += text
        if self._kind:
            self._pass_on(text)
        elif match := _VERDICT.match(self._text):
            if match.end() < len(self._text):  # its white space may go on
                self._decide(match[1].lower(), self._text[match.end() :])
        elif len(self._text) > _UNDECIDED:
            self._decide("answer", self._text)

    def read(self) -> tuple[str, str]:
        if not self._kind:
            match = _VERDICT.match(self._text)
            if match is None:
                self._decide("answer", self._text)
            else:
                self._decide(match[1].lower(), self._text[match.end() :])
        text = self._text.strip()
        if not text:
            raise AnswerInvalid("the model gave an empty answer", problems="empty")
        return self._kind, text

    def _decide(self, kind: str, rest: str) -> None:
        self._kind, self._text = kind, rest
        self._pass_on(rest)

    def _pass_on(self, text: str) -> None:
        self._bench.say(text, "answer" if self._kind == "answer" else "thought")


def _bare(line: Line) -> Line:
    """A line without its thought."""
    return Line(line.id, line.tool, line.args, line.kwargs, line.guard, line.join)


def _cut(text: str) -> str:
    if len(text) <= OBSERVED_LIMIT:
        return text
    return f"({len(text) - OBSERVED_LIMIT} characters were cut)\n{text[-OBSERVED_LIMIT:]}"
