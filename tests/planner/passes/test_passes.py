"""Every pass, on the cases of the text file of its name.

The examples of docs/passes.md are cases too. A case is a title after ``#``, the plan before, ``=>``, and the plan after as it is printed with
its notes. Both plans are run and must agree, unless the case ends with ``(not run)``.
"""

from __future__ import annotations

import re
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
PAGE = HERE.parents[2] / "docs" / "passes.md"
EXAMPLE = re.compile(r"```text\n(.*?)\n=>\n(.*?)\n```", re.DOTALL)
NOT_RUN = "(not run)"


def cases() -> Iterator[Any]:
    for path in sorted(HERE.glob("*.txt")):
        for case in path.read_text(encoding="utf-8").split("\n\n"):
            title, _, body = case.strip().partition("\n")
            before, after = body.split("\n=>\n")
            yield pytest.param(path.stem, before, after, id=f"{path.stem}: {title[2:]}")
    for name, before, after in examples():
        yield pytest.param(name, before, after, id=f"{name}: the example of its page")


def examples() -> Iterator[tuple[str, str, str]]:
    for section in PAGE.read_text(encoding="utf-8").split("\n## ")[1:]:
        if example := EXAMPLE.search(section):
            yield section.partition("\n")[0], example[1], example[2]


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


def test_every_pass_has_cases_and_an_example_in_order() -> None:
    names = [step.__name__ for step in passes.PASSES]
    assert sorted(names) == sorted(path.stem for path in HERE.glob("*.txt"))
    assert [name for name, _, _ in examples()] == names
