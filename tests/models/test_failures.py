"""Every error of the client library and of its HTTP library is mapped, once."""

from __future__ import annotations

import inspect
import subprocess
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

from agentflow import _http
from agentflow.errors import BackendError
from agentflow.executor.models import failures

URL = "http://127.0.0.1:8000/v1"
KINDS = {
    "timeout",
    "connect_timeout",
    "pool_timeout",
    "unreachable",
    "broken",
    "bad_url",
    "bad_reply",
    "misuse",
}


def errors_of(module: ModuleType) -> Iterator[type[Exception]]:
    for name in module.__all__:
        value = getattr(module, name, None)
        if inspect.isclass(value) and issubclass(value, Exception):
            yield value


def families() -> list[ModuleType]:
    _http.module()
    return [sys.modules[name] for name in _http.FAMILIES if name in sys.modules]


def test_the_module_is_the_one_openai_uses() -> None:
    import openai

    bases = {cls.__module__.partition(".")[0] for cls in openai.DefaultAsyncHttpxClient.__mro__}

    assert _http.module().__name__ in bases


def test_every_error_class_of_the_http_library_is_mapped_by_its_own_name() -> None:
    missing = [
        f"{module.__name__}.{cls.__name__}"
        for module in families()
        for cls in errors_of(module)
        if cls.__name__ not in _http.KINDS
    ]

    assert not missing
    assert set(_http.KINDS.values()) == KINDS


def test_every_mapped_error_becomes_ours_and_names_the_url() -> None:
    for module in families():
        for cls in errors_of(module):
            error = failures.from_exception(_made(cls, module), URL)

            assert isinstance(error, BackendError), cls
            assert URL in str(error), cls


def test_an_error_of_nobody_we_know_is_not_mapped() -> None:
    assert failures.from_exception(ValueError("mine"), URL) is None


def test_every_error_of_openai_is_mapped() -> None:
    import openai

    names = [name for name in openai.__all__ if name.endswith("Error")]
    for name in names:
        cls = getattr(openai, name)
        error = failures.from_exception(_openai_error(cls), URL)

        assert isinstance(error, BackendError), name
    assert len(names) > 10


def test_asking_for_an_error_kind_imports_no_http_library() -> None:
    program = (
        "import sys; from agentflow import _http; _http.error_kind(ValueError());"
        "print(*sys.modules.keys() & {*_http.FAMILIES, 'openai'}, 'end')"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )

    assert done.stdout.split() == ["end"]


def _made(cls: type[Exception], module: ModuleType) -> Exception:
    if cls is module.HTTPStatusError:
        request = module.Request("POST", URL)
        made: Exception = cls("x", request=request, response=module.Response(500, request=request))
        return made
    error = cls.__new__(cls)
    Exception.__init__(error, "x")
    return error


def _openai_error(cls: type[Exception]) -> Any:
    error: Any = cls.__new__(cls)
    Exception.__init__(error, "x")
    if hasattr(cls, "__annotations__") and issubclass(cls, _status_error()):
        http = _http.module()
        error.response = http.Response(418, text="teapot", request=http.Request("POST", URL))
    return error


def _status_error() -> type[Exception]:
    import openai

    return openai.APIStatusError


@pytest.mark.parametrize(
    ("text", "quoted"),
    [("a\n  b", "a b"), ("x" * 201, "x" * 200 + "..."), ("", "")],
)
def test_a_quotation_is_one_short_line(text: str, quoted: str) -> None:
    assert failures.quote(text) == quoted
