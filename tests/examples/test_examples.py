"""Every example does what it says, without a network and without waiting."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from agentflow import Engine
from agentflow.errors import DeadlineExceeded
from agentflow.events import Event, RunCancelled, RunStarted
from agentflow.testing import run_virtual

Load = Callable[[str], Any]


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    """No pyproject.toml of this checkout names an endpoint."""
    monkeypatch.chdir(tmp_path)


def test_hello_workflow_joins_two_calls_that_overlap(example: Load) -> None:
    hello = example("hello_workflow").hello

    async def main() -> tuple[str, float]:
        async with Engine() as engine:
            return await engine.run(hello, "seven seas"), asyncio.get_running_loop().time()

    assert run_virtual(main()) == ("SEVEN SEAS (2 words)", 0.1)


def test_parallel_fetch_keeps_what_came_and_says_what_did_not(example: Load) -> None:
    good, missing, never = run_virtual(example("parallel_fetch").main())

    assert good.endswith("/good  200, 5 characters")
    assert missing.endswith("/missing  404, 5 characters")
    assert "/never  failed: http_get took longer than 2 s" in never


def test_typed_answers_are_corrected_until_they_fit(
    example: Load, capsys: pytest.CaptureFixture[str]
) -> None:
    answer = run_virtual(example("typed_answers").main())

    assert answer == "2.5 stars; wished for: a replacement, a better manual"
    assert "these replies are scripted" in capsys.readouterr().out


def test_agent_task_answers_from_the_notes_and_names_its_model(
    example: Load, capsys: pytest.CaptureFixture[str]
) -> None:
    answer = run_virtual(example("agent_task").main("Where is the spare key?"))

    shown = capsys.readouterr().out
    assert "with the neighbours" in answer and "house.md:3" in answer
    assert "rule-based stand-in" in shown
    assert 'search_text(pattern="spare")' in shown


def test_plan_file_runs_as_it_is_printed(example: Load, capsys: pytest.CaptureFixture[str]) -> None:
    module = example("plan_file")

    async def main() -> tuple[Any, float]:
        return await module.main(), asyncio.get_running_loop().time()

    assert run_virtual(main()) == ({"euros": 129.8, "francs": 120.71}, 0.2)
    assert '$4 = rate(currency="CHF")' in capsys.readouterr().out


def test_a_deadline_leaves_what_was_finished_and_a_budget_what_fits(example: Load) -> None:
    boxes, calls = run_virtual(example("budget_and_deadline").main())

    assert boxes == [f"box from shelf {shelf}" for shelf in range(3)]
    assert 0 < calls < 100


def test_a_deadline_says_what_was_pending(example: Load) -> None:
    module = example("budget_and_deadline")

    async def main() -> DeadlineExceeded:
        async with Engine() as engine:
            with pytest.raises(DeadlineExceeded) as late:
                await engine.run(module.search_archive, 6)
        return late.value

    assert run_virtual(main()).pending == (3, 4, 5)


def test_a_support_desk_gets_quicker_as_it_learns(
    example: Load, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second, *later = run_virtual(example("speculation").main())

    assert first == pytest.approx(3 * (0.07 + 0.06))
    assert second == pytest.approx(first)  # one ticket is not much to go by
    assert later == pytest.approx([3 * 0.07] * 4)  # nobody waits for a tool any more
    assert "; 0 calls made in vain" in capsys.readouterr().out


def test_calls_that_begin_while_they_are_written_change_nothing_but_the_time(
    example: Load, capsys: pytest.CaptureFixture[str]
) -> None:
    module = example("partial")

    took = run_virtual(module.main())

    assert took[True] < 0.65 * took[False]
    assert module.PAGES == {"spain": module.TEXT}
    without, with_parts = capsys.readouterr().out.split("=== partial=True")
    for shown in (without, with_parts):
        assert "run_program gave 8" in shown and "The page is published." in shown
    assert "model stopped after 9 tokens: search: argument 'query'" in with_parts


def test_models_share_a_budget_and_runs_teach_the_next_ones(
    example: Load, capsys: pytest.CaptureFixture[str]
) -> None:
    module = example("budget")

    accounts = run_virtual(module.main())

    assert all(account.passed.total() >= 4 for account in accounts)
    assert all(0 < account.usd <= module.BUDGET.usd for account in accounts)
    assert any(account.saved > 0 for account in accounts)
    assert accounts[-1].chances[0] > accounts[0].chances[0]
    shown = capsys.readouterr().out
    assert shown.count("likely: ") == shown.count("of $0.004, saved $") == 3


def test_conversations_go_where_their_beginning_is_and_outlive_a_replica(
    example: Load, capsys: pytest.CaptureFixture[str]
) -> None:
    module = example("replicas")

    sticky, earliest, one_dies = run_virtual(module.main()).values()

    answers = tuple(f"Report {number} has 6 pages." for number in range(module.AGENTS))
    assert sticky.answers == earliest.answers == one_dies.answers == answers
    assert earliest.seconds < sticky.seconds
    assert earliest.cached / earliest.prompts > 1.2 * sticky.cached / sticky.prompts
    assert sticky.moves == ()
    assert "lost" in one_dies.moves
    assert " lost" in capsys.readouterr().out.splitlines()[-1]


async def _get(port: int, path: str) -> Any:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {path} HTTP/1.1\r\nhost: here\r\n\r\n".encode())
    body = (await reader.read()).partition(b"\r\n\r\n")[2]
    writer.close()
    return json.loads(body)


@pytest.mark.virtual
async def test_a_server_answers_many_requests_with_one_engine(example: Load) -> None:
    site = example("embed_in_server").Site

    async with Engine() as engine:
        server = await asyncio.start_server(site(engine).handle, "127.0.0.1")
        port = server.sockets[0].getsockname()[1]
        async with server:
            oslo_and_rome = await asyncio.gather(_get(port, "/?Oslo"), _get(port, "/?Rome"))

    assert list(oslo_and_rome) == [
        {"weather": f"sunny in {city}", "events": [f"a concert in {city}"]}
        for city in ("Oslo", "Rome")
    ]


@pytest.mark.virtual
async def test_a_client_that_leaves_stops_its_run(example: Load) -> None:
    begun, stopped = asyncio.Event(), asyncio.Event()
    marks = {RunStarted: begun, RunCancelled: stopped}

    def watch(event: Event) -> None:
        if (mark := marks.get(type(event))) is not None:
            mark.set()

    async with Engine(subscribers=[watch]) as engine:
        site = example("embed_in_server").Site(engine)
        server = await asyncio.start_server(site.handle, "127.0.0.1")
        async with server, asyncio.timeout(60):
            _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            writer.write(b"GET / HTTP/1.1\r\n\r\n")
            await begun.wait()
            writer.close()
            await stopped.wait()
