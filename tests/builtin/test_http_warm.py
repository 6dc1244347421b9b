"""`http_get` connects while its URL is being written: once, and only where it may."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import pytest

from agentflow.context import Context
from agentflow.errors import DefinitionError
from agentflow.tools.builtin import http_tools
from agentflow.tools.builtin.addresses import AddressRefused
from agentflow.tools.builtin.http import FetchFailed
from agentflow.tools.builtin.http_warm import MAX_AGE, MAX_HOST, MAX_ORIGINS, MAX_RUNS, Contacts
from agentflow.tools.streaming import TextBuffer, TextStream

CERTIFICATE = Path(__file__).with_name("site.example.pem")
PAGE = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nhere"

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Any]


@dataclass
class Site:
    """A server; how often it was connected to, what it was asked, and who went away."""

    port: int = 0
    accepted: int = 0
    requests: list[str] = field(default_factory=list)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    left: asyncio.Event = field(default_factory=asyncio.Event)
    turned_away: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        self.arrived.set()
        try:
            if self.accepted > self.turned_away:
                self.requests.append((await reader.readuntil(b"\r\n\r\n")).decode())
                writer.write(PAGE)
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            self.left.set()
        finally:
            writer.close()


@asynccontextmanager
async def serving(tls: ssl.SSLContext | None = None) -> AsyncIterator[Site]:
    site = Site()
    server = await asyncio.start_server(site.serve, "127.0.0.1", 0, ssl=tls)
    site.port = server.sockets[0].getsockname()[1]
    try:
        yield site
    finally:
        server.close()


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    async with serving() as site:
        yield site


class Names:
    """A resolver that knows some names, and remembers what it was asked."""

    def __init__(self, **names: str) -> None:
        self.names = {name.replace("_", "."): address for name, address in names.items()}
        self.asked: list[str] = []

    async def __call__(self, host: str, port: int) -> list[str]:
        self.asked.append(host)
        if host not in self.names:
            raise OSError("no such name")
        return [self.names[host]]


class Writing:
    """A call whose URL is being written: its warm-up is open until the block ends."""

    def __init__(self, get: Any, run: str = "run") -> None:
        self.get = get
        self.context = Context(run=run)
        self.buffer = TextBuffer()
        self.opened = asyncio.Event()
        self.over = asyncio.Event()
        self.ready: Any = None

    async def __aenter__(self) -> Self:
        self.task = asyncio.ensure_future(self._open())
        return self

    async def __aexit__(self, *_: object) -> None:
        self.over.set()
        if not self.opened.is_set():
            self.task.cancel()
        await asyncio.wait([self.task])

    async def _open(self) -> None:
        warm_up = self.get.warm_up.open({"url": TextStream(self.buffer)}, self.context)
        async with warm_up as self.ready:
            await self.ready.settled()
            self.opened.set()
            await self.over.wait()

    async def add(self, text: str) -> None:
        """More of the URL; the warm-up has gone as far as it can without waiting."""
        self.buffer.add(text)
        for _ in range(20):
            await asyncio.sleep(0)

    async def call(self) -> Any:
        """The URL is complete: fetch it."""
        self.buffer.end()
        await self.opened.wait()
        return await self.get.fn(self.buffer.text, ctx=self.context, ready=self.ready)


def getter(*origins: str, **options: Any) -> Any:
    """`http_get`, allowed to reach 127.0.0.1 and no other private address."""
    return http_tools(**{"allow": ["127.0.0.1/32"], "origins": origins, **options})[0]


async def fetch(get: Any, url: str, run: str = "run") -> Any:
    async with Writing(get, run) as call:
        await call.add(url)
        return await call.call()


# When it connects


@pytest.mark.parametrize("rest", ["/a", "?a", "#a"])
async def test_the_request_uses_the_connection_made_when_the_host_was_complete(
    site: Site, rest: str
) -> None:
    async with Writing(getter(f"http://127.0.0.1:{site.port}")) as call:
        await call.add(f"http://127.0.0.1:{site.port}")
        assert not call.opened.is_set()
        await call.add(rest)
        await asyncio.wait_for(site.arrived.wait(), 5)
        assert site.requests == []
        page = await call.call()

    assert (page.text, site.accepted) == ("here", 1)
    assert site.requests[0].splitlines()[0].startswith("GET /")


async def test_it_never_connects_to_half_a_host() -> None:
    names = Names(api_example="127.0.0.1", api_example_com="127.0.0.1")
    async with serving() as site:
        whole = f"http://api.example.com:{site.port}/"
        short = f"http://api.example:{site.port}"
        async with Writing(getter(whole, short, resolver=names)) as call:
            for letter in whole[:-1]:
                await call.add(letter)
                assert names.asked == []
            await call.add("/")
            page = await call.call()

    assert (page.text, names.asked, site.accepted) == ("here", ["api.example.com"], 1)


async def test_a_url_without_a_path_is_complete_at_its_end(site: Site) -> None:
    origin = f"http://127.0.0.1:{site.port}"
    async with Writing(getter(origin)) as call:
        await call.add(origin)
        assert not call.opened.is_set()
        call.buffer.end()
        await asyncio.wait_for(call.opened.wait(), 5)
        await asyncio.wait_for(site.arrived.wait(), 5)
        await call.call()

    assert site.accepted == 1


async def test_an_at_sign_before_the_end_of_the_host_makes_it_another_host(site: Site) -> None:
    names = Names(evil_example="127.0.0.1")
    async with Writing(getter(f"http://127.0.0.1:{site.port}", resolver=names)) as call:
        await call.add(f"http://127.0.0.1:{site.port}")
        await call.add(f"@evil.example:{site.port}/")
        await asyncio.wait_for(call.opened.wait(), 5)

    assert (names.asked, site.accepted) == ([], 0)


async def test_credentials_do_not_hide_the_origin_and_are_sent_with_the_request(
    site: Site,
) -> None:
    async with Writing(getter(f"http://127.0.0.1:{site.port}")) as call:
        await call.add(f"http://me:p%40ss@127.0.0.1:{site.port}/")
        await asyncio.wait_for(site.arrived.wait(), 5)
        await call.call()

    assert site.accepted == 1
    assert "Authorization: Basic bWU6cEBzcw==" in site.requests[0]


async def test_a_text_that_never_becomes_a_host_is_given_up() -> None:
    async with Writing(getter("http://127.0.0.1:1")) as call:
        await call.add("x" * (MAX_HOST + 1))

        assert call.opened.is_set()


# Where it may connect


async def test_an_origin_that_the_run_has_not_contacted_is_left_alone(site: Site) -> None:
    names = Names(site_example="127.0.0.1")
    async with Writing(getter(resolver=names)) as call:
        await call.add(f"http://site.example:{site.port}/")
        await asyncio.wait_for(call.opened.wait(), 5)
        assert (names.asked, site.accepted) == ([], 0)
        page = await call.call()

    assert (page.text, site.accepted) == ("here", 1)


async def test_an_origin_that_the_run_has_contacted_is_connected_to(site: Site) -> None:
    get, url = getter(), f"http://127.0.0.1:{site.port}/"
    await fetch(get, url)
    site.arrived.clear()

    async with Writing(get) as call:
        await call.add(url)
        await asyncio.wait_for(site.arrived.wait(), 5)
        await call.call()

    assert site.accepted == 2


@pytest.mark.parametrize("run", ["another", ""])
async def test_what_one_run_has_contacted_no_other_run_has(site: Site, run: str) -> None:
    get, url = getter(), f"http://127.0.0.1:{site.port}/"
    await fetch(get, url, "one")
    await fetch(get, url, "")

    async with Writing(get, run) as call:
        await call.add(url)
        await asyncio.wait_for(call.opened.wait(), 5)

    assert site.accepted == 2


async def test_an_origin_that_could_not_be_reached_counts_as_not_contacted() -> None:
    names = Names()
    get = getter(resolver=names)
    with pytest.raises(FetchFailed, match="was not found"):
        await fetch(get, "http://site.example/")

    async with Writing(get) as call:
        await call.add("http://site.example/")
        await asyncio.wait_for(call.opened.wait(), 5)

    assert names.asked == ["site.example"]


async def test_where_a_redirect_led_was_not_asked_for(site: Site) -> None:
    get = getter()
    there = f"http://127.0.0.1:{site.port}/"

    async def move(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        answer = f"HTTP/1.1 302 Go\r\nLocation: {there}\r\nContent-Length: 0\r\n\r\n"
        writer.write(answer.encode())
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(move, "127.0.0.1", 0)
    async with server:
        page = await fetch(get, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/")
    async with Writing(get) as call:
        await call.add(there)
        await asyncio.wait_for(call.opened.wait(), 5)

    assert (page.url, site.accepted) == (there, 1)


async def test_an_allowed_origin_at_an_address_that_is_not_is_refused_as_ever(
    site: Site,
) -> None:
    names = Names(site_example="127.0.0.1")
    url = f"http://site.example:{site.port}/"
    async with Writing(getter(url, resolver=names, allow=[])) as call:
        await call.add(url)
        await asyncio.wait_for(call.opened.wait(), 5)
        with pytest.raises(AddressRefused):
            await call.call()

    assert site.accepted == 0


async def test_scheme_and_port_belong_to_the_origin(site: Site) -> None:
    get = getter(f"http://127.0.0.1:{site.port}")
    for url in (f"https://127.0.0.1:{site.port}/", "http://127.0.0.1/"):
        async with Writing(get) as call:
            await call.add(url)
            await asyncio.wait_for(call.opened.wait(), 5)

    assert site.accepted == 0


@pytest.mark.parametrize(
    "origin",
    ["api.example", "ftp://api.example", "http://api.example/v1", "http://me@api.example", ""],
)
def test_origins_are_checked_where_they_are_written(origin: str) -> None:
    with pytest.raises(DefinitionError, match=r"'https://api\.example\.com'"):
        http_tools(origins=[origin])


def test_a_single_origin_is_no_list() -> None:
    with pytest.raises(DefinitionError, match="takes several"):
        http_tools(origins="https://api.example.com")


def test_the_origins_and_runs_remembered_longest_without_use_are_forgotten() -> None:
    contacts = Contacts()
    first = ("http", b"first", 80)
    contacts.add("old", first)
    for number in range(MAX_RUNS):
        contacts.add(f"run {number}", first)
    assert [contacts.known(run, first) for run in ("old", "run 0")] == [False, True]

    for number in range(MAX_ORIGINS - 1):
        contacts.add("run 9", ("http", b"%d" % number, 80))
    contacts.add("run 9", first)
    contacts.add("run 9", ("http", b"one more", 80))
    assert contacts.known("run 9", first)
    assert not contacts.known("run 9", ("http", b"0", 80))


# What becomes of the connection


async def test_a_call_that_is_never_made_leaves_no_connection(site: Site) -> None:
    async with Writing(getter(f"http://127.0.0.1:{site.port}")) as call:
        await call.add(f"http://127.0.0.1:{site.port}/")
        await asyncio.wait_for(site.arrived.wait(), 5)

    await asyncio.wait_for(site.left.wait(), 5)
    assert site.requests == []


async def test_a_url_that_turns_out_to_lead_elsewhere_gets_its_own_connection(site: Site) -> None:
    async with serving() as other:
        async with Writing(getter(f"http://127.0.0.1:{site.port}")) as call:
            await call.add(f"http://127.0.0.1:{site.port}/")
            await asyncio.wait_for(site.arrived.wait(), 5)
            url = f"http://127.0.0.1:{other.port}/"
            await call.get.fn(url, ctx=call.context, ready=call.ready)
        await asyncio.wait_for(site.left.wait(), 5)

    assert (site.requests, len(other.requests)) == ([], 1)


async def test_a_connection_that_the_server_has_closed_is_replaced(site: Site) -> None:
    site.turned_away = 1
    async with Writing(getter(f"http://127.0.0.1:{site.port}")) as call:
        await call.add(f"http://127.0.0.1:{site.port}/")
        await asyncio.wait_for(site.arrived.wait(), 5)
        page = await call.call()

    assert (page.text, site.accepted, len(site.requests)) == ("here", 2, 1)


@pytest.mark.virtual
async def test_an_old_connection_is_not_used(site: Site) -> None:
    async with Writing(getter(f"http://127.0.0.1:{site.port}")) as call:
        await call.add(f"http://127.0.0.1:{site.port}/")
        await call.opened.wait()
        await asyncio.sleep(MAX_AGE + 0.1)
        page = await call.call()
    await site.left.wait()

    assert (page.text, site.accepted, len(site.requests)) == ("here", 2, 1)


async def test_a_warm_up_that_fails_says_nothing_and_the_fetch_says_why() -> None:
    async with Writing(getter("http://site.example", resolver=Names())) as call:
        await call.add("http://site.example/")
        await asyncio.wait_for(call.opened.wait(), 5)
        with pytest.raises(FetchFailed, match="was not found"):
            await call.call()


@pytest.mark.virtual
async def test_a_host_that_does_not_answer_holds_the_call_up_for_one_connect_timeout() -> None:
    async def stuck(host: str, port: int) -> list[str]:
        await asyncio.Event().wait()
        return []

    async with Writing(getter("http://site.example", resolver=stuck, connect_timeout=2)) as call:
        await call.add("http://site.example/")
        await call.opened.wait()

    assert asyncio.get_running_loop().time() == pytest.approx(2)


@pytest.mark.virtual
async def test_the_time_limit_of_a_call_covers_a_host_that_does_not_answer() -> None:
    async def stuck(host: str, port: int) -> list[str]:
        await asyncio.Event().wait()
        return []

    get = getter("http://site.example", resolver=stuck, connect_timeout=2, timeout=3)

    with pytest.raises(FetchFailed, match="within 3 s"):
        await get("http://site.example/")

    assert asyncio.get_running_loop().time() == pytest.approx(3)


async def test_a_warm_up_that_is_retracted_in_the_middle_of_a_handshake_closes_it(
    site: Site,
) -> None:
    async with Writing(getter(f"https://127.0.0.1:{site.port}")) as call:
        await call.add(f"https://127.0.0.1:{site.port}/")  # where nobody speaks TLS
        await asyncio.wait_for(site.arrived.wait(), 5)

    await asyncio.wait_for(site.left.wait(), 5)


async def test_tls_is_spoken_before_the_call_and_once() -> None:
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(CERTIFICATE)
    seen: list[str | None] = []
    server.sni_callback = lambda _socket, name, _context: seen.append(name)
    names = Names(site_example="127.0.0.1")
    trusting = ssl.create_default_context(cafile=str(CERTIFICATE))

    async with serving(server) as site:
        get = getter(f"https://site.example:{site.port}", resolver=names, ssl_context=trusting)
        async with Writing(get) as call:
            await call.add(f"https://site.example:{site.port}/")
            await asyncio.wait_for(call.opened.wait(), 5)
            assert seen == ["site.example"]
            page = await call.call()

    assert (page.text, site.accepted, seen, names.asked) == ("here", 1, *[["site.example"]] * 2)


async def test_what_tls_needs_is_loaded_as_soon_as_the_scheme_is_there() -> None:
    loop, loaded = asyncio.get_running_loop(), asyncio.Event()

    class Noticed(ssl.SSLContext):
        def set_alpn_protocols(self, alpn_protocols: Any) -> None:
            loop.call_soon_threadsafe(loaded.set)

    names = Names()
    context = Noticed(ssl.PROTOCOL_TLS_CLIENT)
    async with Writing(getter(resolver=names, ssl_context=context)) as call:
        await call.add("http")
        assert not loaded.is_set()
        await call.add("s")
        await asyncio.wait_for(loaded.wait(), 5)

    assert names.asked == []


async def test_a_plain_call_connects_once_too(site: Site) -> None:
    page = await getter(f"http://127.0.0.1:{site.port}")(f"http://127.0.0.1:{site.port}/")

    assert (page.text, site.accepted) == ("here", 1)
