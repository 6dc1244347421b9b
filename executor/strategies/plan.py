"""The strategy ``plan``: a model writes a plan, it runs meanwhile, a joiner answers or replans.

After LLMCompiler (Kim et al., 2024), section 3, with typed values, effects, and plans that
continue where the last one stopped.
"""

from __future__ import annotations

import json
from collections.abc import Hashable
from dataclasses import replace
from functools import partial
from itertools import takewhile
from typing import Any

from agentflow.errors import AnswerInvalid
from agentflow.executor.models.base import (
    CallRequest,
    ChatRequest,
    Delta,
    Message,
    Reply,
    TextPiece,
)
from agentflow.executor.run import Run
from agentflow.executor.sessions.dialogue import Dialogue
from agentflow.executor.sessions.state import Passing, SessionState
from agentflow.executor.state.bind import bind
from agentflow.executor.strategies.bench import Workbench, usable
from agentflow.executor.strategies.streamed import (
    PlanStream,
    PlanWriter,
    StreamedPlan,
    call_identity,
)
from agentflow.executor.strategies.task import Task
from agentflow.executor.strategies.verdict import Verdict, VerdictReader
from agentflow.planner import prompting
from agentflow.planner.plan import GATHER, Answer, refs
from agentflow.planner.printer import print_line
from agentflow.tools.paths import resolve
from agentflow.tools.values import as_text

ROUNDS = 3
"""Plans at most, unless the task says otherwise."""


async def plan_task(run: Run[Any], task: Task) -> str:
    """Answer a task by planning.

    Raises:
        AnswerInvalid: After the last plan there was still no answer.
        ModelRefusal: The model declined.
        BackendError: The model could not be asked.
        BudgetExceeded: There is no money left to ask it.
    """
    session = task.session or Passing()
    bench = Workbench(run, task.model or session.model, task.show_remaining)
    asked = task.question if session.lasts else prompting.question(task.question)
    with (
        session.turn(run, asked),
        bench.dialogue("plan", session, _system(session, bench)) as planner,
        bench.dialogue("join", session, prompting.prompt("join")) as joiner,
    ):
        planning = _Planning(run, task, bench, planner, joiner)
        try:
            answer = await planning.answer()
        finally:
            session.history.say(*planning.calls())
        session.history.say({"role": "assistant", "content": answer})
        return answer


def _system(session: SessionState, bench: Workbench) -> str:
    """What a planner is told first: what the session says, and how plans are written."""
    own = f"{session.system}\n\n" if session.system else ""
    return own + prompting.planner_prompt(bench.specs.values())


class _Planning:
    """One task: its dialogues with planner and joiner, and everything observed so far."""

    def __init__(
        self, run: Run[Any], task: Task, bench: Workbench, planner: Dialogue, joiner: Dialogue
    ) -> None:
        self._run = run
        self._task = task
        self._bench = bench
        self._planner, self._joiner = planner, joiner
        self._rounds = task.rounds or ROUNDS
        self._ids: dict[int, int] = {}  # node by line
        self._written: dict[Hashable, int] = {}  # line by identity of the write it made
        self._observed: list[str] = []
        self._lost = 0  # characters of it that the joiner was not shown
        self._further: list[Message] = []  # plans that were not the last, and what came of them

    async def answer(self) -> str:
        """Plan, and plan again, until there is an answer."""
        problem = ""
        for number in range(1, self._rounds + 1):
            self._bench.begin_round("plan", number, problem)
            plan, observed = await self._planner.exchange(
                self._plan, further=self._further, max_tokens=self._task.max_tokens
            )
            problem = self._problem(plan)
            if not problem and not isinstance(plan.result, Answer):
                return self._returned(plan.result)
            last = number == self._rounds
            if last or not problem:
                verdict = await self._join(number, problem, last=last)
                if verdict.kind == "answer":
                    return verdict.text
                problem = verdict.text
            if not last:
                self._ask_again(plan, observed, problem)
        raise AnswerInvalid(
            f"no answer after {self._rounds} plans (Task(rounds=...) allows more): {problem}",
            problems=problem,
        )

    # Planning

    async def _plan(self, request: ChatRequest) -> tuple[StreamedPlan, list[str]]:
        """Have a plan written, run it until all of its calls have ended, and see what they gave."""
        writer = PlanWriter(self._bench, request, self._begin)
        try:
            plan = await writer.plan()
            self._ids = writer.stream.ids
            started = self._started(plan)
            nodes = [self._ids[line] for line in started]
            planner, joiner = self._planner.conversation, self._joiner.conversation
            writer.when_closed(lambda: self._bench.turns_to(nodes, planner))
            calls = [print_line(replace(plan.lines[line], thought="")) for line in started]
            if plan.error is None and isinstance(plan.result, Answer):
                self._bench.turns_to(nodes, joiner)
                self._bench.foresee(nodes, joiner, partial(self._so_far, nodes, calls))
            await self._bench.settled(nodes)
            await writer.finish()
        finally:
            await writer.aclose()
            self._ids = writer.stream.ids  # also where the plan was not read to its end
        observed = self._observations(nodes, calls)
        self._observed += observed
        self._note_writes(plan)
        return plan, observed

    def _observations(self, nodes: list[int], calls: list[str]) -> list[str]:
        """What came of calls, up to the first that has not ended."""
        pairs = zip(nodes, calls, strict=True)
        ended = takewhile(lambda pair: self._bench.has_ended(pair[0]), pairs)
        return [prompting.observation(call, self._bench.report(node)) for node, call in ended]

    def _begin(self) -> PlanStream:
        return PlanStream(
            self._bench, self._ids, self._written, commit_lines=self._task.commit == "line"
        )

    def _started(self, plan: StreamedPlan) -> list[int]:
        """The lines whose calls were started; those of a plan that broke off may not have been."""
        return [line for line in plan.lines if line in self._ids]

    def _ask_again(self, plan: StreamedPlan, observed: list[str], problem: str) -> None:
        """Extend the conversation: the plan as written, what came of it, and why it goes on."""
        started = self._started(plan)
        self._further += [
            {"role": "assistant", "content": plan.text.rstrip() or "(no plan)"},
            {
                "role": "user",
                "content": prompting.further_plan(
                    observed,
                    reason=problem,
                    not_called=[line for line in plan.lines if line not in started],
                    written=sorted(self._written.values()),
                    following=max(self._ids, default=0) + 1,
                ),
            },
        ]

    # What came of it

    def _note_writes(self, plan: StreamedPlan) -> None:
        """Remember what was written, so that no further plan does it again."""
        for line in self._started(plan):
            node, tool = self._ids[line], plan.lines[line].tool
            if self._bench.effect(tool).kind == "writes" and self._bench.outcome(node).ok:
                identity = call_identity(self._bench.node(node), self._bench.specs[tool])
                if identity is not None:
                    self._written[identity] = line

    def _problem(self, plan: StreamedPlan) -> str:
        """Why a plan is not done; empty if a joiner may read its results, or its value is there."""
        if plan.error is not None:
            return f"the plan could not be run to its end ({plan.error.kind}): {plan.error}"
        if isinstance(plan.result, Answer):
            return ""
        for ref in refs(plan.result):
            outcome = self._bench.outcome(ref.node)
            if not outcome.ok:
                return f"what the plan returns is not there: {self._bench.report(ref.node)}"
            try:
                resolve(outcome.value, ref.path)
            except LookupError as error:
                return f"what the plan returns is not there: {error.args[0]}"
        return self._undone(plan)

    def _undone(self, plan: StreamedPlan) -> str:
        """Which call that does something has failed, though the returned value is there."""
        for line in self._started(plan):
            node = self._ids[line]
            reads = self._bench.effect(plan.lines[line].tool).repeats
            if not reads and self._bench.outcome(node).status == "failed":
                return f"the call of line ${line} {self._bench.report(node)}"
        return ""

    def _returned(self, result: Any) -> str:
        text = as_text(bind(self._run.driver.state, result))
        self._bench.say(text, "answer")
        return text

    # Joining

    async def _join(self, number: int, problem: str, *, last: bool) -> Verdict:
        """Have the results read: the answer, or what is missing."""
        self._bench.begin_round("join", number, problem)
        reader = VerdictReader(self._bench.say)

        def restart() -> None:
            nonlocal reader
            reader = VerdictReader(self._bench.say)

        def take(piece: Delta) -> None:
            if isinstance(piece, TextPiece):
                reader.feed(piece.text)
            else:
                self._bench.show(piece, "answer")

        async def ask(request: ChatRequest) -> Reply:
            return await self._bench.ask(request, take, restart)

        reply = await self._joiner.exchange(
            ask,
            instead=self._shown(self._observed),
            closing=prompting.closing(problem, last=last),
            max_tokens=self._task.max_tokens,
        )
        self._joiner.heard(reply)
        verdict = reader.finish()
        if verdict.kind == "replan":
            return verdict if verdict.text else Verdict("replan", "the joiner did not say why")
        return Verdict("answer", usable(verdict.text, reply))

    def _shown(self, observed: list[str]) -> list[Message]:
        """The question as the joiner reads it: with what was observed, nothing of the moment."""
        lost = prompting.lost(observed)
        if lost != self._lost:
            self._lost = lost
            self._joiner.conversation.begin_anew()
        return [{"role": "user", "content": prompting.joining(self._task.question, observed)}]

    def _so_far(self, nodes: list[int], calls: list[str]) -> ChatRequest:
        """How the joiner is going to be asked, as far as the calls of a plan have ended."""
        observed = [*self._observed, *self._observations(nodes, calls)]
        return self._joiner.so_far(instead=self._shown(observed))

    # What the session keeps of it

    def calls(self) -> list[Message]:
        """The calls that were made, as in one turn of a model, and what came of those that ended."""
        made = [
            (f"line_{line}", node)
            for line, node in self._ids.items()
            if self._bench.node(node).tool != GATHER
        ]
        if not made:
            return []
        calls = [self._call(identity, node) for identity, node in made]
        return [
            Reply(text="", calls=tuple(calls)).as_message(),
            *(
                {"role": "tool", "tool_call_id": identity, "content": self._bench.report(node)}
                for identity, node in made
                if self._bench.has_ended(node)
            ),
        ]

    def _call(self, identity: str, node: int) -> CallRequest:
        given = json.dumps(self._bench.arguments(node), ensure_ascii=False, default=as_text)
        return CallRequest(identity, self._bench.node(node).tool, given)
