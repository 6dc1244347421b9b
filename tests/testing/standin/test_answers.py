"""Passages are ranked and quoted: rare terms, close together, in telling places."""

from __future__ import annotations

from pathlib import Path

from agentflow.testing.standin.composing import answer
from agentflow.testing.standin.evidence import Evidence
from agentflow.testing.standin.moves import further, opening
from agentflow.testing.standin.question import read_question
from agentflow.testing.standin.ranking import coverage, missing, rank
from agentflow.testing.standin.toolbox import Role


def read_all(project: Path) -> Evidence:
    evidence = Evidence()
    for path in sorted(project.rglob("*.*")):
        name = path.relative_to(project).as_posix()
        for number, line in enumerate(path.read_text("utf-8").split("\n"), 1):
            evidence.lines[name, number] = line
    return evidence


def best(project: Path, text: str) -> str:
    first = rank(read_question(text), read_all(project))[0]
    return f"{first.file}:{first.line}"


def test_terms_that_stand_together_win(project: Path) -> None:
    assert best(project, "When is the kettle heated?") == "README.md:3"
    assert best(project, "How long may a brew take, in minutes?") == "README.md:8"


def test_the_definition_of_a_name_wins(project: Path) -> None:
    assert best(project, "What is `KettleError`?") == "src/kettle.py:6"
    assert best(project, "Where is next_brew?") == "src/brewing_plan.py:6"


def ranked(text: str, lines: dict[tuple[str, int], str]) -> list[tuple[str, int]]:
    return [(p.file, p.line) for p in rank(read_question(text), Evidence(lines=lines))]


def test_a_place_with_both_terms_beats_one_with_the_rarer_alone() -> None:
    lines = {("a", 1): "zebra stripes", ("b", 1): "quagga"}
    lines |= {(name, n): name for n in range(1, 200, 10) for name in ("zebra", "stripes")}
    assert ranked("Do zebra or quagga have stripes?", lines)[0] == ("a", 1)


def test_a_definition_beats_a_mention_of_the_same_name() -> None:
    lines = {("a.py", 1): "see quota() for more", ("z.py", 1): "def quota():"}
    assert ranked("What is `quota`?", lines)[0] == ("z.py", 1)


def test_imports_and_data_come_last() -> None:
    lines = {
        ("a.json", 1): '{"zebra": 1}',
        ("b.py", 1): "import zebra",
        ("c.md", 1): "a zebra",
        ("tests/test_d.md", 1): "a zebra",
    }
    assert [file for file, _ in ranked("zebra?", lines)][:2] == ["c.md", "tests/test_d.md"]


def test_at_most_two_places_of_a_file_are_given() -> None:
    lines = {("a", n): "zebra" for n in range(1, 100, 10)} | {("z", 1): "zebra"}
    assert ranked("zebra?", lines) == [("a", 1), ("a", 11), ("z", 1)]


def test_places_are_spread_over_files(project: Path) -> None:
    passages = rank(read_question("What do you know of the kettle?"), read_all(project), limit=9)
    files = [passage.file for passage in passages]
    assert len(set(files)) >= 3
    assert max(files.count(name) for name in files) <= 2


def test_coverage_is_the_weight_of_the_terms_found(project: Path) -> None:
    question = read_question("Does the kettle use uranium?")
    passages = rank(question, read_all(project))
    assert 0.3 < coverage(question, passages) < 0.7
    assert [term.text for term in missing(question, read_all(project))] == ["uranium"]
    assert coverage(read_question("Why?"), []) == 1.0


def test_an_answer_quotes_the_sentence_and_cites_its_place(project: Path) -> None:
    told = answer(read_question("How long may a brew take, in minutes?"), read_all(project))
    assert told.startswith("A brew never takes longer than five minutes. (README.md:8)")
    assert "See also:\n- " in told


def test_a_sentence_over_two_lines_is_quoted_whole(project: Path) -> None:
    told = answer(read_question("When is the kettle heated?"), read_all(project))
    assert told.startswith(
        "The kettle is heated before the leaves are added, because cold water spoils them."
    )


def test_a_definition_is_quoted_with_its_docstring(project: Path) -> None:
    told = answer(read_question("What is `KettleError`?"), read_all(project))
    assert told.startswith("`class KettleError(Exception)`: The kettle is dry. (src/kettle.py:6)")


def test_what_was_not_found_is_said(project: Path) -> None:
    told = answer(read_question("Does the kettle use uranium?"), read_all(project))
    assert told.endswith("Nothing was found on 'uranium'.")
    nothing = answer(read_question("Where is the uranium?"), read_all(project))
    assert nothing.startswith("Nothing was found on 'uranium'")


def test_sums_and_counts_are_told() -> None:
    evidence = Evidence(values=[("17*23", "391")], listings={"**/*.py": (1, False), "*": (9, True)})
    assert answer(read_question("What is 17*23?"), evidence) == "17*23 = 391"
    python = read_question("How many Python files are there?")
    assert answer(python, evidence) == "1 file matches **/*.py."
    evidence.listings["**/*.py"] = (1000, True)
    assert answer(python, evidence) == "At least 1000 files match **/*.py."
    assert "could not be listed" in answer(python, Evidence())


def test_a_question_about_nothing_is_answered_plainly() -> None:
    assert answer(read_question("Why?"), Evidence()) == "Nothing was found that answers: Why?"


def test_an_opening_makes_a_dozen_calls_and_reads_what_it_finds() -> None:
    for text in ("What is a kettle?", "When is the kettle heated, and how long?", "`KettleError`"):
        moves = opening(read_question(text))
        assert len(moves) >= 12
        assert {move.role for move in moves} == {Role.SEARCH, Role.LIST, Role.READ}
        assert all(move.of in moves for move in moves if move.of is not None)


def test_an_opening_never_asks_the_same_twice() -> None:
    moves = opening(read_question("What is the plan of a planner's plan, `plan`?"))
    asked = [(move.role, str(move.arguments)) for move in moves if move.of is None]
    assert len(asked) == len(set(asked))


def test_a_sum_or_a_count_is_all_that_is_asked() -> None:
    assert [move.role for move in opening(read_question("What is 2+2?"))] == [Role.CALCULATE]
    assert [move.role for move in opening(read_question("How many files?"))] == [Role.LIST]


def test_other_spellings_are_tried_once_for_what_is_missing() -> None:
    question, evidence = read_question("What is speculation?"), Evidence(tried={"speculation"})
    (move,) = further(question, evidence)
    assert move.arguments["pattern"] == "specul"
    evidence.tried.add("specul")
    assert further(question, evidence) == []


def test_enough_is_enough(project: Path) -> None:
    question = read_question("When is the kettle heated before leaves are added to uranium?")
    assert [term.text for term in missing(question, read_all(project))] == ["uranium"]
    assert further(question, read_all(project)) == []


def test_a_quotation_ends_with_its_docstring() -> None:
    lines = ['"""Pours the tea', 'until none is left."""', "the pot goes round", "", "tea"]
    evidence = Evidence(lines={("a.py", n): line for n, line in enumerate(lines, 1)})
    told = answer(read_question("Who pours the tea?"), evidence)
    assert told.startswith("Pours the tea until none is left. (a.py:1)")
