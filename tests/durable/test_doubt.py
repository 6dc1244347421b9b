"""Calls that may have been made when their run broke off: never twice without somebody's word."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from agentflow import Answer, Budget, Context, Done, NotDone, Question, tool, workflow
from agentflow.errors import CallInDoubt, DefinitionError, RunFailed, RunPaused
from tests.durable.conftest import Desk, records, rows


class Bank:
    """Tools that pay, and workflows that do.

    Args:
        made: Gets the calls that are made.
    """

    def __init__(self, made: list[str], **options: Any) -> None:
        @tool(writes="bank", **options)
        async def pay(amount: int) -> str:
            made.append(f"pay {amount}")
            return f"paid {amount}"

        @workflow
        async def flow() -> str:
            return await pay(5)

        self.pay, self.flow = pay, flow


def broken_off(desk: Desk, flow: Any, *, after: str = "intent", **engine: Any) -> Path:
    """The journal of a run whose process died right after a record of this kind."""
    path = desk.path()
    desk.run(flow, path=path, **engine)
    desk.made.clear()
    return cut_after(desk, path, after)


def cut_after(desk: Desk, path: Path, event: str) -> Path:
    kept = records(path)
    place = max(n for n, record in enumerate(kept) if record["event"] == event)
    return desk.cut(path, place + 1)


def test_a_call_in_doubt_is_asked_about_and_not_made(desk: Desk) -> None:
    bank = Bank(desk.made)
    path = broken_off(desk, bank.flow)

    for _ in range(2):
        with pytest.raises(RunPaused) as paused:
            desk.resume(bank.flow, path=path)

    (ask,) = paused.value.asks
    assert (ask["kind"], ask["tool"], ask["call"]) == ("doubt", "pay", "pay(amount=5)")
    assert "broke off" in ask["why"]
    assert rows(path)[0].state == "paused"
    assert desk.made == []


def test_somebody_says_that_it_is_to_be_made_again(desk: Desk) -> None:
    bank = Bank(desk.made)
    path = broken_off(desk, bank.flow)
    with pytest.raises(RunPaused):
        desk.resume(bank.flow, path=path)

    desk.answer(path, Answer("approve"))

    assert desk.resume(bank.flow, path=path) == "paid 5"
    assert desk.made == ["pay 5"]


def test_somebody_says_that_it_is_not_to_be_made_again(desk: Desk) -> None:
    bank = Bank(desk.made)
    path = broken_off(desk, bank.flow)
    with pytest.raises(RunPaused):
        desk.resume(bank.flow, path=path)

    desk.answer(path, Answer("deny", "the bank says it has it"))

    with pytest.raises(RunFailed, match="the bank says it has it") as failed:
        desk.resume(bank.flow, path=path)
    assert isinstance(failed.value.__cause__, CallInDoubt)
    assert desk.made == []


def test_who_has_looked_again_may_have_a_denied_call_made_after_all(desk: Desk) -> None:
    bank = Bank(desk.made)
    path = broken_off(desk, bank.flow)
    with pytest.raises(RunPaused):
        desk.resume(bank.flow, path=path)
    desk.answer(path, Answer("deny"))
    with pytest.raises(RunFailed):
        desk.resume(bank.flow, path=path)

    assert desk.resume(bank.flow, path=path, in_doubt="retry") == "paid 5"


def test_somebody_says_that_it_was_made_and_what_it_gave(desk: Desk) -> None:
    bank = Bank(desk.made)
    path = broken_off(desk, bank.flow)
    with pytest.raises(RunPaused):
        desk.resume(bank.flow, path=path)

    desk.answer(path, Answer("done", value="receipt 17"))

    assert desk.resume(bank.flow, path=path, in_doubt="retry") == "receipt 17"
    assert desk.made == []


def test_a_value_that_the_tool_cannot_have_given_is_asked_for_again(desk: Desk) -> None:
    bank = Bank(desk.made)
    path = broken_off(desk, bank.flow)
    with pytest.raises(RunPaused):
        desk.resume(bank.flow, path=path)
    desk.answer(path, Answer("done", value=["no", "text"]))

    with pytest.raises(RunPaused) as paused:
        desk.resume(bank.flow, path=path)

    why = paused.value.asks[0]["why"]
    assert why.endswith('; it cannot have given ["no", "text"]: input should be a valid string')
    desk.answer(path, Answer("done", value="receipt"))
    assert desk.resume(bank.flow, path=path) == "receipt"
    assert desk.made == []


def test_the_engines_answerer_is_asked_too(desk: Desk) -> None:
    bank = Bank(desk.made)
    path = broken_off(desk, bank.flow)
    asked: list[Question] = []

    def answer(question: Question) -> Answer:
        asked.append(question)
        return Answer("done", value="seen in the books")

    assert desk.resume(bank.flow, path=path, engine={"approve": answer}) == "seen in the books"
    assert [question.kind for question in asked] == ["doubt"]
    assert desk.made == []


def test_what_was_made_again_and_broke_off_again_is_in_doubt_anew(desk: Desk) -> None:
    bank = Bank(desk.made)
    path = broken_off(desk, bank.flow)
    with pytest.raises(RunPaused) as first:
        desk.resume(bank.flow, path=path)
    desk.answer(path, Answer("approve"))
    desk.resume(bank.flow, path=path)
    desk.made.clear()

    again = cut_after(desk, path, "intent")
    with pytest.raises(RunPaused) as second:
        desk.resume(bank.flow, path=again)

    assert first.value.asks[0]["question"] != second.value.asks[0]["question"]
    assert desk.made == []


@pytest.mark.parametrize("policy", ["ask", "retry", "fail"])
def test_an_idempotent_write_is_made_again_unasked(desk: Desk, policy: Any) -> None:
    bank = Bank(desk.made, idempotent=True)
    path = broken_off(desk, bank.flow)

    assert desk.resume(bank.flow, path=path, in_doubt=policy) == "paid 5"
    assert desk.made == ["pay 5"]


def test_whoever_resumes_may_say_so_beforehand(desk: Desk) -> None:
    bank = Bank(desk.made)
    assert desk.resume(bank.flow, path=broken_off(desk, bank.flow), in_doubt="retry") == "paid 5"
    assert desk.made == ["pay 5"]

    with pytest.raises(RunFailed, match="nobody was to be asked") as failed:
        desk.resume(bank.flow, path=broken_off(desk, bank.flow), in_doubt="fail")
    assert isinstance(failed.value.__cause__, CallInDoubt)
    assert desk.made == []


def test_a_call_that_declares_nothing_is_in_doubt_too(desk: Desk) -> None:
    @tool
    async def post(text: str) -> str:
        desk.made.append(text)
        return text

    @workflow
    async def flow() -> str:
        return await post("hello")

    with pytest.raises(RunPaused):
        desk.resume(flow, path=broken_off(desk, flow))
    assert desk.made == []


# Tools that can tell


@pytest.mark.parametrize("policy", ["ask", "retry", "fail"])
@pytest.mark.parametrize("threaded", [True, False])
@pytest.mark.parametrize("done", [True, False])
def test_a_tool_may_be_able_to_tell(desk: Desk, policy: Any, threaded: bool, done: bool) -> None:
    found = Done("seen") if done else NotDone()

    def plainly(amount: int) -> Any:
        assert amount == 5
        return found

    async def later(amount: int) -> Any:
        await asyncio.sleep(1)
        return plainly(amount)

    bank = Bank(desk.made, verify=plainly if threaded else later)
    path = broken_off(desk, bank.flow)

    value = desk.resume(bank.flow, path=path, in_doubt=policy)

    assert value == ("seen" if done else "paid 5")
    assert desk.made == ([] if done else ["pay 5"])


def test_what_tells_knows_the_call_by_the_key_it_was_made_with(desk: Desk) -> None:
    keys: list[str] = []

    async def verify(amount: int, ctx: Context) -> Any:
        keys.append(ctx.idempotency_key)
        return NotDone()

    @tool(writes="bank", verify=verify)
    async def pay(amount: int, ctx: Context) -> str:
        keys.append(ctx.idempotency_key)
        return "paid"

    @workflow
    async def flow() -> str:
        return await pay(5)  # type: ignore[call-arg]  # the engine fills it in

    assert desk.resume(flow, path=broken_off(desk, flow)) == "paid"
    assert len(keys) == 3
    assert len(set(keys)) == 1
    assert keys[0]


@pytest.mark.parametrize("trouble", ["none", "raises", "hangs", "other", "type"])
def test_where_a_tool_cannot_tell_somebody_is_asked(desk: Desk, trouble: str) -> None:
    async def verify(amount: int) -> Any:
        if trouble == "raises":
            raise ConnectionError("the bank is closed")
        if trouble == "hangs":
            await asyncio.sleep(1e6)
        return {"none": None, "other": True, "type": Done([amount])}[trouble]

    bank = Bank(desk.made, verify=verify, timeout=10)
    path = broken_off(desk, bank.flow)
    with pytest.raises(RunPaused) as paused:
        desk.resume(bank.flow, path=path)
    why = paused.value.asks[0]["why"]
    assert ("verify failed" in why) == (trouble != "none")
    assert desk.made == []


def test_what_never_is_in_doubt_needs_no_telling() -> None:
    with pytest.raises(DefinitionError, match="never in doubt"):

        @tool(pure=True, verify=lambda: NotDone())
        async def wrong() -> None: ...

    with pytest.raises(DefinitionError, match="verify takes a function"):

        @tool(writes="x", verify=True)  # type: ignore[call-overload,untyped-decorator]  # the point
        async def neither() -> None: ...


# Other ways into doubt


def test_a_call_that_failed_is_not_made_again_unasked(desk: Desk) -> None:
    fails = [True]

    @tool(writes="bank")
    async def pay(amount: int) -> str:
        desk.made.append(f"pay {amount}")
        if fails:
            raise ConnectionError("no answer")
        return "paid"

    @workflow
    async def flow() -> str:
        return await pay(5)

    path = desk.path()
    with pytest.raises(RunFailed):
        desk.run(flow, path=path)
    fails.clear()

    with pytest.raises(RunPaused) as paused:
        desk.resume(flow, path=path)
    assert "ConnectionError: no answer" in paused.value.asks[0]["why"]
    assert desk.made == ["pay 5"]
    desk.answer(path, Answer("approve"))
    assert desk.resume(flow, path=path) == "paid"


def test_a_call_that_was_refused_for_its_arguments_was_not_made(desk: Desk) -> None:
    strict = [True]

    def small(amount: int) -> bool:
        return not strict or amount < 3

    @tool(writes="bank", check={"amount": small})
    async def pay(amount: int) -> str:
        desk.made.append(f"pay {amount}")
        return "paid"

    @tool(pure=True)
    async def amount() -> int:
        return 5

    @workflow
    async def flow() -> str:
        return await pay(amount().ref)

    path = desk.path()
    with pytest.raises(RunFailed):
        desk.run(flow, path=path)
    assert [record["tool"] for record in records(path) if record["event"] == "intent"] == ["pay"]
    strict.clear()

    assert desk.resume(flow, path=path) == "paid"
    assert desk.made == ["pay 5"]


def test_a_write_that_the_deadline_cut_off_is_in_doubt(desk: Desk) -> None:
    slow = [True]

    @tool(writes="bank")
    async def pay(amount: int) -> str:
        desk.made.append(f"pay {amount}")
        await asyncio.sleep(100 if slow else 0)
        return "paid"

    @workflow(budget=Budget(deadline=3))
    async def flow() -> str:
        return await pay(5)

    path = desk.path()
    with pytest.raises(TimeoutError):
        desk.run(flow, path=path)
    slow.clear()

    with pytest.raises(RunPaused):
        desk.resume(flow, path=path, budget=Budget(deadline=60))
    assert desk.made == ["pay 5"]


def test_a_write_whose_value_could_not_be_kept_is_in_doubt(desk: Desk) -> None:
    @tool(writes="bank")
    async def pay(amount: int):  # type: ignore[no-untyped-def]  # it declares no result
        desk.made.append(f"pay {amount}")
        return object()

    @workflow
    async def flow() -> str:
        await pay(5)
        return "done"

    path = desk.path()
    desk.run(flow, path=path)
    desk.made.clear()

    with pytest.raises(RunPaused) as paused:
        desk.resume(flow, path=cut_after(desk, path, "node_finished"))
    assert "does not keep" in paused.value.asks[0]["why"]
    assert desk.made == []


def test_a_fallback_that_may_have_been_called_is_not_called_again(desk: Desk) -> None:
    bank = Bank(desk.made)

    @tool(reads="web", fallback=bank.pay)
    async def look(amount: int) -> str:
        raise ConnectionError(amount)

    @workflow
    async def flow() -> str:
        return await look(5)

    with pytest.raises(RunPaused):
        desk.resume(flow, path=broken_off(desk, flow))
    assert desk.made == []


def test_in_doubt_and_to_be_approved_are_two_questions(desk: Desk) -> None:
    bank = Bank(desk.made, approve=True)
    path = broken_off(desk, bank.flow, approve=lambda _question: True)
    kinds: list[str] = []
    for _ in range(2):
        with pytest.raises(RunPaused) as paused:
            desk.resume(bank.flow, path=path)
        kinds += [ask["kind"] for ask in paused.value.asks]
        desk.answer(path, Answer("approve"))

    assert desk.resume(bank.flow, path=path) == "paid 5"
    assert kinds == ["doubt", "approval"]  # the first answer was in the journal that was lost
    assert desk.made == ["pay 5"]
