"""Calls that a model makes of tools that ask first: nothing begins early, and it hears of a no."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, cast

import pytest

from agentflow import (
    Answer,
    Engine,
    Late,
    Question,
    Stream,
    Task,
    Tool,
    Warm,
    _http,
    events,
    tool,
)
from agentflow.clock import now
from agentflow.errors import RunPaused
from agentflow.executor.models.client import OpenAIBackend
from agentflow.testing import Call, ScriptedServer
from agentflow.testing.chat import ChatCall
from agentflow.testing.clock import run_virtual
from agentflow.testing.replies import Pace
from tests.durable.conftest import Desk, records, rows

SLOW = Pace(0.2, 0.1)


class Author:
    """A model that calls `send` once, by either way of calling, and then tells what came of it.

    Attributes:
        asked: How many requests there were.
        told: What the model was told of its call.
        plan: What it writes as a plan.
    """

    plan = '$1 = send(to="bob", text="a long letter, word by word")\njoin()\n'

    def __init__(self, strategy: Literal["react", "plan"]) -> None:
        self.strategy: Literal["react", "plan"] = strategy
        self.asked = 0
        self.told = ""

    def __call__(self, call: ChatCall) -> list[Any]:
        """The next reply."""
        self.asked += 1
        if self.asked > 1:
            self.told = str(call.messages[-1]["content"])
            return ["Answer: So be it."]
        if self.strategy == "plan":
            return [self.plan]
        return [Call("send", {"to": "bob", "text": "a long letter, word by word"})]

    def run(
        self,
        made: Tool[..., Any],
        path: Path | None,
        resumed: str = "",
        task: Mapping[str, Any] | None = None,
        **engine: Any,
    ) -> str:
        """The answer to a task in which it may call a tool."""

        async def main() -> str:
            http = _http.client(transport=ScriptedServer(cast("Any", self), pace=SLOW).transport())
            model = OpenAIBackend("http://scripted/v1", "tiny", http=http)
            await model.connect()
            given: dict[str, Any] = {"journal": path} if path else {}
            async with Engine(model=model, tools=[made], **given, **engine) as running:
                if resumed:
                    return str(await running.resume(resumed))
                return await running.run(
                    Task("Write to bob.", strategy=self.strategy, **(task or {}))
                )

        return run_virtual(main())


@pytest.mark.parametrize("strategy", ["react", "plan"])
def test_a_model_is_told_that_its_call_was_denied(desk: Desk, strategy: Any) -> None:
    @tool(writes="mail", approve=True)
    async def send(to: str, text: str) -> str:
        """Send a letter."""
        desk.made.append(to)
        return "sent"

    author = Author(strategy)
    answer = author.run(send, None, approve=lambda _question: Answer("deny", "not in this tone"))

    assert "So be it." in answer
    assert "not in this tone" in author.told
    assert desk.made == []


@pytest.mark.parametrize("strategy", ["react", "plan"])
def test_a_task_is_set_aside_and_goes_on_without_asking_its_model_again(
    desk: Desk, strategy: Any
) -> None:
    @tool(writes="mail", approve=True)
    async def send(to: str, text: str) -> str:
        """Send a letter."""
        desk.made.append(to)
        return "sent"

    author, path = Author(strategy), desk.path()
    with pytest.raises(RunPaused) as paused:
        author.run(send, path)
    assert author.asked == 1
    assert "word by word" in paused.value.asks[0]["call"]

    desk.answer(path, Answer("approve"))

    assert "So be it." in author.run(send, path, resumed=rows(path)[0].id)
    assert author.asked == 2
    assert desk.made == ["bob"]


def test_a_reply_that_comes_is_not_cut_off_for_a_question(desk: Desk) -> None:
    @tool(writes="mail/{to}", approve=True)
    async def send(to: str, text: str) -> str:
        """Send a letter."""
        desk.made.append(text)
        return "sent"

    author, path = Author("plan"), desk.path()
    author.plan = "".join(f'${n} = send(to="p{n}", text="a letter")\n' for n in (1, 2, 3))
    author.plan += "Thought: " + "that is how it is " * 30 + "\njoin()\n"
    with pytest.raises(RunPaused) as paused:
        author.run(send, path, task={"commit": "line"})

    assert len(paused.value.asks) == 3
    assert sum(record["event"] == "reply_ended" for record in records(path)) == 1


@pytest.mark.parametrize("strategy", ["react", "plan"])
@pytest.mark.parametrize("effect", [{"pure": True}, {"reads": "mail"}])
def test_nothing_of_a_call_begins_before_it_is_approved(strategy: Any, effect: Any) -> None:
    began: list[tuple[str, float]] = []
    asked_at: list[float] = []

    @tool(approve=True, **effect)
    async def send(to: Late[str], text: Stream[str], *, link: Warm[str]) -> str:
        """Send a letter."""
        began.append(("called", now()))
        return await to + "".join([piece async for piece in text])

    @send.warm
    async def connect() -> str:
        began.append(("warmed", now()))
        return "link"

    async def answer(_question: Question) -> bool:
        asked_at.append(now())
        return True

    told: list[events.Event] = []
    Author(strategy).run(send, None, approve=answer, subscribers=[told.append])

    replied = next(event.at for event in told if isinstance(event, events.ModelReplied))
    pieces = [e.at for e in told if isinstance(e, events.TextDelta) and e.at <= replied]
    assert asked_at[0] >= max(pieces, default=replied)
    assert [what for what, _ in began] == ["warmed", "called"]
    assert all(at >= asked_at[0] for _, at in began)
