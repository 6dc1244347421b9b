"""Regular expressions that cannot be made slow.

Python's `re` backtracks, and holds the interpreter lock while it does: a pattern such as
``(a+)+$`` stops the whole process. Patterns here come from models, so they are compiled to a
nondeterministic automaton (Thompson, CACM 1968), whose sets of states are met once and then
remembered, as RE2 does. Time is linear in the text, whatever the pattern.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from agentflow.errors import AgentflowError
from agentflow.tools.builtin.regex import Assert, CharSet, Node, Repeat, Sequence, parse

MAX_PROGRAM = 1_000
"""Instructions a pattern may compile to."""

MAX_MEMORY = 200_000
"""Transitions remembered before the memory is emptied."""

MAX_WORK = 5_000_000
"""Instructions visited, outside the memory, before a search gives up (a few seconds)."""


class PatternTooCostly(AgentflowError, ValueError):
    """A pattern is too large, or met too many different situations in the text."""


@dataclass(frozen=True, slots=True)
class _Split:
    """Go on at both places."""

    one: int
    other: int


_Step: TypeAlias = "CharSet | Assert | _Split"


class _State(dict[str, "_State"]):
    """Places of the program that are alive, and where each character leads from them."""

    __slots__ = ("before", "places", "search")

    def __init__(self, search: Search, places: frozenset[int], before: str) -> None:
        super().__init__()
        self.search = search
        self.places = places
        self.before = before

    def __missing__(self, char: str) -> _State:
        return self.search.advance(self, char)


class Search:
    """A compiled pattern.

    Not for use by two threads at once: it remembers what it met.

    Args:
        pattern: Literals, ``.``, sets, ``\\d \\w \\s``, groups, ``|``, ``* + ? {m,n}``,
            ``^ $ \\b``. No look-around and no back-references.
        ignore_case: Whether upper and lower case are the same.

    Raises:
        PatternError: It is not such a pattern; the message says where.
        PatternTooCostly: It compiles to more than `MAX_PROGRAM` instructions.
    """

    def __init__(self, pattern: str, *, ignore_case: bool = False) -> None:
        self._ignore_case = ignore_case
        self._program: list[_Step] = []
        node = parse(pattern)
        self._literal = _longest_literal(node)
        self._compile(node)
        self._states: dict[tuple[frozenset[int], str], _State] = {}
        self._remembered = 0
        self._work = 0
        self._start = self._state(frozenset((0,)), "start")
        self._found = _State(self, frozenset(), "found")

    def may_match(self, text: str) -> bool:
        """False only if no line of the text can match: a quick look at the whole."""
        if not self._ignore_case:
            return self._literal in text
        if self._literal.isascii() and text.isascii():
            return self._literal.lower() in text.lower()
        return True

    def matches(self, line: str) -> bool:
        """Whether the pattern matches anywhere in the line.

        Raises:
            PatternTooCostly: `MAX_WORK` was used up.
        """
        state, found = self._start, self._found
        for char in line:
            state = state[char]
            if state is found:
                return True
        return self._accepts(self._closure(state, "end"))

    def advance(self, state: _State, char: str) -> _State:
        """The state after one more character, now remembered."""
        after = _kind(char)
        closure = self._closure(state, after)
        if self._accepts(closure):
            target = self._found
        else:
            places = {0} | {place + 1 for place in closure if self._takes(place, char)}
            target = self._state(frozenset(places), after)
        self._remembered += 1
        if self._remembered > MAX_MEMORY:
            self._forget()
        state[char] = target
        return target

    def _state(self, places: frozenset[int], before: str) -> _State:
        key = places, before
        if key not in self._states:
            self._states[key] = _State(self, places, before)
        return self._states[key]

    def _forget(self) -> None:
        for state in self._states.values():
            state.clear()
        self._states = {(self._start.places, "start"): self._start}
        self._remembered = 0

    def _accepts(self, closure: set[int]) -> bool:
        return len(self._program) in closure

    def _takes(self, place: int, char: str) -> bool:
        step = self._program[place]
        return isinstance(step, CharSet) and step.holds(char, self._ignore_case)

    def _closure(self, state: _State, after: str) -> set[int]:
        """Every place that can be reached without taking a character."""
        seen: set[int] = set()
        todo = list(state.places)
        while todo:
            place = todo.pop()
            if place in seen:
                continue
            seen.add(place)
            step = self._program[place] if place < len(self._program) else None
            if isinstance(step, _Split):
                todo += (step.one, step.other)
            elif isinstance(step, Assert) and step.holds(state.before, after):
                todo.append(place + 1)
        self._work += len(seen)
        if self._work > MAX_WORK:
            raise PatternTooCostly("the pattern is too costly for this text: make it simpler")
        return seen

    def _compile(self, node: Node) -> None:
        if isinstance(node, CharSet | Assert):
            self._append(node)
        elif isinstance(node, Sequence):
            for part in node.parts:
                self._compile(part)
        elif isinstance(node, Repeat):
            self._compile_repeat(node)
        else:
            self._compile_choice(node.options)

    def _compile_choice(self, options: tuple[Node, ...]) -> None:
        """Split to each option; every option but the last jumps to the end."""
        jumps = []
        for option in options[:-1]:
            fork = self._append(_Split(0, 0))
            self._compile(option)
            jumps.append(self._append(_Split(0, 0)))
            self._program[fork] = _Split(fork + 1, len(self._program))
        self._compile(options[-1])
        for jump in jumps:
            self._program[jump] = _Split(len(self._program), len(self._program))

    def _compile_repeat(self, node: Repeat) -> None:
        for _ in range(node.least):
            self._compile(node.part)
        if node.most is None:
            fork = self._append(_Split(0, 0))
            self._compile(node.part)
            self._append(_Split(fork, fork))
            self._program[fork] = _Split(fork + 1, len(self._program))
            return
        for _ in range(node.most - node.least):
            fork = self._append(_Split(0, 0))
            self._compile(node.part)
            self._program[fork] = _Split(fork + 1, len(self._program))

    def _append(self, step: _Step) -> int:
        if len(self._program) >= MAX_PROGRAM:
            raise PatternTooCostly(
                f"the pattern is too large (more than {MAX_PROGRAM} steps): use smaller counts"
            )
        self._program.append(step)
        return len(self._program) - 1


def _kind(char: str) -> str:
    return "word" if char == "_" or char.isalnum() else "other"


def _longest_literal(node: Node) -> str:
    """The longest text that every match contains, as far as it shows at the top level."""
    runs = [""]
    for part in node.parts if isinstance(node, Sequence) else (node,):
        single = part.single() if isinstance(part, CharSet) else None
        if single is not None:
            runs[-1] += single
        elif not isinstance(part, Assert):
            runs.append("")
    return max(runs, key=len)
