"""What servers of each make accept beside the chat completions API, in one table.

A server is sent only what its make is known to accept; of an unknown one nothing is known.
"""

from __future__ import annotations

import json
import math
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from typing import Any, Protocol
from urllib.parse import quote

from agentflow.caches.affinity.digests import digest
from agentflow.errors import DefinitionError
from agentflow.executor.models import probe
from agentflow.executor.models.base import SessionTag
from agentflow.redaction import conceal_headers

LAST = 2**31 - 1
"""Rank of a request that only makes a later one faster."""

DUE = 300
"""Seconds after its beginning at which a program without a deadline is taken to be due: such
programs keep the order they began in, and one with a tight deadline goes before them."""

_VLLM_SESSION = "session_id"  # not every version knows it

_PLACES = ("session", "tenant", "parent", "priority")
_PLACE = re.compile(r"\{(\w+)\}")
_HEADER = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_FIXED = re.compile(r"[\t\x20-\x7e]*")

Headers = dict[str, str]
Body = dict[str, Any]


class Speaks(Protocol):
    """Says what goes with a request beside what it says itself."""

    def fields(
        self,
        tag: SessionTag | None,
        *,
        optional: bool = False,
        slot: int | None = None,
        secret: str = "",
    ) -> tuple[Headers, Body]:
        """Headers and fields of the body, to be sent beside those of the request itself.

        Args:
            tag: The session, or None if the request belongs to none.
            optional: The request only makes a later one faster.
            slot: The slot that it is to use, where slots are the client's to choose.
            secret: Known to nobody else who can reach the server.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """The names of one make of server; an empty one stands for nothing.

    Attributes:
        name: As in `probe.Endpoint.server`.
        session: Field for what is the same in all requests of a session.
        attempt: Field for what no other attempt at any request has; the server calls it so in its
            log.
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
    attempt: str = ""
    salt: str = ""
    rank: str = ""
    lower_first: bool = True
    by_rank: bool = False
    slot: str = ""
    always: Mapping[str, Any] = field(default_factory=dict)

    def fields(
        self,
        tag: SessionTag | None,
        *,
        optional: bool = False,
        slot: int | None = None,
        secret: str = "",
    ) -> tuple[Headers, Body]:
        """Headers and fields of the body, to be sent beside those of the request itself."""
        body = dict(self.always)
        if self.slot and slot is not None:
            body[self.slot] = slot
        if self.attempt:
            body[self.attempt] = _attempt_of(tag)
        if tag is None:
            return {}, body
        if self.session:
            body[self.session] = _digest(tag)
        if self.salt and tag.tenant:
            body[self.salt] = digest(secret, tag.tenant).hex()
        if self.by_rank:
            rank = rank_of(tag, optional=optional)
            body[self.rank] = rank if self.lower_first else -rank
        return {}, body


UNKNOWN = Dialect(name="unknown")
VLLM = Dialect(name="vllm", salt="cache_salt", rank="priority")
SGLANG = Dialect(
    name="sglang",
    session="session_id",
    attempt="rid",
    salt="cache_salt",
    rank="priority",
    lower_first=False,
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

    In texts, ``{session}``, ``{tenant}``, ``{parent}`` (the run that the session belongs to, or
    the `Session` that outlasts it) and ``{priority}`` (lower goes first) are replaced; a header
    that is empty then is left out, and a field that consists of ``{priority}`` is a number. Other
    braces stay. For example::

        Template(headers={"X-Dynamo-Session-ID": "{session}"})    # NVIDIA Dynamo
        Template(headers={"x-aibrix-session-key": "{session}"})   # AIBrix, session-affinity
        Template(headers={"x-user-id": "{session}"})              # vLLM production-stack
        Template(headers={"x-smg-routing-key": "{session}"})      # SGLang's gateway, manual policy

    Args:
        headers: By name.
        body: Fields of the body by name; any JSON.

    Raises:
        DefinitionError: A name in braces is misspelt, a header is none that can be sent, or the
            body is no JSON.
    """

    headers: Mapping[str, str] = field(default_factory=dict)
    body: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, text in self.headers.items():
            if not _HEADER.fullmatch(name) or not _FIXED.fullmatch(str(text)):
                raise DefinitionError(f"Template: {name!r}: {text!r} cannot be sent as a header")
        try:
            body = json.dumps(_filled(self.body, {}), ensure_ascii=False, allow_nan=False)
            body.encode()
        except (TypeError, ValueError, RecursionError) as error:
            raise DefinitionError(f"Template: the body is no JSON: {error}") from error
        for text in (body, *map(str, self.headers.values())):
            _check_places(text)
        conceal_headers({name: text for name, text in self.headers.items() if "{" not in text})

    def fields(
        self,
        tag: SessionTag | None,
        *,
        optional: bool = False,
        slot: int | None = None,
        secret: str = "",
    ) -> tuple[Headers, Body]:
        """Headers and fields of the body, to be sent beside those of the request itself."""
        if tag is None:
            return {}, {}
        values = {
            "session": _sayable(tag.id),
            "tenant": _sayable(tag.tenant),
            "parent": _sayable(tag.id.partition("/")[0]),
            "priority": rank_of(tag, optional=optional),
        }
        quoted = {name: quote(str(value), safe="/:@") for name, value in values.items()}
        headers = {name: _filled(text, quoted) for name, text in self.headers.items()}
        given = {name: str(text) for name, text in headers.items() if text != ""}
        body: Body = _filled(self.body, values)
        return given, body


def rank_of(tag: SessionTag, *, optional: bool = False) -> int:
    """A request's place among others: when it has to be answered at the latest, in seconds."""
    if optional:
        return LAST
    if tag.deadline is None or tag.deadline == math.inf:
        due = (tag.began or 0.0) + DUE
    else:
        due = tag.deadline - tag.remaining
    # within bounds before it is rounded, for it may be anything; what is no number goes last
    return round(max(0, min(LAST - 1, due)))


def dialect_of(endpoint: probe.Endpoint) -> Dialect:
    """The dialect of what answers at a base URL."""
    return DIALECTS.get(endpoint.server, UNKNOWN)


async def asked(endpoint: probe.Endpoint, http: Any, headers: Mapping[str, str]) -> Dialect:
    """Ask a server which fields it accepts of those that not every one of its make does.

    vLLM tells that only by how it answers: it is sent two requests for one token each.
    """
    dialect, url = dialect_of(endpoint), endpoint.url
    if dialect is VLLM and endpoint.models:
        model = endpoint.models[0].name
        named = await probe.accepts(http, url, headers, model, {_VLLM_SESSION: "hello"})
        ranked = await probe.accepts(http, url, headers, model, {dialect.rank: 1})
        return replace(dialect, session=_VLLM_SESSION if named else "", by_rank=ranked)
    if dialect is SGLANG:
        said = await probe.facts(http, url, "/get_server_info", headers)
        lower_first = said.get("schedule_low_priority_values_first") is True
        ranked = said.get("enable_priority_scheduling") is True
        return replace(dialect, by_rank=ranked, lower_first=lower_first)
    return dialect


def _digest(tag: SessionTag) -> str:
    """A session's name as servers are told it."""
    return digest(tag.tenant, tag.id).hex()


def _attempt_of(tag: SessionTag | None) -> str:
    """A name for one attempt; SGLang's gateway takes what stands before ``_t`` for the session."""
    session = secrets.token_hex(8) if tag is None else _digest(tag)
    return f"{session}_t{secrets.randbits(63)}"


def _sayable(text: str) -> str:
    """A name as it can be sent, also where it has lone surrogates; others stay others."""
    return text.encode("utf-8", "backslashreplace").decode()


def _check_places(text: str) -> None:
    """Refuse what is nearly, but not quite, the name of something that can be replaced."""
    for name in _PLACE.findall(text):
        if name not in _PLACES and (near := get_close_matches(name.lower(), _PLACES, n=1)):
            raise DefinitionError(
                f"Template: {{{name}}} stands for nothing. Did you mean {{{near[0]}}}?"
            )


def _filled(value: Any, values: Mapping[str, Any]) -> Any:
    """JSON with what is to be replaced in its texts replaced."""
    if isinstance(value, Mapping):
        return {name: _filled(part, values) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_filled(part, values) for part in value]
    if not isinstance(value, str):
        return value
    if (whole := _PLACE.fullmatch(value)) is not None and whole[1] in values:
        return values[whole[1]]
    return _PLACE.sub(lambda place: str(values.get(place[1], place[0])), value)
