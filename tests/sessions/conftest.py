"""A clerk: a scripted model with a small context, who looks things up and answers, on virtual time."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from agentflow import Engine, Session, _http, events
from agentflow.executor.models.client import OpenAIBackend
from agentflow.testing import ScriptedServer
from agentflow.testing.chat import ChatCall
from agentflow.testing.replies import Call, Fault
from agentflow.testing.tokens import tokens
from agentflow.tools.tool import Tool, tool

SUMMARY = "the user asked for things, which were found"


def size(call: ChatCall) -> int:
    """Tokens of a prompt, as the server counts them."""
    return len(tokens(call.prompt()))


class Clerk:
    """What a model is told, how it answers, and what its tools did.

    Attributes:
        window: Tokens of prompt and reply that it takes; None for any.
        says_window: Whether it says so when it refuses.
        status: With which it answers; 200 for as it should.
        error: What it answers instead, with status 422, if anything.
        long: Characters of what is looked up.
        follow: It goes on to look for things, by itself, until it has found so many.
        summary: What it writes when it is asked for one.
        takes: Seconds that looking up takes, but for the tea.
        refused: How many requests it refused.
        looked: What was looked up.
        events: What subscribers were told.
    """

    def __init__(self) -> None:
        self.window: int | None = None
        self.says_window = True
        self.refused = 0
        self.looked: list[str] = []
        self.events: list[events.Event] = []
        self.long = 2_000
        self.takes = 0.0
        self.follow = 0
        self.summary = SUMMARY
        self.status = 200
        self.error = ""
        self.server = ScriptedServer(self.answer)
        self.tools = self._tools()
        self._open: list[Any] = []

    def _tools(self) -> list[Tool[..., Any]]:
        @tool(reads="shelf")
        async def look(key: str) -> str:
            """Look something up; `long` characters of it."""
            self.looked.append(key)
            await asyncio.sleep(0.0 if key == "tea" else self.takes)
            return (f"{key} is here. " * (self.long // (len(key) + 10) + 1))[: self.long]

        @tool(writes="shelf")
        async def put(key: str) -> str:
            """Put something there."""
            self.looked.append(f"put {key}")
            return "done"

        return [look, put]

    def answer(self, call: ChatCall) -> Any:
        """Look up what the user's last message names, or what it says otherwise."""
        if self.window is not None and size(call) + (call.max_tokens or 0) > self.window:
            self.refused += 1
            said = f"This model's maximum context length is {self.window} tokens."
            return Fault.status(400, said if self.says_window else "context length exceeded")
        if self.status != 200 or self.error:
            return Fault.status(422 if self.error else self.status, self.error)
        last = call.messages[-1]
        text = str(last["content"])
        if "replaced by your summary" in text:
            return self.summary
        if last["role"] == "tool" and len(self.looked) < self.follow:
            return Call("look", {"key": f"n{len(self.looked)}"})
        if last["role"] == "tool":
            return f"found: {text[:20]}"
        verb, _, what = text.rpartition("\n")[2].partition(" ")
        names = what.split()
        if verb == "find":
            return [Call("look", {"key": name}) for name in names]
        if verb == "put":
            return [Call("put", {"key": names[0]})]
        if verb == "read":
            return [Call("read_output", {"id": names[0], "start": int(names[1])})]
        if verb == "plan":
            return f"$1 = look(key={json.dumps(names[0])})\njoin()\n"
        if "Observations:" in text:
            return "Answer: planned"
        return f"you said {text[:40]}"

    async def engine(self, **options: Any) -> Engine:
        """An engine whose model the clerk is."""
        http = _http.client(transport=self.server.transport())
        model = OpenAIBackend("http://scripted/v1", "tiny", http=http)
        await model.connect()
        engine = Engine(model=model, tools=self.tools, subscribers=[self.events.append], **options)
        self._open += [engine, http]
        return engine

    async def aclose(self) -> None:
        """Close, and check that nothing is left."""
        for owner in self._open:
            assert not await owner.aclose()
        assert self.server.active == 0

    # What became of it

    def prompts(self) -> list[list[str]]:
        """The parts of every prompt, as a server sees them."""
        bodies = [request.body for request in self.server.requests]
        return [
            [json.dumps(part) for part in (*body.get("tools", ()), *body["messages"])]
            for body in bodies
        ]

    def told(self, kind: type[events.Event]) -> list[Any]:
        """The events of a kind."""
        return [event for event in self.events if type(event) is kind]


def check_sound(messages: Sequence[dict[str, Any]]) -> None:
    """User and assistant take turns, and every call is followed by its result."""
    waiting: list[str] = []
    before = "assistant"
    for message in messages:
        role = message["role"]
        if role == "tool":
            waiting.remove(message["tool_call_id"])
            continue
        assert not waiting, "a call has no result"
        if role == "user":
            assert before != "user", "two messages of the user in a row"
        before = role
        waiting = [call["id"] for call in message.get("tool_calls", ())]
    assert not waiting


@pytest.fixture
async def clerk() -> AsyncIterator[Clerk]:
    made = Clerk()
    yield made
    await made.aclose()


@pytest.fixture
async def engine(clerk: Clerk) -> Engine:
    return await clerk.engine()


@pytest.fixture
def chat() -> Session:
    return Session("You are a clerk.")
