"""Model calls of a run: reserved before, settled after, and told to the subscribers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from decimal import Decimal
from typing import Any, cast

from agentflow import events
from agentflow.budgets.ledger import NOTHING, Reservation
from agentflow.budgets.prices import Prices
from agentflow.budgets.pte import GAMMA, prefill_equivalents
from agentflow.clock import now
from agentflow.errors import BackendError, BackendUnreachable, BudgetExceeded, ContextOverflow
from agentflow.executor.journal.replies import RecalledStream
from agentflow.executor.models import attempts
from agentflow.executor.models.base import (
    ChatRequest,
    Delta,
    KeepsSessions,
    Model,
    Reply,
    ReplyStream,
    Usage,
    read_whole,
)
from agentflow.executor.models.bounds import PromptBounds
from agentflow.executor.models.usage import estimate, prompt_bound
from agentflow.executor.run import Run

IN_FLIGHT = 16
"""Tokens a backend may have made after the last piece we read, before it learnt that we left."""


EARLY = 0.9
"""Share of a reply's time by which the first piece of one that is streamed has come."""

SPARE = 0.1
"""Share of the tokens that are left which computing one prompt ahead may take at most."""

_NONE = Usage(0, 0, None, estimated=True)


class MeteredModel:
    """A model as one run uses it.

    Args:
        model: The model.
        run: Whose ledger pays and whose subscribers are told.
        node: Plan id of the call that uses it, or None.

    Attributes:
        node: As given.
        price: What it costs, or None if that is not known.
        reserved: What is set aside for the call under way.
        spent: USD that its calls have cost so far.
        used: Tokens of prompts and of completions that they have taken.
        asked: Tokens of output that its last call could have at most.
        bound: USD that its last call could cost at most.
        heard: Whether its replies are told while they come.

    Raises:
        DefinitionError: There is a budget in USD, and the model has no price.
    """

    heard = True

    def __init__(self, model: Model, run: Run[Any], node: int | None = None) -> None:
        self._model = model
        self._run = run
        self.node = node
        prices: Prices = getattr(model, "prices", None) or Prices()
        self.price = prices.price(model.name, url=getattr(model, "url", ""))
        if self.price is None and run.ledger.left.usd is not None:
            prices.require(model.name)
        self.reserved = NOTHING
        self.spent = Decimal(0)
        self.used = (0, 0)
        self.asked, self.bound = 0, Decimal(0)
        self._so_far: Callable[[], Usage] | None = None  # of the call under way
        self._bounds = PromptBounds()

    @property
    def name(self) -> str:
        """Name of the model."""
        return self._model.name

    @property
    def keeper(self) -> KeepsSessions | None:
        """Who is to hear how sessions go on: the model, if it places their requests."""
        model: Any = self._model
        return model if hasattr(model, "away") and hasattr(model, "ended") else None

    @property
    def warms(self) -> bool:
        """Whether prompts may be computed ahead: the model can, and it costs no money."""
        return hasattr(self._model, "warm") and not self._usd(Usage(1, 1))

    @property
    def cost(self) -> Decimal:
        """USD that its calls have cost, and that the one under way would if it were broken off."""
        return self.spent + (self._usd(self._so_far()) if self._so_far is not None else 0)

    async def connect(self) -> None:
        """Load and build what the first call in a process would otherwise wait for."""
        if (connect := getattr(self._model, "connect", None)) is not None:
            await connect()

    @asynccontextmanager
    async def stream(self, request: ChatRequest) -> AsyncIterator[ReplyStream]:
        """Start a call whose price fits into what is left.

        Raises:
            BudgetExceeded: Its upper bound does not fit; nothing was sent.
            BackendError: The call failed.
        """
        notes = self._run.notes
        replies = None if notes is None else notes.replies_to(request, self.node)
        if replies is None:
            async with self._paid(request) as stream:
                yield stream
        elif (recorded := await replies.recorded(request)) is not None:
            stream = RecalledStream(recorded)
            self._bounds.learn(request, stream.usage)
            yield stream
        else:
            try:
                async with self._paid(request) as stream, replies.keep(stream, request) as kept:
                    yield kept
            except ContextOverflow as error:
                replies.overflowed(request, error)
                raise

    @asynccontextmanager
    async def _paid(self, request: ChatRequest) -> AsyncIterator[ReplyStream]:
        """A call that is really made: reserved before, settled after."""
        notes = self._run.notes
        bound = Usage(self._bounds.most(request), request.max_tokens, None, estimated=True)
        paid = _Attempts(self, bound, _session(request))
        if notes is not None:
            notes.spent()
        self.asked, self.bound = request.max_tokens, self.reserved.usd
        began = now()
        stream: ReplyStream | None = None
        refunds = self.price is None or self.price.refunds
        streams = self._run.host.services.streaming
        unanswered = _unanswered(request, bound) if refunds and self.name in streams else bound

        def so_far() -> Usage:
            if stream is not None:
                return _used(stream, bound, refunds)
            return unanswered if paid.sent else _NONE

        def say_so_far() -> None:
            if paid.sent:
                self._tell(so_far(), self._usd(so_far()), began, session=_session(request))

        self._so_far = so_far
        self._run.audience.last_words[say_so_far] = None
        try:
            async with AsyncExitStack() as entered:
                with attempts.metered(paid):
                    stream = await entered.enter_async_context(self._model.stream(request))
                yield stream
        except Exception as error:
            if stream is None:
                paid.sent = paid.sent and not attempts.was_refused(error)
            unanswered = bound  # it is silent, and what it makes is not known
            raise
        finally:
            del self._run.audience.last_words[say_so_far]
            self._so_far = None
            if stream is not None and _came_early(stream):
                streams.add(self.name)
            if stream is not None:
                self._bounds.learn(request, stream.usage)
            paid.settle(so_far(), began, None if stream is None else _reply(stream))
            if notes is not None:
                notes.spent()

    async def complete(
        self, request: ChatRequest, on_delta: Callable[[Delta], object] | None = None
    ) -> Reply:
        """Make a call and wait for the whole reply; `on_delta` sees each piece as it comes.

        Raises:
            BudgetExceeded: Its upper bound does not fit; nothing was sent.
            BackendError: The call failed.
        """
        async with self.stream(request) as stream:
            return await read_whole(stream, on_delta)

    async def warm(self, request: ChatRequest) -> Reply | None:
        """Have a prompt computed that will be asked for later; see `Pool.warm`.

        Args:
            request: What will be asked for, as far as it is known; one token of it is made.

        Returns:
            The reply; None if there is no place for it now, if it does not pay, or if it could
            take more than can be spared: the request itself is to fit when its time comes.

        Raises:
            BudgetExceeded: It does not fit; nothing was sent.
            BackendError: The call failed, or gave way to another.
        """
        follows, request = request.max_tokens, replace(request, max_tokens=1)
        bound = Usage(prompt_bound(request), request.max_tokens, None, estimated=True)
        ledger, model = self._run.ledger, cast("Any", self._model)
        least = max(_total(bound) / SPARE, 2 * _total(bound) + follows)
        if ledger.left.tokens is not None and ledger.left.tokens < least:
            return None
        reservation, began = ledger.reserve(self._usd(bound), _total(bound)), now()
        reply: Reply | None = None
        paid, used, session = attempts.Noted(), _unanswered(request, bound), _session(request)

        def say_so_far() -> None:
            if paid.sent:
                self._tell(used, self._usd(used), began, reply, session=session, warmed=True)

        self._run.audience.last_words[say_so_far] = None
        try:
            with attempts.metered(paid):
                reply = await model.warm(request)
            paid.sent = reply is not None
            used = used if reply is None else reply.usage
            return reply
        except BackendError as error:
            paid.sent = paid.sent and not _was_turned_away(error)
            raise
        finally:
            del self._run.audience.last_words[say_so_far]
            if paid.sent:
                reservation.settle(self._usd(used), _total(used))
            else:
                reservation.release()
            say_so_far()

    def _usd(self, used: Usage) -> Decimal:
        if self.price is None:
            return Decimal(0)
        return self.price.cost(used.prompt_tokens, used.completion_tokens, used.cached_tokens or 0)

    def _count(self, used: Usage, usd: Decimal) -> None:
        self.spent += usd
        prompt, completion = self.used
        self.used = (prompt + used.prompt_tokens, completion + used.completion_tokens)

    def _tell(
        self,
        used: Usage,
        usd: Decimal,
        began: float,
        reply: Reply | None = None,
        *,
        session: str,
        warmed: bool = False,
    ) -> None:
        if not self._run.watched:
            return
        at, tokens = now(), (used.prompt_tokens, used.completion_tokens, used.cached_tokens)
        gamma = GAMMA if self.price is None else self.price.gamma
        replica, moved, held = ("", "", 0.0)
        if reply is not None:
            replica, moved, held = reply.replica, reply.moved, reply.held
        saved = self._usd(replace(used, cached_tokens=None)) - usd
        self._run.emit(
            events.ModelReplied(
                self._run.id,
                at,
                self.name,
                *tokens,
                str(usd),
                at - began,
                used.estimated,
                self.node,
                prefill_equivalents(*tokens, gamma),
                replica,
                moved,
                held,
                warmed,
                session,
                str(saved),
            )
        )


class _Attempts(attempts.Noted):
    """What is set aside for the attempt under way at one call; those before are settled.

    Args:
        model: Pays.
        bound: The most that one attempt may take.
        session: The conversation it is of, or empty.

    Raises:
        BudgetExceeded: One attempt does not fit.
    """

    def __init__(self, model: MeteredModel, bound: Usage, session: str) -> None:
        super().__init__()
        self._model = model
        self._bound = bound
        self._session = session
        self._began = now()
        self._reservation = self._reserve()

    def again(self, error: BackendError) -> None:
        """Settle the attempt that failed, in full unless it was refused; reserve the next.

        Raises:
            BackendError: The same error, for the next attempt does not fit.
        """
        began, self._began = self._began, now()
        super().again(error)
        if not self.sent:
            return
        self.settle(self._bound, began)
        self.sent = False
        try:
            self._reservation = self._reserve()
        except BudgetExceeded as exceeded:
            raise error from exceeded

    def settle(self, used: Usage, began: float, reply: Reply | None = None) -> None:
        """Count what the attempt took and tell it, or give everything back if it was not sent."""
        model = self._model
        model.reserved = NOTHING
        if not self.sent:
            self._reservation.release()
            return
        usd = model._usd(used)
        self._reservation.settle(usd, _total(used))
        model._count(used, usd)
        model._tell(used, usd, began, reply, session=self._session)

    def _reserve(self) -> Reservation:
        model, bound = self._model, self._bound
        reservation = model._run.ledger.reserve(model._usd(bound), _total(bound))
        model.reserved = reservation.amount
        return reservation


def _session(request: ChatRequest) -> str:
    return "" if request.session is None else request.session.id


def _was_turned_away(error: BackendError) -> bool:
    """Whether a prompt was surely not computed ahead: it was not taken, and did not give way."""
    unheard = error.status is not None or isinstance(error, BackendUnreachable)
    return unheard and attempts.was_refused(error)


def _total(used: Usage) -> int:
    return used.prompt_tokens + used.completion_tokens


def _used(stream: ReplyStream, bound: Usage, refunds: bool) -> Usage:
    """What a call took: as its backend said, else an estimate that stays within its bound."""
    used = stream.usage
    if not used.estimated:
        return used
    whole = _reply(stream) is not None
    if not (whole or refunds):
        return bound
    made = used.completion_tokens + (0 if whole else IN_FLIGHT)
    return replace(used, completion_tokens=min(made, bound.completion_tokens))


def _unanswered(request: ChatRequest, bound: Usage) -> Usage:
    """What a call may have taken, of a model that streams, that was left before the first piece."""
    used = estimate(request, 0, 0)
    return replace(used, completion_tokens=min(IN_FLIGHT, bound.completion_tokens))


def _came_early(stream: ReplyStream) -> bool:
    """Whether the first piece came well before the last: the backend does stream."""
    if (reply := _reply(stream)) is None:
        return True
    first = reply.first_token_seconds
    return first is not None and first < EARLY * reply.seconds


def _reply(stream: ReplyStream) -> Reply | None:
    """The whole reply, if it was read to its end."""
    try:
        return stream.reply
    except RuntimeError:
        return None
