"""`llm`: a prompt template with a typed answer, called like any tool."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, ParamSpec, Protocol, TypeVar, Unpack, overload

from agentflow.context import current_node, run_scope
from agentflow.errors import (
    AnswerInvalid,
    BackendError,
    BackendRejected,
    DefinitionError,
    ModelError,
    ModelRefusal,
    RunFailed,
    nearest,
)
from agentflow.events import TextDelta
from agentflow.executor.metering import MeteredModel
from agentflow.executor.models.base import ChatRequest, Delta, Message, Reply, TextPiece
from agentflow.executor.models.typed import AnswerType, feedback
from agentflow.executor.run import Run
from agentflow.tools.effects import SAMPLES
from agentflow.tools.policy import DEFAULT, Options
from agentflow.tools.roles import Check, refusal
from agentflow.tools.tool import Tool
from agentflow.tools.values import as_text

P = ParamSpec("P")
R = TypeVar("R")

_FIELD = re.compile(r"\{\{|\}\}|\{([^\W\d]\w*)\}")
_ALMOST_FIELD = re.compile(r"(?<!\{)\{(?:[^\W\d]\w*[.\[!:][^{}]*)?\}")

_NO_SCHEMA = (400, 422)
"""Statuses by which backends refuse a ``response_format`` that they do not know."""


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
        self._check_definition()
        returns = self.signature.returns
        self._type = AnswerType.of(str if returns is inspect.Parameter.empty else returns)

    def _check_definition(self) -> None:
        if self.kind != "async":
            raise DefinitionError(f"@llm needs 'async def {self.name}'")
        if self._max_tokens < 1 or self._repairs < 0:
            raise DefinitionError(
                f"@llm on {self.name!r}: max_tokens must be at least 1, and repairs at least 0"
            )
        if inspect.iscoroutinefunction(self._check):
            raise DefinitionError(f"@llm on {self.name!r}: check is a plain function, not async")
        _check_template(self._template, self.signature.signature, self.name)

    @property
    def implementation(self) -> Callable[..., Any]:
        """What a node of a plan calls: it asks the model."""
        return self._ask

    async def _plain(self, args: tuple[Any, ...], kwargs: Any) -> Any:
        valid, named = self.signature.validate(args, kwargs)
        if run_scope.get() is not None:
            return await self._ask(*valid, **named)
        return await self._ask_alone(valid, named)

    async def _ask_alone(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Outside a run: an engine for this call."""
        from agentflow.engine import Engine
        from agentflow.workflows import Workflow

        async def call() -> Any:
            return await self._ask(*args, **kwargs)

        call.__name__ = self.name
        alone: Workflow[[], Any] = Workflow(call, budget=None, local={})
        async with Engine() as engine:
            try:
                return await engine.run(alone)
            except RunFailed as failed:
                raise failed.__cause__ or failed from None  # the caller knows of no run

    async def _ask(self, *args: Any, **kwargs: Any) -> Any:
        """Ask the models in turn; the first usable answer."""
        run: Run[Any] = run_scope.get()
        prompt = self.fill(*args, **kwargs)
        failed: list[str] = []
        for name in self.models[:-1]:
            try:
                return await self._ask_one(run, name, prompt)
            except (ModelError, BackendError) as error:
                failed.append(f"before that {name} failed: {error}")
        try:
            return await self._ask_one(run, self.models[-1] if self.models else None, prompt)
        except (ModelError, BackendError) as error:
            for note in failed:
                error.add_note(note)
            raise

    def fill(self, *args: P.args, **kwargs: P.kwargs) -> str:
        """The prompt for these arguments."""
        bound = self.signature.signature.bind(*args, **kwargs)
        bound.apply_defaults()

        def put(match: re.Match[str]) -> str:
            return match[0][0] if match[1] is None else as_text(bound.arguments[match[1]])

        return _FIELD.sub(put, self._template)

    async def _ask_one(self, run: Run[Any], name: str | None, prompt: str) -> Any:
        """Ask one model, and let it correct itself.

        Raises:
            AnswerInvalid: No answer fitted.
            ModelRefusal: It declined.
            BackendError: It could not be asked.
        """
        model = MeteredModel(run.host.model(name), run, current_node())
        messages: list[Message] = [{"role": "user", "content": prompt}]
        repairs = self._repairs
        while True:
            reply = await self._reply(run, model, messages)
            try:
                return self._accepted(model, reply)
            except AnswerInvalid as error:
                if not repairs or reply.finish_reason == "length":
                    raise
                correction = {"role": "user", "content": self._correction(error)}
            messages = [*messages, reply.as_message(), correction]
            repairs -= 1

    async def _reply(self, run: Run[Any], model: MeteredModel, messages: list[Message]) -> Reply:
        """One reply: with a schema where the backend takes one, else by asking in words."""
        plain: set[str] = run.host.plain_models
        schema = self._type.response_format(self.name)
        node = current_node()

        def show(delta: Delta) -> None:
            if isinstance(delta, TextPiece) and run.watched:
                run.emit(TextDelta(run.id, run.now(), delta.text, "call", node))

        if schema is not None and model.name not in plain:
            try:
                return await model.complete(self._request(messages, schema), show)
            except BackendRejected as error:
                if error.status not in _NO_SCHEMA:
                    raise
        in_words = _instructed(messages, self._type.instructions())
        reply = await model.complete(self._request(in_words, None), show)
        if schema is not None:
            plain.add(model.name)  # it was the schema that the backend refused
        return reply

    def _request(self, messages: list[Message], schema: Mapping[str, Any] | None) -> ChatRequest:
        return ChatRequest(
            messages=messages,
            response_format=schema,
            max_tokens=self._max_tokens,
            temperature=self._temperature,
        )

    def _accepted(self, model: MeteredModel, reply: Reply) -> Any:
        """The value of a reply, if it can be used."""
        if reply.refusal is not None:
            raise ModelRefusal(f"{self.name}: {model.name} declined: {reply.refusal}")
        if reply.finish_reason == "length":
            raise self._unusable(f"cut off at max_tokens={self._max_tokens}", reply)
        if not reply.text.strip():
            raise self._unusable("empty", reply)
        try:
            value = self._type.read(reply.text)
        except AnswerInvalid as error:
            raise self._unusable(error.problems, reply) from None
        why = None if self._check is None else refusal(self._check(value))
        if why is None:
            return value
        raise self._unusable(why, reply)

    def _unusable(self, problem: str, reply: Reply) -> AnswerInvalid:
        return AnswerInvalid(
            f"{self.name}: the answer of {reply.model} is not usable: {problem}",
            problems=problem,
            answer=reply.text,
        )

    def _correction(self, error: AnswerInvalid) -> str:
        """What asks the model to correct its answer."""
        if self._type.plain:
            return f"That answer could not be used: {error.problems}\nGive the corrected answer."
        return feedback(error)


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
    if almost := _ALMOST_FIELD.search(_FIELD.sub("", template)):
        raise DefinitionError(
            f"the prompt of {name!r} uses {almost[0]}: write the name of a parameter in the "
            "braces and nothing else, or {{ and }} for braces"
        )
    for match in _FIELD.finditer(template):
        if match[1] is not None and match[1] not in signature.parameters:
            known = list(signature.parameters)
            raise DefinitionError(
                f"the prompt of {name!r} uses {match[0]}, which is no parameter. "
                f"{nearest(match[1], known) if known else 'There are none.'} "
                "Write {{ and }} for braces."
            )


def _instructed(messages: list[Message], instructions: str) -> list[Message]:
    """The same conversation, told what to answer with; told first, so that it can be shared."""
    if not instructions:
        return messages
    return [{"role": "system", "content": instructions}, *messages]
