"""What a request says to servers of each make beside the chat completions API."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from agentflow.caches.affinity.dispatcher import Dispatcher
from agentflow.caches.affinity.policies import Sticky
from agentflow.errors import DefinitionError
from agentflow.executor.affinity.dialects import (
    DIALECTS,
    LAST,
    LLAMA_CPP,
    OPENAI,
    SGLANG,
    UNKNOWN,
    VLLM,
    Dialect,
    Template,
    asked,
    dialect_of,
    rank_of,
)
from agentflow.executor.affinity.manners import Manners
from agentflow.executor.models import probe
from agentflow.executor.models.base import ChatRequest, SessionTag
from agentflow.executor.models.probe import Endpoint
from agentflow.testing import ChatCall, Fault

pytestmark = pytest.mark.virtual

TAG = SessionTag("run-7/react/1", tenant="acme", began=50.0)


def ranked(dialect: Dialect) -> Dialect:
    return Dialect(
        name=dialect.name, rank=dialect.rank, lower_first=dialect.lower_first, by_rank=True
    )


def test_an_unknown_server_is_sent_nothing() -> None:
    assert UNKNOWN.fields(TAG, optional=True, slot=3) == ({}, {})


def test_a_server_that_was_not_seen_to_order_its_queue_is_sent_no_rank() -> None:
    for dialect in DIALECTS.values():
        assert "priority" not in dialect.fields(TAG)[1]


def test_tenants_do_not_share_a_cache_where_the_server_can_keep_them_apart() -> None:
    for dialect in (VLLM, SGLANG):
        salts = {
            dialect.fields(SessionTag("s", tenant))[1].get("cache_salt") for tenant in ("a", "b")
        }
        assert len(salts) == 2 and None not in salts
    assert "cache_salt" not in VLLM.fields(SessionTag("s"))[1]


def test_what_is_sent_tells_no_names_and_is_short() -> None:
    long = SessionTag("run/" + "x" * 500, tenant="acme")
    for dialect in DIALECTS.values():
        for value in dialect.fields(long)[1].values():
            assert "acme" not in str(value) and len(str(value)) <= 64


def test_who_knows_a_tenant_but_not_the_key_does_not_know_its_salt() -> None:
    salts = [
        VLLM.fields(TAG, secret=secret)[1]["cache_salt"] for secret in ("", "one", "other", "one")
    ]
    assert len(set(salts)) == 3 and salts[1] == salts[3]


ODD = SessionTag("caf\udce9/1", tenant="caf\udce9")
TEMPLATE = Template(headers={"x": "{session}"}, body={"y": "{tenant}", "z": "{parent}"})


@pytest.mark.parametrize("dialect", [*DIALECTS.values(), TEMPLATE])
def test_names_that_are_no_unicode_are_sent_and_told_apart(dialect: Any) -> None:
    other = SessionTag("caf\udcea/1", tenant="caf\udcea")

    one, two = (json.dumps(dialect.fields(tag), ensure_ascii=False) for tag in (ODD, other))

    assert one.encode() != two.encode() or dialect in (UNKNOWN, LLAMA_CPP)


def test_requests_of_one_session_have_one_key_and_others_another() -> None:
    one, again, other = (
        OPENAI.fields(tag)[1]["prompt_cache_key"]
        for tag in (TAG, SessionTag(TAG.id, "acme", began=60.0), SessionTag("run-8/react/1"))
    )
    assert one == again != other


def test_a_slot_is_named_only_where_slots_are_to_be_chosen() -> None:
    assert LLAMA_CPP.fields(TAG, slot=0)[1] == {"cache_prompt": True, "id_slot": 0}
    assert LLAMA_CPP.fields(TAG)[1] == {"cache_prompt": True}
    assert "id_slot" not in VLLM.fields(TAG, slot=0)[1]


def test_programs_keep_the_order_they_began_in_and_tight_deadlines_go_first() -> None:
    old, young = SessionTag("a", began=10.0), SessionTag("b", began=20.0)
    tight = SessionTag("c", began=20.0, deadline=100.0, remaining=30.0)
    loose = SessionTag("d", began=20.0, deadline=10_000.0)

    order = sorted([loose, young, old, tight], key=rank_of)

    assert [tag.id for tag in order] == ["c", "a", "b", "d"]
    assert rank_of(old, optional=True) == LAST > rank_of(loose)


def test_a_deadline_that_never_comes_is_none_and_what_is_no_number_goes_last() -> None:
    never = SessionTag("a", began=10.0, deadline=math.inf)
    odd = SessionTag("b", began=10.0, deadline=60.0, remaining=math.nan)
    past = SessionTag("c", began=10.0, deadline=-math.inf)

    assert rank_of(never) == rank_of(SessionTag("d", began=10.0))
    assert rank_of(past) == 0
    assert rank_of(never) < rank_of(odd) < LAST


def test_the_first_in_the_queue_has_the_lowest_rank_at_vllm_and_the_highest_at_sglang() -> None:
    old, young = SessionTag("a", began=10.0), SessionTag("b", began=20.0)
    rank = {
        (dialect.name, tag.id): ranked(dialect).fields(tag)[1]["priority"]
        for dialect in (VLLM, SGLANG)
        for tag in (old, young)
    }
    assert rank["vllm", "a"] < rank["vllm", "b"]
    assert rank["sglang", "a"] > rank["sglang", "b"]


@pytest.mark.parametrize("server", ["vllm", "sglang", "llama.cpp", "openai"])
def test_each_server_the_probe_knows_has_a_dialect(server: str) -> None:
    assert dialect_of(Endpoint("http://a/v1", server, "", ())).name == server


def test_a_server_without_a_dialect_is_unknown() -> None:
    assert dialect_of(Endpoint("http://a/v1", "agentflow", "", ())) is UNKNOWN


# Templates


def test_a_template_fills_headers_and_fields_of_any_depth() -> None:
    template = Template(
        headers={"X-Dynamo-Session-ID": "{session}", "X-Dynamo-Parent-Session-ID": "{parent}"},
        body={"nvext": {"hints": [{"priority": "{priority}", "user": "u-{tenant}"}]}, "n": 1},
    )
    headers, body = template.fields(TAG)
    assert headers == {
        "X-Dynamo-Session-ID": "run-7/react/1",
        "X-Dynamo-Parent-Session-ID": "run-7",
    }
    assert body == {"nvext": {"hints": [{"priority": 350, "user": "u-acme"}]}, "n": 1}


def test_a_header_that_would_be_empty_is_left_out() -> None:
    assert Template(headers={"x-user-id": "{tenant}"}).fields(SessionTag("s")) == ({}, {})


def test_no_name_can_end_a_header() -> None:
    headers, _ = Template(headers={"x-user-id": "{session}"}).fields(
        SessionTag("a\r\nx-admin: 1 ü")
    )
    assert headers == {"x-user-id": "a%0D%0Ax-admin:%201%20%C3%BC"}


@pytest.mark.parametrize("text", ["{sesion}", "{Tenant}", "a {prio} b", "{session_id}"])
def test_a_name_that_is_nearly_one_is_refused_at_once(text: str) -> None:
    with pytest.raises(DefinitionError, match=r"Did you mean \{(session|tenant|priority)\}"):
        Template(body={"a": [{"b": (text,)}]})
    with pytest.raises(DefinitionError, match="Did you mean"):
        Template(headers={"x": text})


def test_other_braces_stay() -> None:
    texts = ['{"x": {}}', "{user}", "{", "{{}}", "\\{0}"]
    assert Template(body={"a": texts}).fields(TAG)[1] == {"a": texts}


def test_tuples_are_lists() -> None:
    assert Template(body={"a": ("{session}", 1)}).fields(TAG)[1] == {"a": [TAG.id, 1]}


@pytest.mark.parametrize(
    "headers",
    [{"x\r\ny": "1"}, {"x": "1\r\ny: 2"}, {"x y": "1"}, {"": "1"}, {"x": "ü"}, {"x": "1\n"}],
)
def test_what_would_break_a_header_is_refused_at_once(headers: Any) -> None:
    with pytest.raises(DefinitionError, match="cannot be sent as a header"):
        Template(headers=headers)


@pytest.mark.parametrize("value", [math.nan, b"x", {1, 2}, "caf\udce9"])
def test_a_body_that_is_no_json_is_refused_at_once(value: Any) -> None:
    with pytest.raises(DefinitionError, match="no JSON"):
        Template(body={"a": [value]})


def test_a_name_is_no_template_itself() -> None:
    headers, body = Template({"x": "{session}"}, {"y": "{session}"}).fields(
        SessionTag("{tenant}", "acme")
    )
    assert body == {"y": "{tenant}"} and headers == {"x": "%7Btenant%7D"}


async def test_a_pool_with_an_api_key_has_salts_of_its_own(world: Any) -> None:
    url = world.replica("a")

    async def salt(**headers: str) -> Any:
        fleet = Dispatcher(Sticky()).fleet
        manners = Manners(world.http, url, headers, fleet, "a", VLLM)
        async with manners.request(ChatRequest(messages=[], session=TAG), "s") as sent:
            assert sent.extra_body is not None
            return sent.extra_body["cache_salt"]

    one, again, none = (
        await salt(authorization="Bearer one"),
        await salt(Authorization="Bearer one"),
        await salt(),
    )
    assert one == again != none


# What is detected


async def detected(world: Any, **options: Any) -> Dialect:
    return await detect(world.http, world.replica("a", **options))


async def detect(http: Any, url: str) -> Dialect:
    return await asked(await probe.look(http, url, {}), http, {})


async def test_a_vllm_server_that_takes_a_priority_orders_by_it(world: Any) -> None:
    assert (await detected(world, server="vllm", priorities=True)).by_rank
    assert world["a"].requests[-1].body["max_tokens"] == 1


async def test_one_that_refuses_it_does_not(world: Any) -> None:
    assert not (await detected(world, server="vllm", priorities=False)).by_rank


async def test_a_vllm_server_that_takes_sessions_is_told_them(world: Any) -> None:
    dialect = await detected(world, server="vllm", strict=True)
    _, body = dialect.fields(TAG)
    _, again = dialect.fields(TAG)
    assert body["session_id"] == again["session_id"] != TAG.id


async def test_one_that_does_not_know_sessions_is_told_nothing_of_them(world: Any) -> None:
    def older(call: ChatCall) -> Any:
        return Fault.status(400, "Extra inputs") if "session_id" in call.body else "Hello."

    assert await detected(world, model=older, server="vllm") == VLLM
    assert "session_id" not in VLLM.fields(TAG)[1]


def test_each_attempt_at_sglang_has_a_name_of_its_own_that_begins_as_its_session_does() -> None:
    said = [SGLANG.fields(tag)[1] for tag in (TAG, TAG, None, None)]
    names = [body["rid"] for body in said]
    assert len({*names}) == 4
    sessions = [name.rpartition("_t")[0] for name in names]
    assert sessions[:2] == [said[0]["session_id"]] * 2
    assert len({*sessions}) == 3


async def test_every_attempt_of_a_request_goes_to_sglang_under_another_name(world: Any) -> None:
    pool = world.pool("ab", dialect="sglang")
    for name in "ab":
        world[name].fail(Fault.status(500), times=1)
    await pool.complete(
        ChatRequest(messages=[{"role": "user", "content": "Who?"}], session=TAG, max_tokens=4)
    )
    names = [request.body["rid"] for name in "ab" for request in world[name].requests]
    assert len(names) == len({*names}) == 3


async def test_one_that_breaks_when_asked_does_not(world: Any) -> None:
    url = world.replica("a", server="vllm", priorities=True)
    world["a"].fail(Fault.status(500))
    assert await detect(world.http, url) == VLLM


async def test_other_servers_are_known_by_what_they_say_and_asked_nothing(world: Any) -> None:
    assert await detected(world, server="llama.cpp") is LLAMA_CPP
    assert world["a"].requests == []


@pytest.mark.parametrize("server", ["vllm", "sglang", "llama.cpp", "openai", None])
async def test_what_is_detected_is_understood(world: Any, server: Any) -> None:
    url = world.replica("a", server=server, priorities=True, strict=True)
    dialect = await detect(world.http, url)
    for optional in (False, True):
        headers, body = dialect.fields(TAG, optional=optional, slot=1)
        message = {"role": "user", "content": "hello"}
        response = await world.http.post(
            url + "/chat/completions",
            headers=headers,
            json={"model": "modelled", "messages": [message], "max_tokens": 4, **body},
        )
        assert response.status_code == 200, response.text
