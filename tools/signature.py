"""What a function's signature says: validation of arguments and results, and JSON schemas.

pydantic does the work; its validators are built once per tool, when first needed.
"""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import AsyncIterable, Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, TypeAlias

from agentflow.errors import ArgumentError, DefinitionError, ResultError, UnknownArgument
from agentflow.redaction import MASK, conceal_values
from agentflow.tools.annotations import (
    accepts_none,
    described_parameters,
    hints_of,
    spelled,
    untitled,
)
from agentflow.tools.roles import VARIABLE, Check, Roles, accepts
from agentflow.tools.spec import Parameter
from agentflow.wording import described, nearest

Arguments: TypeAlias = "tuple[tuple[Any, ...], dict[str, Any]]"
Validate: TypeAlias = "Callable[[tuple[Any, ...], dict[str, Any]], Arguments]"

_EMPTY = inspect.Parameter.empty


class Signature:
    """The typed signature of a tool.

    Args:
        function: What the tool calls.
        name: Name of the tool, for messages.
        local: Names that annotations written as text may use besides the function's globals.
        checks: What looks at single arguments, by parameter.

    Attributes:
        signature: What callers give, with the types of the values.
        roles: What parameters are for that are more than values.
        checks: What looks at single arguments, by parameter.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        name: str,
        local: Mapping[str, Any] | None = None,
        checks: Mapping[str, Check] | None = None,
    ) -> None:
        self.name = name
        hints = hints_of(function, name, local)
        self.roles = Roles(name)
        given = inspect.signature(function).parameters.values()
        parameters = [
            parameter.replace(annotation=kind)
            for parameter in given
            if (kind := self.roles.take(parameter, hints.get(parameter.name, parameter.annotation)))
            is not None
        ]
        self.signature = inspect.Signature(parameters)
        self.returns = hints.get("return", _EMPTY)
        self.checks = dict(checks or {})
        self.typed = bool(checks) or any(
            p.annotation is not _EMPTY and p.annotation is not Any for p in parameters
        )
        self.doc = inspect.getdoc(function) or ""

    @cached_property
    def result_type(self) -> Any:
        """The declared type of the value; for a generator a list of its items."""
        origin = typing.get_origin(self.returns) or self.returns
        if isinstance(origin, type) and issubclass(origin, AsyncIterable):
            return types.GenericAlias(list, (*typing.get_args(self.returns), Any)[:1])
        return self.returns

    @cached_property
    def open(self) -> bool:
        """Whether any keyword is taken (``**kwargs``)."""
        return any(p.kind is p.VAR_KEYWORD for p in self.signature.parameters.values())

    @cached_property
    def positional(self) -> bool:
        """Whether arguments beyond the named ones are taken (``*args``)."""
        return any(p.kind is p.VAR_POSITIONAL for p in self.signature.parameters.values())

    @cached_property
    def validate(self) -> Validate:
        """Gives arguments converted to their declared types, as the function takes them.

        The function raises `ArgumentError` if one is missing, unknown, or of the wrong type.
        """
        from pydantic import ValidationError
        from pydantic_core import ArgsKwargs

        check, name, secretive = self._adapter.validator.validate_python, self.name, self.secretive
        places, filled = self.places, self.roles.filled if self.open else frozenset()

        def validate(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Arguments:
            if filled and (taken := filled.intersection(kwargs)):
                raise self._unknown(min(taken))  # the engine gives it
            try:
                valid: Arguments = check(ArgsKwargs(args, kwargs))
            except ValidationError as error:
                raise argument_error(name, error, places, hide=secretive) from None
            except Exception as error:  # a validator of the user's own
                raise ArgumentError(f"{name}: {described(error)}", tool=name) from error
            if secretive:
                conceal_values(valid)
            return valid

        return validate

    @cached_property
    def secretive(self) -> bool:
        """Whether arguments may hold secrets, such as ``SecretStr``; pydantic's schema tells."""
        return "Secret" in repr(self._adapter.core_schema)

    @cached_property
    def names(self) -> list[str]:
        """The parameters that callers give by name or position."""
        return [p.name for p in self.signature.parameters.values() if p.kind not in VARIABLE]

    @cached_property
    def places(self) -> list[str]:
        """The parameters that may be given by position, in order."""
        return [p.name for p in self.signature.parameters.values() if p.kind < p.VAR_POSITIONAL]

    def argument(self, name: str, value: Any) -> Any:
        """One argument by itself, converted to its declared type.

        Raises:
            ArgumentError: It is of the wrong type, or a check rejects it.
            UnknownArgument: There is no such parameter.
        """
        from pydantic import ValidationError
        from pydantic_core import ArgsKwargs

        if name not in self.names:
            if self.open and name not in self.roles.filled:
                return value
            raise self._unknown(name)
        if (check := self._single.get(name)) is None:
            parameter = self.signature.parameters[name]
            alone = parameter.replace(kind=parameter.KEYWORD_ONLY, default=_EMPTY)
            adapter = self._adapter_of((alone,))
            check = self._single[name] = adapter.validator.validate_python
        try:
            valid = check(ArgsKwargs((), {name: value}))[1][name]
        except ValidationError as error:
            raise argument_error(self.name, error, hide=self.secretive) from None
        except Exception as error:
            raise ArgumentError(
                f"{self.name}: argument {name!r}: {described(error)}", tool=self.name, argument=name
            ) from error
        if self.secretive:
            conceal_values(valid)
        return valid

    def _unknown(self, name: str) -> UnknownArgument:
        hint = nearest(name, self.names) if self.names else "It takes none."
        problem = f"{self.name} has no parameter {name!r}. {hint}"
        return UnknownArgument(problem, tool=self.name, argument=name)

    @cached_property
    def validate_known(self) -> Callable[[dict[str, Any]], dict[str, Any]]:
        """Gives the arguments by name that a tool can begin with, those left out included.

        The function takes what is known of them, all but the late ones.
        """
        from pydantic_core import ArgsKwargs

        known = [
            p if p.kind is p.VAR_KEYWORD else p.replace(kind=p.KEYWORD_ONLY)
            for p in self.signature.parameters.values()
            if p.name not in self.roles.early and p.kind is not p.VAR_POSITIONAL
        ]
        check = self._adapter_of(known).validator.validate_python

        def validate(given: dict[str, Any]) -> dict[str, Any]:
            valid: Arguments = check(ArgsKwargs((), given))
            return valid[1]

        return validate

    @cached_property
    def _single(self) -> dict[str, Callable[[Any], Arguments]]:
        """What validates one argument by itself, by parameter, as far as it was needed."""
        return {}

    @cached_property
    def _adapter(self) -> Any:
        return self._adapter_of(tuple(self.signature.parameters.values()))

    def _adapter_of(self, parameters: Sequence[inspect.Parameter]) -> Any:
        from pydantic import AfterValidator, ConfigDict, PydanticUserError, TypeAdapter

        def collected(*args: Any, **kwargs: Any) -> Any:
            return args, kwargs

        collect: Any = collected
        checked = []
        for p in parameters:
            if (check := self.checks.get(p.name)) is not None:
                kind = Any if p.annotation is _EMPTY else p.annotation
                p = p.replace(annotation=typing.Annotated[kind, AfterValidator(accepts(check))])
            checked.append(p)
        collect.__signature__ = inspect.Signature(checked)
        collect.__annotations__ = {
            p.name: p.annotation for p in checked if p.annotation is not _EMPTY
        }
        collect.__name__ = collect.__qualname__ = self.name
        try:
            # A type that pydantic does not know is checked with isinstance.
            return TypeAdapter(collect, config=ConfigDict(arbitrary_types_allowed=True))
        except PydanticUserError as error:
            raise DefinitionError(f"tool {self.name!r}: {error.message}") from None

    @cached_property
    def check_result(self) -> Callable[[Any], Any] | None:
        """Validates a result and returns it converted; None where nothing is declared.

        The function raises `ResultError` on a value that the annotation does not allow.
        """
        if self.result_type in (_EMPTY, Any):
            return None
        from pydantic import ValidationError

        validate = self.result_adapter.validate_python
        name, declared = self.name, spelled(self.result_type)

        def check(value: Any) -> Any:
            try:
                return validate(value)
            except ValidationError as error:
                where, problem = _problem(error)
                raise ResultError(
                    f"{name} returned what '-> {declared}' does not allow: "
                    f"{where + ': ' if where else ''}{problem}. "
                    "Correct the annotation or the value.",
                    tool=name,
                ) from None

        return check

    @cached_property
    def result_adapter(self) -> Any:
        """pydantic's adapter for the value; anything goes where nothing is declared."""
        from pydantic import PydanticUserError, TypeAdapter

        if self.result_type is _EMPTY:
            return TypeAdapter(Any)
        try:
            return TypeAdapter(self.result_type, config=_config(self.result_type))
        except PydanticUserError as error:
            raise DefinitionError(f"tool {self.name!r}: {error.message}") from None

    @cached_property
    def json_schema(self) -> dict[str, Any]:
        """JSON schema of the arguments, with ``$defs`` where types refer to each other."""
        from pydantic.errors import PydanticInvalidForJsonSchema

        try:
            schema = self._adapter.json_schema()
        except PydanticInvalidForJsonSchema:
            schema = {}
        if schema.get("type") != "object":
            schema = {"type": "object", "properties": {}}
        return typing.cast("dict[str, Any]", untitled(schema))

    @cached_property
    def result_schema(self) -> dict[str, Any]:
        """JSON schema of the result; empty when nothing is declared."""
        from pydantic.errors import PydanticInvalidForJsonSchema

        if self.result_type in (_EMPTY, Any):
            return {}
        try:
            return typing.cast("dict[str, Any]", untitled(self.result_adapter.json_schema()))
        except PydanticInvalidForJsonSchema:
            return {}

    @cached_property
    def parameters(self) -> tuple[Parameter, ...]:
        """The named parameters, as planners see them."""
        texts = described_parameters(self.doc)
        properties = self.json_schema.get("properties", {})
        out = []
        for p in self.signature.parameters.values():
            if p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD):
                continue
            schema = dict(properties.get(p.name, {}))
            if p.name in texts and "description" not in schema:
                schema["description"] = texts[p.name]
            required, none = p.default is _EMPTY, accepts_none(p.annotation)
            out.append(Parameter(p.name, required, schema, none, p.kind is p.KEYWORD_ONLY))
        return tuple(out)


def argument_error(
    tool: str, error: Any, places: Sequence[str] = (), *, hide: bool = False
) -> ArgumentError:
    """An `ArgumentError` that names the argument, from pydantic's ValidationError.

    Args:
        tool: Name of the tool.
        error: What pydantic raised.
        places: Names of the parameters that may be given by position.
        hide: Whether what was given may be secret, and is not shown.
    """
    where, problem = _problem(error, places, hide=hide)
    return ArgumentError(
        f"{tool}: argument {where!r}: {problem}" if where else f"{tool}: {problem}",
        tool=tool,
        argument=where,
    )


def _problem(error: Any, places: Sequence[str] = (), *, hide: bool = False) -> tuple[str, str]:
    first = error.errors(include_url=False, include_context=False)[0]
    loc = first["loc"]
    if loc and isinstance(loc[0], int) and loc[0] < len(places):
        loc = (places[loc[0]], *loc[1:])
    where = ".".join(map(str, loc))
    kind, text, given = first["type"], first["msg"], first["input"]
    if kind == "missing_argument":
        return where, "it is required and was not given"
    if kind in ("unexpected_keyword_argument", "unexpected_positional_argument"):
        return where, "there is no such parameter"
    shown = MASK if hide else repr(given)
    shown = shown if len(shown) <= 80 else f"{shown[:80]}..."
    if kind == "value_error":  # what a check, or another validator, said
        return where, f"{text.removeprefix('Value error, ')} (given: {shown})"
    return where, f"{text[0].lower()}{text[1:]}, not {shown}"


def _config(kind: Any) -> Any:
    """Types pydantic does not know are allowed, where they may be given a configuration."""
    from pydantic import BaseModel, ConfigDict

    if isinstance(kind, type) and (
        issubclass(kind, BaseModel)
        or hasattr(kind, "__dataclass_fields__")
        or hasattr(kind, "__total__")  # a TypedDict, of typing or of typing_extensions
    ):
        return None
    return ConfigDict(arbitrary_types_allowed=True)
