"""`llm`: a prompt template with a typed answer, called like any tool."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Coroutine, Mapping, Sequence
from functools import cached_property
from typing import Any, ParamSpec, Protocol, TypeVar, Unpack, overload

from agentflow.context import logged_node, run_scope
from agentflow.errors import AnswerInvalid, BackendError, BackendRejected, DefinitionError
from agentflow.errors import ModelRefusal as Refusal
from agentflow.events import TextDelta
from agentflow.executor.metering import MeteredModel
from agentflow.executor.models.base import ChatRequest, Delta, Message, Reply, TextPiece
from agentflow.executor.models.typed import AnswerType, feedback
from agentflow.executor.run import Run
from agentflow.tools.effects import SAMPLES
from agentflow.tools.policy import DEFAULT, Options
from agentflow.tools.tool import Tool
from agentflow.tools.values import as_text

P = ParamSpec("P")
R = TypeVar("R")

Check = Callable[[Any], "bool | str | None"]
"""Looks at an answer: true or None accepts it, false or a reason does not."""

_FIELD = re.compile(r"\{\{|\}\}|\{(\w*)\}")


class Prompted(Tool[P, R]):
    """A tool whose work is done by a model: its docstring is the prompt.

    Args:
        fn: Only its signature and docstring count; its body is not run.
        models: Names of models, tried in this order; empty for the engine's default.
        check: See `Check`.
        temperature: None leaves it to the backend.
        max_tokens: Upper bound of an answer.
        repairs: How often a model may correct an answer that does not fit its type.
        options: Fields of `Policy`.
        local: Names that annotations may use.
    """

    def __init__(
        self,
        fn: Callable[P, Any],
        *,
        models: Sequence[str],
        check: Check | None,
        temperature: float | None,
        max_tokens: int,
        repairs: int,
        options: Mapping[str, Any],
        local: Mapping[str, Any],
    ) -> None:
        super().__init__(fn, effect=SAMPLES, policy=DEFAULT.revised(**options), local=local)
        self.models = tuple(models)
        self._check = check
        self._temperature = temperature
        self._max_tokens = max_tokens
        self._repairs = repairs
        self._template = inspect.getdoc(fn) or ""
        _check_template(self._template, self.signature.signature, self.name)

    @cached_property
    def _type(self) -> AnswerType[Any]:
        returns = self.signature.returns
        return AnswerType.of(str if returns is inspect.Parameter.empty else returns)

    @property
    def implementation(self) -> Callable[..., Any]:
        """What a node of a plan calls: it asks the model."""
        return self._ask

    async def _plain(self, args: tuple[Any, ...], kwargs: Any) -> Any:
        return await self._ask(*args, **kwargs)

    async def _ask(self, *args: Any, **kwargs: Any) -> Any:
        """Ask the models in turn; the first usable answer."""
        run: Run[Any] | None = run_scope.get()
        if run is None:
            return await self._ask_alone(args, kwargs)
        text = self.fill(*args, **kwargs)
        for name in self.models[:-1]:
            try:
                return await self._answer(run, name, text)
            except (AnswerInvalid, BackendError):
                continue
        return await self._answer(run, self.models[-1] if self.models else None, text)

    async def _ask_alone(self, args: tuple[Any, ...], kwargs: Any) -> Any:
        """Outside a run: an engine for this call."""
        from agentflow.engine import Engine
        from agentflow.workflows import Workflow

        async def call() -> Any:
            return await self._ask(*args, **kwargs)

        call.__name__ = self.name
        alone: Workflow[[], Any] = Workflow(call, budget=None, local={})
        async with Engine() as engine:
            return await engine.run(alone)

    def fill(self, *args: P.args, **kwargs: P.kwargs) -> str:
        """The prompt for these arguments."""
        bound = self.signature.signature.bind(*args, **kwargs)
        bound.apply_defaults()

        def put(match: re.Match[str]) -> str:
            return match[0][0] if match[1] is None else as_text(bound.arguments[match[1]])

        return _FIELD.sub(put, self._template)

    async def _answer(self, run: Run[Any], name: str | None, text: str) -> Any:
        """Ask one model, and let it correct itself.

        Raises:
            AnswerInvalid: No answer fitted.
            ModelRefusal: It declined.
        """
        model = MeteredModel(run.host.model(name), run, logged_node.get(0))
        messages: list[Message] = [{"role": "user", "content": text}]
        for repair in range(self._repairs + 1):
            reply = await self._reply(run, model, messages)
            if reply.refusal is not None:
                raise Refusal(f"{model.name} declined: {reply.refusal}")
            try:
                return self._accepted(reply.text)
            except AnswerInvalid as error:
                if repair == self._repairs:
                    raise
                messages = [
                    *messages,
                    reply.as_message(),
                    {"role": "user", "content": feedback(error)},
                ]
        raise AssertionError("the last repair returns or raises")

    async def _reply(self, run: Run[Any], model: MeteredModel, messages: list[Message]) -> Reply:
        """One reply: with a schema where the backend takes one, else by asking in words."""
        shape = self._type.response_format(self.name)
        plain: set[str] = run.host.plain_models
        node = logged_node.get(0)

        def show(delta: Delta) -> None:
            if isinstance(delta, TextPiece) and run.watched:
                run.emit(TextDelta(run.id, run.now(), delta.text, "call", node))

        if shape is not None and model.name not in plain:
            request = self._request(messages, shape)
            try:
                return await model.complete(request, show)
            except BackendRejected:
                plain.add(model.name)
        request = self._request(_instructed(messages, self._type.instructions()), None)
        return await model.complete(request, show)

    def _request(self, messages: list[Message], shape: Mapping[str, Any] | None) -> ChatRequest:
        return ChatRequest(
            messages=messages,
            response_format=shape,
            max_tokens=self._max_tokens,
            temperature=self._temperature,
        )

    def _accepted(self, text: str) -> Any:
        value = self._type.read(text)
        verdict = None if self._check is None else self._check(value)
        if verdict is None or verdict is True:
            return value
        reason = verdict if isinstance(verdict, str) else "it did not pass the check"
        raise AnswerInvalid(f"{self.name}: {reason}", problems=reason, answer=text)


class _Decorator(Protocol):
    def __call__(self, fn: Callable[P, Coroutine[Any, Any, R]], /) -> Prompted[P, R]: ...


@overload
def llm(fn: Callable[P, Coroutine[Any, Any, R]], /) -> Prompted[P, R]: ...
@overload
def llm(
    *,
    model: str | Sequence[str] = (),
    check: Check | None = None,
    temperature: float | None = None,
    max_tokens: int = 1024,
    repairs: int = 2,
    **options: Unpack[Options],
) -> _Decorator: ...
def llm(
    fn: Callable[..., Any] | None = None,
    /,
    *,
    model: str | Sequence[str] = (),
    check: Check | None = None,
    temperature: float | None = None,
    max_tokens: int = 1024,
    repairs: int = 2,
    **options: Unpack[Options],
) -> Any:
    """Make a function's docstring a prompt, and its return annotation the answer's type.

    ``{name}`` in the docstring stands for an argument, ``{{`` for a brace.

    Args:
        fn: The function; its body is not run.
        model: Name of a model, or several to be tried in turn.
        check: Looks at an answer: true or None accepts it, false or a reason does not.
        temperature: None leaves it to the backend.
        max_tokens: Upper bound of an answer.
        repairs: How often a model may correct an answer that does not fit.
        **options: Fields of `Policy`.

    Raises:
        DefinitionError: The docstring is missing or names something that is no parameter.
    """
    local = sys._getframe(1).f_locals

    def decorate(fn: Callable[..., Any]) -> Prompted[..., Any]:
        made: Prompted[..., Any] = Prompted(
            fn,
            models=(model,) if isinstance(model, str) else model,
            check=check,
            temperature=temperature,
            max_tokens=max_tokens,
            repairs=repairs,
            options=options,
            local=local,
        )
        return made

    return decorate if fn is None else decorate(fn)


def _check_template(template: str, signature: inspect.Signature, name: str) -> None:
    if not template.strip():
        raise DefinitionError(f"@llm needs a docstring on {name!r}: it is the prompt")
    for match in _FIELD.finditer(template):
        if match[1] is not None and match[1] not in signature.parameters:
            raise DefinitionError(
                f"the prompt of {name!r} uses {{{match[1]}}}, which is no parameter: "
                "write {{ and }} for braces"
            )


def _instructed(messages: list[Message], instructions: str) -> list[Message]:
    """The same conversation, told what to answer with; told first, so that it can be shared."""
    if not instructions:
        return messages
    return [{"role": "system", "content": instructions}, *messages]
