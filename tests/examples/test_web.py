"""The web application over real HTTP: streams, clients that leave, limits, and the end."""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import Any, TypeAlias

import httpx
import pytest

from agentflow import Budget, Engine, Limits, llm, tool, workflow
from agentflow.events import TERMINAL, Event, RunCancelled, RunStarted
from agentflow.testing import ChatCall, Gate, ScriptedServer

pytest.importorskip("fastapi", reason="examples/web needs FastAPI: pip install fastapi uvicorn")
pytest.importorskip("uvicorn", reason="examples/web needs uvicorn: pip install fastapi uvicorn")

FOLDER = Path(__file__).parents[2] / "examples" / "web"
PATIENCE = 30.0  # seconds after which a test that waits for what does not come fails

Message: TypeAlias = tuple[str, str, Any]
"""Id, event and data."""


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The application as a module, beside whose file its neighbours are."""
    monkeypatch.syspath_prepend(str(FOLDER))
    yield importlib.import_module("app")
    for name in ("app", "sse", "problems"):
        del sys.modules[name]


class Site:
    """An application that is served in the test's loop.

    Attributes:
        client: Reaches it.
        port: Where it listens.
        begun: Runs that began.
        last: The last event of the run that ended first.
    """

    def __init__(self, server: Any) -> None:
        self._server = server
        self._serving = asyncio.create_task(server.serve())
        self.port = 0
        self.begun = 0
        self.last: asyncio.Future[Event] = asyncio.get_running_loop().create_future()
        self.client: httpx.AsyncClient

    def hear(self, event: Event) -> None:
        self.begun += isinstance(event, RunStarted)
        if isinstance(event, TERMINAL) and not self.last.done():
            self.last.set_result(event)

    async def listening(self) -> None:
        await self._server.up.wait()
        listener = self._server.servers[0].sockets[0]
        # Accepted connections take it over: what nobody reads does not hide in the kernel.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        self.port = listener.getsockname()[1]

    def end(self) -> None:
        self._server.should_exit = True

    async def ended(self) -> None:
        self.end()
        async with asyncio.timeout(PATIENCE):
            await self._serving

    async def answer(self, body: Any = None, **options: Any) -> httpx.Response:
        return await self.client.post("/answers", json=body or {"topic": "tea"}, **options)

    async def messages(self, **options: Any) -> AsyncGenerator[Message]:
        """The events of a run; closing it closes the connection."""
        request = self.client.stream("POST", "/runs", json={"topic": "tea"}, **options)
        async with request as response:
            assert response.status_code == 200, await response.aread()
            assert response.headers["content-type"].startswith("text/event-stream")
            fields: dict[str, str] = {}
            async for line in response.aiter_lines():
                if line and not line.startswith(":"):
                    name, _, value = line.partition(": ")
                    fields[name] = value
                elif fields:
                    yield fields["id"], fields["event"], json.loads(fields["data"])
                    fields = {}


Serve: TypeAlias = Callable[..., AbstractAsyncContextManager[Site]]


@pytest.fixture
def serve(web: ModuleType) -> Serve:
    """Serves the application: ``serve(workflow, drain=..., **options of its engine)``."""

    class Server(web.Server):  # type: ignore[misc, name-defined]  # of a module found at run time
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            self.up = asyncio.Event()

        async def startup(self, sockets: Any = None) -> None:
            await super().startup(sockets)
            self.up.set()

    @asynccontextmanager
    async def serving(
        flow: Any, *, drain: float = 0.0, places: int = 100, **options: Any
    ) -> AsyncIterator[Site]:
        site: Site
        before = asyncio.all_tasks()
        app = web.make_app(flow, lambda: Engine(subscribers=[site.hear], **options), places)
        site = Site(Server(app, 0, drain))
        async with asyncio.timeout(PATIENCE):
            await site.listening()
            try:
                async with httpx.AsyncClient(
                    base_url=f"http://127.0.0.1:{site.port}", trust_env=False, timeout=PATIENCE
                ) as site.client:
                    yield site
            finally:
                await site.ended()
            while not asyncio.all_tasks() <= before:
                await asyncio.sleep(0)  # nothing is left

    return serving


class Kettle:
    """A tool that stands at a gate, and tells when it was stopped there."""

    def __init__(self) -> None:
        self.gate = Gate()
        self.cleaned = asyncio.Event()
        self.calls = 0

        @tool(pure=True)
        async def boil(topic: str) -> str:
            self.calls += 1
            try:
                await self.gate.wait()
                return f"hot {topic}"
            finally:
                self.cleaned.set()

        @workflow
        async def brew(topic: str) -> str:
            return await boil(topic)

        self.brew = brew


@llm
async def describe(topic: str) -> str:
    """What is {topic}?"""
    raise NotImplementedError


@workflow
async def described(topic: str) -> str:
    return await describe(topic)


# Answers


async def test_tokens_arrive_before_the_run_ends(serve: Serve) -> None:
    gate = Gate()

    async def model(call: ChatCall) -> AsyncIterator[str]:
        yield "Tea is "
        await gate.wait()
        yield "a drink."

    async with (
        ScriptedServer(model) as scripted,
        serve(described, base_url=scripted.base_url, model="scripted") as site,
        aclosing(site.messages()) as messages,
    ):
        found = []
        async for message in messages:
            found.append(message)
            if message[1] == "text_delta":
                gate.release.set()  # which nobody else does

    ids, names, data = zip(*found, strict=True)
    assert names[0] == "run_started" and names[-1] == "run_finished"
    assert "".join(d["text"] for d in data if "text" in d) == "Tea is a drink." == data[-1]["value"]
    assert len(set(ids)) == len(ids)
    assert all(identity.startswith(f"{data[0]['run']}.") for identity in ids)
    [replied] = [d for n, d in zip(names, data, strict=True) if n == "model_replied"]
    assert replied["model"] == "scripted" and replied["usd"] == "0"


async def test_an_answer_comes_without_a_stream(serve: Serve) -> None:
    kettle = Kettle()
    kettle.gate.release.set()

    async with serve(kettle.brew) as site:
        answer = await site.answer({"topic": "  tea "})

    assert (answer.status_code, answer.json()) == (200, {"answer": "hot tea"})


async def test_ten_at_once_share_an_engine_and_its_cache(serve: Serve) -> None:
    kettle = Kettle()

    async def last(site: Site) -> Message:
        return [message async for message in site.messages()][-1]

    async with serve(kettle.brew) as site:
        asked = [asyncio.create_task(last(site)) for _ in range(10)]
        while site.begun < 10:
            await asyncio.sleep(0)
        kettle.gate.release.set()
        answers = await asyncio.gather(*asked)

    assert [data["value"] for _, _, data in answers] == ["hot tea"] * 10
    assert kettle.calls == 1


async def test_the_page_needs_nothing_else_and_takes_no_text_for_html(serve: Serve) -> None:
    async with serve(Kettle().brew) as site:
        page = await site.client.get("/")

    assert (
        page.status_code == 200 and "default-src 'self'" in page.headers["content-security-policy"]
    )
    assert "innerHTML" not in page.text and "insertAdjacentHTML" not in page.text
    assert "//" not in page.text.replace("  // ", "").replace("\n  // ", "")


async def test_a_quiet_stream_is_kept_open_by_comments(
    serve: Serve, web: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules["sse"], "HEARTBEAT", 0.001)

    async with (
        serve(Kettle().brew) as site,
        site.client.stream("POST", "/runs", json={"topic": "tea"}) as response,
    ):
        async for line in response.aiter_lines():
            if line == ": still here":
                break


async def test_a_client_that_comes_back_is_told_to_stop(serve: Serve) -> None:
    async with serve(Kettle().brew) as site:
        again = await site.client.post(
            "/runs", json={"topic": "tea"}, headers={"last-event-id": "8f2a11c0-1.4"}
        )

    assert (again.status_code, again.content, site.begun) == (204, b"", 0)


async def test_known_secrets_are_masked(serve: Serve) -> None:
    key = "sk-that-the-web-page-never-shows"

    async with (
        ScriptedServer([f"The key is {key}."] * 2) as scripted,
        serve(described, base_url=scripted.base_url, model="scripted", api_key=key) as site,
    ):
        answer = await site.answer()
        *_, (_, _, data) = [message async for message in site.messages()]

    assert answer.json() == {"answer": "The key is **********."}
    assert data["value"] == "The key is **********."


async def test_what_broke_in_a_tool_is_for_the_log(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    @tool
    async def leak(topic: str) -> str:
        raise RuntimeError("table users of db.internal")

    @workflow
    async def leaking(topic: str) -> str:
        return await leak(topic)

    async with serve(leaking) as site:
        answer = await site.answer()
        messages = [message async for message in site.messages()]

    assert answer.status_code == messages[-1][2]["status"] == 500
    assert [name for _, name, _ in messages][-2:] == ["node_failed", "error"]
    assert "db.internal" not in answer.text + json.dumps(messages)
    assert caplog.text.count("db.internal") == 2


# Limits


@pytest.mark.parametrize("path", ["/runs", "/answers"])
async def test_what_cannot_be_read_is_refused(serve: Serve, path: str) -> None:
    long = b'{"topic": "%s"}' % (b"x" * 201)
    bodies = [b"", b"{", b"[]", b'{"topic": " "}', b'{"topic": 1}', long]
    kind = {"content-type": "application/json"}

    async with serve(Kettle().brew) as site:
        answers = [await site.client.post(path, content=body, headers=kind) for body in bodies]

    assert site.begun == 0
    for answer in answers:
        assert answer.status_code == answer.json()["status"] == 400
        assert answer.headers["content-type"] == "application/problem+json"
        assert "1 to 200 characters" in answer.json()["detail"]


async def test_what_costs_too_much_is_told_as_such(serve: Serve) -> None:
    async with (
        ScriptedServer([]) as scripted,
        serve(
            described.within(Budget(tokens=10)), base_url=scripted.base_url, model="scripted"
        ) as site,
    ):
        answer = await site.answer()
        *_, (_, name, problem) = [message async for message in site.messages()]

    assert answer.status_code == 402 and answer.json() == problem
    assert name == "error" and "Ask for less" in problem["detail"]
    assert scripted.requests == []


async def test_a_budget_that_is_spent_is_told_before_the_first_byte(serve: Serve) -> None:
    async with serve(Kettle().brew, budget=Budget(tokens=0)) as site:
        refused = await site.client.post("/runs", json={"topic": "tea"})

    assert (refused.status_code, site.begun) == (402, 0)


async def test_a_deadline_is_told_as_such(serve: Serve) -> None:
    kettle = Kettle()

    async with serve(kettle.brew.within(Budget(deadline="20ms"))) as site:
        answer = await site.answer()
        *_, (_, name, problem) = [message async for message in site.messages()]
        await kettle.cleaned.wait()

    assert answer.status_code == 504 and answer.json() == problem
    assert name == "error" and "longer than it may" in problem["detail"]


async def test_who_finds_no_place_is_told_when_to_come_again(serve: Serve) -> None:
    kettle = Kettle()

    async with serve(kettle.brew, places=1) as site:
        async with aclosing(site.messages()) as messages:
            await anext(messages)
            crowded = await site.answer()
        kettle.gate.release.set()
        while (answer := await site.answer()).status_code == 429:
            pass  # the first one is being cleaned up

    assert (crowded.status_code, crowded.headers["retry-after"]) == (429, "1")
    assert answer.json() == {"answer": "hot tea"}


# Clients that leave, or do not read


async def test_a_client_that_leaves_stops_its_tool_and_its_model_and_nobody_elses(
    serve: Serve,
) -> None:
    kettle, stays = Kettle(), Gate()

    async def model(call: ChatCall) -> AsyncIterator[str]:
        yield "Tea is "
        await stays.wait()
        yield "a drink."

    @workflow
    async def both(topic: str) -> str:
        if topic == "alone":
            return await describe(topic)
        return " ".join(await asyncio.gather(kettle.brew(topic), describe(topic)))

    async with (
        ScriptedServer(model) as scripted,
        serve(both, base_url=scripted.base_url, model="scripted") as site,
    ):
        alone = asyncio.create_task(site.answer({"topic": "alone"}))
        async with aclosing(site.messages()) as messages:
            async for _, name, _ in messages:
                if name == "text_delta":
                    await kettle.gate.entered.wait()
                    break
        await kettle.cleaned.wait()
        while scripted.active > 1:
            await asyncio.sleep(0)
        stays.release.set()
        answer = await alone
        left = {"alone": False, "tea": True}
        seen = {
            exchange.call.said_by("user"): exchange.disconnected for exchange in scripted.requests
        }

    assert answer.json() == {"answer": "Tea is a drink."}
    assert seen == {f"What is {topic}?": gone for topic, gone in left.items()}


async def test_a_client_that_leaves_before_its_answer_stops_its_run(serve: Serve) -> None:
    kettle = Kettle()

    async with serve(kettle.brew) as site:
        asked = asyncio.create_task(site.answer())
        await kettle.gate.entered.wait()
        asked.cancel()
        with suppress(asyncio.CancelledError):
            await asked
        await kettle.cleaned.wait()

        assert isinstance(await site.last, RunCancelled)


async def unread(port: int) -> socket.socket:
    """A connection with a stream that nobody reads."""
    quiet = socket.socket()
    quiet.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    quiet.setblocking(False)
    loop, body = asyncio.get_running_loop(), b'{"topic": "tea"}'
    await loop.sock_connect(quiet, ("127.0.0.1", port))
    head = f"host: here\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
    await loop.sock_sendall(quiet, f"POST /runs HTTP/1.0\r\n{head}\r\n".encode() + body)
    return quiet


@tool
async def count(number: int) -> int:
    return number


async def test_a_slow_reader_does_not_hold_up_its_run_and_is_told_what_it_missed(
    serve: Serve,
) -> None:
    @workflow
    async def counting(topic: str) -> int:
        return sum([await count(number) for number in range(2000)])

    async with serve(counting, limits=Limits(unread=100)) as site:
        with await unread(site.port) as quiet:
            await site.last  # nobody has read a byte
            told = b""
            while piece := await asyncio.get_running_loop().sock_recv(quiet, 65536):
                told += piece

    assert b"event: events_dropped" in told and told.count(b"event: node_finished") < 2000
    assert b'"value": 1999000}' in told.rpartition(b"event: run_finished")[2]


async def test_a_client_that_takes_nothing_has_left(
    serve: Serve, web: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules["sse"], "STALLED", 0.05)

    @workflow
    async def counting(topic: str) -> None:
        number = 0
        while True:
            number = await count(number + 1)

    async with serve(counting) as site:
        with await unread(site.port):
            assert isinstance(await site.last, RunCancelled)


# The end


async def test_streams_that_are_open_at_the_end_are_told_and_end(serve: Serve) -> None:
    kettle = Kettle()

    async with serve(kettle.brew) as site, aclosing(site.messages()) as messages:
        await anext(messages)
        await kettle.gate.entered.wait()
        site.end()
        *_, (_, name, problem) = [message async for message in messages]

    assert (name, problem["status"], problem["retry_after"]) == ("error", 503, 5)
    assert kettle.cleaned.is_set()


async def test_runs_have_a_while_to_end_by_themselves(serve: Serve) -> None:
    kettle = Kettle()

    async with serve(kettle.brew, drain=PATIENCE) as site, aclosing(site.messages()) as messages:
        await anext(messages)
        await kettle.gate.entered.wait()
        site.end()
        while await reachable(site):
            pass
        kettle.gate.release.set()
        *_, (_, name, data) = [message async for message in messages]

    assert (name, data["value"]) == ("run_finished", "hot tea")


async def reachable(site: Site) -> bool:
    """Whether anybody new is let in."""
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", site.port)
    except ConnectionError:
        return False
    writer.close()
    return True


ADDRESS = re.compile(r"(http://127\.0\.0\.1:\d+)/  \(Ctrl-C ends it\)\n")


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_ends_the_program_and_its_streams(
    tmp_path: Path, ending: signal.Signals
) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *(FOLDER / "app.py", "--port", "0"),
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(FOLDER.parents[1])},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(PATIENCE), httpx.AsyncClient(trust_env=False) as client:
            stand_in, address = [(await process.stdout.readline()).decode() for _ in range(2)]
            [url] = ADDRESS.findall(address)
            async with client.stream("POST", f"{url}/runs", json={"topic": "key"}) as response:
                lines = response.aiter_lines()
                await anext(lines)
                process.send_signal(ending)
                names = [line async for line in lines if line.startswith("event: ")]
            _, errors = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()

    assert "stand-in" in stand_in
    assert names[-1] in ("event: run_finished", "event: error")  # as quick as the machine is
    assert errors == b""
    assert process.returncode == (0 if ending == signal.SIGINT else -signal.SIGTERM)


def test_without_fastapi_it_says_what_to_install() -> None:
    program = "import runpy, sys; sys.modules['fastapi'] = None; runpy.run_path(sys.argv[1])"
    done = subprocess.run(
        [sys.executable, "-c", program, FOLDER / "app.py"],
        env={**os.environ, "PYTHONPATH": str(FOLDER.parents[1])},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )

    assert done.returncode == 1
    assert done.stderr == "This example needs fastapi: python -m pip install fastapi uvicorn\n"
