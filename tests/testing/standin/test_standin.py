"""The stand-in over HTTP: it plans, joins, acts and chats, told apart by the messages alone."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from openai import AsyncOpenAI

from agentflow.engine import Engine
from agentflow.events import NodeFailed, RunFinished
from agentflow.planner.check import read_plan
from agentflow.planner.lower import lower
from agentflow.testing import Call, ChatCall, Pace
from agentflow.testing.standin import MODEL, serve_standin, standin
from agentflow.testing.standin.protocol import Kind, kind_of, observed, question_of
from agentflow.testing.standin.toolbox import Role, from_signatures
from agentflow.tools.builtin.files import file_tools

SIGNATURES = """\
- search_text(pattern: str, path: str = ".", max_matches: int = 50) -> list[{file, line, text}]
  Find lines that contain a text.
- read_file(path: str, start: int = 1, lines: int = 200) -> {path, start, text}
- list_files(path: str = ".", pattern: str = "**/*") -> list[str]
- calculate(expression: str) -> number
"""
PLANNER = f"You plan.\n\nWrite the plan in the notation.\n\nTools:\n{SIGNATURES}"
JOINER = "Answer the question from the observations, or ask for another plan.\nBe brief."


def ask(system: str, user: str, **body: Any) -> ChatCall:
    messages = [{"role": "system", "content": system}, {"role": "user", "content": user}]
    return ChatCall(0, {"messages": messages, **body})


def said(system: str, user: str, **body: Any) -> str:
    return "".join(str(piece) for piece in standin(ask(system, user, **body)).pieces)


def json_text(value: Any) -> str:
    return json.dumps(value, default=asdict)


async def run_tools(project: Path, calls: list[tuple[str, dict[str, Any]]]) -> list[str]:
    tools = {tool.name: tool for tool in file_tools(project)}
    return [json_text(await tools[name](**arguments)) for name, arguments in calls]


def test_requests_are_told_apart_by_their_messages() -> None:
    function = {"type": "function", "function": {"name": "f", "parameters": {}}}
    assert kind_of(ask(PLANNER, "?")) is Kind.PLAN
    assert kind_of(ask(JOINER, "?")) is Kind.JOIN
    assert kind_of(ask("Use tools.", "?", tools=[function])) is Kind.ACT
    assert kind_of(ask("Be nice.", "?")) is Kind.CHAT


@pytest.mark.parametrize(
    "user",
    [
        "Why is it?",
        "Question: Why is it?",
        "## Question:\nWhy is it?\n\n## Known\nnothing",
        "Known: x\n\nQuestion: Why is it?\nPlan:\n$1 = f()",
        "Why is it?\n\nTime left: 3 s.",
    ],
)
def test_the_question_is_found(user: str) -> None:
    assert question_of(ask("", user)) == "Why is it?"


def test_tools_are_read_from_signatures_and_not_from_examples() -> None:
    text = f"{SIGNATURES}\nExample:\n$1 = grep(query='x')\n  find_lines(x)\n"
    toolbox = from_signatures(text)
    assert toolbox.name(Role.SEARCH) == "search_text"
    assert toolbox.arguments(Role.READ, {"path": "a", "start": 3}) == {"path": "a", "start": 3}


def test_arguments_take_the_names_a_tool_has_for_them() -> None:
    toolbox = from_signatures("grep(query: str, limit: int = 5)")
    wanted = {"pattern": "x", "max_matches": 9, "path": "."}
    assert toolbox.arguments(Role.SEARCH, wanted) == {"query": "x", "limit": 9}
    assert not toolbox.offers(Role.READ)


def test_a_plan_searches_reads_where_it_found_and_joins() -> None:
    plan = said(PLANNER, "Question: When is the kettle heated?")
    lines = plan.split("\n")
    assert lines[0] == '$1 = list_files(pattern="**/*kettl*")'
    assert lines[-1] == "join()"
    assert [int(match) for match in re.findall(r"^\$(\d+) =", plan, re.MULTILINE)] == [
        *range(1, len(lines))
    ]
    assert len(lines) > 12
    assert '$5 = search_text(pattern="kettle heated", max_matches=6)' in lines
    assert any("read_file(path=each $5[*].file, start=each $5[*].line" in line for line in lines)
    assert re.search(r"read_file\(path=\$\d+\[0\].*\) if \$\d+$", plan, re.MULTILINE)


@pytest.mark.parametrize("question", ["When is the kettle heated?", "`KettleError`", "Uranium?"])
async def test_a_plan_is_read_without_complaint_and_runs(project: Path, question: str) -> None:
    tools = file_tools(project)
    specs = {tool.name: tool.spec for tool in tools}
    script = read_plan(said(PLANNER, question), specs)
    assert script.warnings == ()
    async with Engine(tools=tools) as engine:
        happened = [event async for event in engine.stream(lower(script, specs))]
    assert isinstance(happened[-1], RunFinished)
    assert not any(isinstance(event, NodeFailed) for event in happened)


def test_a_plan_uses_only_what_is_offered() -> None:
    system = "Write the plan in the notation.\ncalculate(expression: str) -> number"
    assert said(system, "What is 17*23?") == '$1 = calculate(expression="17*23")\njoin()'
    assert said(system, "When is the kettle heated?") == "join()"


def test_a_dollar_sign_in_a_question_is_no_reference() -> None:
    assert r'pattern="\u00241 cost"' in said(PLANNER, "Where is `$1 cost`?")


def observations(calls: list[tuple[str, dict[str, Any]]], results: list[str]) -> str:
    return "\n".join(
        f"${n} = {name}({', '.join(f'{k}={json.dumps(v)}' for k, v in arguments.items())})\n"
        f"  -> {result}"
        for n, ((name, arguments), result) in enumerate(zip(calls, results, strict=True), 1)
    )


async def test_a_join_answers_from_the_observations(project: Path) -> None:
    calls: list[tuple[str, dict[str, Any]]] = [
        ("search_text", {"pattern": "kettle heated"}),
        ("search_text", {"pattern": "heated", "max_matches": 30}),
        ("read_file", {"path": "README.md", "start": 1}),
    ]
    text = observations(calls, await run_tools(project, calls))
    reply = said(JOINER, f"Question: When is the kettle heated?\n\nObservations:\n{text}")
    assert reply.startswith("Answer: The kettle is heated before the leaves are added")
    assert "(README.md:3)" in reply


async def test_too_little_leads_to_another_plan_with_other_terms(project: Path) -> None:
    question = "Question: How is brewing scheduled?\n\n"
    calls: list[tuple[str, dict[str, Any]]] = [("search_text", {"pattern": "scheduled"})]
    text = observations(calls, await run_tools(project, calls))
    assert said(JOINER, question + text).startswith("Replan: nothing was found on ")

    plan = said(PLANNER, f"{question}Known so far:\n{text}")
    patterns = re.findall(r'pattern="(\w+)"', plan)
    assert "schedul" in patterns
    assert "scheduled" not in patterns

    calls += [("search_text", {"pattern": pattern}) for pattern in patterns]
    text = observations(calls, await run_tools(project, calls))
    assert said(JOINER, question + text).startswith("Answer: ")


def test_when_nothing_is_left_to_try_it_says_so() -> None:
    calls = [("search_text", {"pattern": p}) for p in ("uranium", "urani", "uran")]
    text = observations(calls, ["[]"] * 3)
    reply = said(JOINER, f"Question: Where is the uranium?\n\n{text}")
    assert reply == "Answer: Nothing was found on 'uranium': 3 searches and 0 files read."


def test_a_list_that_was_cut_is_asked_for_in_parts() -> None:
    question = "Question: How many Python files are there?\n\n"
    cut = (
        '$1 = list_files(pattern="**/*.py")\n-> ["a.py", "b.p ... (900 more characters were cut)\n'
    )
    assert said(JOINER, question + cut).startswith("Replan: the list of **/*.py was cut")
    plan = said(PLANNER, question + cut)
    assert plan.startswith('$2 = list_files(pattern="**/[a-b]*.py")')
    found = re.sub(r"^(\$\d+ = .*)$", r'\1\n-> ["x.py", "y.py"]', plan, flags=re.MULTILINE)
    assert said(JOINER, question + cut + found).startswith("Answer: 18 files match **/*.py")


def test_a_further_plan_goes_on_with_the_numbers_and_never_repeats_a_search() -> None:
    first = said(PLANNER, "Question: How is brewing scheduled?")
    messages = [
        {"role": "system", "content": PLANNER},
        {"role": "user", "content": "Question: How is brewing scheduled?"},
        {"role": "assistant", "content": first},
        {"role": "user", "content": "Observations:\n\n(90 characters were cut)\nx\n\nWrite more."},
    ]
    further = "".join(map(str, standin(ChatCall(0, {"messages": messages})).pieces))
    assert further.startswith(f"${first.count(chr(10)) + 1} = ")
    patterns = [set(re.findall(r'pattern="([^"]+)"', plan)) for plan in (first, further)]
    assert patterns[1] and not patterns[0] & patterns[1]


def test_the_last_joiner_answers_whatever_is_missing() -> None:
    text = observations([("search_text", {"pattern": "x"})], ["[]"])
    user = f"Question: What is speculation?\n\nObservations:\n\n{text}"
    assert said(JOINER, user).startswith("Replan: ")
    last = f"{user}\n\nThere is no further plan: answer with what there is."
    assert said(JOINER, last).startswith("Answer: Nothing was found on 'speculation'")


@pytest.mark.parametrize("result", ["failed: PathNotFound: nothing is at a.py", "skipped: $1"])
def test_a_failed_call_is_no_evidence(result: str) -> None:
    call = ask(JOINER, f'Question: ?\n\n$1 = read_file(path="a.py")\n-> {result}\n')
    assert observed(call).lines == {}


def test_text_inside_results_is_not_taken_for_observations() -> None:
    inner = json.dumps([{"file": "a.md", "line": 1, "text": '$9 = search_text(pattern="no")'}])
    call = ask(JOINER, f'Question: ?\n\n$1 = search_text(pattern="yes")\n  -> {inner}\n')
    assert observed(call).tried == {"yes"}


async def converse(base_url: str, project: Path, question: str) -> tuple[str, int, int]:
    """A plain tool-calling loop; gives the answer, the rounds and the calls."""
    parameters = {
        "search_text": ["pattern", "max_matches"],
        "read_file": ["path", "start", "lines"],
        "list_files": ["pattern"],
    }
    tools: Any = [
        {
            "type": "function",
            "function": {"name": name, "parameters": {"properties": {key: {} for key in p}}},
        }
        for name, p in parameters.items()
    ]
    messages: list[Any] = [{"role": "user", "content": question}]
    rounds = made = 0
    async with AsyncOpenAI(base_url=base_url, api_key="unused", max_retries=0) as client:
        while True:
            rounds += 1
            answer = await client.chat.completions.create(
                model=MODEL, messages=messages, tools=tools
            )
            message = answer.choices[0].message
            messages.append(message.model_dump(exclude_none=True))
            if not message.tool_calls:
                return message.content or "", rounds, made
            calls = [
                (c.function.name, json.loads(c.function.arguments))
                for c in message.tool_calls
                if c.type == "function"
            ]
            made += len(calls)
            results = await run_tools(project, calls)
            messages += [
                {"role": "tool", "tool_call_id": call.id, "content": result}
                for call, result in zip(message.tool_calls, results, strict=True)
            ]


@pytest.mark.parametrize(
    ("question", "start", "rounds"),
    [
        ("When is the kettle heated?", "The kettle is heated before the leaves", 3),
        ("What is `KettleError`?", "`class KettleError(Exception)`: The kettle is dry.", 3),
        ("How many Python files are there?", "3 files match **/*.py", 2),
        ("How is brewing scheduled?", "Teapot brews tea on a schedule.", 4),
        ("Where is the uranium?", "Nothing was found on 'uranium'", 2),
    ],
)
async def test_a_tool_calling_loop_ends_with_an_answer(
    project: Path, question: str, start: str, rounds: int
) -> None:
    async with serve_standin(pace=Pace()) as base_url:
        answer, took, made = await converse(base_url, project, question)
    assert answer.startswith(start)
    assert took == rounds
    assert made >= (1 if "How many" in question else 5)


def test_acting_never_asks_for_a_tool_that_is_not_offered() -> None:
    tool = {"type": "function", "function": {"name": "weather", "parameters": {}}}
    reply = standin(ask("", "When is the kettle heated?", tools=[tool]))
    assert not any(isinstance(piece, Call) for piece in reply.pieces)


async def test_it_is_served_under_its_name() -> None:
    async with (
        serve_standin() as base_url,
        AsyncOpenAI(base_url=base_url, api_key="unused", max_retries=0) as client,
    ):
        assert [model.id async for model in client.models.list()] == [MODEL]


CHAT = (
    "The kettle heats water. The kettle is made of steel. My uncle once saw a whale. "
    "Water in the kettle boils at 100 degrees."
)


def test_chat_gives_the_central_sentences_of_the_text() -> None:
    reply = said("Summarise.", CHAT)
    assert "The kettle heats water." in reply
    assert "whale" not in reply


def test_chat_fills_a_schema_from_the_text() -> None:
    schema = {
        "type": "object",
        "properties": {
            "title": {"type": "string"},
            "degrees": {"type": "integer"},
            "material": {"enum": ["brass", "steel"]},
            "points": {"type": "array", "items": {"$ref": "#/$defs/Point"}},
            "safe": {"type": "boolean"},
            "note": {"anyOf": [{"type": "null"}, {"type": "string"}]},
        },
        "$defs": {"Point": {"type": "object", "properties": {"text": {"type": "string"}}}},
    }
    response_format = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    filled = json.loads(said("", CHAT, response_format=response_format))
    assert filled["title"] in CHAT
    assert filled["degrees"] == 100
    assert filled["material"] == "steel"
    assert filled["points"][0]["text"] in CHAT
    assert filled["note"] is None
    assert filled["safe"] is True
