"""What a tool may declare together."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from agentflow.errors import DefinitionError
from agentflow.tools.doubt import Verifier
from agentflow.tools.effects import Effect
from agentflow.tools.policy import Policy
from agentflow.tools.roles import Check

if TYPE_CHECKING:
    from agentflow.tools.tool import Tool

_WHAT = {"writes": "writes", "undeclared": "does not say that it only reads"}


def check_policy(name: str, effect: Effect, policy: Policy) -> None:
    """Refuse what would repeat a write, or keep what is not kept.

    Raises:
        DefinitionError: The policy does not go with the effect.
    """
    if policy.retries and effect.kind == "writes" and not effect.repeats_safely:
        raise DefinitionError(
            f"tool {name!r} writes and would be repeated by retries={policy.retries}: "
            "declare idempotent=True, or leave retries out"
        )
    if policy.hedge and (policy.approve or not effect.repeats):
        raise DefinitionError(
            f"tool {name!r} would be called twice at once by hedge={policy.hedge}: "
            "only tools that are pure or read may be, and model calls, if nobody is asked before"
        )
    if (policy.ttl or policy.negative_ttl) and effect.kind not in ("pure", "reads"):
        raise DefinitionError(
            f"tool {name!r} cannot have a ttl, its results are not kept: declare pure=True or "
            "reads=... if that is what it is"
        )
    if policy.verify is not None:
        if effect.repeats:
            raise DefinitionError(
                f"tool {name!r} writes nothing, so its calls are never in doubt: leave verify out"
            )
        Verifier(policy.verify, name)


def checks_of(name: str, given: Any) -> Mapping[str, Check]:
    """The checks of a tool as its decorator was given them.

    Raises:
        DefinitionError: They are no functions by parameter.
    """
    if given is None:
        return {}
    if isinstance(given, Mapping) and all(map(callable, given.values())):
        return given
    raise DefinitionError(
        f"tool {name!r}: check= takes a function for each parameter it looks at, as in "
        'check={"query": not_empty}'
    )


def check_roles(tool: Tool[..., Any], checks: Mapping[str, Check]) -> None:
    """Refuse effects before a commit, streams in threads, checks of nothing.

    Raises:
        DefinitionError: The parameters, or their checks, do not go with the tool.
    """
    roles, name = tool.signature.roles, tool.name
    for parameter, check in checks.items():
        if parameter not in tool.signature.names:
            raise DefinitionError(f"tool {name!r}: check= names no parameter {parameter!r} of it")
        if inspect.iscoroutinefunction(check):
            raise DefinitionError(f"tool {name!r}: a check is a plain function, not {check!r}")
    if not (roles.early or roles.commit or roles.warm):
        return
    if tool.implementation is not tool.fn:
        raise DefinitionError(f"{name!r} takes Stream, Late, Commit or Warm: only a @tool can")
    if tool.kind == "thread" and (roles.early or roles.commit):
        raise DefinitionError(f"tool {name!r} takes Stream, Late or Commit: make it 'async def'")
    if not roles.early:
        return
    if not tool.effect.repeats and roles.commit is None:
        raise DefinitionError(
            f"tool {name!r} {_WHAT[tool.effect.kind]}, and would begin before its call is "
            "certain: add a parameter 'commit: Commit' and await commit() before the effect, or "
            "declare pure=True or reads=..."
        )
