"""Replicas that behave as real ones do: a serving model behind the protocol of a real backend."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Literal

from agentflow.testing.answering import Given, Refused, Sender, Service
from agentflow.testing.app import ChatApp, HttpRequest, in_turn
from agentflow.testing.chat import ChatCall, Exchange
from agentflow.testing.pacing import AtPace
from agentflow.testing.replicas_engine import Engine, Report
from agentflow.testing.replicas_fronts import VLLM, Front, OpenAI, SGLang
from agentflow.testing.replicas_prompts import Work, prompt_tokens
from agentflow.testing.replicas_slots import LlamaCpp
from agentflow.testing.replies import Answer, Call, Fault, Model, Pace, Raw, Reply
from agentflow.testing.server import LocalServer
from agentflow.testing.serving import Serving, ServingModel

Make = Literal["openai", "vllm", "sglang", "llama.cpp"]

_FRONTS: Mapping[Make | None, type[Front]] = {
    None: Front,
    "openai": OpenAI,
    "vllm": VLLM,
    "sglang": SGLang,
    "llama.cpp": LlamaCpp,
}


class ModelledReplica(LocalServer):
    """One replica of a model, as slow and as forgetful as its `Serving` says.

    It is reached over HTTP (``async with replica`` and `base_url`) or in memory (`transport()`),
    which suits virtual time. Prompts are cut into tokens and blocks; each request takes its turn
    in a `ServingModel`, and its usage tells what that found in its cache. A client that leaves
    frees its room.

    Args:
        serving: Rates and sizes.
        model: What is said: a list of answers or a function, as for a `ScriptedServer`; by default
            as many words as ``max_tokens`` asks for, or 16.
        server: Whose fields it knows and whose pages it has beside the chat completions API:
            ``vllm``, ``sglang``, ``llama.cpp``, ``openai``, or None: nobody's.
        name: Of the model.
        strict: Refuse requests with fields that it does not know, instead of ignoring them.
        priorities: Schedule by priority; without, a request that has one is refused (vLLM, SGLang).
        size: Tokens sent together when streaming.
        port: Port to listen on; 0 picks a free one.
    """

    def __init__(
        self,
        serving: Serving,
        model: Model | Sequence[Answer] | None = None,
        *,
        server: Make | None = None,
        name: str = "modelled",
        strict: bool = False,
        priorities: bool = False,
        size: int = 1,
        port: int = 0,
    ) -> None:
        owner = (server or "agentflow").replace(".", "")
        app = ChatApp(self._answer, self._serve, (name,), owner)
        super().__init__(app, self._receive, port)
        self._engine = Engine(serving, size)
        self._front = _FRONTS[server](self._engine, name, priorities=priorities)
        self._model = model if callable(model) else _fill if model is None else in_turn(model)
        self._strict = strict
        self._at_once = AtPace(Pace())
        self._failing: tuple[Fault | Raw, int | None] | None = None
        self._alive = True
        self._talking = asyncio.Event()
        self._talking.set()

    @property
    def engine(self) -> ServingModel:
        """The model it is served by; another one after a restart."""
        return self._engine.model

    def report(self, cached_tokens: Report) -> None:
        """Say what usage tells of the tokens that were found; None leaves them out."""
        self._engine.report = cached_tokens

    def fail(self, fault: Fault | Raw, times: int | None = None) -> None:
        """Answer chat requests with a fault: so many of them, or all until `recover`.

        A fault that strikes after some chunks strikes the answer that would have been given.
        """
        self._failing = (fault, times)

    def hang(self) -> None:
        """Go on taking requests, but send nothing more, not in streams either, until `recover`."""
        self._talking.clear()

    def recover(self) -> None:
        """End what `fail` and `hang` began."""
        self._failing = None
        self._talking.set()

    def kill(self) -> None:
        """Break every connection, and refuse further ones until `restart`."""
        self._alive = False
        self._break_off()

    async def restart(
        self, *, serving: Serving | None = None, priorities: bool | None = None
    ) -> None:
        """Come up again where it was, with an empty cache; with other settings if they are given."""
        self.kill()
        if self._tasks:
            await asyncio.wait(self._tasks)
        self._front.restart(serving, priorities)
        self._app.closing = False
        self._alive = True
        if self._listener is not None:
            await self.start()

    async def _receive(self, request: HttpRequest, sender: Sender) -> None:
        if not self._alive:
            raise Refused
        talking = _Talking(sender, self._talking)
        page = await self._front.page(request)
        if page is None:
            await self._app.handle(request, talking)
        else:
            await talking.start(page.status, {"content-type": page.content_type})
            await talking.send(page.body)

    async def _answer(self, call: ChatCall) -> Reply | Fault | Raw:
        """What is said, and how it goes wrong."""
        if (complaint := self._complaint(call)) is not None:
            return Fault.status(400, complaint)
        fault = self._fault()
        if isinstance(fault, Raw) or (fault is not None and fault.after is None):
            return fault
        answer = await self._said(call)
        if fault is None or isinstance(answer, Raw):
            return answer
        return replace(fault, reply=answer.reply if isinstance(answer, Fault) else answer)

    async def _said(self, call: ChatCall) -> Reply | Fault | Raw:
        """The model's answer, whole: a replica must know how long it will take."""
        answer = self._model(call)
        if isinstance(answer, AsyncIterator):
            return Reply(*[piece async for piece in answer])
        given = await answer if inspect.isawaitable(answer) else answer
        return Reply(given) if isinstance(given, (str, Call)) else given

    def _complaint(self, call: ChatCall) -> str | None:
        if self._strict and (unknown := self._front.unknown(call.body)):
            return f"Unrecognized request argument supplied: {', '.join(unknown)}"
        room, prompt = self._front.context, len(prompt_tokens(call))
        if prompt > room:
            return (
                f"This model's maximum context length is {room} tokens, but the request has"
                f" {prompt} input tokens."
            )
        return self._front.complaint(call.body)

    def _fault(self) -> Fault | Raw | None:
        if self._failing is None:
            return None
        fault, times = self._failing
        if times is not None:
            self._failing = (fault, times - 1) if times > 1 else None
        return fault

    def _serve(self, exchange: Exchange, given: Given) -> AbstractContextManager[Service]:
        reply = given.reply if isinstance(given, Fault) else given
        at_once = isinstance(given, Fault) and given.after is None
        if at_once or not isinstance(reply, Reply):
            return self._at_once(exchange, given)
        return self._front.serve(Work.of(exchange.call, reply, self._front.context))


class _Talking:
    """Sends nothing while its replica hangs."""

    def __init__(self, sender: Sender, talking: asyncio.Event) -> None:
        self._sender = sender
        self._talking = talking

    async def start(self, status: int, headers: Mapping[str, str]) -> None:
        await self._talking.wait()
        await self._sender.start(status, headers)

    async def send(self, data: bytes) -> None:
        await self._talking.wait()
        await self._sender.send(data)


def _fill(call: ChatCall) -> str:
    """As many words as the request asks for."""
    return " ".join(["word"] * (call.max_tokens or 16))
