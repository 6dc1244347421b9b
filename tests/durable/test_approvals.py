"""Tools that ask before they are called: who answers, and what goes on meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from agentflow import Answer, Budget, Engine, Question, events, gather, tool, workflow
from agentflow.errors import (
    ApprovalDenied,
    DefinitionError,
    RunCancelled,
    RunFailed,
    RunPaused,
)
from agentflow.executor.journal.store import JournalStore
from agentflow.testing import replay
from agentflow.testing.clock import run_virtual
from tests.durable.conftest import Desk, records, rows
from tests.durable.test_replay import recorded


class Mail:
    """Tools that send, and a workflow that does."""

    def __init__(self, made: list[str]) -> None:
        @tool(writes="mail/{to}", approve=True)
        async def send(to: str) -> str:
            made.append(f"send {to}")
            return f"sent to {to}"

        @tool(reads="web")
        async def look(what: str, seconds: float = 1.0) -> str:
            made.append(f"look {what}")
            await asyncio.sleep(seconds)
            return f"found {what}"

        @workflow
        async def flow() -> str:
            return await send("bob")

        @workflow
        async def both() -> list[str]:
            return list(await gather(look("a", 5.0), send("bob"), look("b", 9.0)))

        self.send, self.look, self.flow, self.both = send, look, flow, both


@pytest.fixture
def mail(desk: Desk) -> Mail:
    return Mail(desk.made)


def says(answer: Any) -> Callable[[Question], Any]:
    """An answerer that always says the same."""
    return lambda _question: answer


def test_nobody_answers_so_the_run_is_set_aside_and_says_what_it_asks(
    desk: Desk, mail: Mail
) -> None:
    path = desk.path()

    with pytest.raises(RunPaused) as paused:
        desk.run(mail.flow, path=path)

    row = rows(path)[0]
    (ask,) = paused.value.asks
    assert (ask["kind"], ask["node"], ask["tool"]) == ("approval", 0, "send")
    assert ask["call"] == 'send(to="bob")'
    assert row.state == "paused"
    assert row.asks == (ask,)
    assert f"agentflow approve {row.id} '$1'" in str(paused.value)
    assert f"agentflow resume {row.id}" in str(paused.value)
    assert desk.made == []


def test_an_approved_call_is_made_when_the_run_is_resumed(desk: Desk, mail: Mail) -> None:
    path = desk.path()
    with pytest.raises(RunPaused):
        desk.run(mail.flow, path=path)

    desk.answer(path, Answer("approve"))

    assert desk.resume(mail.flow, path=path) == "sent to bob"
    assert desk.made == ["send bob"]
    assert rows(path)[0].state == "finished"
    assert rows(path)[0].asks == ()


def test_a_denied_call_fails_and_is_not_made(desk: Desk, mail: Mail) -> None:
    path = desk.path()
    with pytest.raises(RunPaused):
        desk.run(mail.flow, path=path)

    desk.answer(path, Answer("deny", "not to bob"))

    for _ in range(2):  # it stays denied
        with pytest.raises(RunFailed, match="not to bob") as failed:
            desk.resume(mail.flow, path=path)
        assert isinstance(failed.value.__cause__, ApprovalDenied)
    assert desk.made == []


def test_a_run_that_is_resumed_without_an_answer_asks_again(desk: Desk, mail: Mail) -> None:
    path = desk.path()
    for _ in range(3):
        with pytest.raises(RunPaused) as paused:
            desk.run(mail.flow, path=path) if not path.exists() else desk.resume(
                mail.flow, path=path
            )
        assert len(paused.value.asks) == 1
    assert len(rows(path)) == 1
    assert desk.made == []


def test_what_was_approved_stays_so_after_the_process_died(desk: Desk, mail: Mail) -> None:
    path = desk.path()
    desk.run(mail.flow, path=path, approve=says(True))
    kept = records(path)
    asked = next(n for n, r in enumerate(kept) if r["event"] == "question_asked")
    for count in range(asked + 1, len(kept)):
        desk.made.clear()
        cut = desk.cut(path, count)
        store = JournalStore(cut)
        store.answer(rows(cut)[0].id, kept[asked]["question"], "approve", None, "eve")
        store.close()

        assert desk.resume(mail.flow, path=cut, in_doubt="retry") == "sent to bob"
        assert len(desk.made) <= 1


@pytest.mark.parametrize("plain", [True, False])
def test_the_engine_has_somebody_to_ask(desk: Desk, mail: Mail, plain: bool) -> None:
    asked: list[Question] = []

    def plainly(question: Question) -> bool:
        asked.append(question)
        return True

    async def later(question: Question) -> bool:
        asked.append(question)
        await asyncio.sleep(60)
        return True

    value = desk.run(mail.flow, path=desk.path(), approve=plainly if plain else later)

    assert value == "sent to bob"
    (question,) = asked
    assert (question.tool, question.kind, question.node) == ("send", "approval", 0)
    assert question.arguments == {"to": "bob"}


def test_whoever_is_asked_may_deny_and_say_why(desk: Desk, mail: Mail) -> None:
    with pytest.raises(RunFailed, match="approval was denied: he is away") as failed:
        desk.run(mail.flow, path=desk.path(), approve=says(Answer("deny", "he is away")))
    assert isinstance(failed.value.__cause__, ApprovalDenied)
    assert failed.value.__cause__.tool == "send"
    assert desk.made == []


def test_whoever_is_asked_may_leave_it_open(desk: Desk, mail: Mail) -> None:
    with pytest.raises(RunPaused):
        desk.run(mail.flow, path=desk.path(), approve=says(None))


def test_an_answerer_that_fails_leaves_the_question_open(desk: Desk, mail: Mail) -> None:
    def broken(_question: Question) -> bool:
        raise ConnectionError("no line")

    with pytest.raises(RunPaused):
        desk.run(mail.flow, path=desk.path(), approve=broken)
    assert desk.made == []


def test_without_a_journal_an_answerer_is_enough(desk: Desk, mail: Mail) -> None:
    async def main(answerer: Any) -> Any:
        async with Engine(approve=answerer) as engine:
            return await engine.run(mail.flow)

    assert run_virtual(main(says(True))) == "sent to bob"
    with pytest.raises(RunFailed, match="gave int"):
        run_virtual(main(says(3)))
    assert desk.made == ["send bob"]


def test_with_nobody_to_ask_the_call_fails_and_says_what_to_give(mail: Mail) -> None:
    async def main() -> Any:
        async with Engine() as engine:
            return await engine.run(mail.flow)

    with pytest.raises(RunFailed, match=r"Engine\(approve=...\)") as failed:
        run_virtual(main())
    assert isinstance(failed.value.__cause__, DefinitionError)


def test_what_is_left_open_without_a_journal_fails(desk: Desk, mail: Mail) -> None:
    async def main() -> Any:
        async with Engine(approve=says(None)) as engine:
            return await engine.run(mail.flow)

    with pytest.raises(RunFailed, match="left it open") as failed:
        run_virtual(main())
    assert isinstance(failed.value.__cause__, DefinitionError)
    assert desk.made == []


def test_other_calls_go_on_and_what_they_gave_is_kept(desk: Desk, mail: Mail) -> None:
    path = desk.path()
    with pytest.raises(RunPaused) as paused:
        desk.run(mail.both, path=path)
    assert paused.value.results == {0: "found a", 2: "found b"}

    desk.answer(path, Answer("approve"))

    assert desk.resume(mail.both, path=path) == ["found a", "sent to bob", "found b"]
    assert desk.made == ["look a", "look b", "send bob"]


def test_a_run_that_still_works_takes_an_answer_that_another_process_gives(
    desk: Desk, mail: Mail
) -> None:
    path = desk.path()

    async def main() -> Any:
        async with Engine(journal=path) as engine:
            run = engine.start(mail.both)
            await asyncio.sleep(2.5)
            await asyncio.to_thread(desk.answer, path, Answer("approve"))
            await asyncio.sleep(1.5)
            assert desk.made == ["look a", "look b", "send bob"]
            return await run

    assert run_virtual(main()) == ["found a", "sent to bob", "found b"]


@pytest.mark.parametrize("kept", [True, False])
def test_an_engine_takes_answers_for_a_run_that_works(desk: Desk, mail: Mail, kept: bool) -> None:
    async def main() -> Any:
        async def thinks(_question: Question) -> bool:
            await asyncio.sleep(60.0)
            return False

        where: Any = {"journal": desk.path()} if kept else {}
        async with Engine(approve=says(None) if kept else thinks, **where) as engine:
            run = engine.start(mail.both)
            await asyncio.sleep(1.0)
            assert desk.made == ["look a", "look b"]
            await engine.approve(run.id)
            await asyncio.sleep(0.1)
            assert desk.made[-1] == "send bob"
            return await run

    assert run_virtual(main()) == ["found a", "sent to bob", "found b"]


def test_a_guard_decides_by_the_arguments(desk: Desk) -> None:
    @tool(writes="bank", approve=lambda amount: f"{amount} is a lot" if amount > 100 else False)
    async def pay(amount: int) -> int:
        desk.made.append(f"pay {amount}")
        return amount

    @workflow
    async def flow(amount: int) -> int:
        return await pay(amount)

    assert desk.run(flow, 99, path=desk.path()) == 99
    with pytest.raises(RunPaused) as paused:
        desk.run(flow, 101, path=desk.path())
    assert paused.value.asks[0]["why"] == "101 is a lot"
    assert desk.made == ["pay 99"]


def test_a_guard_may_be_asynchronous_and_one_that_raises_fails_the_call(desk: Desk) -> None:
    async def guard(amount: int) -> bool:
        await asyncio.sleep(0)
        if amount < 0:
            raise ValueError("amounts are positive")
        return amount > 100

    @tool(writes="bank", approve=guard)
    async def pay(amount: int) -> int:
        return amount

    @workflow
    async def flow(amount: int) -> int:
        return await pay(amount)

    assert desk.run(flow, 5, path=desk.path()) == 5
    with pytest.raises(RunPaused):
        desk.run(flow, 101, path=desk.path())
    with pytest.raises(RunFailed, match="amounts are positive"):
        desk.run(flow, -1, path=desk.path())


def test_one_call_asks_or_does_not_whatever_its_tool_says(desk: Desk, mail: Mail) -> None:
    @workflow
    async def unasked() -> str:
        return await mail.send.with_(approve=False)("bob")

    @workflow
    async def asked() -> str:
        return await mail.look.with_(approve=True)("a")

    assert desk.run(unasked, path=desk.path()) == "sent to bob"
    with pytest.raises(RunPaused):
        desk.run(asked, path=desk.path())
    assert desk.made == ["send bob"]


def test_an_approval_covers_the_attempts_of_its_call(desk: Desk) -> None:
    asked: list[str] = []

    @tool(approve=True, retries=2, backoff=0.1)
    async def flaky() -> str:
        desk.made.append("flaky")
        if len(desk.made) < 3:
            raise ConnectionError("again")
        return "done"

    @workflow
    async def flow() -> str:
        return await flaky()

    def yes(question: Question) -> bool:
        asked.append(question.id)
        return True

    assert desk.run(flow, path=desk.path(), approve=yes) == "done"
    assert len(desk.made) == 3
    assert len(asked) == 1


def test_a_fallback_asks_for_itself(desk: Desk, mail: Mail) -> None:
    @tool(reads="web", fallback=mail.send)
    async def post(to: str) -> str:
        raise ConnectionError(to)

    @workflow
    async def flow() -> str:
        return await post("bob")

    with pytest.raises(RunPaused):
        desk.run(flow, path=desk.path())
    assert desk.made == []
    assert desk.run(flow, path=desk.path(), approve=says(True)) == "sent to bob"


def test_a_yes_to_a_call_is_none_to_its_fallback(desk: Desk, mail: Mail) -> None:
    @tool(reads="web", approve=True, fallback=mail.send)
    async def post(to: str) -> str:
        raise ConnectionError(to)

    @workflow
    async def flow() -> str:
        return await post("bob")

    with pytest.raises(RunFailed, match="send was not called"):
        desk.run(flow, path=desk.path(), approve=lambda question: question.tool == "post")
    assert desk.made == []


def test_questions_right_after_each_other_are_all_waited_for(desk: Desk) -> None:
    @tool(pure=True, approve=True)
    def quick(number: int) -> int:
        return number

    @workflow
    async def flow() -> int:
        return await quick(await quick(await quick(1) + 1) + 1)

    path = desk.path()
    for _ in range(3):
        with pytest.raises(RunPaused):
            desk.resume(flow, path=path) if path.exists() else desk.run(flow, path=path)
        desk.answer(path, Answer("approve"))
    assert desk.resume(flow, path=path) == 3


def test_time_spent_waiting_is_not_the_runs_nor_the_calls(desk: Desk) -> None:
    @tool(writes="mail", approve=True, timeout=2.0)
    async def send(to: str) -> str:
        await asyncio.sleep(1.0)
        return to

    @workflow(budget=Budget(deadline=10))
    async def flow() -> str:
        return await send("bob") + await send("eve")

    async def slow(_question: Question) -> bool:
        await asyncio.sleep(3600)
        return True

    path = desk.path()
    assert desk.run(flow, path=path, approve=slow) == "bobeve"
    assert rows(path)[0].seconds == pytest.approx(2.0, abs=0.5)


def test_the_deadline_holds_for_the_rest_of_the_run(desk: Desk, mail: Mail) -> None:
    @workflow(budget=Budget(deadline=10))
    async def flow() -> str:
        await mail.send("bob")
        return await mail.look("a", 9.5) + await mail.look("b", 1.0)

    async def slow(_question: Question) -> bool:
        await asyncio.sleep(100)
        return True

    path = desk.path()
    with pytest.raises(TimeoutError):
        desk.run(flow, path=path, approve=slow)
    assert desk.made == ["send bob", "look a", "look b"]
    assert rows(path)[0].seconds == pytest.approx(10.0, abs=0.5)


def test_time_counts_while_others_work(desk: Desk, mail: Mail) -> None:
    flow = mail.both.within(Budget(deadline=7))

    async def slow(_question: Question) -> bool:
        await asyncio.sleep(100)
        return True

    with pytest.raises(TimeoutError):
        desk.run(flow, path=desk.path(), approve=slow)


def test_a_pause_does_not_count_for_the_deadline(desk: Desk, mail: Mail) -> None:
    @workflow(budget=Budget(deadline=10))
    async def flow() -> str:
        found = await mail.look("a", 6.0)
        return found + await mail.send("bob") + await mail.look("b", 3.5)

    path = desk.path()
    with pytest.raises(RunPaused):
        desk.run(flow, path=path)
    for _ in range(10):
        with pytest.raises(RunPaused):
            desk.resume(flow, path=path)
    desk.answer(path, Answer("approve"))

    assert desk.resume(flow, path=path) == "found asent to bobfound b"


def test_what_waits_for_an_answer_is_cancelled_at_once(desk: Desk, mail: Mail) -> None:
    async def slow(_question: Question) -> bool:
        await asyncio.sleep(100)
        return True

    async def main() -> float:
        async with Engine(approve=slow) as engine:
            run = engine.start(mail.flow)
            await asyncio.sleep(1.0)
            run.cancel()
            with pytest.raises(RunCancelled):
                await run
            await run.ended()
            return asyncio.get_running_loop().time()

    assert run_virtual(main()) == pytest.approx(1.0)


def test_a_question_of_a_nested_run_pauses_the_outermost(desk: Desk, mail: Mail) -> None:
    @workflow
    async def inner(to: str) -> str:
        return await mail.send(to) + "!"

    @workflow
    async def outer() -> list[str]:
        return list(await gather(inner("bob"), mail.look("a"), inner("eve")))

    path = desk.path()
    with pytest.raises(RunPaused) as paused:
        desk.run(outer, path=path)
    assert sorted(ask["call"] for ask in paused.value.asks) == [
        'send(to="bob")',
        'send(to="eve")',
    ]
    for ask in paused.value.asks:  # both are the first call of their run
        assert f"agentflow approve {rows(path)[0].id} '{ask['question']}'" in str(paused.value)
        desk.answer(path, Answer("approve"), question=ask["question"])

    assert desk.resume(outer, path=path) == ["sent to bob!", "found a", "sent to eve!"]
    assert sorted(desk.made) == ["look a", "send bob", "send eve"]


def test_each_element_of_a_map_is_asked_about(desk: Desk, mail: Mail) -> None:
    @workflow
    async def flow() -> list[str]:
        return await mail.send.map(["bob", "eve", "joe"])

    path = desk.path()
    with pytest.raises(RunPaused) as paused:
        desk.run(flow, path=path)
    assert [ask["element"] for ask in paused.value.asks] == [0, 1, 2]
    assert "'$1[2]'" in str(paused.value)
    for number in range(3):
        desk.answer(path, Answer("approve"), question=f"$1[{number}]")

    assert desk.resume(flow, path=path) == ["sent to bob", "sent to eve", "sent to joe"]


def test_workflows_called_as_tools_ask_before_they_begin(desk: Desk, mail: Mail) -> None:
    @workflow
    async def inner() -> str:
        return await mail.look("a")

    @workflow
    async def outer() -> str:
        return await inner.with_(approve=True)()

    path = desk.path()
    with pytest.raises(RunPaused):
        desk.run(outer, path=path)
    assert desk.made == []
    desk.answer(path, Answer("approve"))
    assert desk.resume(outer, path=path) == "found a"


def test_nothing_of_such_a_tool_is_reused(desk: Desk) -> None:
    asked: list[str] = []

    @tool(pure=True, approve=True)
    async def secret(name: str) -> str:
        desk.made.append(name)
        return name.upper()

    @workflow
    async def flow() -> str:
        first = await secret("a")
        return first + await secret("a")

    def yes(question: Question) -> bool:
        asked.append(question.id)
        return True

    async def main() -> list[str]:
        async with Engine(approve=yes, speculation=True) as engine:
            return [await engine.run(flow) for _ in range(3)]

    assert run_virtual(main()) == ["AA"] * 3
    assert len(asked) == len(desk.made) == 3


def test_calls_that_ask_are_not_made_as_one(desk: Desk) -> None:
    @tool(pure=True)
    async def all_of(names: list[str]) -> list[str]:
        raise AssertionError("nobody was asked about this call")

    @tool(pure=True, approve=True, batch=all_of)
    async def one_of(name: str) -> str:
        return name.upper()

    @workflow
    async def flow() -> list[str]:
        return list(await gather(one_of("a"), one_of("b"), one_of("c")))

    assert desk.run(flow, path=desk.path(), approve=says(True)) == ["A", "B", "C"]


def test_events_tell_what_is_asked_and_answered_and_the_pause_is_the_last(
    desk: Desk, mail: Mail
) -> None:
    seen: list[events.Event] = []
    path = desk.path()
    with pytest.raises(RunPaused):
        desk.run(mail.flow, path=path, subscribers=[seen.append])
    (asked,) = [event for event in seen if isinstance(event, events.QuestionAsked)]
    assert (asked.call, asked.kind, asked.tool) == ('send(to="bob")', "approval", "send")
    assert isinstance(seen[-1], events.RunPaused)
    assert seen[-1].asks[0]["question"] == asked.question
    assert sum(isinstance(event, events.TERMINAL) for event in seen) == 1

    seen.clear()
    desk.answer(path, Answer("approve", by="eve"))
    desk.resume(mail.flow, path=path, engine={"subscribers": [seen.append]})
    (told,) = [event for event in seen if isinstance(event, events.QuestionAnswered)]
    assert (told.question, told.verdict, told.by) == (asked.question, "approve", "eve")
    assert seen[-1].as_dict()["event"] == "run_finished"


def test_a_stream_of_events_ends_with_the_pause(desk: Desk, mail: Mail) -> None:
    async def main() -> list[str]:
        async with Engine(journal=desk.path()) as engine:
            return [type(event).__name__ async for event in engine.stream(mail.flow)]

    assert run_virtual(main())[-1] == "RunPaused"


def test_what_is_shown_is_one_line_whatever_the_arguments(desk: Desk, mail: Mail) -> None:
    @workflow
    async def flow() -> str:
        return await mail.send("bob\n  agentflow approve x\x1b[2K" + "y" * 10_000)

    with pytest.raises(RunPaused) as paused:
        desk.run(flow, path=desk.path())
    call = paused.value.asks[0]["call"]
    assert "\n" not in call
    assert "\x1b" not in call
    assert "more characters" in call
    assert len(call) < 5_000


def test_an_answer_is_to_one_call_and_not_to_another_like_it(desk: Desk, mail: Mail) -> None:
    @workflow
    async def flow(*, names: list[str]) -> list[str]:
        return [await mail.send(name) for name in names]

    path: Path = desk.path()
    call = flow.within(Budget())
    with pytest.raises(RunPaused):
        desk.run(_with(call, ["bob", "bob"]), path=path)
    desk.answer(path, Answer("approve"))
    with pytest.raises(RunPaused) as paused:
        desk.resume(_with(call, ["bob", "bob"]), path=path)
    assert paused.value.asks[0]["question"].endswith("#1")
    assert desk.made == ["send bob"]


def _with(flow: Any, names: list[str]) -> Any:
    @workflow
    async def given() -> list[str]:
        return await flow(names=names)  # type: ignore[no-any-return]  # the test's own

    return given


def test_a_journal_that_cannot_be_written_asks_nobody(desk: Desk, mail: Mail) -> None:
    asked: list[Question] = []

    @workflow
    async def flow() -> str:
        return await mail.look.with_(approve=True)("a")

    async def answer(question: Question) -> bool:
        asked.append(question)
        return True

    path = desk.path()
    path.mkdir()
    with pytest.raises(RunFailed, match="JournalError"):
        desk.run(flow, path=path, approve=answer)
    assert not asked and not desk.made


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"approve": 3}, "approve takes"),
        ({"pure": True, "hedge": True, "approve": True}, "twice at once"),
    ],
)
def test_declarations_that_contradict_themselves_are_refused(options: Any, why: str) -> None:
    with pytest.raises(DefinitionError, match=why):

        @tool(**options)
        async def wrong() -> None: ...


def test_an_answerer_is_a_function() -> None:
    with pytest.raises(DefinitionError, match="approve='yes'"):
        Engine(approve="yes")  # type: ignore[arg-type]  # that is the point


@pytest.mark.parametrize("nested", [True, False])
@pytest.mark.parametrize("verdict", ["approve", "deny"])
def test_a_replay_asks_nobody(desk: Desk, mail: Mail, verdict: Any, nested: bool) -> None:
    @workflow
    async def inner() -> str:
        return await mail.look("a")

    @workflow
    async def flow() -> str:
        return await (inner.with_(approve=True)() if nested else mail.send("bob"))

    path = desk.path()
    with suppress(RunFailed):
        desk.run(flow, path=path, approve=says(Answer(verdict)))
    desk.made.clear()

    assert replay(recorded(path), flow).whole
    assert desk.made == []


def test_secrets_among_the_arguments_are_not_shown(desk: Desk) -> None:
    @tool(approve=lambda key, text: f"{text} is sent")
    async def call(key: SecretStr, text: str) -> str:
        raise AssertionError("nobody has approved it")

    @workflow
    async def flow() -> str:
        return await call(SecretStr("canary-in-a-cage"), "canary-in-a-cage flies")

    path = desk.path()
    with pytest.raises(RunPaused) as paused:
        desk.run(flow, path=path)
    assert "canary" not in str(paused.value) + str(paused.value.asks) + str(rows(path)[0].asks)
    assert "canary" not in str(records(path))


def test_an_object_may_answer_in_the_loop(desk: Desk, mail: Mail) -> None:
    class Desktop:
        async def __call__(self, question: Question) -> bool:
            return asyncio.get_running_loop().time() >= 0 and question.tool == "send"

    assert desk.run(mail.flow, path=desk.path(), approve=Desktop()) == "sent to bob"


def test_a_tool_that_may_have_written_is_not_cut_off_for_a_question_within_it(
    desk: Desk, mail: Mail
) -> None:
    @tool
    async def errand() -> str:
        desk.made.append("errand")
        return await mail.flow()

    @workflow
    async def flow() -> str:
        return await errand()

    path = desk.path()

    async def main() -> Any:
        async with Engine(journal=path) as engine:
            run = engine.start(flow)
            await asyncio.sleep(60)
            assert not run.done
            assert len(rows(path)[0].asks) == 1
            await engine.approve(run.id)
            return await run

    assert run_virtual(main()) == "sent to bob"
    assert desk.made == ["errand", "send bob"]


def test_a_tool_that_only_reads_is_set_aside_with_the_question_within_it(
    desk: Desk, mail: Mail
) -> None:
    @tool(reads="errands")
    async def errand() -> str:
        desk.made.append("errand")
        return await mail.flow()

    @workflow
    async def flow() -> str:
        return await errand()

    path = desk.path()
    with pytest.raises(RunPaused):
        desk.run(flow, path=path)
    desk.answer(path, Answer("approve"))

    assert desk.resume(flow, path=path) == "sent to bob"
    assert desk.made == ["errand", "errand", "send bob"]


def test_values_that_were_not_kept_are_called_for_again_also_at_a_narrow_gate(desk: Desk) -> None:
    @tool(reads="web", limit=1)
    async def look(number: int):  # type: ignore[no-untyped-def]  # it declares no result
        desk.made.append(f"look {number}")
        return object()

    @workflow
    async def flow() -> int:
        return len(await gather(*[look(number) for number in range(4)]))

    path = desk.path()
    desk.run(flow, path=path)
    cut = desk.cut(path, len(records(path)) - 1)

    assert desk.resume(flow, path=cut) == 4
