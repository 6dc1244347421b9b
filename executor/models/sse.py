"""Splits a byte stream of server-sent events into the payloads they carry.

Follows the event-stream format (WHATWG HTML, section 9.2.6) as far as model servers use
it (lines end in LF or CRLF). Every way of cutting the bytes into chunks gives the same payloads.
"""

from __future__ import annotations

from agentflow.errors import AgentflowError

MAX_EVENT = 16 * 1024 * 1024
"""Bytes after which an event that has not ended is taken for something else."""

_FIELDS = (b"data", b"event", b"id", b"retry", b"error", b":")


class NotEvents(AgentflowError):
    """The bytes are not server-sent events; `head` is how they begin."""

    def __init__(self, head: bytes) -> None:
        self.head = head
        super().__init__("not a stream of server-sent events")


class EventSplitter:
    """Turns chunks of bytes into the data of whole events.

    Takes time linear in the stream for events on one line, as model servers send them.
    """

    __slots__ = ("_parts", "_seen", "_size")

    def __init__(self) -> None:
        self._parts: list[bytes] = []  # the event that has not ended yet
        self._size = 0
        self._seen = False

    def feed(self, chunk: bytes) -> list[bytes]:
        """The payloads of the events that end in this chunk.

        Raises:
            NotEvents: The stream began with something else, or an event does not end.
        """
        self._size += len(chunk)
        self._parts.append(chunk)
        events: list[bytes] = []
        if b"\n" in chunk:
            buffer = b"".join(self._parts).replace(b"\r\n", b"\n")
            self._check(buffer)
            *events, rest = buffer.split(b"\n\n")
            self._parts, self._size = [rest], len(rest)
        if self._size > MAX_EVENT:
            raise NotEvents(b"".join(self._parts)[:1024])
        return _payloads(events)

    def close(self) -> None:
        """The stream has ended; an event without its blank line is dropped, as the format asks.

        Raises:
            NotEvents: There were no events, but something else.
        """
        self._check(b"".join(self._parts) + b"\n")

    def _check(self, buffer: bytes) -> None:
        """Look once, at the first whole line that is not empty, whether these are events."""
        if self._seen:
            return
        line, ended, _ = buffer.lstrip().partition(b"\n")
        if ended:
            if not line.startswith(_FIELDS):
                raise NotEvents(buffer)
            self._seen = True


def _payloads(events: list[bytes]) -> list[bytes]:
    out = []
    for event in events:
        if event.startswith(b"data: ") and b"\n" not in event:
            out.append(event[6:])
        elif (payload := _payload(event)) is not None:
            out.append(payload)
    return out


def _payload(event: bytes) -> bytes | None:
    """The data of an event of any shape; None if it carries none (comments, pings)."""
    data = []
    for line in event.split(b"\n"):
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            data.append(value)
        elif name == b"error":  # older llama.cpp reports a failure as a field of its own
            data.append(b'{"error":' + value + b"}")
    return b"\n".join(data) if data else None
