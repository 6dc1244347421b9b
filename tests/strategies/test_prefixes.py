"""Every strategy's prompts go on from the ones before, byte by byte, until what is volatile."""

from __future__ import annotations

import json
from itertools import pairwise
from random import Random
from typing import Any

import pytest

from agentflow import events
from agentflow.budgets.budget import Budget
from agentflow.planner.prompting import CUT, OBSERVED_LIMIT
from agentflow.testing import Call
from agentflow.testing.replies import Reply, Usage
from agentflow.tools.tool import tool

pytestmark = pytest.mark.virtual

LIMITS = Budget(tokens=100_000, deadline=600)
VOLATILE = ("\n\nRemaining: ", "\n\nThe last plan failed: ", "\n\nThere is no further plan")


def sessions(lab: Any) -> list[list[dict[str, Any]]]:
    """The bodies of a run's requests, by the system message they begin with."""
    found: dict[str, list[dict[str, Any]]] = {}
    for request in lab.server.requests:
        found.setdefault(request.body["messages"][0]["content"], []).append(request.body)
    return list(found.values())


def kept(body: dict[str, Any]) -> list[str]:
    """The text of a prompt's parts, in the order a server sees them, without what is volatile."""
    *messages, last = body["messages"]
    content = last["content"] or ""
    for mark in VOLATILE:
        content = content.partition(mark)[0]
    parts = [json.dumps(part) for part in (*body.get("tools", ()), *messages)]
    if content.startswith("Remaining: "):
        return parts
    return [*parts, json.dumps({**last, "content": content})]


def goes_on(before: dict[str, Any], after: dict[str, Any]) -> bool:
    """Whether a prompt begins as the one before; its last message may have grown."""
    *whole, last = kept(before)
    later = kept(after)
    grown = later[len(whole)] if len(later) > len(whole) else ""
    return later[: len(whole)] == whole and grown.startswith(last.removesuffix('"}'))


def assert_all_go_on(lab: Any) -> None:
    conversations = sessions(lab)
    assert max(map(len, conversations)) > 1
    for conversation in conversations:
        for before, after in pairwise(conversation):
            assert goes_on(before, after)
    assert lab.told(events.PrefixBroken) == []


def turn(chance: Random) -> Reply:
    """A turn with calls that are made, fail, or are rejected."""
    calls = [
        Call("look", {"key": chance.choice("ab")}),
        Call("look", {"key": "nothing"}),
        Call("put", {"key": "ä€\ud83d\ude00", "value": "x y"}),
        Call("nonesuch", {"n": 1}),
        Call("search", {"query": 5, "k": "many"}),
        Call("search", {"k": 2, "query": "keys in another order"}),
    ]
    said = chance.choice([(), ("  I look.\n",)])
    return Reply(*said, *chance.sample(calls, chance.randint(1, 4)), usage=Usage(900, 20))


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("shown", [False, True, None])
async def test_turns_go_on_from_each_other(lab: Any, seed: int, shown: bool | None) -> None:
    chance = Random(seed)
    lab.takes = {"look": 100.0}
    turns = [turn(chance) for _ in range(chance.randint(2, 6))]

    await lab.run(*turns, "Done.", strategy="react", budget=LIMITS, show_remaining=shown)

    assert_all_go_on(lab)


@pytest.mark.parametrize("shown", [False, True])
async def test_further_plans_go_on_from_the_first(lab: Any, shown: bool) -> None:
    await lab.run(
        '\n\n  $1 = look(key="a")\njoin()\n  and so on',
        "Replan: look elsewhere",
        'Thought: well\n$2 = look(key="nothing")\nreturn $2',
        "$3 = search(query=$1)\n$4 = nonesuch()\njoin()",
        '$5 = look(key="b")\njoin()',
        "Answer: done",
        rounds=4, budget=LIMITS, show_remaining=shown,
    )  # fmt: skip

    assert_all_go_on(lab)
    planner, joiner = sessions(lab)
    assert (len(planner), len(joiner)) == (4, 2)
    assert planner[1]["messages"][2]["content"].startswith("\n\n  $1 = look(")


async def test_a_joiner_that_reads_on_is_shown_the_same_first(lab: Any) -> None:
    script = []
    for number in range(1, 4):
        script += [f'$1 = search(query="{number}")\njoin()', "Replan: more"]

    await lab.run(*script[:-1], "Answer: enough", rounds=3)

    assert_all_go_on(lab)


async def test_what_was_observed_is_cut_in_steps(lab: Any) -> None:
    @tool(pure=True)
    async def page(number: int) -> str:
        """A page of text."""
        return f"page {number} " + "x" * 3_000

    lab.tools.append(page)
    script = []
    for number in range(1, 14):
        script += [f"${number} = page(number={number})\njoin()", "Replan: more"]

    await lab.run(*script[:-1], "Answer: long", rounds=13)

    _, joiner = sessions(lab)
    breaks = [not goes_on(before, after) for before, after in pairwise(joiner)]
    assert OBSERVED_LIMIT + 2 * 3_000 < 13 * 3_000 < OBSERVED_LIMIT + CUT
    assert sum(breaks) == 1  # and not with each page that does not fit
    assert lab.told(events.PrefixBroken) == []


async def test_the_same_tools_are_told_in_the_same_words(lab: Any) -> None:
    await lab.run("One.", strategy="react")
    one = lab.server.requests[0].body["tools"]
    lab.tools.reverse()
    await lab.run("Two.", strategy="react")

    assert json.dumps(lab.server.requests[0].body["tools"]) == json.dumps(one)
    assert [tool["function"]["name"] for tool in one] == sorted(t.name for t in lab.tools)
