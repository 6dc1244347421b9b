"""A model that answers the same to the same conversation, behind a server that does not always."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from hashlib import blake2b
from typing import Any

from agentflow.testing.answering import Refused, Sender
from agentflow.testing.app import ChatApp, HttpRequest
from agentflow.testing.chat import ChatCall, Exchange
from agentflow.testing.pacing import AtPace
from agentflow.testing.replies import Answer, Fault, Pace, Piece, Raw, Reply
from agentflow.testing.replies import Call as ModelCall
from agentflow.testing.server import LocalServer
from agentflow.testing.wire import DONE, ROLE, Completion, deltas
from tests.chaos.faults import Fate
from tests.chaos.programs import Program, placed
from tests.chaos.stage import heard

PACE = Pace(first_token=0.2, per_token=0.01, tokens_per_chunk=6)

NONSENSE = (
    "",
    "$1 = ",
    "$1 = put(area=\"p0/a\", key='x', tag=$9)\njoin()",
    '```json\n{"calls": [[[[\n```',
    "return $99",
    "Answer: \x00\ud83d broken",
    "$1 = shout(text=$1)\n$2 = nothing_like_it(1)\njoin()",
    "1. get(area=[[[[[[[, key=\n2. wipe(tag='p0/unasked'",
)


class Endpoint(LocalServer):
    """Serves what the programs of all passes have models say.

    Args:
        programs: By the name of the pass.
        fate: What happens to requests.
    """

    def __init__(self, programs: dict[str, Program], fate: Fate) -> None:
        app = ChatApp(self._answer, AtPace(PACE), ("tiny", "small", "large"))
        super().__init__(app, self._serve, 0)
        self._author = Author(programs)
        self._fate = fate
        self._chat = app

    def spoke(self, tag: str) -> bool:
        """Whether a reply that asks for the write with this tag has come to its end."""
        return any(_is_whole(exchange, tag) for exchange in self.requests)

    async def _serve(self, request: HttpRequest, sender: Sender) -> None:
        fault, _ = self._fate.of_model("the connection")
        if fault == "refused":
            raise Refused
        await self._chat.handle(request, sender)

    def _answer(self, call: ChatCall) -> Answer:
        pieces = self._author.pieces(call)
        digest = digested(repr(call.body["messages"]))
        fault, chance = self._fate.of_model(f"{call.body.get('model')} {digest}")
        return Reply(*pieces) if fault is None else broken(fault, pieces, chance)


class Author:
    """Says what programs have models say: the same to the same conversation.

    Args:
        programs: By the name of the pass.
        prompted: Answers prompts: given what was asked, and the name of the model.
    """

    def __init__(
        self, programs: Mapping[str, Program], prompted: Callable[[str, str], str] | None = None
    ) -> None:
        self._programs = programs
        self._prompted = prompted or _to_a_prompt

    def pieces(self, call: ChatCall) -> list[Piece]:
        """What the model says."""
        system, asked = call.said_by("system"), call.said_by("user")
        found = re.search(r"\btask (p[\d-]+)", asked)
        if not system or found is None:
            return [self._prompted(asked, str(call.body.get("model")))]
        owner = found[1]
        rounds = sum(message["role"] == "assistant" for message in call.messages)
        if "Write the plan in the notation" in system:
            return [self._programs[owner].text(owner) if not rounds else "double(n=3)\njoin()"]
        if "from the observations" in system:
            return [f"Answer: {digested(asked)}"]
        turns = self._programs[owner].turns
        if rounds < len(turns):
            return [ModelCall(c.tool, placed(c, owner)) for c in turns[rounds]]
        return [f"I was told {digested(call.said_by('tool'))}"]


def broken(fault: str, pieces: Sequence[Piece], chance: random.Random) -> Answer:
    """A reply that a fault strikes."""
    after = chance.randrange(6)
    match fault:
        case "refused" | "hang up":
            return Fault.hang_up()
        case "429":
            return Fault.status(429)
        case "429 later":
            return Fault.status(429, retry_after=chance.choice((0, 1, 30)))
        case "429 much later":
            return Fault.status(429, retry_after=100_000)
        case "500" | "503" | "400":
            return Fault.status(int(fault))
        case "html":
            return Fault.html(chance.choice((200, 502)))
        case "cut":
            return Fault.cut(*pieces, after=after)
        case "cut differently":
            return Fault.cut(*_otherwise(pieces), after=3 * after)
        case "unfinished":
            return Fault.unfinished(*pieces, after=after)
        case "garbage":
            return Fault.garbage(*pieces, after=after)
        case "error":
            return Fault.error("the scripted server is not well", *pieces, after=after)
        case "stall":
            return Fault.stall(*pieces, after=after)
        case "silence":
            return Fault.silence()
        case "length":
            return Reply(*pieces, finish_reason="length")
        case "nonsense":
            return Reply(chance.choice(NONSENSE))
    return _out_of_order(fault, pieces, chance)


def _otherwise(pieces: Sequence[Piece]) -> list[Piece]:
    """What the model might have said as well, and did not."""
    if not isinstance(pieces[0], str):
        return [ModelCall("put", {"area": "p0/a", "key": "x", "tag": "p0/void"})]
    return [f'$1 = put(area="p0/a", key="x", tag="p0/void")\n{pieces[0]}']


def _out_of_order(fault: str, pieces: Sequence[Piece], chance: random.Random) -> Raw:
    """A stream whose events, or bytes, are not as they were sent."""
    said = Completion("chatcmpl-0", "tiny", 0)
    events = [said.event(ROLE)]
    for index, piece in enumerate(pieces):
        events += [said.event(delta) for delta, _ in deltas(piece, index, 6, f"call_{index}")]
    events += [said.event({}, "stop"), DONE]
    at = chance.randrange(len(events))
    if fault == "doubled":
        events.insert(at, events[at])
    elif fault == "shuffled":
        other = chance.randrange(len(events))
        events[at], events[other] = events[other], events[at]
    else:
        cut = chance.randrange(len(events[at]))
        events[at] = events[at][:cut] + chance.randbytes(3) + events[at][cut + 1 :]
    return Raw(b"".join(events))


def _to_a_prompt(asked: str, model: str) -> str:
    found = re.search(r"(Say|Rate|Pick) ([\w ]+)\.", asked)
    if found is None:
        return "no idea"
    name = found[1].lower()
    if name == "pick":
        return "yes" if model == "large" else "no"
    return str(heard(name, found[2]))


def digested(text: str) -> str:
    """A text as one word."""
    return blake2b(text.encode("utf-8", "replace"), digest_size=8).hexdigest()


def _sent(exchange: Exchange) -> Iterator[dict[str, Any]]:
    """The choices of the events that were sent, as far as they can be read."""
    for line in b"".join(data for _, data in exchange.sent).splitlines():
        if line.startswith(b"data: {"):
            with suppress(ValueError, LookupError):
                yield json.loads(line[6:])["choices"][0]


def _is_whole(exchange: Exchange, tag: str) -> bool:
    """Whether a reply has asked for a write, and has come so far that no call follows."""
    text, finished = "", False
    for choice in _sent(exchange):
        delta = choice.get("delta") or {}
        text += delta.get("content") or ""
        for call in delta.get("tool_calls") or ():
            text += call["function"].get("arguments") or ""
        finished = finished or choice.get("finish_reason") is not None
    return tag in text and (finished or "join()" in text or "return $" in text)
