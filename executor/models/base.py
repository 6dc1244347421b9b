"""What a model call is made of: the request, the pieces of a streamed reply, the reply.

Messages and tool definitions stay the plain dicts of the OpenAI chat format.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

if TYPE_CHECKING:
    from agentflow.caches.affinity.jobs import Pause

Message: TypeAlias = "dict[str, Any]"
"""One message in the OpenAI chat format: ``{"role": ..., "content": ...}``."""


@dataclass(slots=True, frozen=True)
class SessionTag:
    """The conversation that a request goes on with, for whoever chooses where it is answered.

    Attributes:
        id: Name of the conversation, the same for all its requests and for no other.
        tenant: Whose it is; empty where there is only one.
        began: When the program it belongs to began, in seconds on the loop's clock; None for when
            it was first heard of.
        deadline: When that program gives up, on the loop's clock, or None.
        remaining: Seconds of work that follow the reply in its program, as far as is known.
        place: What it is called within the run that asks, the same when that runs again.
        kind: What it is about, such as the name of a prompt: it is learnt of each kind whether
            conversations go on after a reply.
    """

    id: str
    tenant: str = ""
    began: float | None = None
    deadline: float | None = None
    remaining: float = 0.0
    place: str = ""
    kind: str = ""


@dataclass(slots=True, kw_only=True)
class ChatRequest:
    """One call of a chat model.

    Attributes:
        messages: The conversation, in the OpenAI chat format.
        model: Name of the model; empty means the backend's own.
        tools: Tool definitions, in the OpenAI chat format.
        tool_choice: ``auto``, ``none``, ``required``, or a named tool.
        response_format: As the API takes it; `agentflow.executor.models.typed` builds one.
        max_tokens: Upper bound of the output, always sent.
        temperature: None leaves it to the backend.
        stop: Texts that end the reply.
        extra_body: Further fields of the request body, sent as they are.
        extra_headers: Further HTTP headers, sent as they are.
        seed: For backends that can repeat a sample.
        session: The conversation it belongs to, or None; a single backend does not look at it.
    """

    messages: Sequence[Message]
    model: str = ""
    tools: Sequence[Mapping[str, Any]] = ()
    tool_choice: str | Mapping[str, Any] | None = None
    response_format: Mapping[str, Any] | None = None
    max_tokens: int = 1024
    temperature: float | None = None
    stop: Sequence[str] = ()
    extra_body: Mapping[str, Any] | None = None
    extra_headers: Mapping[str, str] | None = None
    seed: int | None = None
    session: SessionTag | None = None


@dataclass(slots=True)
class TextPiece:
    """More text of the answer."""

    text: str


@dataclass(slots=True)
class RefusalPiece:
    """More text of a refusal."""

    text: str


@dataclass(slots=True)
class ReasoningPiece:
    """More text of the model's reasoning, where the backend shows it."""

    text: str


@dataclass(slots=True)
class CallPiece:
    """More of a tool call.

    Attributes:
        index: Which call of the reply, as the backend counts them.
        id: Only where the backend gives it, usually on the first piece.
        name: Likewise.
        arguments: The next fragment of the arguments' JSON text, perhaps empty.
    """

    index: int
    id: str | None
    name: str | None
    arguments: str


@dataclass(slots=True)
class Usage:
    """Tokens of one call.

    Attributes:
        prompt_tokens: All of the input, what was cached included.
        completion_tokens: All of the output, reasoning included.
        cached_tokens: Input that the backend had cached; None if it does not say.
        estimated: The backend did not say, so this was derived from the texts' length.
    """

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int | None = None
    estimated: bool = False


Delta: TypeAlias = "TextPiece | RefusalPiece | ReasoningPiece | CallPiece | Usage"
"""What a stream yields. `Usage` comes once, last."""


@dataclass(slots=True, frozen=True)
class CallRequest:
    """A tool call the model asks for; `arguments_text` is the JSON as the model wrote it."""

    id: str
    name: str
    arguments_text: str


@dataclass(slots=True, kw_only=True)
class Reply:
    """A whole reply.

    Attributes:
        text: The answer, without reasoning.
        calls: The tool calls, in the order they were opened.
        finish_reason: As the backend says: ``stop``, ``length``, ``tool_calls``, ...
        usage: Tokens.
        refusal: Text of the refusal, or None.
        reasoning: Text of the reasoning, empty where the backend shows none.
        model: Name of the model that answered, as the backend says it.
        usd: Price of the call; None if the model's price is not known.
        seconds: From the first attempt's start to the end of the reply.
        first_token_seconds: From the first attempt's start to the first piece; None if none came.
        attempts: How many requests were made.
        replica: Name of the replica of a pool that answered; empty for a single backend.
        moved: Why its session left the replica where it was: ``load``, ``room`` or ``lost``;
            empty if it did not.
        held: Seconds that it waited in the pool before it was sent anywhere; of a single backend,
            for one of its slots and its rate.
    """

    text: str
    calls: tuple[CallRequest, ...] = ()
    finish_reason: str = "stop"
    usage: Usage = field(default_factory=lambda: Usage(0, 0, None, True))
    refusal: str | None = None
    reasoning: str = ""
    model: str = ""
    usd: Decimal | None = None
    seconds: float = 0.0
    first_token_seconds: float | None = None
    attempts: int = 1
    replica: str = ""
    moved: str = ""
    held: float = 0.0

    def as_message(self) -> Message:
        """The reply as the assistant's message of the next request."""
        message: Message = {"role": "assistant", "content": self.text or None}
        if self.refusal is not None:
            message["refusal"] = self.refusal
        if self.calls:
            message["tool_calls"] = [
                {
                    "id": call.id,
                    "type": "function",
                    "function": {"name": call.name, "arguments": call.arguments_text},
                }
                for call in self.calls
            ]
        return message


class ReplyStream(Protocol):
    """A reply while it arrives: iterate it once, then read `reply`."""

    def __aiter__(self) -> AsyncIterator[Delta]:
        """The pieces, as they come."""
        ...

    @property
    def usage(self) -> Usage:
        """Tokens so far: estimated until the backend has said, also after an error."""
        ...

    @property
    def reply(self) -> Reply:
        """The whole reply.

        Raises:
            RuntimeError: The stream has not been read to its end.
        """
        ...


async def read_whole(stream: ReplyStream, on_delta: Callable[[Delta], object] | None) -> Reply:
    """Read a reply to its end; `on_delta` sees each piece as it comes.

    Raises:
        BackendError: It broke off.
    """
    async for delta in stream:
        if on_delta is not None:
            on_delta(delta)
    return stream.reply


class Model(Protocol):
    """Anything that answers a chat request."""

    @property
    def name(self) -> str:
        """Name of the model, for messages, prices and traces."""
        ...

    def stream(self, request: ChatRequest) -> AbstractAsyncContextManager[ReplyStream]:
        """Start a call; leaving the block, in whatever way, ends it on the server too."""
        ...

    async def complete(
        self, request: ChatRequest, on_delta: Callable[[Delta], object] | None = None
    ) -> Reply:
        """Make a call and wait for the whole reply; `on_delta` sees each piece as it comes."""
        ...


class KeepsSessions(Protocol):
    """A model that places the requests of a session where its earlier ones are still known."""

    def away(self, session: str, pause: Pause | None) -> None:
        """A session's program does something else now, and will be back after the pause."""
        ...

    def ended(self, session: str) -> None:
        """A session asks nothing more."""
        ...
