"""`http_get` against servers on loopback addresses, with names from a table."""

from __future__ import annotations

import asyncio
import gzip
import ssl
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from agentflow.errors import DefinitionError
from agentflow.tools.builtin import http_tools
from agentflow.tools.builtin.addresses import AddressRefused
from agentflow.tools.builtin.http import FetchFailed, Page

CERTIFICATE = Path(__file__).with_name("site.example.pem")

Answer = bytes | Callable[["Site", asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Site:
    """A server; `answers` by path, `requests` as they came, `left` when a client went away."""

    port: int = 0
    answers: dict[str, Answer] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    left: asyncio.Event = field(default_factory=asyncio.Event)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            request = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            self.requests.append(request)
            answer = self.answers[request.split(" ")[1]]
            if isinstance(answer, bytes):
                writer.write(answer)
                await writer.drain()
            else:
                await answer(self, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            self.left.set()
        finally:
            writer.close()

    def header(self, name: str, request: int = 0) -> str | None:
        for line in self.requests[request].split("\r\n")[1:]:
            key, _, value = line.partition(": ")
            if key.lower() == name:
                return value
        return None


@asynccontextmanager
async def serving(
    host: str = "127.0.0.1", port: int = 0, tls: ssl.SSLContext | None = None
) -> AsyncIterator[Site]:
    site = Site()
    server = await asyncio.start_server(site.serve, host, port, ssl=tls)
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
    """A resolver with a table; of several answers each is given once, the last for ever."""

    def __init__(self, **names: list[list[str]]) -> None:
        self.names = {name.replace("_", "."): answers for name, answers in names.items()}
        self.asked: list[str] = []

    async def __call__(self, host: str, port: int) -> list[str]:
        self.asked.append(host)
        if host not in self.names:
            raise OSError("no such name")
        answers = self.names[host]
        return answers.pop(0) if len(answers) > 1 else answers[0]


def getter(**options: Any) -> Any:
    """`http_get`, allowed to reach 127.0.0.1 and no other private address."""
    return http_tools(**{"allow": ["127.0.0.1/32"], **options})[0]


def ok(body: bytes, content_type: str = "text/plain", *headers: str) -> bytes:
    lines = ["HTTP/1.1 200 OK", f"Content-Type: {content_type}", f"Content-Length: {len(body)}"]
    return "\r\n".join([*lines, *headers, "", ""]).encode() + body


def redirect(location: str, status: int = 302) -> bytes:
    return f"HTTP/1.1 {status} Go\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n".encode()


async def silence(site: Site, writer: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


async def flood(site: Site, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n")
    while True:
        writer.write(b"x" * 10_000)
        await writer.drain()


# What is fetched


async def test_a_page_says_where_it_came_from_and_what_it_is(site: Site) -> None:
    site.answers["/a?b=1"] = ok("héllo".encode(), "text/html; charset=utf-8")
    url = f"http://127.0.0.1:{site.port}/a?b=1"

    assert await getter()(url) == Page(url, 200, "text/html", "héllo", 6, truncated=False)


async def test_an_error_status_is_a_page_too(site: Site) -> None:
    site.answers["/"] = b"HTTP/1.1 404 No\r\nContent-Length: 4\r\n\r\ngone"

    page = await getter()(f"http://127.0.0.1:{site.port}/")

    assert (page.status, page.text, page.content_type) == (404, "gone", "")


async def test_a_body_is_cut_at_the_limit_and_the_connection_closed(site: Site) -> None:
    site.answers["/"] = flood

    page = await getter(max_bytes=25_000)(f"http://127.0.0.1:{site.port}/")

    assert (page.bytes, len(page.text), page.truncated) == (25_000, 25_000, True)
    await asyncio.wait_for(site.left.wait(), 5)


async def test_a_body_of_exactly_the_limit_is_whole(site: Site) -> None:
    site.answers["/"] = ok(b"x" * 100)

    page = await getter(max_bytes=100)(f"http://127.0.0.1:{site.port}/")

    assert (page.bytes, page.truncated) == (100, False)


@pytest.mark.parametrize("pack", [gzip.compress, zlib.compress])
async def test_a_compressed_body_is_read(site: Site, pack: Callable[[bytes], bytes]) -> None:
    site.answers["/"] = ok(pack(b"hello " * 1000), "text/plain", "Content-Encoding: gzip")

    page = await getter()(f"http://127.0.0.1:{site.port}/")

    assert (page.text, page.truncated) == ("hello " * 1000, False)


async def test_a_compression_bomb_is_never_unpacked_past_the_limit(site: Site) -> None:
    bomb = gzip.compress(b"\0" * 200_000_000, 1)
    site.answers["/"] = ok(bomb, "text/plain", "Content-Encoding: gzip")
    get = getter(max_bytes=10_000)
    site.answers["/warm"] = ok(b"")
    await get(f"http://127.0.0.1:{site.port}/warm")

    tracemalloc.start()
    page = await get(f"http://127.0.0.1:{site.port}/")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert (page.bytes, page.truncated) == (10_000, True)
    assert peak < 4_000_000


async def test_half_a_compressed_body_is_marked_as_cut(site: Site) -> None:
    packed = gzip.compress(bytes(range(256)) * 100)
    site.answers["/"] = ok(packed[: len(packed) // 2], "text/plain", "Content-Encoding: gzip")

    assert (await getter()(f"http://127.0.0.1:{site.port}/")).truncated


@pytest.mark.parametrize("encoding", ["gzip", "br", "gzip, gzip"])
async def test_a_body_that_cannot_be_unpacked_is_an_error(site: Site, encoding: str) -> None:
    site.answers["/"] = ok(b"not packed", "text/plain", f"Content-Encoding: {encoding}")

    with pytest.raises(FetchFailed, match="damaged"):
        await getter()(f"http://127.0.0.1:{site.port}/")


@pytest.mark.parametrize(
    ("content_type", "body", "text"),
    [
        ("text/plain; charset=latin-1", b"caf\xe9", "café"),
        ("text/plain; charset=UTF-16", "hi".encode("utf-16"), "hi"),
        ("text/html", b'<meta charset="windows-1252">\x80', '<meta charset="windows-1252">€'),
        ("text/plain", b"\xff!", "\ufffd!"),
        ("text/plain; charset=no-such", b"abc", "abc"),
        ("text/plain; charset=unicode_escape", b"\\x41", "\\x41"),
        ("image/png", b"\x89PNG\r\n\0\0", ""),
        ("", b"plain", "plain"),
    ],
)
async def test_text_is_decoded_as_declared(
    site: Site, content_type: str, body: bytes, text: str
) -> None:
    site.answers["/"] = ok(body, content_type)

    page = await getter()(f"http://127.0.0.1:{site.port}/")

    assert (page.text, page.bytes) == (text, len(body))


async def test_a_codec_of_quadratic_time_is_not_used(site: Site) -> None:
    site.answers["/"] = ok(b"a-" + b"9" * 500_000, "text/plain; charset=punycode")

    assert (await getter()(f"http://127.0.0.1:{site.port}/")).bytes == 500_002


# Where it may go


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.8.9.1",
        "10.0.0.1",
        "172.16.0.1",
        "192.168.1.1",
        "100.64.0.1",
        "169.254.169.254",
        "192.0.0.192",
        "168.63.129.16",
        "198.18.0.1",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "0.0.0.0",
        "[::]",
        "[::1]",
        "[::127.0.0.1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:a00:1]",
        "[64:ff9b::7f00:1]",
        "[64:ff9b:1::a00:1]",
        "[2002:7f00:1::]",
        "[2001:0:7f00:1::]",
        "[fe80::1]",
        "[fec0::1]",
        "[fc00::1]",
        "[fd00:ec2::254]",
        "[ff02::1]",
        "2130706433",
        "0x7f000001",
        "0x7f.1",
        "127.1",
        "127.0.0.1.",
        "localhost",
        "LOCALHOST",
    ],
)
async def test_addresses_that_are_not_public_are_refused(host: str) -> None:
    [get] = http_tools()

    with pytest.raises(AddressRefused) as refused:
        await get(f"http://{host}/")

    assert isinstance(refused.value, PermissionError)


@pytest.mark.parametrize("host", ["169.254.169.254", "[fd00:ec2::254]", "168.63.129.16", "0.0.0.0"])
async def test_metadata_services_are_refused_even_where_private_networks_are_allowed(
    host: str,
) -> None:
    [get] = http_tools(allow_private=True)

    with pytest.raises(AddressRefused, match="allow=") as refused:
        await get(f"http://{host}/")

    assert refused.value.host == host.strip("[]")


async def test_private_addresses_can_be_allowed(site: Site) -> None:
    site.answers["/"] = ok(b"here")
    [get] = http_tools(allow_private=True)

    assert (await get(f"http://localhost:{site.port}/")).text == "here"


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "ftp://site.example/",
        "data:text/plain,hello",
        "gopher://127.0.0.1:70/",
        "javascript:alert(1)",
        "//site.example/",
        "site.example",
        "/etc/passwd",
        "http://",
        "http:///path",
        "http://[::1",
        "http://site.example:99999/",
        "http://a b/",
        "http://0177.0.0.1/",
        "http://1.1.1.010/",
        "",
        "\0",
    ],
)
async def test_what_is_no_web_address_is_refused(url: str) -> None:
    with pytest.raises(FetchFailed):
        await getter()(url)


@pytest.mark.parametrize(
    "addresses", [["127.0.0.2"], ["127.0.0.1", "127.0.0.2"], ["::1"], ["127.0.0.1", "10.0.0.1"]]
)
async def test_a_name_is_refused_if_any_of_its_addresses_is(
    site: Site, addresses: list[str]
) -> None:
    site.answers["/"] = ok(b"inside")

    with pytest.raises(AddressRefused):
        await getter(resolver=Names(site_example=[addresses]))(f"http://site.example:{site.port}/")

    assert site.requests == []


async def test_the_connection_goes_to_the_address_that_was_checked() -> None:
    names = Names(site_example=[["127.0.0.1"], ["127.0.0.2"]])
    async with serving() as outside, serving("127.0.0.2", outside.port) as inside:
        outside.answers["/"] = ok(b"outside")
        inside.answers["/"] = ok(b"inside")

        page = await getter(resolver=names)(f"http://site.example:{outside.port}/")

    assert (page.text, inside.requests, names.asked) == ("outside", [], ["site.example"])
    assert outside.header("host") == f"site.example:{outside.port}"


async def test_a_name_that_changes_between_two_hops_is_checked_anew() -> None:
    names = Names(site_example=[["127.0.0.1"], ["127.0.0.2"]])
    async with serving() as outside, serving("127.0.0.2", outside.port) as inside:
        outside.answers["/"] = redirect("/again")
        inside.answers["/again"] = ok(b"inside")

        with pytest.raises(AddressRefused, match=r"'site\.example' is at 127\.0\.0\.2 \(loopback"):
            await getter(resolver=names)(f"http://site.example:{outside.port}/")

    assert inside.requests == []


@pytest.mark.parametrize(
    "location",
    ["http://127.0.0.2:{port}/", "http://evil.example:{port}/", "//127.0.0.2:{port}/"],
)
async def test_a_redirect_to_an_address_that_is_not_allowed_is_refused(location: str) -> None:
    names = Names(evil_example=[["127.0.0.2"]])
    async with serving() as outside, serving("127.0.0.2") as inside:
        inside.answers["/"] = ok(b"inside")
        outside.answers["/"] = redirect(location.format(port=inside.port))

        with pytest.raises(AddressRefused):
            await getter(resolver=names)(f"http://127.0.0.1:{outside.port}/")

    assert (len(outside.requests), inside.requests) == (1, [])


@pytest.mark.parametrize("location", ["file:///etc/passwd", "http://[", "http://2130706433/"])
async def test_a_redirect_to_anything_else_is_refused(site: Site, location: str) -> None:
    site.answers["/"] = redirect(location)

    with pytest.raises((FetchFailed, AddressRefused)):
        await getter()(f"http://127.0.0.1:{site.port}/")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirects_are_followed(site: Site, status: int) -> None:
    site.answers |= {"/a/b": redirect("../c?d#e", status), "/c?d": ok(b"there")}

    page = await getter()(f"http://127.0.0.1:{site.port}/a/b")

    assert (page.text, page.url) == ("there", f"http://127.0.0.1:{site.port}/c?d#e")


async def test_a_redirect_without_a_location_is_a_page(site: Site) -> None:
    site.answers["/"] = b"HTTP/1.1 302 Go\r\nContent-Length: 2\r\n\r\nhm"

    assert (await getter()(f"http://127.0.0.1:{site.port}/")).status == 302


async def test_a_loop_of_redirects_ends_at_the_limit(site: Site) -> None:
    site.answers["/"] = redirect("/")

    with pytest.raises(FetchFailed, match="more than 3 redirects"):
        await getter(max_redirects=3)(f"http://127.0.0.1:{site.port}/")

    assert len(site.requests) == 4


async def test_the_next_address_is_tried_when_the_first_does_not_answer(site: Site) -> None:
    site.answers["/"] = ok(b"second")
    get = getter(allow=["127.0.0.0/8"], resolver=Names(site_example=[["127.0.0.2", "127.0.0.1"]]))

    assert (await get(f"http://site.example:{site.port}/")).text == "second"


async def test_proxies_of_the_environment_are_not_used(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    site.answers["/"] = ok(b"direct")

    assert (await getter()(f"http://127.0.0.1:{site.port}/")).text == "direct"


def test_allow_takes_networks_only() -> None:
    with pytest.raises(DefinitionError, match=r"10\.1\.0\.0/16"):
        http_tools(allow=["site.example"])


# Secrets


async def test_credentials_go_to_their_own_origin_only(site: Site) -> None:
    async with serving() as other:
        site.answers |= {"/": redirect("/same"), "/same": redirect(f"//127.0.0.1:{other.port}/")}
        other.answers["/"] = ok(b"there")

        page = await getter()(f"http://me:p%40ss@127.0.0.1:{site.port}/")

    basic = "Basic bWU6cEBzcw=="
    assert [site.header("authorization", n) for n in (0, 1)] == [basic, basic]
    assert other.header("authorization") is None
    assert page.url == f"http://127.0.0.1:{other.port}/"


async def test_credentials_in_a_redirect_are_ignored(site: Site) -> None:
    site.answers |= {
        "/": redirect(f"http://you:hidden@127.0.0.1:{site.port}/next"),
        "/next": ok(b"there"),
    }

    page = await getter()(f"http://127.0.0.1:{site.port}/")

    assert site.header("authorization", 1) is None
    assert "hidden" not in page.url


@pytest.mark.parametrize(
    "url",
    [
        "http://me:hidden@127.0.0.1:1/?key=hidden",
        "http://me:hidden@no.example/",
        "http://me:hidden@[bad/",
        "http://me:hid/hidden@site.example/",
        "ftp://me:hidden@site.example/",
        "http://me:hidden@10.0.0.1/",
    ],
)
async def test_errors_do_not_tell_secrets(url: str) -> None:
    with pytest.raises((FetchFailed, AddressRefused)) as failed:
        await getter(resolver=Names())(url)

    assert "hidden" not in str(failed.value)
    assert "hidden" not in repr(vars(failed.value))


# Time, and servers that misbehave


@pytest.mark.virtual
async def test_a_server_that_falls_silent_is_left(site: Site) -> None:
    site.answers["/"] = silence

    with pytest.raises(FetchFailed, match="fell silent"):
        await getter(idle_timeout="3s")(f"http://127.0.0.1:{site.port}/")

    assert asyncio.get_running_loop().time() == pytest.approx(3)


@pytest.mark.virtual
async def test_a_server_that_trickles_is_left_at_the_total_limit(site: Site) -> None:
    async def trickle(site: Site, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            writer.write(b".")
            await writer.drain()
            await asyncio.sleep(1)

    site.answers["/"] = trickle

    with pytest.raises(FetchFailed, match="within 20 s"):
        await getter(timeout="20s")(f"http://127.0.0.1:{site.port}/")

    assert asyncio.get_running_loop().time() == pytest.approx(20)


@pytest.mark.virtual
async def test_a_handshake_that_never_ends_is_left(site: Site) -> None:
    with pytest.raises(FetchFailed, match="could not connect in time"):
        await getter(connect_timeout="2s")(f"https://127.0.0.1:{site.port}/")

    assert asyncio.get_running_loop().time() == pytest.approx(2)


@pytest.mark.virtual
async def test_a_resolver_that_never_answers_is_left() -> None:
    async def stuck(host: str, port: int) -> list[str]:
        await asyncio.Event().wait()
        return []

    with pytest.raises(FetchFailed, match="within 5 s"):
        await getter(timeout=5, resolver=stuck)("http://site.example/")


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: " + b"y" * 300_000 + b"\r\n\r\n",
    ],
)
async def test_an_answer_that_breaks_off_or_is_none_is_an_error(site: Site, answer: bytes) -> None:
    site.answers["/"] = answer

    with pytest.raises(FetchFailed):
        await getter()(f"http://127.0.0.1:{site.port}/")


@pytest.mark.parametrize(
    ("names", "message"),
    [({}, "was not found"), ({"site_example": [[]]}, "no address")],
)
async def test_a_name_without_an_address_is_an_error(names: dict[str, Any], message: str) -> None:
    with pytest.raises(FetchFailed, match=message):
        await getter(resolver=Names(**names))("http://site.example/")


async def test_cancelling_closes_the_connection(site: Site) -> None:
    started = asyncio.Event()

    async def wait(site: Site, writer: asyncio.StreamWriter) -> None:
        started.set()
        await flood(site, writer)

    site.answers["/"] = wait
    task = asyncio.ensure_future(getter(max_bytes=2**40)(f"http://127.0.0.1:{site.port}/"))
    await started.wait()
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.wait_for(site.left.wait(), 5)


# TLS


async def test_the_certificate_is_checked_for_the_name_not_the_address() -> None:
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(CERTIFICATE)
    seen: list[str | None] = []
    server.sni_callback = lambda _socket, name, _context: seen.append(name)
    names = Names(site_example=[["127.0.0.1"]], other_example=[["127.0.0.1"]])
    trusting = ssl.create_default_context(cafile=str(CERTIFICATE))
    get = getter(resolver=names, ssl_context=trusting)

    async with serving(tls=server) as site:
        site.answers["/"] = ok(b"secure")
        page = await get(f"https://site.example:{site.port}/")
        with pytest.raises(FetchFailed, match="could not connect"):
            await get(f"https://other.example:{site.port}/")

    assert (page.text, seen) == ("secure", ["site.example", "other.example"])
