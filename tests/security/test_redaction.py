"""What is known to be secret is masked in every spelling, and nothing else is."""

from __future__ import annotations

import base64
import dataclasses
import json
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, SecretBytes, SecretStr

from agentflow import Engine, errors, redaction
from agentflow.redaction import (
    MASK,
    conceal,
    conceal_headers,
    conceal_url,
    conceal_values,
    holds_secret,
    redact,
    redacted,
    without_credentials,
)
from agentflow.wording import described

KEY = "sk-canary-4f1f6e2b9c"


def test_a_text_without_a_secret_is_the_same_object() -> None:
    text = "nothing to see here"
    assert redact(text) is text
    conceal(KEY)
    assert redact(text) is text


@pytest.mark.parametrize(
    "secret", [KEY, 'with "quotes" and \\ 1', "spaces é 漢字 1", "tab\tline\n9"]
)
def test_a_secret_is_found_in_every_spelling(secret: str) -> None:
    conceal(secret)

    spellings = [
        secret,
        json.dumps(secret),
        json.dumps(secret, ensure_ascii=False),
        json.dumps({"a": [secret]}),
        repr(secret),
        repr(secret.encode()),
        f"https://x/?q={quote(secret, safe='')}",
    ]

    assert [MASK in redact(f"before {text} after") for text in spellings] == [True] * 7
    for text in spellings:
        assert not holds_secret(redact(text).encode())
        assert holds_secret(text.encode())


@given(st.text(), st.recursive(st.text() | st.integers() | st.floats(), st.lists))
def test_masked_json_is_json(secret: str, value: Any) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(redaction, "_known", redaction._Known())
        conceal(secret)
        for ensure_ascii in (True, False):
            json.loads(redact(json.dumps([value, secret, 123456789012], ensure_ascii=ensure_ascii)))


@pytest.mark.parametrize(
    "word", ["", "none", "EMPTY", "anything", "12345678", "1.234567e+10", MASK]
)
def test_words_and_numbers_are_no_secrets(word: str) -> None:
    conceal(word)
    assert redact(f"it is {word}.") == f"it is {word}."


def test_the_longest_of_two_secrets_is_masked_as_a_whole() -> None:
    conceal("sk-canary", "sk-canary-and-more")
    assert redact("sk-canary-and-more") == MASK


def test_what_a_url_has_of_credentials_is_secret() -> None:
    conceal_url("https://somebody:pass%2Fword-9@host/v1?api_key=query-key-1&model=gpt-large-1")

    basic = base64.b64encode(b"somebody:pass/word-9").decode()
    for secret in ("somebody:pass%2Fword-9", "pass/word-9", "query-key-1", basic):
        assert redact(f"<{secret}>") == f"<{MASK}>"
    assert redact("gpt-large-1 at host for somebody") == "gpt-large-1 at host for somebody"


def test_a_text_that_is_no_url_is_no_trouble() -> None:
    conceal_url("http://[1:2")
    assert redact("http://[1:2") == "http://[1:2"


def test_headers_that_carry_keys_are_secret_and_others_are_not() -> None:
    conceal_headers(
        {"authorization": f"Bearer {KEY}", "X-Api-Key": "other-key-1", "X-Title": "my-app-1"}
    )

    assert redact(f"{KEY} other-key-1 my-app-1") == f"{MASK} {MASK} my-app-1"


class Login(BaseModel):
    user: str
    password: SecretStr


@dataclasses.dataclass
class Account:
    logins: list[Login]


@pytest.mark.parametrize(
    "value",
    [
        SecretStr(KEY),
        SecretBytes(KEY.encode()),
        Login(user="u", password=SecretStr(KEY)),
        {"a": [(Account([Login(user="u", password=SecretStr(KEY))]),)]},
    ],
)
def test_secrets_are_found_inside_of_arguments(value: Any) -> None:
    conceal_values(value)
    assert redact(f"{KEY} of u") == f"{MASK} of u"


def test_an_argument_that_holds_itself_is_no_trouble() -> None:
    loop: list[Any] = []
    loop.append(loop)
    conceal_values(loop)


def test_of_many_secrets_of_calls_the_last_ones_are_known() -> None:
    conceal(KEY)
    for number in range(redaction.PASSING + 1):
        conceal_values(SecretStr(f"passing-{number}-secret"))

    assert redact("passing-0-secret") == "passing-0-secret"
    assert redact("passing-1-secret") == MASK
    assert redact(KEY) == MASK


class Talkative:
    def __repr__(self) -> str:
        return f"<talks of {KEY}>"


class Broken:
    def __repr__(self) -> str:
        raise ValueError


def test_data_is_masked_all_the_way_down() -> None:
    conceal(KEY)
    broken, other = Broken(), Login(user="u", password=SecretStr(KEY))

    masked = redacted({KEY: [(KEY, 1, None, 2.5, True), Talkative(), broken, other]})

    assert masked == {MASK: [(MASK, 1, None, 2.5, True), f"<talks of {MASK}>", broken, other]}


def test_an_error_of_ours_never_carries_a_secret() -> None:
    conceal(KEY)

    raised = [
        errors.BackendError(f"said {KEY}", url=f"http://{KEY}@host"),
        errors.PlanError("unknown_tool", f"there is no {KEY}", at=3),
        errors.RunFailed(f"failed: {KEY}"),
        errors.DefinitionError(f"no {KEY}"),
        errors.CallTimeout(f"{KEY} took long", tool="t", seconds=1.0),
    ]

    for error in raised:
        assert KEY not in f"{error!r} {error} {vars(error)}"
        assert MASK in str(error)
    assert described(ValueError(KEY)) == f"ValueError: {MASK}"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://u:p@host:1/v1?key=x#y", "https://host:1/v1"),
        ("https://host/v1", "https://host/v1"),
        ("u:p@host/v1", "host/v1"),
        ("https://u:p@x@host", "https://host"),
    ],
)
def test_a_url_is_shown_without_credentials(url: str, shown: str) -> None:
    assert without_credentials(url) == shown


def test_an_engine_masks_its_key_before_it_asks_a_model() -> None:
    Engine(base_url="http://127.0.0.1:1/v1", model="m", api_key=KEY)
    assert redact(f"it says {KEY}") == f"it says {MASK}"
