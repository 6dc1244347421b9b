"""A model is stopped at the first argument that is rejected, and told why."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from agentflow import Engine, Late, Stream, Task, Tool, _http, events, tool
from agentflow.executor.models.client import OpenAIBackend
from agentflow.testing import Call, Pace, ScriptedServer
from agentflow.testing.replies import Reply

pytestmark = pytest.mark.virtual

PACE = Pace(first_token=0.5, per_token=0.02)
LONG = "and so on " * 100


class Desk:
    """A scripted server, and an engine that asks it.

    Attributes:
        made: Calls that were made, or began to be.
        events: What subscribers were told.
    """

    def __init__(self) -> None:
        self.made: list[str] = []
        self.events: list[events.Event] = []
        self.server = ScriptedServer([])
        self._open: list[Any] = []

    def tools(self) -> list[Tool[..., Any]]:
        def kind(query: str) -> bool | str:
            return query != "bad" or "never say bad"

        @tool(reads="web", check={"query": kind})
        async def search(query: str, k: Late[int] = 3, *, more: Late[str] = "") -> str:
            """Search."""
            self.made.append(query)
            return f"found {query} {await k} {len(await more)}"

        @tool(writes="files/{path}")
        async def write(path: str, text: str) -> str:
            """Write a file."""
            self.made.append(f"write {path}")
            return "written"

        return [search, write]

    async def run(self, *script: Any, partial: bool = True, tools: Any = None, **task: Any) -> Any:
        """The answer of a model with this script."""
        self.server = ScriptedServer(list(script), pace=PACE)
        http = _http.client(transport=self.server.transport())
        model = OpenAIBackend("http://scripted/v1", "tiny", http=http)
        await model.connect()
        engine = Engine(
            model=model,
            tools=tools or self.tools(),
            partial=partial,
            subscribers=[self.events.append],
        )
        self._open += [engine, http]
        return await engine.run(Task("Which?", **task))

    async def aclose(self) -> None:
        for owner in self._open:
            assert not await owner.aclose()
        assert self.server.active == 0

    def told(self, kind: type[events.Event]) -> list[Any]:
        return [event for event in self.events if type(event) is kind]

    def results(self) -> list[str]:
        """What the last request told of the calls of the turn before."""
        messages = self.server.requests[-1].body["messages"]
        return [message["content"] for message in messages if message["role"] == "tool"]

    def sent(self, number: int = 0) -> str:
        """What the server had sent of one answer, text and arguments."""
        out = ""
        for _, data in self.server.requests[number].sent:
            if data.startswith(b"data: {") and (choices := json.loads(data[6:])["choices"]):
                delta = choices[0]["delta"]
                out += delta.get("content") or ""
                for call in delta.get("tool_calls") or ():
                    out += call["function"].get("arguments") or ""
        return out


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    made = Desk()
    yield made
    await made.aclose()


BAD = f'{{"query": "bad", "more": "{LONG}"}}'
GOOD = Call("search", {"query": "good", "k": 1})


async def test_the_stream_is_closed_at_the_argument(desk: Desk) -> None:
    await desk.run(Reply(GOOD, Call("search", BAD)), "Done.", strategy="react")

    first = desk.server.requests[0]
    assert first.disconnected
    after = desk.sent().partition('"query": "bad"')[2]
    assert len(after) < 16, "only what was in flight"
    assert desk.results() == [
        "found good 1 0",
        "not called: search: argument 'query': never say bad (given: 'bad')",
    ]
    assert desk.made == ["good"]


async def test_the_tokens_that_are_spared_are_counted(desk: Desk) -> None:
    await desk.run(Call("search", BAD), "Done.", strategy="react", max_tokens=1000)

    [stopped] = desk.told(events.ReplyStopped)
    [replied, _] = desk.told(events.ModelReplied)
    assert 0 < stopped.tokens < 30
    assert stopped.tokens + stopped.spared == 1000
    assert "never say bad" in stopped.why
    assert stopped.at == pytest.approx(replied.at)
    assert replied.completion_tokens < 50


async def test_a_plan_is_stopped_at_the_argument(desk: Desk) -> None:
    plan = f'$1 = search(query="good", k=1)\n$2 = search(query="bad", more="{LONG}")\njoin()'

    await desk.run(plan, "join()", "Answer: done", strategy="plan")

    assert desk.server.requests[0].disconnected
    assert len(desk.sent().partition('"bad"')[2]) < 16
    assert desk.made == ["good"]
    [stopped] = desk.told(events.ReplyStopped)
    assert "never say bad" in stopped.why
    again = desk.server.requests[1].body["messages"][-1]["content"]
    assert "never say bad" in again and "found good" in again


@pytest.mark.parametrize("strategy", ["react", "plan"])
async def test_without_partial_execution_only_the_time_is_another(strategy: Any) -> None:
    told, ends = [], []
    for partial in (True, False):
        desk = Desk()
        script: list[Any] = [
            Reply(GOOD, Call("search", BAD), Call("write", {"path": "p"})),
            "Done.",
        ]
        if strategy == "plan":
            script = [
                f'$1 = search(query="good", k=1)\n$2 = search(query="bad", more="{LONG}")',
                "join()",
                "Answer: done",
            ]
        await desk.run(*script, partial=partial, strategy=strategy)
        last = desk.server.requests[-1].body["messages"]
        told.append(json.dumps(last).replace(LONG, ""))
        ends.append(desk.server.requests[0].ended or 0.0)
        assert desk.made == ["good"]
        assert len(desk.told(events.ReplyStopped)) == (partial or strategy == "plan")
        await desk.aclose()

    assert told[0] == told[1]
    if strategy == "react":
        assert ends[0] < ends[1] - 5.0


async def test_the_conversation_after_it_is_one_a_backend_can_read(desk: Desk) -> None:
    """Arguments that are no JSON, or not all of it, do not go back."""
    turn = Reply("Let me see.", GOOD, Call("search", '{"k": 2, "query": nope, "more": "x"}'))

    await desk.run(turn, "Done.", strategy="react")

    assistant = desk.server.requests[1].body["messages"][2]
    assert assistant["content"] == "Let me see."
    assert [json.loads(c["function"]["arguments"]) for c in assistant["tool_calls"]] == [
        {"query": "good", "k": 1},
        {"k": 2},
    ]
    assert "at character" in desk.results()[1]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (f'{{"query": 7, "more": "{LONG}"}}', "argument 'query': input should be a valid string"),
        (f'{{"qery": "x", "more": "{LONG}"}}', "no parameter 'qery'. Did you mean 'query'?"),
        (
            f'{{"query": "x", "k": "many", "more": "{LONG}"}}',
            "argument 'k': input should be a valid integer",
        ),
        (f'{{"query" = "x", "more": "{LONG}"}}', "a colon is expected, at character 9"),
        (f'["x", "{LONG}"]', "they are a JSON array"),
    ],
)
async def test_whatever_is_wrong_with_it(desk: Desk, arguments: str, told: str) -> None:
    await desk.run(Call("search", arguments), "Done.", strategy="react")

    assert desk.server.requests[0].disconnected
    assert told in desk.results()[0]


async def test_a_missing_argument_or_an_unknown_tool_is_told_at_the_end(desk: Desk) -> None:
    """They are known only when the call is complete, and then nothing is spared."""
    turn = Reply(Call("search", {"k": 1}), Call("nothing", {"x": LONG}), GOOD)

    await desk.run(turn, "Done.", strategy="react")

    assert not desk.server.requests[0].disconnected
    assert not desk.told(events.ReplyStopped)
    assert [result[:10] for result in desk.results()] == ["not called", "not called", "found good"]


async def test_a_stream_is_checked_when_it_is_complete(desk: Desk) -> None:
    def short(text: str) -> str | None:
        return None if len(text) < 10 else "write less"

    seen: list[str] = []

    @tool(pure=True, check={"text": short})
    async def say(text: Stream[str], note: str = "") -> str:
        """Say it."""
        async for piece in text:
            seen.append(piece)
        return "said"

    turn = Call("say", json.dumps({"text": "one two three four", "note": LONG}))
    await desk.run(turn, "Done.", tools=[say], strategy="react")

    assert "".join(seen) == "one two three four"
    assert "write less" in desk.results()[0]
    assert desk.server.requests[0].disconnected
    assert len(desk.sent()) < 60


@pytest.mark.parametrize("partial", [True, False])
async def test_half_a_surrogate_pair_is_told_like_any_text(desk: Desk, partial: bool) -> None:
    turn = Call("search", '{"query": "\\ud83d", "bogus": 1}')

    assert await desk.run(turn, "Done.", strategy="react", partial=partial) == "Done."
    assert "no parameter 'bogus'" in desk.results()[0]


@pytest.mark.parametrize("partial", [True, False])
@pytest.mark.parametrize("strategy", ["react", "plan"])
async def test_a_check_that_breaks_rejects_the_argument_and_ends_no_run(
    desk: Desk, strategy: Any, partial: bool
) -> None:
    @tool(pure=True, check={"key": lambda key: key[99] == "x"})
    async def look(key: str) -> str:
        """Look."""
        raise AssertionError("it is not called")

    script: list[Any] = [Call("look", {"key": "x"}), "Done."]
    if strategy == "plan":
        script = ['$1 = look(key="x")\njoin()', "join()", "Answer: Done."]

    answer = await desk.run(*script, tools=[look], strategy=strategy, partial=partial)

    assert answer == "Done."
    told = desk.server.requests[1].body["messages"][-1]["content"]
    assert "argument 'key'" in told
