"""`llm`: a prompt template with a typed answer, called like any tool."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, ParamSpec, Protocol, TypeAlias, TypeVar, Unpack, overload

from agentflow.context import current_node, run_scope
from agentflow.errors import (
    AgentflowError,
    AnswerInvalid,
    BackendError,
    BackendRejected,
    BudgetExceeded,
    CallTimeout,
    CheckFailed,
    DefinitionError,
    ModelError,
    ModelRefusal,
    OutOfReach,
    RunFailed,
)
from agentflow.events import TextDelta, TextRetracted
from agentflow.executor.affinity.conversation import Conversation
from agentflow.executor.allocation.controller import controller_of
from agentflow.executor.allocation.learning import noted
from agentflow.executor.allocation.trial import Question, Unjudged, policy_here
from agentflow.executor.metering import MeteredModel
from agentflow.executor.models.base import ChatRequest, Delta, Message, Reply, TextPiece
from agentflow.executor.models.persistent import Persistent
from agentflow.executor.models.typed import AnswerType, feedback
from agentflow.executor.models.usage import BYTES_PER_TOKEN, PER_MESSAGE
from agentflow.executor.run import Run
from agentflow.templates import check_template, filled, instructed
from agentflow.tools.effects import SAMPLES
from agentflow.tools.policy import DEFAULT, Options
from agentflow.tools.roles import refusal
from agentflow.tools.sampling import Sampling, sampling
from agentflow.tools.tool import Tool
from agentflow.wording import described

P = ParamSpec("P")
R = TypeVar("R")

Verdict: TypeAlias = "bool | str | None"

Judge: TypeAlias = "Callable[[Any], Verdict | Awaitable[Verdict]]"
"""Looks at an answer: true or None accepts it; false, or a reason, does not."""

_NO_SCHEMA = (400, 422)
"""Statuses by which backends refuse a ``response_format`` that they do not know."""


class Prompted(Tool[P, R]):
    """A tool whose work is done by a model: its docstring is the prompt.

    Args:
        fn: Only its signature and docstring count; its body is not run.
        models: Names of models; empty for the engine's default.
        samples: How many answers of one model may be asked for at once.
        check: See `Judge`.
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
        samples: int | Sequence[int],
        check: Judge | None,
        temperature: float | None,
        max_tokens: int,
        repairs: int,
        options: Mapping[str, Any],
        local: Mapping[str, Any],
    ) -> None:
        super().__init__(fn, effect=SAMPLES, policy=DEFAULT.revised(**options), local=local)
        self._check = check
        self._temperature = temperature
        self._max_tokens = max_tokens
        self._repairs = repairs
        self._template = inspect.getdoc(fn) or ""
        self._check_definition()
        self.sampling: Sampling = sampling(self.name, models, samples, max_tokens)
        if isinstance(check, Prompted):
            self.sampling = replace(self.sampling, judge=(check.name, check.sampling))
        returns = self.signature.returns
        self._type = AnswerType.of(str if returns is inspect.Parameter.empty else returns)

    def _check_definition(self) -> None:
        if self.kind != "async":
            raise DefinitionError(f"@llm needs 'async def {self.name}'")
        if self._max_tokens < 1 or self._repairs < 0:
            raise DefinitionError(
                f"@llm on {self.name!r}: max_tokens must be at least 1, and repairs at least 0"
            )
        if self._check is not None and not callable(self._check):
            raise DefinitionError(
                f"@llm on {self.name!r}: check is a function, or another @llm, that looks at an "
                f"answer, not {self._check!r}"
            )
        check_template(self._template, self.signature.signature, self.name)

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
        """Ask a model, or have several try; the first answer that passes."""
        run: Run[Any] = run_scope.get()
        prompt = self.fill(*args, **kwargs)
        if self.sampling.chooses:
            question = Question(
                self.name,
                self.sampling,
                prompt_tokens=PER_MESSAGE + len(prompt.encode()) // BYTES_PER_TOKEN,
                timeout=policy_here(run, self).timeout,
                ask=partial(self._converse, run, prompt=prompt),
            )
            return await controller_of(run).solve(question)
        [name] = self.sampling.models
        model = MeteredModel(run.host.model(name or None), run, current_node())
        await model.connect()
        try:
            with noted(run, self.name, model):
                return await self._converse(run, model, prompt=prompt)
        except Unjudged as unjudged:
            raise unjudged.error from unjudged.error.__cause__

    def fill(self, *args: P.args, **kwargs: P.kwargs) -> str:
        """The prompt for these arguments."""
        bound = self.signature.signature.bind(*args, **kwargs)
        bound.apply_defaults()
        return filled(self._template, bound.arguments)

    async def _converse(self, run: Run[Any], model: MeteredModel, *, prompt: str) -> Any:
        """Ask one model, and let it correct itself.

        Where models try at once, an answer that the check refuses is not corrected: another
        sample is as good.

        Raises:
            AnswerInvalid: No answer fitted.
            ModelRefusal: It declined.
            CheckFailed: The check raised.
            Unjudged: The check is a model that could not be asked, or paid.
            BackendError: It could not be asked.
        """
        with Conversation(run, model, self.name) as conversation:
            return await self._answer(run, model, conversation, prompt)

    async def _answer(
        self, run: Run[Any], model: MeteredModel, conversation: Conversation, prompt: str
    ) -> Any:
        messages: list[Message] = [{"role": "user", "content": prompt}]
        repairs, wrong = self._repairs, None
        schema = self._schema(run, model)
        while True:
            try:
                reply, schema = await self._reply(run, model, conversation, messages, schema)
            except BudgetExceeded:
                if wrong is None or not self.sampling.chooses:
                    raise
                raise wrong from None  # another sample may be cheaper than the correction
            try:
                value = self._read(model, reply)
            except AnswerInvalid as error:
                wrong, final = error, reply.finish_reason == "length"
            else:
                why = await self._refused(value)
                if why is None:
                    return value
                wrong, final = self._unusable(why, reply), self.sampling.chooses
            if final or not repairs:
                raise wrong
            correction = {"role": "user", "content": self._correction(wrong)}
            messages = [*messages, reply.as_message(), correction]
            repairs -= 1

    def _schema(self, run: Run[Any], model: MeteredModel) -> Mapping[str, Any] | None:
        """What the backend is given of the answer's type, unless it takes no schema."""
        plain = model.name in run.host.plain_models
        return None if plain else self._type.response_format(self.name)

    async def _reply(
        self,
        run: Run[Any],
        model: MeteredModel,
        conversation: Conversation,
        messages: list[Message],
        schema: Mapping[str, Any] | None,
    ) -> tuple[Reply, Mapping[str, Any] | None]:
        """One reply: with a schema where the backend takes one, else by asking in words.

        Returns:
            The reply, and the schema, or None if the backend refused it.
        """
        asked, telling = Persistent(model), _Telling(run, model)
        if schema is not None:
            request = conversation.next(self._request(messages, schema))
            try:
                return await asked.complete(request, telling.show, telling.take_back), schema
            except BackendRejected as error:
                if error.status not in _NO_SCHEMA:
                    raise
            conversation.begin_anew()  # nothing of what was refused was computed
        in_words = instructed(messages, self._type.instructions())
        request = conversation.next(self._request(in_words, None))
        reply = await asked.complete(request, telling.show, telling.take_back)
        if schema is not None:
            run.host.plain_models.add(model.name)  # it was the schema that the backend refused
        return reply, None

    def _request(self, messages: list[Message], schema: Mapping[str, Any] | None) -> ChatRequest:
        return ChatRequest(
            messages=messages,
            response_format=schema,
            max_tokens=self._max_tokens,
            temperature=self._temperature,
        )

    def _read(self, model: MeteredModel, reply: Reply) -> Any:
        """The value of a reply."""
        if reply.refusal is not None:
            raise ModelRefusal(f"{self.name}: {model.name} declined: {reply.refusal}")
        if reply.finish_reason == "length":
            paid = ", all that could be paid" if model.asked < self._max_tokens else ""
            raise self._unusable(f"cut off at max_tokens={model.asked}{paid}", reply)
        if not reply.text.strip():
            raise self._unusable("empty", reply)
        try:
            return self._type.read(reply.text)
        except AnswerInvalid as error:
            raise self._unusable(error.problems, reply) from None

    async def _refused(self, value: Any) -> str | None:
        """Why the check does not accept a value; None if it does."""
        if self._check is None:
            return None
        try:
            verdict = self._check(value)
            if inspect.isawaitable(verdict):
                verdict = await verdict
        except (ModelError, BackendError, BudgetExceeded, OutOfReach, CallTimeout) as error:
            raise Unjudged(error) from error
        except AgentflowError:
            raise  # of a judge that is a model, and not made right
        except Exception as error:
            raise CheckFailed(
                f"{self.name}: its check raised {described(error)}; let it return False, or a "
                "reason, for an answer that it does not accept",
                tool=self.name,
            ) from error
        return refusal(verdict)

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


class _Telling:
    """Tells the subscribers of a run what a model says in a call."""

    def __init__(self, run: Run[Any], model: MeteredModel) -> None:
        self._run = run
        self._node = current_node()
        self._heard = model.heard and run.watched

    def show(self, delta: Delta) -> None:
        """A piece of the reply came."""
        if self._heard and isinstance(delta, TextPiece):
            self._run.emit(TextDelta(self._run.id, self._run.now(), delta.text, "call", self._node))

    def take_back(self) -> None:
        """What was told of the reply is void."""
        if self._heard:
            self._run.emit(TextRetracted(self._run.id, self._run.now(), self._node))


class _Decorator(Protocol):
    def __call__(self, fn: Callable[P, Coroutine[Any, Any, R]], /) -> Prompted[P, R]: ...


@overload
def llm(fn: Callable[P, Coroutine[Any, Any, R]], /) -> Prompted[P, R]: ...
@overload
def llm(
    *,
    model: str | Sequence[str] = (),
    samples: int | Sequence[int] = 1,
    check: Judge | None = None,
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
    samples: int | Sequence[int] = 1,
    check: Judge | None = None,
    temperature: float | None = None,
    max_tokens: int = 1024,
    repairs: int = 2,
    **options: Unpack[Options],
) -> Any:
    """Make a function's docstring a prompt, and its return annotation the answer's type.

    ``{name}`` in the docstring stands for an argument, ``{{`` for a brace.

    Args:
        fn: The function; its body is not run.
        model: Name of a model, or of several that may try. Within limits the engine's allocator
            decides which of them do, and when; without limits they are asked in turn, once.
        samples: How many answers of one model may be asked for at once, such as 2 or
            ``(1, 2, 4)``; the first that passes is taken and the others are cancelled.
        check: Looks at an answer: true or None accepts it, false or a reason does not. A
            function, an async one, or another `llm`.
        temperature: None leaves it to the backend.
        max_tokens: Upper bound of an answer.
        repairs: How often a model may correct an answer that does not fit.
        **options: Fields of `Policy`; where several models or samples may try, the timeout is that
            of one sample.

    Raises:
        DefinitionError: The docstring is missing or names something that is no parameter.
    """
    local = sys._getframe(1).f_locals

    def decorate(fn: Callable[..., Any]) -> Prompted[..., Any]:
        made: Prompted[..., Any] = Prompted(
            fn,
            models=_listed(model),
            samples=samples,
            check=check,
            temperature=temperature,
            max_tokens=max_tokens,
            repairs=repairs,
            options=options,
            local=local,
        )
        return made

    return decorate if fn is None else decorate(fn)


def _listed(model: str | Sequence[str]) -> Sequence[str]:
    """The models that a decorator names; ``()`` and ``""`` stand for the engine's default."""
    if isinstance(model, str):
        return (model,) if model else ()
    if isinstance(model, Sequence) and (model or model == ()):
        return model
    raise DefinitionError(f"@llm: model={model!r}: write the name of a model, or a list of names")
