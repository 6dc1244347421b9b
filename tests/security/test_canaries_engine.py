"""Secrets of arguments, results and settings are in no event, digest, file, prompt or repr."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, SecretStr

from agentflow import Context, Engine, Task, tool, workflow
from agentflow.caches.speculation.policy import Speculation
from agentflow.errors import ArgumentError, BackendError, DefinitionError, RunFailed
from agentflow.executor.affinity.dialects import Template
from agentflow.executor.models.base import ChatRequest
from agentflow.executor.models.client import OpenAIBackend
from agentflow.planner.canonical import canonical
from agentflow.redaction import conceal, redact
from agentflow.settings import Settings
from agentflow.testing import Call, ScriptedServer
from agentflow.tools.values import as_text

Places = Callable[[Path, str], list[str]]

KEY = "sk-canary-4f1f6e2b9c"
TOKEN = "hunter2-canary-77"
NOWHERE = Context()


class Session(BaseModel):
    user: str
    token: SecretStr


@tool(pure=True)
async def opened(user: str, token: SecretStr) -> Session:
    """Opens a session."""
    return Session(user=user, token=token)


@tool(pure=True)
async def length(token: SecretStr) -> int:
    """Tells how long a secret is."""
    return len(token.get_secret_value())


@tool(writes="mail", idempotent=True)
async def keyed(token: SecretStr, n: int = 0, *, ctx: Context = NOWHERE) -> str:
    """Gives its idempotency key."""
    return ctx.idempotency_key


@tool(pure=True)
async def copied(text: str) -> str:
    """Gives a text back."""
    return text


def told(events: list[Any]) -> str:
    """All that is told of events, as data."""
    return json.dumps([event.as_dict() for event in events], default=str)


async def test_a_secret_argument_and_a_secret_result(tmp_path: Path, places: Places) -> None:
    @workflow
    async def main() -> int:
        session = opened("u", SecretStr(TOKEN))
        return await length((await session).token)

    events: list[Any] = []
    async with Engine(cache=tmp_path, subscribers=[events.append]) as engine:
        assert await engine.run(main) == len(TOKEN)

    assert TOKEN not in told(events)
    assert "<SecretStr>" in told(events)
    assert places(tmp_path, TOKEN) == []


async def test_equal_calls_with_a_secret_are_one_and_others_are_not() -> None:
    made: list[str] = []

    @tool(pure=True)
    async def noted(token: SecretStr) -> str:
        made.append(token.get_secret_value())
        return "done"

    @workflow
    async def main() -> None:
        calls = [noted(SecretStr(text)) for text in ("one-secret", "one-secret", "two-secret")]
        for call in calls:
            await call

    async with Engine(cache=False) as engine:
        await engine.run(main)

    assert sorted(made) == ["one-secret", "two-secret"]


async def test_results_of_calls_with_other_secrets_are_not_mistaken(tmp_path: Path) -> None:
    @workflow
    async def main(token: str) -> int:
        return await length(SecretStr(token))

    async with Engine(cache=tmp_path) as engine:
        assert await engine.run(main, "short-one") == 9
        assert await engine.run(main, "a-longer-one") == 12


async def test_an_idempotency_key_does_not_depend_on_the_secret() -> None:
    @workflow
    async def main(token: str) -> list[str]:
        return [await keyed(SecretStr(token)), await keyed(SecretStr(token), n=1)]

    async with Engine() as engine:
        one, other = await engine.run(main, TOKEN), await engine.run(main, "another-secret")

    steps = [[key.partition(":")[2] for key in keys] for keys in (one, other)]
    assert steps[0] == steps[1]
    assert steps[0][0] != steps[0][1]


async def test_a_literal_secret_in_a_plan_is_masked() -> None:
    events: list[Any] = []
    async with Engine(tools=[length, copied], subscribers=[events.append]) as engine:
        value = await engine.run(engine.plan(f'$1 = length("{TOKEN}")\nreturn $1'))

    assert value == len(TOKEN)
    assert TOKEN not in told(events)
    assert '$1 = length(\\"**********\\")' in told(events)


async def test_a_secret_that_is_refused_is_not_quoted() -> None:
    @tool(pure=True)
    async def strict(token: SecretStr, n: int) -> int:
        return n

    with pytest.raises(ArgumentError) as caught:
        strict.signature.validate((), {"token": TOKEN, "n": TOKEN})

    assert TOKEN not in str(caught.value)
    assert "argument 'n'" in str(caught.value)


async def test_a_model_is_shown_a_secret_result_masked() -> None:
    script: list[Any] = [Call("opened", {"user": "u", "token": TOKEN}), "done"]
    events: list[Any] = []
    async with (
        ScriptedServer(script) as server,
        Engine(
            tools=[opened], base_url=server.base_url, model="m", subscribers=[events.append]
        ) as engine,
    ):
        assert await engine.run(Task("Log in", strategy="react")) == "done"

    said = json.dumps(server.requests[-1].body["messages"])
    assert '"token": "**********"' in said.replace("\\", "")
    finished = [e.as_dict() for e in events if type(e).__name__ in ("NodeFinished", "PlanExtended")]
    assert TOKEN not in json.dumps(finished, default=str)


async def test_a_result_that_holds_a_known_key_is_kept_nowhere(
    tmp_path: Path, places: Places
) -> None:
    conceal(KEY)

    @workflow
    async def main() -> str:
        return await copied(f"it is {KEY}")

    events: list[Any] = []
    async with Engine(cache=tmp_path, subscribers=[events.append]) as engine:
        assert await engine.run(main) == f"it is {KEY}"

    assert KEY not in told(events)
    assert places(tmp_path, KEY) == []


async def test_a_failure_whose_text_has_the_key() -> None:
    conceal(KEY)

    @tool(pure=True)
    async def careless() -> str:
        raise ValueError(f"could not log in with {KEY}")

    @workflow
    async def inner() -> str:
        return await copied(await careless())

    @workflow
    async def main() -> str:
        return await inner()

    events: list[Any] = []
    async with Engine(subscribers=[events.append]) as engine:
        with pytest.raises(RunFailed) as caught:
            await engine.run(main)

    assert KEY not in f"{caught.value} {caught.value!r}"
    assert KEY not in told(events)


async def test_nothing_that_holds_a_key_shows_it() -> None:
    url = f"https://somebody:{KEY}@host.example/v1"
    backend = OpenAIBackend(url, "m", api_key=KEY, headers={"X-Api-Key": KEY})
    async with Engine(base_url=url, api_key=KEY, model="m") as engine:
        shown = [engine, engine.settings, engine.model(), backend, backend.url, copied]
        assert KEY not in f"{shown} {Settings((url,), KEY)}"


@pytest.mark.parametrize(
    "url",
    [f"http://host/v1?api_key={KEY}", f"ftp://u:{KEY}@host/v1", f"u:{KEY}@host", f"http://[{KEY}"],
)
def test_a_base_url_that_is_refused_is_not_quoted(url: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        OpenAIBackend(url, "m")

    assert KEY not in str(caught.value) or url.startswith("http://[")


def test_what_stands_in_a_prompt_is_masked() -> None:
    assert as_text({"session": Session(user="u", token=SecretStr(TOKEN))}) == (
        '{"session": {"user": "u", "token": "**********"}}'
    )
    assert as_text([SecretStr(TOKEN)]) == '["**********"]'


def test_keys_of_the_environment_are_known_before_they_are_used(tmp_path: Path) -> None:
    environ = {"OPENAI_API_KEY": KEY, "AGENTFLOW_BASE_URL": f"http://u:{TOKEN}@host/v1"}
    found = Settings.load(environ=environ, folder=tmp_path)

    with pytest.raises(DefinitionError) as caught:
        raise DefinitionError(f"{found.api_key} {found.base_url} {os.sep}")

    assert KEY not in str(caught.value)
    assert TOKEN not in str(caught.value)


@tool(writes="mail")
async def logged_in(token: SecretStr) -> str:
    """Raises its secret, and a key."""
    raise ValueError(f"{token.get_secret_value()} {KEY}")


async def test_a_journal_holds_no_secret(tmp_path: Path, places: Places) -> None:
    conceal(KEY)

    @workflow
    async def main(token: SecretStr, note: str) -> str:
        await keyed(token)
        with pytest.raises(ValueError, match=TOKEN):
            await logged_in(token)
        return await copied(note)

    @workflow
    async def plain(note: str) -> str:
        return await copied(note)

    async with Engine(tools=[keyed], journal=tmp_path / "journal.db", cache=False) as engine:
        assert await engine.run(main, SecretStr(TOKEN), KEY) == KEY
        assert await engine.run(plain, KEY) == KEY
        assert await engine.run(plain, "harmless") == "harmless"
        given: Any = TOKEN  # converted by its declaration
        assert await engine.run(main, given, f"large {KEY * 1000}")
        await engine.run(engine.plan(f'$1 = keyed("{TOKEN}")\nreturn $1'))

    kept = (tmp_path / "journal.db").read_bytes()
    assert kept.count(b"**********") > 3
    assert b'"lost":"copied gave a str' in kept
    with closing(sqlite3.connect(tmp_path / "journal.db")) as db:
        targets = [json.loads(row[0]) for row in db.execute("SELECT target FROM runs")]
    kept_arguments = [t["arguments"]["args"] for t in targets if "arguments" in t]
    assert kept_arguments == [["harmless"]]  # with asterisks for arguments a run could not go on
    assert places(tmp_path, KEY) == places(tmp_path, TOKEN) == []


def test_what_a_backend_is_given_to_send_is_secret() -> None:
    OpenAIBackend("http://host/v1", "m", api_key=KEY, headers={"X-Api-Key": TOKEN})
    assert redact(f"{KEY} {TOKEN}") == "********** **********"


def test_secrets_are_equal_when_what_they_hold_is() -> None:
    one, same, other = (canonical(SecretStr(text)) for text in (KEY, KEY, TOKEN))
    assert one == same
    assert one != other
    assert one != canonical(KEY)
    assert KEY not in repr(one)


def test_a_key_in_a_template_of_headers_is_secret() -> None:
    Template(headers={"X-Api-Key": KEY, "X-Routing-Key": "{session}"})
    assert redact(f"{KEY} and {{session}}") == "********** and {session}"


async def test_what_speculation_learns_holds_no_key(tmp_path: Path, places: Places) -> None:
    conceal(KEY)

    @tool(reads="web", ttl="1h")
    async def looked(text: str) -> str:
        return text

    @workflow
    async def main(n: int) -> int:
        await copied(str(n))
        await looked("a word of mine")
        await looked(KEY)
        return await length(SecretStr(TOKEN))

    memory = tmp_path / "learnt.json"
    async with Engine(speculation=Speculation(memory=memory)) as engine:
        for n in range(20):
            await engine.run(main, n)

    assert "a word of mine" in memory.read_text()
    assert places(tmp_path, KEY) == places(tmp_path, TOKEN) == []


async def test_a_redirected_request_does_not_take_the_key_along(parrot: Any) -> None:
    backend = OpenAIBackend(parrot.url("move"), "m", api_key=KEY)
    with pytest.raises(BackendError) as caught:
        await backend.complete(
            ChatRequest(messages=[{"role": "user", "content": "hi"}], max_tokens=1)
        )
    with pytest.raises(BackendError):
        await backend.probe()
    await backend.aclose()

    assert parrot.heard == [f"Bearer {KEY}"] * 2
    assert KEY not in str(caught.value)
