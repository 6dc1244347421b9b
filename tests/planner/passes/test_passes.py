"""Every pass, on the cases of the text file of its name.

A case is a title after ``#``, the plan before, ``=>``, and the plan after as it is printed with
its notes. Both plans are run and must agree, unless the case ends with ``(not run)``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from agentflow.planner import passes
from agentflow.planner.passes import annotated
from agentflow.planner.plan import Answer, Plan
from agentflow.planner.verify import verify
from agentflow.tools.spec import ToolSpec

HERE = Path(__file__).parent
NOT_RUN = "(not run)"


def cases() -> Iterator[Any]:
    for path in sorted(HERE.glob("*.txt")):
        for case in path.read_text(encoding="utf-8").split("\n\n"):
            title, _, body = case.strip().partition("\n")
            before, after = body.split("\n=>\n")
            yield pytest.param(path.stem, before, after, id=f"{path.stem}: {title[2:]}")


@pytest.mark.parametrize(("name", "before", "after"), list(cases()))
def test_a_pass_rewrites_a_plan_as_written_and_keeps_its_meaning(
    name: str,
    before: str,
    after: str,
    tools: Mapping[str, ToolSpec],
    read: Callable[[str], Plan],
    interpret: Callable[[Plan], Any],
) -> None:
    plan = read(before)
    verify(plan, tools)
    changed = getattr(passes, name)(plan, tools)
    verify(changed, tools, after=name)
    wanted, mark, _ = after.partition("\n" + NOT_RUN)
    assert "\n".join(annotated(changed)) == wanted
    assert (changed is plan) == (annotated(plan) == annotated(changed))
    if not mark:
        one, other = interpret(plan).run(), interpret(changed).run()
        assert other.world == one.world
        if isinstance(plan.result, Answer):
            assert other.result.items() <= one.result.items()
        else:
            assert other.result == one.result


@pytest.mark.parametrize("name", sorted(path.stem for path in HERE.glob("*.txt")))
def test_a_pass_has_nothing_left_to_do_after_itself(
    name: str, tools: Mapping[str, ToolSpec], read: Callable[[str], Plan]
) -> None:
    step = getattr(passes, name)
    for case in cases():
        if case.values[0] == name:
            once = step(read(case.values[1]), tools)
            assert step(once, tools) is once


def test_every_pass_has_cases() -> None:
    assert {step.__name__ for step in passes.PASSES} == {path.stem for path in HERE.glob("*.txt")}
