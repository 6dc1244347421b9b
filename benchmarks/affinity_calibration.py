"""How fast a real server is, and how well `ServingModel` says what it does.

Rates are fitted to requests that measure one thing each. Then conversations are held with the
server and with the model, and each request's times are compared. All times are seconds in which a
processor worked for the server: it has work while somebody waits for it, and what else runs on
the machine does not count.
"""

from __future__ import annotations

import asyncio
import itertools
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from random import Random
from string import ascii_lowercase

import harness
from affinity_servers import CHUNK, CONTEXT, SLOTS, Server

from agentflow.executor.models.base import ChatRequest, Message
from agentflow.executor.models.client import OpenAIBackend
from agentflow.testing.serving import Change, Serving, ServingModel

PROMPTS = (128, 256, 512, 1024, 1536, 2048)
"""Tokens of the prompts whose first token is waited for."""

NEWS = 256
"""Tokens by which a prompt goes on from the one before it."""

CONTEXTS = (64, 1024, 2048)
"""Tokens before what is written, to see what context costs."""

WRITTEN = 96
"""Tokens that are written to see how long one takes."""

TURNS = 5
"""Requests of each conversation; there are as many as slots."""

_random = Random(6)


@dataclass(slots=True)
class Measured:
    """What there was to do, and the seconds that the server took for it.

    Attributes:
        first: Tokens to be computed of a prompt, and seconds until the first token.
        step: 1, further sequences and the tokens of context of all, and seconds for a step.
    """

    first: list[tuple[tuple[float, ...], float]] = field(default_factory=list)
    step: list[tuple[tuple[float, ...], float]] = field(default_factory=list)

    def serving(self) -> Serving:
        """The rates that fit best."""
        (token,) = fitted(self.first)
        step, sequence, context = fitted(self.step)
        return Serving(
            prefill=1 / token, step=step, per_sequence=sequence, per_context=context,
            chunk=CHUNK, capacity=CONTEXT, block=1, slots=SLOTS,
        )  # fmt: skip


def fitted(values: Sequence[tuple[tuple[float, ...], float]]) -> list[float]:
    """Non-negative coefficients with the least squares of relative errors, one at a time."""
    scaled = [[x / y for x in row] for row, y in values]
    found = [0.0] * len(scaled[0])
    for _ in range(2000):
        for column in range(len(found)):
            found[column] = 0.0
            left = [1 - sum(map(float.__mul__, found, row)) for row in scaled]
            size = sum(row[column] ** 2 for row in scaled)
            along = sum(row[column] * rest for row, rest in zip(scaled, left, strict=True))
            found[column] = max(0.0, along / size)
    return found


@dataclass(slots=True)
class Turn:
    """One request, how the server answered it, and how the model did.

    Attributes:
        text: What the user says.
        output: Tokens of the reply.
        pause: Seconds before it.
        asked: When it was sent.
        served: How the server answered.
        modelled: How the model did.
    """

    text: str
    output: int
    pause: float
    asked: float = 0.0
    served: Answer = field(default_factory=lambda: Answer())
    modelled: Answer = field(default_factory=lambda: Answer())


@dataclass(slots=True)
class Answer:
    """Seconds to the first token and to the last; tokens of the prompt, and of what was cached."""

    first: float = 0.0
    last: float = 0.0
    prompt: int = 0
    cached: int = 0


def words(count: int) -> str:
    """That many letters, each of them a token."""
    return "".join(_random.choices(ascii_lowercase, k=count))


def says(text: str) -> list[Message]:
    """A conversation that begins."""
    return [{"role": "user", "content": text}]


class Client:
    """Asks a server.

    Args:
        server: Which one.
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        self._backend = OpenAIBackend(server.url, "tiny")

    async def ask(self, messages: list[Message], output: int, slot: int) -> tuple[Answer, str]:
        """One request to a slot, and the reply's text."""
        began = self._server.worked()
        times: list[float] = []
        reply = await self._backend.complete(
            ChatRequest(messages=messages, max_tokens=output, extra_body={"id_slot": slot}),
            lambda _: times.append(self._server.worked() - began),
        )
        used = reply.usage
        answer = Answer(times[0], times[-1], used.prompt_tokens, used.cached_tokens or 0)
        return answer, reply.text

    async def measure(self, rounds: int) -> Measured:
        """Ask for one thing at a time."""
        await self.ask(says(words(16)), 1, 0)
        measured = Measured()
        for _ in range(rounds):
            for tokens in PROMPTS:
                await self._begin(tokens, measured)
            for context in CONTEXTS:
                for batch in range(1, SLOTS + 1):
                    await self._write(context, batch, measured)
        return measured

    async def _begin(self, tokens: int, measured: Measured) -> None:
        """Ask for the first token of a prompt, and of one that goes on from it."""
        messages = says(words(tokens))
        for _ in range(2):
            answer, text = await self.ask(messages, 1, 0)
            measured.first.append(((float(answer.prompt - answer.cached),), answer.first))
            messages += [{"role": "assistant", "content": text}, *says(words(NEWS))]

    async def _write(self, context: int, batch: int, measured: Measured) -> None:
        """Have a batch write beside each other, behind prompts that are cached."""
        prompts = [says(words(context)) for _ in range(batch)]
        for output in (1, WRITTEN):
            asked = [self.ask(its, output, slot) for slot, its in enumerate(prompts)]
            answers = [answer for answer, _ in await asyncio.gather(*asked)]
        taken = [(answer.last - answer.first) / (WRITTEN - 1) for answer in answers]
        tokens = batch * (context + WRITTEN / 2)
        measured.step.append(((1.0, batch - 1.0, tokens), statistics.median(taken)))

    async def converse(self, turns: Sequence[Turn], slot: int) -> None:
        """Hold a conversation."""
        messages: list[Message] = []
        for turn in turns:
            await asyncio.sleep(turn.pause)
            messages += says(turn.text)
            turn.asked = self._server.worked()
            turn.served, text = await self.ask(messages, turn.output, slot)
            messages.append({"role": "assistant", "content": text})

    async def aclose(self) -> None:
        """Close the connections."""
        await self._backend.aclose()


def conversations() -> list[list[Turn]]:
    """What is said in each."""
    return [[_turn(400, 1200), *(_turn(50, 400) for _ in range(TURNS - 1))] for _ in range(SLOTS)]


def _turn(shortest: int, longest: int) -> Turn:
    text = words(_random.randint(shortest, longest))
    return Turn(text, _random.randint(20, 80), _random.uniform(0.1, 1.0))


class Modelled:
    """The same conversations held with a model.

    Args:
        serving: Of the model.
        sessions: What is said.
    """

    def __init__(self, serving: Serving, sessions: Sequence[Sequence[Turn]]) -> None:
        self._engine = ServingModel(serving)
        self._sessions = sessions
        self._next = [0] * len(sessions)
        self._coming = {number: its[0].asked for number, its in enumerate(sessions)}
        self._asked: dict[int, float] = {}

    def run(self) -> None:
        """Hold them."""
        while self._coming or self._asked:
            change = self._engine.next_change()
            number = min(self._coming, key=self._coming.__getitem__, default=None)
            if number is not None and (change is None or self._coming[number] <= change):
                self._ask(number, self._coming.pop(number))
            else:
                for it in self._engine.advance(change or 0.0):
                    self._note(it)

    def _turn(self, number: int) -> Turn:
        return self._sessions[number][self._next[number]]

    def _ask(self, number: int, now: float) -> None:
        turn = self._turn(number)
        tokens = turn.served.prompt
        keys = [(number, token) for token in range(tokens + turn.output)]
        self._engine.submit(number, keys[:tokens], tokens, turn.output, now, written=keys[tokens:])
        self._asked[number] = now

    def _note(self, change: Change) -> None:
        turn, since = self._turn(change.number), change.at - self._asked[change.number]
        if change.kind == "first":
            turn.modelled.first, turn.modelled.cached = since, change.cached
        if change.kind != "finished":
            return
        turn.modelled.last = since
        del self._asked[change.number]
        self._next[change.number] += 1
        if self._next[change.number] < len(self._sessions[change.number]):
            self._coming[change.number] = max(change.at, self._turn(change.number).asked)


def compared(one: Iterable[Answer], other: Iterable[Answer]) -> list[float]:
    """How far apart times are: medians and 90 % quantiles of relative differences, in percent."""
    pairs = list(zip(one, other, strict=True))
    first = [_off(its.first, real.first) for its, real in pairs]
    last = [_off(its.last, real.last) for its, real in pairs]
    return [
        value
        for its in (first, last)
        for value in (statistics.median(its), statistics.quantiles(its, n=10)[-1])
    ]


def _off(one: float, other: float) -> float:
    return 100 * abs(one - other) / other


async def hold(client: Client, sessions: Sequence[Sequence[Turn]]) -> list[Answer]:
    """Hold all conversations at once, with words that were not used before."""
    for turn in itertools.chain(*sessions):
        turn.text = words(len(turn.text))
    await asyncio.gather(*(client.converse(its, slot) for slot, its in enumerate(sessions)))
    return [turn.served for its in sessions for turn in its]


async def calibrate(server: Server, rounds: int) -> Serving:
    """Fit, compare, and print both."""
    client, sessions = Client(server), conversations()
    try:
        serving = (await client.measure(rounds)).serving()
        before = await hold(client, sessions)
        served = await hold(client, sessions)
    finally:
        await client.aclose()
    Modelled(serving, sessions).run()
    modelled = [turn.modelled for its in sessions for turn in its]
    print(
        f"fitted: {serving.prefill:.0f} prompt tokens a second; a step {1e3 * serving.step:.2f} ms,"
        f" {1e3 * serving.per_sequence:.2f} ms more for each further sequence,"
        f" {1e6 * serving.per_context:.2f} ms for 1,000 tokens of context"
    )
    headings = ["off by, %", "first token", "p90", "completion", "p90", "cached tokens"]
    rows = [["the model", *compared(modelled, served), sum(it.cached for it in modelled)],
            ["the server, again", *compared(before, served), sum(it.cached for it in served)]]  # fmt: skip
    print(harness.table(headings, rows))
    return serving
