"""A web application that serves a workflow: one engine, events and tokens as they come.

    python -m pip install fastapi uvicorn
    python examples/web/app.py
    curl -N -d '{"topic": "key"}' -H 'content-type: application/json' http://127.0.0.1:8000/runs

What there is to copy:

* The lifespan makes one engine for all requests, and closes it.
* ``POST /runs`` streams a run as server-sent events, ``POST /answers`` waits for its value.
* A run belongs to its request: when the client leaves, the run is cancelled, and with it its tools
  and its streams from models. A client that comes back with ``Last-Event-ID`` is answered 204,
  which tells it to stop: what it had begun is over, and nothing is paid for a second time unasked.
* A slow reader does not hold up its run. What it misses is told in brief (``events_dropped``).
* What goes wrong before the first byte is an HTTP status, and later an ``error`` event.
* At the end (Ctrl-C, SIGTERM) nobody new is let in, runs have `DRAIN` seconds, and what is left is
  cancelled: its streams say so and end by themselves. Under another server than `Server`, such as
  ``uvicorn app:app --app-dir examples/web --timeout-graceful-shutdown 5``, streams are cut off.

Without an endpoint (OPENAI_BASE_URL, AGENTFLOW_MODEL) the model is a rule-based stand-in.
"""

from __future__ import annotations

import argparse
import asyncio
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import (
    AbstractAsyncContextManager,
    aclosing,
    asynccontextmanager,
    contextmanager,
    suppress,
)
from functools import partial
from pathlib import Path
from typing import Annotated, Any, TypeAlias, cast

from pydantic import BaseModel, StringConstraints

from agentflow import Budget, Engine, Limits, Workflow, events, llm, tool, workflow
from agentflow.errors import AgentflowError
from agentflow.redaction import redacted
from agentflow.settings import Settings
from agentflow.testing.standin import MODEL, serve_standin

try:
    import uvicorn
    from fastapi import APIRouter, Depends, FastAPI, Header, Request, Response
    from fastapi.encoders import jsonable_encoder
    from fastapi.exceptions import RequestValidationError
    from fastapi.responses import FileResponse
    from problems import CLOSING, CROWDED, EXHAUSTED, Refused, refused
    from sse import EventStream, while_connected
    from starlette.requests import ClientDisconnect
except ModuleNotFoundError as missing:
    raise SystemExit(
        f"This example needs {missing.name}: python -m pip install fastapi uvicorn"
    ) from None

PAGE = Path(__file__).with_name("index.html")
AT_ONCE = 100  # requests with a run under way; who comes then is told to come again
UNREAD = 1000  # events that wait for a slow reader
DRAIN = 3.0  # seconds that runs have to end by themselves when the server ends


# What is served

NOTES = {
    "house": "The spare key is with the neighbours on the second floor.\n"
    "The water is turned off in the cellar.\nThe meter is read in January.",
    "garden": "The shed key hangs by the back door.\n"
    "Tomatoes need water every day in summer.\nThe hedge is cut after the birds have left.",
    "car": "The next inspection of the car is in May.\n"
    "The winter tyres are in the cellar.\nThe spare key of the car is in the red tin.",
}


@tool(reads="notes", ttl="1m", limit=20)
async def search(folder: str, topic: str) -> list[str]:
    """The lines of a folder that mention a topic.

    The engine has at most twenty of these under way, whoever asks, and asks nothing twice within
    a minute.
    """
    await asyncio.sleep(0.3)  # a request, say
    return [line for line in NOTES[folder].splitlines() if topic.lower() in line.lower()]


@llm(max_tokens=300)
async def sum_up(lines: str, topic: str) -> str:
    """{lines}

    In three sentences at most, say what these notes tell about: {topic}"""
    raise NotImplementedError


@workflow(budget=Budget(tokens=20_000, deadline="60s"))
async def brief(topic: str) -> str:
    """What the notes say about a topic; the budget and the deadline are those of one request."""
    found = await search.map(list(NOTES), topic=topic)
    lines = [line for some in found for line in some]
    return await sum_up("\n".join(lines), topic) if lines else f"No note mentions {topic!r}."


@asynccontextmanager
async def connected(journal: str | None = None) -> AsyncIterator[Engine]:
    """An engine with the configured endpoint, or with the stand-in where there is none."""
    make = partial(Engine, limits=Limits(unread=UNREAD), journal=journal or False)
    if Settings.load().base_url:
        async with make() as engine:
            yield engine
    else:
        async with serve_standin() as url, make(base_url=url, model=MODEL) as engine:
            yield engine


# The application


async def unheard(_: Request, __: Exception) -> Response:
    """The answer to a client that has left: nobody reads it."""
    return Response(status_code=499)


class Asked(BaseModel):
    """The body of a request."""

    topic: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200)]


class Desk:
    """Lets requests in, and runs the workflow for them.

    Where it is known who asks, ``engine.tenant(name, Budget(...))`` runs it for them within a
    budget of their own.

    Args:
        engine: The one engine.
        flow: The workflow.
        places: Requests that may have a run under way.
    """

    def __init__(self, engine: Engine, flow: Workflow[[str], Any], places: int) -> None:
        self._engine = engine
        self._flow = flow
        self._places = places
        self._closing = False
        self._under_way = 0
        self._idle = asyncio.Event()
        self._idle.set()

    async def answer(self, topic: str) -> Any:
        """Run it and wait for its value; see `stream` for what is raised before it begins."""
        with self._place():
            return await self._engine.run(self._flow, topic)

    async def stream(self, topic: str) -> AsyncGenerator[events.Event]:
        """Run it and yield its events; closing the generator cancels the run.

        Raises:
            Refused: There is no place, nothing is left to spend, or the server ends.
        """
        with self._place():
            async with aclosing(self._engine.stream(self._flow, topic)) as stream:
                async for event in stream:
                    yield event

    async def aclose(self, drain: float) -> None:
        """Let nobody in, and end: runs have so many seconds, and what is left is cancelled."""
        self._closing = True
        with suppress(TimeoutError):
            async with asyncio.timeout(drain):
                await self._idle.wait()
        await self._engine.aclose()

    @contextmanager
    def _place(self) -> Iterator[None]:
        if self._closing:
            raise Refused(CLOSING)
        if self._under_way == self._places:
            raise Refused(CROWDED)
        left = self._engine.ledger.left
        if any(limit is not None and limit <= 0 for limit in (left.usd, left.tokens)):
            raise Refused(EXHAUSTED)
        self._under_way += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._under_way -= 1
            if not self._under_way:
                self._idle.set()


def desk_of(request: Request) -> Desk:
    """The desk of the application."""
    return cast(Desk, request.app.state.desk)


Served: TypeAlias = Annotated[Desk, Depends(desk_of)]
routes = APIRouter()


@routes.get("/")
async def page() -> Response:
    """The page, which asks nothing of anybody else."""
    policy = "default-src 'self' 'unsafe-inline'; img-src data:; frame-ancestors 'none'"
    return FileResponse(PAGE, headers={"content-security-policy": policy})


@routes.post("/runs")
async def runs(
    asked: Asked, desk: Served, last_event_id: Annotated[str | None, Header()] = None
) -> Response:
    """The events of a run, as they happen."""
    if last_event_id is not None:
        return Response(status_code=204)
    stream = desk.stream(asked.topic)
    return EventStream(await anext(stream), stream)


@routes.post("/answers")
async def answers(asked: Asked, desk: Served, request: Request) -> dict[str, Any]:
    """The value of a run, once it is there."""
    value = await while_connected(request.receive, desk.answer(asked.topic))
    return {"answer": redacted(jsonable_encoder(value))}


def make_app(
    flow: Workflow[[str], Any] = brief,
    connected: Callable[[], AbstractAsyncContextManager[Engine]] = connected,
    places: int = AT_ONCE,
) -> FastAPI:
    """The application.

    Args:
        flow: What it runs for a topic.
        connected: Makes its engine, and closes it.
        places: Requests that may have a run under way.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with connected() as engine:
            app.state.desk = Desk(engine, flow, places)
            yield

    app = FastAPI(title="Notes", lifespan=lifespan, docs_url=None, redoc_url=None)
    app.include_router(routes)
    for kind in (Refused, AgentflowError, RequestValidationError):
        app.add_exception_handler(kind, refused)
    app.add_exception_handler(ClientDisconnect, unheard)
    return app


app = make_app()


class Server(uvicorn.Server):
    """uvicorn's, which has runs end before it waits for their connections to close."""

    def __init__(self, app: FastAPI, port: int, drain: float = DRAIN) -> None:
        config = uvicorn.Config(app, port=port, log_level="warning", timeout_graceful_shutdown=5)
        super().__init__(config)
        self._app = app
        self._drain = drain

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to listen, and say where."""
        await super().startup(sockets)
        host, port = self.servers[0].sockets[0].getsockname()[:2]
        print(f"http://{host}:{port}/  (Ctrl-C ends it)", flush=True)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End the runs, then everything else."""
        for listening in self.servers:
            listening.close()
        try:
            await self._app.state.desk.aclose(self._drain)
        finally:
            await super().shutdown(sockets)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--port", type=int, default=8000, help="0 takes a free one")
    parser.add_argument("--journal", help="the file to keep runs in, for 'agentflow runs'")
    options = parser.parse_args()
    if not Settings.load().base_url:
        print("No endpoint is configured: the model is a rule-based stand-in.")
    with suppress(KeyboardInterrupt):
        Server(make_app(connected=partial(connected, options.journal)), options.port).run()


if __name__ == "__main__":
    main()
