"""What servers tell of themselves is read; what they do not tell, or tell wrongly, is unknown."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from typing import Any, Self

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow import _http
from agentflow.executor.affinity.metrics import (
    LARGEST,
    PATIENCE,
    Metrics,
    Poller,
    Reader,
    Sample,
    ServerState,
    llama_cpp,
    parse,
    sglang,
    vllm,
)
from agentflow.testing import Serving

pytestmark = pytest.mark.virtual

NOTHING = ServerState()

PAGE = """\
# HELP vllm:num_requests_running Number of requests (in execution).
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="a \\"b\\" {c} 1"} 3.0
vllm:num_requests_running{engine="1",model_name="a"} 4 1700000000000
vllm:num_requests_waiting{} 1e1
vllm:kv_cache_usage_perc{engine="0"} 0.25
vllm:kv_cache_usage_perc{engine="1"} 0.75
vllm:cache_config_info{block_size="16",cache_dtype="auto",num_gpu_blocks="1000"} 1.0
vllm:cache_config_info{block_size="16",cache_dtype="auto",num_gpu_blocks="500"} 1.0
vllm:prefix_cache_queries_total{engine="0"} 1000.0
vllm:prefix_cache_hits_total{engine="0"} 600.0
"""


def page(text: str) -> Metrics:
    return Metrics(text)


# The format


def test_labels_may_hold_quotes_and_braces() -> None:
    assert parse(PAGE)[0] == Sample(
        "vllm:num_requests_running", {"engine": "0", "model_name": 'a "b" {c} 1'}, 3.0
    )


def test_comments_and_lines_that_are_no_sample_are_left_out() -> None:
    assert parse("# a 1\n\nnonsense\na{b=\n1a 2\na x\na 2\n") == [Sample("a", {}, 2.0)]


def test_escapes_in_labels_are_undone() -> None:
    assert parse(r'a{b="\\n\n\"\t"} 1') == [Sample("a", {"b": '\\n\n"\\t'}, 1.0)]


@given(st.text())
def test_any_text_is_read_without_an_error(text: str) -> None:
    for state in (vllm(page(text)), sglang(page(text), {}), llama_cpp(page(text), {}, None)):
        assert state == NOTHING


_NAMES = st.sampled_from(sorted({sample.name for sample in parse(PAGE)} | {"sglang:token_usage"}))
_VALUES = st.one_of(st.floats().map(str), st.sampled_from(["NaN", "+Inf", "-Inf", "-1", "1e400"]))
_LABELS = st.sampled_from(["", "{}", '{block_size="16",num_gpu_blocks="x"}', '{block_size="-1"}'])


@given(st.lists(st.tuples(_NAMES, _LABELS, _VALUES)))
def test_numbers_that_cannot_be_are_unknown(lines: list[tuple[str, str, str]]) -> None:
    text = "\n".join(f"{name}{labels} {value}" for name, labels, value in lines)
    for state in (vllm(page(text)), sglang(page(text), {})):
        counts = (state.running, state.waiting, state.capacity, state.block, state.prefix_hits)
        assert all(count is None or (isinstance(count, int) and count >= 0) for count in counts)
        assert state.kv_usage is None or 0.0 <= state.kv_usage <= 1.0


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
_KEYS = st.sampled_from(
    ["max_total_num_tokens", "max_running_requests", "page_size", "server_info", "total_slots",
     "default_generation_settings", "n_ctx", "is_processing"]
)  # fmt: skip


@given(st.dictionaries(_KEYS, _JSON), st.lists(st.dictionaries(_KEYS, _JSON) | _JSON) | _JSON)
def test_any_answer_is_read_without_an_error(info: dict[str, Any], slots: Any) -> None:
    for state in (sglang(page(""), info), llama_cpp(page(""), info, slots)):
        assert state.capacity is None or state.capacity > 0
        assert state.slots is None or state.slots > 0


# Makes of servers


def test_engines_behind_one_vllm_server_are_added_up() -> None:
    assert vllm(page(PAGE)) == ServerState(
        running=7, waiting=10, kv_usage=0.5, capacity=24_000, block=16, prefix_queries=1000,
        prefix_hits=600,
    )  # fmt: skip


def test_the_names_of_older_vllm_servers_are_known() -> None:
    old = (
        "vllm:gpu_cache_usage_perc 0.5\n"
        "vllm:gpu_prefix_cache_queries_total 10\nvllm:gpu_prefix_cache_hits_total 4\n"
    )
    assert vllm(page(old)) == ServerState(kv_usage=0.5, prefix_queries=10, prefix_hits=4)


@pytest.mark.parametrize("nested", [False, True])
def test_sglang_tells_its_sizes_at_the_top_or_one_level_below(nested: bool) -> None:
    said = {"max_total_num_tokens": 5000, "page_size": 1, "max_running_requests": 64}
    state = sglang(
        page("sglang:num_running_reqs 2\nsglang:num_queue_reqs 1\nsglang:token_usage 0.1"),
        {"server_info": said} if nested else said,
    )
    assert state == ServerState(
        running=2, waiting=1, kv_usage=0.1, capacity=5000, slots=64, block=1
    )


def test_llama_cpp_tells_by_its_slots() -> None:
    slots = [{"id": i, "n_ctx": 8192, "is_processing": i == 2} for i in range(4)]
    assert llama_cpp(page(""), {}, slots) == ServerState(running=1, capacity=32_768, slots=4)
    props = {"default_generation_settings": {"n_ctx": 8192}, "total_slots": 4}
    assert llama_cpp(page(""), props, None) == ServerState(capacity=32_768, slots=4)


def test_llama_cpp_counts_what_it_computed_apart_from_what_it_had() -> None:
    told = "llamacpp:prompt_tokens_total 100\nllamacpp:prompt_tokens_cached_total 300\n"
    state = llama_cpp(page(told + "llamacpp:requests_deferred 2"), {}, None)
    assert (state.prefix_queries, state.prefix_hits, state.waiting) == (400, 300, 2)


# Reading


SERVING = Serving(prefill=1000.0, step=0.01, capacity=10_240, block=16, slots=4)


@pytest.mark.parametrize("server", ["vllm", "sglang", "llama.cpp"])
async def test_a_server_of_each_make_tells_what_it_holds(world: Any, server: Any) -> None:
    url = world.replica("a", SERVING, server=server)
    state = await Reader(world.http, url, {}, server).state()
    assert state is not None and state.capacity == 10_240
    assert (state.running, state.waiting) == (0, 0)
    assert state.slots == (None if server == "vllm" else 4)


async def test_of_other_makes_nothing_is_asked(world: Any) -> None:
    url = world.replica("a")
    assert await Reader(world.http, url, {}, "unknown").state() is None


async def test_a_server_without_pages_tells_nothing(world: Any) -> None:
    url = world.replica("a")
    assert await Reader(world.http, url, {}, "vllm").state() == NOTHING


async def test_a_server_that_is_gone_tells_nothing(world: Any) -> None:
    url = world.replica("a", server="vllm")
    world["a"].kill()
    assert await Reader(world.http, url, {}, "vllm").state() == NOTHING


class Says:
    """A transport that answers every request in the same way."""

    def __init__(self, body: bytes, status: int = 200, wait: float = 0.0) -> None:
        self.answer = (body, status, wait)
        self.asked: list[Any] = []

    async def handle_async_request(self, request: Any) -> Any:
        body, status, wait = self.answer
        self.asked.append(request)
        await asyncio.sleep(wait)
        return _http.module().Response(status, content=body)

    async def aclose(self) -> None: ...

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_exc: object) -> None: ...


async def said(transport: Says, server: str = "vllm") -> ServerState | None:
    async with _http.client(transport=transport) as http:
        return await Reader(http, "http://a/v1", {"authorization": "Bearer k"}, server).state()


async def test_pages_lie_beside_the_api_and_are_asked_for_with_the_key() -> None:
    transport = Says(PAGE.encode())
    await said(transport)
    (request,) = transport.asked
    assert str(request.url) == "http://a/metrics"
    assert request.headers["authorization"] == "Bearer k"


async def test_a_page_that_takes_too_long_is_not_waited_for() -> None:
    began = asyncio.get_running_loop().time()
    assert await said(Says(PAGE.encode(), wait=3600)) == NOTHING
    assert asyncio.get_running_loop().time() - began == pytest.approx(PATIENCE)


@pytest.mark.parametrize("server", ["vllm", "sglang", "llama.cpp"])
@pytest.mark.parametrize(
    "body",
    [b"<html>502</html>", b"\xff\xfe\x00", b"[" * 100_000, b'{"a":' * 100_000, b"null", b"[1]"],
)
async def test_whatever_a_page_says_no_error_comes_of_it(server: str, body: bytes) -> None:
    assert await said(Says(body), server) == NOTHING


async def test_a_page_that_does_not_end_is_not_read() -> None:
    assert await said(Says(PAGE.encode() + b"#" * LARGEST)) == NOTHING


async def test_a_refusal_is_no_page() -> None:
    assert await said(Says(PAGE.encode(), status=401)) == NOTHING


# Looking now and then

WHOSE = ContextVar("whose", default="nobody's")


class Counting:
    """A server that tells how often it was looked at."""

    def __init__(self, wait: float = 0.0) -> None:
        self.looks = 0
        self.wait = wait

    async def state(self) -> ServerState | None:
        self.looks += 1
        await asyncio.sleep(self.wait)
        return ServerState(running=self.looks)


async def test_servers_are_looked_at_in_rounds_while_there_is_something_to_do() -> None:
    servers = {"a": Counting(), "b": Counting()}
    told: list[tuple[str, int | None]] = []
    busy = True
    poller = Poller(
        servers.items, lambda name, state: told.append((name, state.running)), lambda: busy, 5.0
    )
    poller.wake()
    poller.wake()
    await asyncio.sleep(12.0)
    assert told == [("a", 1), ("b", 1), ("a", 2), ("b", 2), ("a", 3), ("b", 3)]
    busy = False
    await asyncio.sleep(60.0)
    assert len(told) == 6
    busy = True
    poller.wake()
    await asyncio.sleep(1.0)
    assert told[6:] == [("a", 4), ("b", 4)]
    await poller.aclose()


async def test_a_server_that_does_not_answer_delays_no_look_at_another() -> None:
    servers = {"a": Counting(wait=60.0), "b": Counting()}
    told: list[str] = []
    poller = Poller(servers.items, lambda name, _: told.append(name), lambda: True)
    poller.wake()
    await asyncio.sleep(1.0)
    assert told == ["b"]
    await poller.aclose()


async def test_closing_ends_a_look_in_the_middle() -> None:
    server = Counting(wait=3600.0)
    poller = Poller(lambda: [("a", server)], lambda *_: pytest.fail("told"), lambda: True)
    poller.wake()
    await asyncio.sleep(1.0)
    await poller.aclose()
    assert server.looks == 1


async def test_a_look_keeps_nothing_of_the_run_that_asked_for_it() -> None:
    seen: list[str] = []

    class Looking(Counting):
        async def state(self) -> ServerState | None:
            seen.append(WHOSE.get())
            return None

    WHOSE.set("a run's")
    poller = Poller({"a": Looking()}.items, lambda *_: None, lambda: True)
    poller.wake()
    await asyncio.sleep(1.0)
    await poller.aclose()

    assert seen == ["nobody's"]


async def test_a_poller_that_never_began_closes() -> None:
    await Poller(list, lambda *_: None, lambda: True).aclose()
