"""What becomes of a session that is too long for its model: once, and by a stated policy."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from agentflow import Engine, Session, Task, events
from agentflow.errors import AnswerInvalid, BackendRejected, ContextOverflow, RunFailed
from tests.sessions.conftest import SUMMARY, Clerk, check_sound

pytestmark = pytest.mark.virtual

WINDOW = 6_000
REPLY = 500


async def say(engine: Engine, chat: Session, said: str, **fields: Any) -> str:
    return await engine.run(chat, said, max_tokens=REPLY, **fields)


async def cause(engine: Engine, chat: Session, said: str, **fields: Any) -> BaseException | None:
    with pytest.raises(RunFailed) as caught:
        await say(engine, chat, said, **fields)
    return caught.value.__cause__


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("says", [True, False])
async def test_the_oldest_outputs_are_shown_by_reference(
    clerk: Clerk, engine: Engine, known: bool, says: bool
) -> None:
    clerk.window, clerk.says_window = WINDOW, says
    chat = Session(window=WINDOW if known else None)
    for number in range(8):
        answer = await say(engine, chat, f"find n{number}")
        assert answer.startswith(f"found: n{number}")

    compacted = clerk.told(events.ContextCompacted)
    assert compacted
    assert chat.epoch == len(compacted) == compacted[-1].epoch
    assert all(event.after < event.before <= 1.2 * WINDOW for event in compacted)
    assert all(event.summarised == 0 for event in compacted)
    assert clerk.refused == (0 if known else 1)
    assert chat.gauge.window == (WINDOW if known or says else chat.gauge.window)
    shown = chat.history.shown()
    assert 'read_output(id="m2", start=200) reads on)' in shown[2]["content"]
    assert len(shown[-2]["content"]) > 1_000
    assert len(chat.messages[2]["content"]) > 1_000, "what was said is all there"
    check_sound(shown)


async def test_within_an_epoch_every_prompt_goes_on_from_the_one_before(
    clerk: Clerk, engine: Engine
) -> None:
    clerk.window, chat = WINDOW, Session(window=WINDOW)
    breaks = 0
    for number in range(12):
        await say(engine, chat, f"find n{number}")
    prompts = [prompt for prompt in clerk.prompts() if "your summary" not in prompt[-1]]
    for before, after in pairwise(prompts):
        breaks += after[: len(before)] != before
    assert breaks == chat.epoch > 1
    assert clerk.told(events.PrefixBroken) == []


async def test_what_is_shown_by_reference_can_be_read(clerk: Clerk, engine: Engine) -> None:
    clerk.window, chat = WINDOW, Session(window=WINDOW)
    for number in range(8):
        await say(engine, chat, f"find n{number}")
    assert "m2" in chat.history.outputs()

    await say(engine, chat, "read m2 200")
    assert chat.messages[-2]["content"] == chat.messages[2]["content"][200:]
    await say(engine, chat, "read m3 200")
    assert "there is no output 'm3'" in chat.messages[-2]["content"]


async def test_where_that_is_not_enough_older_messages_are_told_by_a_summary(
    clerk: Clerk, engine: Engine
) -> None:
    clerk.window, chat = WINDOW, Session(window=WINDOW)
    for number in range(20):
        await say(engine, chat, f"{number} " + "hardly anything " * 200)

    [event, *_] = clerk.told(events.ContextCompacted)
    assert event.summarised > 4
    assert clerk.refused == 0
    shown = chat.history.shown()
    assert SUMMARY in shown[0]["content"]
    assert "never instructions" in shown[0]["content"]
    assert shown[1] == {"role": "assistant", "content": "Understood."}
    check_sound(shown)
    check_sound(chat.messages)
    asked = [r.body for r in clerk.server.requests if "your summary" in str(r.body["messages"][-1])]
    assert len(asked) == chat.epoch
    assert all(body["tool_choice"] == "none" for body in asked)


async def test_a_long_loop_is_made_to_fit_too(clerk: Clerk, engine: Engine) -> None:
    """Without a session, in a single task: the question stays, and what was just found."""
    clerk.window = WINDOW
    clerk.follow = 20

    answer = await engine.run(Task("find n0", "react", max_tokens=REPLY, rounds=30))

    assert answer.startswith("found: n19")
    assert clerk.refused == 1
    assert clerk.told(events.ContextCompacted)
    for request in clerk.server.requests:
        _, *said = request.body["messages"]
        assert "find n0" in [message["content"] for message in said[:3]]
        check_sound(said)


async def test_it_is_compacted_once_and_then_it_fails(clerk: Clerk, engine: Engine) -> None:
    chat = Session()
    for number in range(3):
        await say(engine, chat, f"find n{number}")
    clerk.window, clerk.says_window = 1, False

    error = await cause(engine, chat, "find n3")

    assert isinstance(error, ContextOverflow)
    assert clerk.refused == 2
    check_sound(chat.messages)
    clerk.window = None
    assert (await say(engine, chat, "find n4")).startswith("found: n4")


async def test_what_cannot_be_left_out_is_an_error_that_says_what_to_do(
    clerk: Clerk, engine: Engine
) -> None:
    clerk.window, chat = WINDOW, Session(window=WINDOW)

    error = await cause(engine, chat, "x" * 5 * WINDOW)

    assert isinstance(error, ContextOverflow)
    assert isinstance(error, BackendRejected)
    assert error.window == WINDOW
    assert "ask for less at once, lower max_tokens" in str(error)
    assert clerk.server.requests == []


async def test_a_reply_that_leaves_no_room_is_one(clerk: Clerk, engine: Engine) -> None:
    error = await cause(engine, Session(window=400), "hello")
    assert isinstance(error, ContextOverflow)


async def test_outputs_that_come_at_once_are_shown_by_reference_in_the_end(
    clerk: Clerk, engine: Engine
) -> None:
    clerk.window, chat = WINDOW, Session(window=WINDOW)
    names = " ".join(f"n{number}" for number in range(8))

    await say(engine, chat, f"find {names}")

    assert chat.history.latest is not None
    assert chat.history.latest.cut == 10
    assert clerk.refused <= 1, "these outputs have more tokens than such texts mostly have"
    check_sound(chat.history.shown())


async def test_an_empty_summary_is_no_summary(clerk: Clerk, engine: Engine) -> None:
    clerk.window, chat = WINDOW, Session(window=WINDOW)
    clerk.summary = " "
    error: BaseException | None = None
    for number in range(20):
        try:
            await say(engine, chat, f"{number} " + "hardly anything " * 200)
        except RunFailed as failed:
            error = failed.__cause__
            break
    assert isinstance(error, AnswerInvalid)
    assert chat.epoch == 0
    check_sound(chat.messages)


async def test_results_that_were_too_long_are_kept_with_the_session(
    clerk: Clerk, engine: Engine
) -> None:
    chat = Session()
    clerk.long = 10_000
    await say(engine, chat, "find tea")
    await say(engine, chat, "find honey")
    first, second = chat.outputs
    assert first != second
    assert f'read_output(id="{first}", start=4000) reads on)' in chat.messages[2]["content"]

    await say(engine, chat, f"read {first} 9990")
    assert chat.messages[-2]["content"] == chat.outputs[first][9_990:]


async def test_a_plan_is_made_to_fit_too(clerk: Clerk, engine: Engine) -> None:
    clerk.window, chat = WINDOW, Session(window=WINDOW)
    for number in range(7):
        answer = await say(engine, chat, f"plan n{number}", strategy="plan")
        assert answer == "planned"
    assert clerk.told(events.ContextCompacted)
    assert clerk.refused == 0
    check_sound(chat.history.shown())


@pytest.mark.parametrize("before", [0, 1])
async def test_a_message_that_is_too_long_fails_its_own_turn_alone(
    clerk: Clerk, engine: Engine, before: int
) -> None:
    clerk.window, chat = WINDOW, Session(window=WINDOW)
    for _ in range(before):
        await say(engine, chat, "hello")

    assert isinstance(await cause(engine, chat, "word " * 5 * WINDOW), ContextOverflow)
    assert chat.epoch == 0
    assert await say(engine, chat, "hello again") == "you said hello again"
    assert (chat.epoch, clerk.refused) == (1, 0)
    check_sound(chat.history.shown())


async def test_how_little_a_server_takes_is_found_out_where_it_does_not_say(
    clerk: Clerk, engine: Engine
) -> None:
    chat = Session()
    for number in range(20):
        await say(engine, chat, f"{number} " + "hardly anything " * 200)
    clerk.window, clerk.says_window = WINDOW, False

    assert await say(engine, chat, "hello") == "you said hello"
    refused = clerk.refused
    assert refused > 1, "the summary was refused, too"
    assert await say(engine, chat, "bye") == "you said bye"
    assert (chat.epoch, clerk.refused) == (1, refused)


async def test_nothing_is_left_out_where_that_cannot_help(clerk: Clerk, engine: Engine) -> None:
    chat = Session()
    for number in range(3):
        await say(engine, chat, f"find n{number}")
    clerk.window = 2_000

    with pytest.raises(RunFailed, match="lower max_tokens"):
        await engine.run(chat, "hello", max_tokens=2_000)
    assert (chat.epoch, clerk.refused) == (0, 1)
    assert await say(engine, chat, "hello") == "you said hello"
