"""Everything that goes wrong at a backend becomes one typed error that says what to do."""

from __future__ import annotations

import asyncio
import json
from email.utils import formatdate
from typing import Any

import pytest

from agentflow import clock
from agentflow.clock import now
from agentflow.errors import (
    BackendBusy,
    BackendError,
    BackendRejected,
    BackendTimeout,
    BackendUnreachable,
    BadReply,
    ContextOverflow,
    TruncatedReply,
)
from agentflow.executor.models.base import ChatRequest
from agentflow.executor.models.ratelimit import RateLimiter
from agentflow.executor.models.retry import RetryPolicy
from agentflow.executor.models.stream import Timeouts

pytestmark = pytest.mark.virtual

ASK = ChatRequest(messages=[{"role": "user", "content": "hello"}])
ONCE = RetryPolicy(max_retries=0)
HTML = b"<!DOCTYPE html><html><body>Welcome to the router</body></html>"


async def failure_of(client: Any) -> BackendError:
    with pytest.raises(BackendError) as caught:
        await client.complete(ASK)
    return caught.value


async def test_a_refused_connection_names_the_url_and_what_to_check(backend: Any) -> None:
    error = await failure_of(backend(base_url="http://127.0.0.1:9/v1", retry=ONCE))

    assert type(error) is BackendUnreachable
    assert error.url == "http://127.0.0.1:9/v1"
    assert error.url in str(error) and "is the server running" in str(error)


async def test_a_reset_in_the_middle_is_unreachable(wire: Any, backend: Any) -> None:
    wire.reply(wire.text("Hel"), wire.RESET)

    error = await failure_of(backend())

    assert type(error) is BackendUnreachable
    assert "broke the connection off" in str(error)


async def test_a_reset_after_pieces_is_not_repeated(wire: Any, backend: Any) -> None:
    wire.reply(wire.text("Hel"), wire.RESET)
    seen: list[Any] = []

    with pytest.raises(BackendUnreachable):
        await backend().complete(ASK, seen.append)

    assert len(wire.seen) == 1
    assert [piece.text for piece in seen] == ["Hel"]


async def test_a_reset_before_any_piece_is_repeated(wire: Any, backend: Any) -> None:
    wire.reply(wire.RESET)
    wire.reply(*wire.HELLO)

    reply = await backend().complete(ASK)

    assert (reply.text, reply.attempts) == ("Hello", 2)


async def test_no_answer_at_all_is_a_timeout(wire: Any, backend: Any) -> None:
    wire.reply(asyncio.Event())
    client = backend(timeouts=Timeouts(first_token=30), retry=ONCE)
    await client.connect()
    begun = clock.now()

    error = await failure_of(client)

    assert type(error) is BackendTimeout and "no token within 30 s" in str(error)
    assert clock.now() - begun == pytest.approx(30, abs=0.1)
    await wire.seen[0].gone.wait()


async def test_pings_do_not_count_as_the_first_token(wire: Any, backend: Any) -> None:
    gates = [asyncio.Event() for _ in range(5)]
    wire.reply(*(step for gate in gates for step in (b": ping\n\n", gate)))
    for second, gate in enumerate(gates[:-1], 1):
        asyncio.get_running_loop().call_later(10 * second, gate.set)

    error = await failure_of(backend(timeouts=Timeouts(first_token=30), retry=ONCE))

    assert "no token within 30 s" in str(error)


async def test_silence_between_pieces_is_a_timeout(wire: Any, backend: Any) -> None:
    wire.reply(wire.text("Hel"), asyncio.Event())
    client = backend(timeouts=Timeouts(idle=20))
    await client.connect()
    begun = clock.now()

    error = await failure_of(client)

    assert type(error) is BackendTimeout and "nothing more for 20 s" in str(error)
    assert clock.now() - begun == pytest.approx(20, abs=0.1)


async def test_a_slow_but_steady_stream_meets_only_the_total_limit(wire: Any, backend: Any) -> None:
    gates = [asyncio.Event() for _ in range(20)]
    wire.reply(*(step for gate in gates for step in (wire.text("a"), gate)))
    for second, gate in enumerate(gates, 1):
        asyncio.get_running_loop().call_later(10 * second, gate.set)

    error = await failure_of(backend(timeouts=Timeouts(idle=15, total=100)))

    assert type(error) is BackendTimeout and "within 100 s" in str(error)


@pytest.mark.parametrize(
    ("steps", "limits"),
    [((), Timeouts(first_token=500, total=100)), (("Hel",), Timeouts(idle=None, total=100))],
)
async def test_the_total_limit_holds_where_no_other_does(
    wire: Any, backend: Any, steps: tuple[str, ...], limits: Timeouts
) -> None:
    wire.reply(*map(wire.text, steps), asyncio.Event())
    client = backend(timeouts=limits)
    await client.connect()
    begun = clock.now()

    assert "within 100 s" in str(await failure_of(client))
    assert clock.now() - begun == pytest.approx(100, abs=0.1)


async def test_a_slow_consumer_is_not_taken_for_a_silent_server(wire: Any, backend: Any) -> None:
    wire.reply(*wire.HELLO)

    async with backend(timeouts=Timeouts(idle=5)).stream(ASK) as stream:
        async for _ in stream:
            await asyncio.sleep(60)

    assert stream.reply.text == "Hello"


async def test_a_stream_without_a_finish_reason_is_truncated(wire: Any, backend: Any) -> None:
    wire.reply(wire.text("Hel"), wire.text("lo"))

    error = await failure_of(backend())

    assert type(error) is TruncatedReply and error.retryable
    assert len(wire.seen) == 1


async def test_done_without_a_finish_reason_is_truncated_too(wire: Any, backend: Any) -> None:
    wire.reply(wire.text("Hel"), wire.DONE)

    assert type(await failure_of(backend())) is TruncatedReply


async def test_half_an_event_at_the_end_is_truncated(wire: Any, backend: Any) -> None:
    wire.reply(wire.text("Hel"), wire.text("lo")[:30])

    assert type(await failure_of(backend())) is TruncatedReply


@pytest.mark.parametrize("split", [1, 7, 1000])
async def test_pieces_before_an_error_in_the_stream_are_handed_out_first(
    wire: Any, backend: Any, split: int
) -> None:
    error = wire.event({"error": {"message": "CUDA out of memory", "code": 500}})
    whole = wire.text("Hel") + wire.text("lo") + error
    wire.reply(*(whole[at : at + split] for at in range(0, len(whole), split)))
    seen: list[Any] = []

    with pytest.raises(BackendError, match="CUDA out of memory") as caught:
        await backend().complete(ASK, seen.append)

    assert (caught.value.status, caught.value.retryable) == (500, True)
    assert [piece.text for piece in seen] == ["Hel", "lo"]


@pytest.mark.parametrize(
    ("error", "kind", "status"),
    [
        ({"error": {"message": "slow down", "code": "rate_limit_exceeded"}}, BackendBusy, 429),
        ({"error": {"message": "full", "type": "overloaded_error"}}, BackendBusy, 503),
        ({"error": {"message": "too long", "code": 400}}, BackendRejected, 400),
        ({"error": {"message": "too long", "code": "400"}}, BackendRejected, 400),
        ({"error": "it broke"}, BackendError, None),
        ({"object": "error", "message": "bad", "code": 422}, BackendRejected, 422),
    ],
)
async def test_an_error_in_the_stream_is_mapped_like_a_status(
    wire: Any, backend: Any, error: Any, kind: type, status: int | None
) -> None:
    wire.reply(wire.event(error))

    failure = await failure_of(backend(retry=ONCE))

    assert (type(failure), failure.status) == (kind, status)


async def test_the_error_field_of_older_servers_is_read(wire: Any, backend: Any) -> None:
    wire.reply(b'error: {"code": 500, "message": "slot unavailable"}\n\n')

    assert "slot unavailable" in str(await failure_of(backend(retry=ONCE)))


@pytest.mark.parametrize(
    "payload",
    [
        b'data: {"choices": [{"delta": {"content": "Hel\n\n',
        b'data: ["a list"]\n\n',
        b"data: 7\n\n",
        b'data: {"choices": "no"}\n\n',
        b'data: {"choices": [{"delta": {"content": ["a"]}}]}\n\n',
        b'data: {"choices": [{"delta": {"tool_calls": [7]}}]}\n\n',
        b"data: " + b"[" * 200_000 + b"\n\n",
        b"data: \xff\xfe\n\n",
    ],
)
async def test_a_chunk_that_is_not_one_is_a_bad_reply(
    wire: Any, backend: Any, payload: bytes
) -> None:
    wire.reply(payload, wire.FINISH, wire.DONE)

    error = await failure_of(backend())

    assert type(error) is BadReply
    assert len(str(error)) < 600


@pytest.mark.parametrize("content_type", ["text/html", "text/event-stream", "application/json"])
@pytest.mark.parametrize("split", [3, 1000])
async def test_html_is_a_bad_reply_that_quotes_it(
    wire: Any, backend: Any, content_type: str, split: int
) -> None:
    steps = (HTML[at : at + split] for at in range(0, len(HTML), split))
    wire.reply(*steps, content_type=content_type)

    error = await failure_of(backend())

    assert type(error) is BadReply
    assert "Welcome to the router" in str(error) and "/v1" in str(error)
    assert len(wire.seen) == 1


@pytest.mark.parametrize("start", [b'data: {"error": "it broke"}\n\n', b"data: garbage\n\n"])
async def test_a_stream_that_failed_at_its_start_is_closed(
    wire: Any, backend: Any, start: bytes
) -> None:
    wire.reply(start, asyncio.Event())

    await failure_of(backend(retry=ONCE))

    async with asyncio.timeout(60):
        await wire.seen[0].gone.wait()


async def test_a_long_page_is_quoted_by_its_beginning_only(wire: Any, backend: Any) -> None:
    wire.reply(b"<html>" + b"x" * 500_000, content_type="text/html")

    assert len(str(await failure_of(backend()))) < 600


async def test_an_error_object_sent_with_status_200_is_understood(wire: Any, backend: Any) -> None:
    body = json.dumps({"error": {"message": "no such model", "code": 404}}, indent=1)
    wire.reply(body.encode(), content_type="application/json")

    error = await failure_of(backend())

    assert type(error) is BackendRejected and "no such model" in str(error)


@pytest.mark.parametrize(
    ("status", "body", "kind", "words"),
    [
        (400, '{"error": {"message": "max_tokens too large"}}', BackendRejected, "too large"),
        (400, '{"object": "error", "message": "prompt too long"}', ContextOverflow, "too long"),
        (401, '{"error": {"message": "bad key"}}', BackendRejected, "API key"),
        (404, "<html>not here</html>", BackendRejected, "/v1"),
        (422, '{"detail": [{"msg": "wrong"}]}', BackendRejected, "wrong"),
        (500, "boom", BackendError, "boom"),
        (502, "<html>bad gateway</html>", BackendError, "bad gateway"),
        (503, "", BackendBusy, "no explanation"),
        (504, "", BackendTimeout, "gave up waiting"),
    ],
)
async def test_a_status_becomes_an_error_with_the_servers_words(
    wire: Any, backend: Any, status: int, body: str, kind: type, words: str
) -> None:
    wire.fail(status, body)

    error = await failure_of(backend(retry=ONCE))

    assert (type(error), error.status) == (kind, status)
    assert words in str(error) and str(status) in str(error)


@pytest.mark.parametrize(
    ("name", "kind"), [("bad_schema", BackendRejected), ("ctx_overflow", ContextOverflow)]
)
async def test_recorded_rejections_say_what_the_server_said(
    wire: Any, backend: Any, transcripts: Any, name: str, kind: type
) -> None:
    head, _, body = (transcripts / f"llamacpp_error_{name}.txt").read_text().partition("\n")
    wire.fail(int(head.split()[1]), body)

    error = await failure_of(backend())

    assert type(error) is kind
    assert json.loads(body)["error"]["message"] in str(error)
    assert getattr(error, "window", 8192) == 8192


async def test_a_rejection_is_not_repeated(wire: Any, backend: Any) -> None:
    wire.fail(400, '{"error": {"message": "no"}}')

    await failure_of(backend())

    assert len(wire.seen) == 1


async def test_the_api_key_is_in_no_message(wire: Any, backend: Any) -> None:
    wire.fail(401, '{"error": {"message": "Incorrect API key provided: sk-very-secret-1234"}}')

    error = await failure_of(backend(api_key="sk-very-secret-1234"))

    assert "sk-very-secret" not in str(error)


async def test_busy_is_repeated_after_what_the_server_asked_for(wire: Any, backend: Any) -> None:
    wire.fail(429, '{"error": {"message": "slow down"}}', retry_after="7")
    wire.reply(*wire.HELLO)

    reply = await backend().complete(ASK)

    assert reply.attempts == 2
    assert 7 <= reply.seconds <= 7.2


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"retry_after_ms": "1500", "retry_after": "9"}, 1.5),
        ({"retry_after": "0"}, 0),
        ({"retry_after": "soon"}, None),
        ({"retry_after": "-3"}, None),
        ({"retry_after": "nan"}, None),
        ({}, None),
    ],
)
async def test_retry_after_is_read(
    wire: Any, backend: Any, headers: dict[str, str], expected: float | None
) -> None:
    wire.fail(503, "", **headers)

    error = await failure_of(backend(retry=ONCE))

    assert error.retry_after == expected


async def test_retry_after_may_be_a_date(
    wire: Any, backend: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clock, "wall", lambda: 1_000_000_000.0)
    wire.fail(429, "", retry_after=formatdate(1_000_000_030, usegmt=True))

    assert (await failure_of(backend(retry=ONCE))).retry_after == 30


async def test_waiting_too_long_is_left_to_the_caller(wire: Any, backend: Any) -> None:
    wire.fail(429, "", retry_after="3600")

    error = await failure_of(backend(timeouts=Timeouts(total=None)))

    assert len(wire.seen) == 1
    assert error.retry_after == 3600


async def test_an_empty_account_is_not_tried_again(wire: Any, backend: Any) -> None:
    wire.fail(429, '{"error": {"message": "see plan", "code": "insufficient_quota"}}')

    error = await failure_of(backend())

    assert type(error) is BackendBusy and not error.retryable
    assert len(wire.seen) == 1


async def test_attempts_end_and_the_last_error_is_raised(wire: Any, backend: Any) -> None:
    wire.fail(500, "boom")
    begun = now()

    error = await failure_of(backend())

    assert error.status == 500
    assert len(wire.seen) == 3
    assert 0.75 <= now() - begun <= 1.6, "a wait of half a second at most, and one of a second"


async def test_no_attempt_starts_that_the_total_limit_would_cut_off(
    wire: Any, backend: Any
) -> None:
    wire.fail(503, "", retry_after="30")

    error = await failure_of(backend(timeouts=Timeouts(total=20)))

    assert type(error) is BackendBusy
    assert len(wire.seen) == 1


async def test_retry_after_holds_back_everyone_who_shares_the_limiter(
    wire: Any, backend: Any
) -> None:
    wire.fail(429, "", retry_after="10")
    wire.reply(*wire.HELLO)
    client = backend(limiter=RateLimiter(requests_per_minute=6000), retry=ONCE)
    await failure_of(client)
    begun = clock.now()

    await client.complete(ASK)

    assert clock.now() - begun == pytest.approx(10, abs=0.2)


async def test_a_rate_limit_spreads_the_calls_over_time(wire: Any, backend: Any) -> None:
    wire.reply(*wire.HELLO)
    client = backend(limiter=RateLimiter(requests_per_minute=60, burst=1))
    begun = clock.now()

    async with asyncio.TaskGroup() as group:
        for _ in range(4):
            group.create_task(client.complete(ASK))

    assert clock.now() - begun == pytest.approx(3, abs=0.2)


async def test_tokens_that_were_reserved_and_not_used_are_given_back(
    wire: Any, backend: Any
) -> None:
    wire.reply(*wire.HELLO)
    client = backend(limiter=RateLimiter(tokens_per_minute=12_000, burst=6))  # 200 a second
    begun = clock.now()

    for _ in range(5):  # each reserves over 1,000 tokens and uses 12
        await client.complete(ASK)

    assert clock.now() - begun < 1


async def test_a_call_that_failed_gives_its_tokens_back(wire: Any, backend: Any) -> None:
    wire.fail(400, '{"error": {"message": "no"}}')
    client = backend(limiter=RateLimiter(tokens_per_minute=12_000, burst=6))
    begun = clock.now()

    for _ in range(5):
        await failure_of(client)

    assert clock.now() - begun < 1


async def test_each_attempt_counts_as_a_request(wire: Any, backend: Any) -> None:
    wire.fail(500, "boom")
    client = backend(limiter=RateLimiter(requests_per_minute=6, burst=1))
    begun = clock.now()

    await failure_of(client)

    assert len(wire.seen) == 3
    assert clock.now() - begun == pytest.approx(20, abs=1)
