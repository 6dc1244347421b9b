"""``agentflow plan``: show a plan without running it."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agentflow.cli import codes
from agentflow.cli.compiling import Compiled, Specs, compiled_member, compiled_text
from agentflow.cli.failures import explained
from agentflow.cli.output import print_json
from agentflow.cli.screen import Screen, clean, show
from agentflow.cli.targets import Member, PlanText, Question, find
from agentflow.cli.toolset import toolbox
from agentflow.errors import DefinitionError, PlanError
from agentflow.planner.jsonform import error_as_json, script_as_json, tools_from_json
from agentflow.planner.printer import print_plan
from agentflow.planner.reader import read_script
from agentflow.tools.tool import Tool

if TYPE_CHECKING:
    from agentflow.cli.forecast import Prospects


def command(options: Any, _screen: Screen) -> int:
    """Show the plan that the options name; the exit code."""
    target = find(options.target, options.args)
    if isinstance(target, Question):
        raise DefinitionError(
            "a question has no plan until a model writes one: 'agentflow run' shows it meanwhile. "
            "Give a plan file, - for standard input, or module:workflow."
        )
    _check_options(target, options)
    try:
        compiled = _compiled(target, options)
        _show(compiled, options, _prospects(compiled, target, options))
    except PlanError as error:
        if options.format != "json":
            raise
        print_json(error_as_json(error))
        print(clean(f"agentflow plan: {explained(error)}"), file=sys.stderr)
        return codes.PLAN
    return codes.OK


def _check_options(target: PlanText | Member, options: Any) -> None:
    """Check that no option is asked for in vain.

    Raises:
        DefinitionError: One would be.
    """
    if options.explain and options.format != "text":
        raise DefinitionError(
            f"--explain is text for people: leave --format {options.format} or --explain out"
        )
    if options.tools_json is not None and isinstance(target, Member):
        raise DefinitionError(
            f"--tools-json is for the text of a plan: {options.target} has tools of its own"
        )


def _compiled(target: PlanText | Member, options: Any) -> Compiled:
    if isinstance(target, Member):
        return compiled_member(target)
    return compiled_text(target.text, _specs(options))


def _prospects(compiled: Compiled, target: PlanText | Member, options: Any) -> Prospects | None:
    """What the limits come to, if there are any."""
    if options.budget is options.budget_tokens is options.deadline is None:
        return None
    from agentflow.cli.forecast import limits, prospects

    budget = limits(target, options)
    return prospects(compiled.final, _tools(target, options), budget, options)


def _tools(target: PlanText | Member, options: Any) -> Mapping[str, Tool[..., Any]]:
    """The tools that a plan may call."""
    if isinstance(target, PlanText):
        return toolbox(options, root=".")
    return {tool.name: tool for tool in (*target.beside, target.tool)}


def _specs(options: Any) -> Specs:
    if options.tools_json is not None:
        return _specs_from_file(options.tools_json)
    return {name: tool.spec for name, tool in toolbox(options, root=".").items()}


def _specs_from_file(path: str) -> Specs:
    try:
        return tools_from_json(json.loads(Path(path).read_text("utf-8")))
    except OSError as error:
        raise DefinitionError(f"--tools-json: {error}") from None
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise DefinitionError(
            f"--tools-json {path}: {type(error).__name__}: {error}. It holds a list of "
            '{"name": "search", "params": ["query"], "required": 1}'
        ) from None


def _show(compiled: Compiled, options: Any, told: Prospects | None) -> None:
    if options.format == "json":
        data = _as_json(compiled)
        print_json(data if told is None else {**data, "forecast": told.as_dict()})
        return
    _draw(compiled, options)
    if told is not None:
        show("\n".join(["", *told.lines()]))


def _draw(compiled: Compiled, options: Any) -> None:
    if options.explain:
        _explain(compiled)
    elif options.format == "text":
        show(print_plan(compiled.plan).removesuffix("\n"))
    else:
        from agentflow.planner import export

        draw = export.to_mermaid if options.format == "mermaid" else export.to_dot
        show(draw(compiled.final, compiled.specs).removesuffix("\n"))


def _explain(compiled: Compiled) -> None:
    from agentflow.planner.passes import annotated, explain

    print("as written:")
    show("".join(f"  {line}\n" for line in print_plan(compiled.plan).splitlines()))
    show(explain(compiled.changes))
    print("\nas it runs:")
    show("\n".join(f"  {line}" for line in annotated(compiled.final)))


def _as_json(compiled: Compiled) -> dict[str, Any]:
    """The plan in the terms of its text; a workflow's plan is read from its printed form."""
    return script_as_json(compiled.script or read_script(print_plan(compiled.plan)))
