"""What servers of each make accept beside the chat completions API, in one table.

A server is sent only what its make is known to accept; of an unknown one nothing is known.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from typing import Any, Protocol
from urllib.parse import quote

from agentflow.errors import BackendError, DefinitionError
from agentflow.executor.models import probe
from agentflow.executor.models.base import SessionTag

LAST = 2**31 - 1
"""Rank of a request that only makes a later one faster."""

DUE = 300
"""Seconds after its beginning at which a program without a deadline is taken to be due: such
programs keep the order they began in, and one with a tight deadline goes before them."""

_PLACES = ("session", "tenant", "parent", "priority")
_PLACE = re.compile(r"\{(\w*)\}")

Headers = dict[str, str]
Body = dict[str, Any]


class Speaks(Protocol):
    """Says what goes with a request beside what it says itself."""

    def fields(
        self, tag: SessionTag | None, *, optional: bool = False, slot: int | None = None
    ) -> tuple[Headers, Body]:
        """Headers and fields of the body, to be sent beside those of the request itself.

        Args:
            tag: The session, or None if the request belongs to none.
            optional: The request only makes a later one faster.
            slot: The slot that it is to use, where slots are the client's to choose.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """The names of one make of server; an empty one stands for nothing.

    Attributes:
        name: As in `probe.Endpoint.server`.
        session: Field for what is the same in all requests of a session.
        salt: Field that keeps the caches of tenants apart.
        rank: Field for the place in the server's queue.
        lower_first: Whether lower ranks go first.
        by_rank: Whether this server orders its queue by rank; if not, none is sent: vLLM refuses
            a rank then.
        slot: Field for the slot to use.
        always: Sent with every request.
    """

    name: str
    session: str = ""
    salt: str = ""
    rank: str = ""
    lower_first: bool = True
    by_rank: bool = False
    slot: str = ""
    always: Mapping[str, Any] = field(default_factory=dict)

    def fields(
        self, tag: SessionTag | None, *, optional: bool = False, slot: int | None = None
    ) -> tuple[Headers, Body]:
        """Headers and fields of the body, to be sent beside those of the request itself."""
        body = dict(self.always)
        if self.slot and slot is not None:
            body[self.slot] = slot
        if tag is None:
            return {}, body
        if self.session:
            body[self.session] = _digest(tag.tenant, tag.id)
        if self.salt and tag.tenant:
            body[self.salt] = _digest(tag.tenant)
        if self.by_rank:
            rank = rank_of(tag, optional=optional)
            body[self.rank] = rank if self.lower_first else -rank
        return {}, body


UNKNOWN = Dialect(name="unknown")
VLLM = Dialect(name="vllm", salt="cache_salt", rank="priority")
SGLANG = Dialect(
    name="sglang", session="session_id", salt="cache_salt", rank="priority", lower_first=False
)
LLAMA_CPP = Dialect(name="llama.cpp", slot="id_slot", always={"cache_prompt": True})
OPENAI = Dialect(name="openai", session="prompt_cache_key")

DIALECTS: Mapping[str, Dialect] = {
    dialect.name: dialect for dialect in (UNKNOWN, VLLM, SGLANG, LLAMA_CPP, OPENAI)
}
"""By the name of the server."""


@dataclass(frozen=True, slots=True)
class Template:
    """What a router wants to be told, as its operator says.

    In texts, ``{session}``, ``{tenant}``, ``{parent}`` (the run that the session belongs to) and
    ``{priority}`` (lower goes first) are replaced; a header that is empty then is left out, and
    a field that consists of ``{priority}`` is a number. For example::

        Template(headers={"X-Dynamo-Session-ID": "{session}"})    # NVIDIA Dynamo
        Template(headers={"x-aibrix-session-key": "{session}"})   # AIBrix, session-affinity
        Template(headers={"x-user-id": "{session}"})              # vLLM production-stack
        Template(headers={"x-smg-routing-key": "{session}"})      # SGLang's gateway, manual policy

    Args:
        headers: By name.
        body: Fields of the body by name; any JSON.

    Raises:
        DefinitionError: Something else is to be replaced.
    """

    headers: Mapping[str, str] = field(default_factory=dict)
    body: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        blank = dict.fromkeys(_PLACES, "")
        _filled([dict(self.headers), dict(self.body)], blank)

    def fields(
        self, tag: SessionTag | None, *, optional: bool = False, slot: int | None = None
    ) -> tuple[Headers, Body]:
        """Headers and fields of the body, to be sent beside those of the request itself."""
        if tag is None:
            return {}, {}
        values = {
            "session": tag.id,
            "tenant": tag.tenant,
            "parent": tag.id.partition("/")[0],
            "priority": rank_of(tag, optional=optional),
        }
        quoted = {name: quote(str(value), safe="/:@") for name, value in values.items()}
        headers = {name: _filled(text, quoted) for name, text in self.headers.items()}
        given = {name: str(text) for name, text in headers.items() if text != ""}
        body: Body = _filled(dict(self.body), values)
        return given, body


def rank_of(tag: SessionTag, *, optional: bool = False) -> int:
    """A request's place among others: when it has to be answered at the latest, in seconds."""
    if optional:
        return LAST
    due = tag.began + DUE if tag.deadline is None else tag.deadline - tag.remaining
    return max(0, min(LAST - 1, round(due)))


def dialect_of(endpoint: probe.Endpoint) -> Dialect:
    """The dialect of what answers at a base URL."""
    return DIALECTS.get(endpoint.server, UNKNOWN)


async def detect(http: Any, url: str, headers: Mapping[str, str]) -> Dialect:
    """Ask a server what it is, and then all that `with_rank` asks.

    Args:
        http: A client from `agentflow._http.client`.
        url: The base URL.
        headers: Sent along, such as ``Authorization``.

    Returns:
        What it speaks; `UNKNOWN` if it does not say.
    """
    try:
        endpoint = await probe.look(http, url, headers)
    except BackendError:
        return UNKNOWN
    return await with_rank(endpoint, http, headers)


async def with_rank(endpoint: probe.Endpoint, http: Any, headers: Mapping[str, str]) -> Dialect:
    """Ask a server whether it orders its queue by rank, and in which direction.

    vLLM tells that only by how it answers: it is sent one request for one token.
    """
    dialect, url = dialect_of(endpoint), endpoint.url
    if dialect is VLLM and endpoint.models:
        model = endpoint.models[0].name
        ranked = await probe.accepts(http, url, headers, model, {dialect.rank: 1})
        return replace(dialect, by_rank=ranked)
    if dialect is SGLANG:
        said = await probe.facts(http, url, "/get_server_info", headers)
        lower_first = said.get("schedule_low_priority_values_first") is True
        ranked = said.get("enable_priority_scheduling") is True
        return replace(dialect, by_rank=ranked, lower_first=lower_first)
    return dialect


def _digest(*texts: str) -> str:
    """A name that tells nothing about these texts: 32 characters, which every server takes."""
    return blake2b("\0".join(texts).encode(), digest_size=16).hexdigest()


def _filled(value: Any, values: Mapping[str, Any]) -> Any:
    """JSON with what is to be replaced in its texts replaced."""
    if isinstance(value, dict):
        return {name: _filled(part, values) for name, part in value.items()}
    if isinstance(value, list):
        return [_filled(part, values) for part in value]
    if not isinstance(value, str):
        return value
    if (whole := _PLACE.fullmatch(value)) is not None and whole[1] in values:
        return values[whole[1]]
    return _PLACE.sub(lambda place: _value(place[1], value, values), value)


def _value(name: str, text: str, values: Mapping[str, Any]) -> str:
    if name not in values:
        raise DefinitionError(
            f"Template: {text!r} has {{{name}}}, but only "
            f"{', '.join(f'{{{known}}}' for known in _PLACES)} can be replaced"
        )
    return str(values[name])
