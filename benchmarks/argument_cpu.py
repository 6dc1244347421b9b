"""What it costs to read the arguments of a call while they are being written.

Two readers that look at every character once, of JSON and of the plan notation, beside two
parsers that can read incomplete JSON, called on the whole text whenever a chunk has come.
"""

from __future__ import annotations

import asyncio
import json
import math
import statistics
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import harness
import jiter
import pydantic_core
from harness import Goal

from agentflow.planner.printer import print_line
from agentflow.planner.reader import Reader
from agentflow.planner.script import Line
from agentflow.tools.json_arguments import ArgumentsReader

CHUNKS = (1, 4, 16, 64)
SIZES = (1_000, 4_000, 16_000, 64_000, 256_000, 1_000_000)
LONG = 16_000  # characters; below, what a call of a parser costs at least hides how it grows
MOST_REPARSED = 64_000  # characters; beyond, the square of them takes minutes

Arguments: TypeAlias = "dict[str, Any]"

Costs: TypeAlias = "dict[str, dict[int, dict[int, float]]]"
"""By way, chunk size and text size: microseconds of processor time a character."""


@dataclass(frozen=True)
class Way:
    """A way to read arguments: how they are written, and what reads the chunks of that."""

    write: Callable[[Arguments], str]
    read: Callable[[Iterable[str]], Arguments]


def program(size: int) -> Arguments:
    """Arguments with one text of so many characters: a program."""
    line = '    print(f"line {number}: " + names[number], file=log)  # and so on\n'
    return {"path": "job.py", "text": (line * (size // len(line) + 1))[:size]}


def records(size: int) -> Arguments:
    """Arguments of about so many characters with hardly a text: figures, names, words."""
    return {"rows": [{"id": n, "at": n * -0.5, "kept": None} for n in range(size // 40)]}


def as_line(arguments: Arguments) -> str:
    """The call in the plan notation."""
    return print_line(Line(id=1, tool="f", args=(), kwargs=tuple(arguments.items()))) + "\n"


def read_json(chunks: Iterable[str]) -> Arguments:
    """With the reader of JSON arguments."""
    reader = ArgumentsReader(0, "f")
    for chunk in chunks:
        reader.feed(chunk)
    return reader.arguments


def read_notation(chunks: Iterable[str]) -> Arguments:
    """With the reader of plans."""
    reader = Reader()
    for chunk in chunks:
        reader.feed(chunk)
    reader.finish()
    return dict(reader.script.lines[0].kwargs)


def reparse(parse: Callable[[bytes], Arguments]) -> Callable[[Iterable[str]], Arguments]:
    """With a parser of incomplete JSON, called on all there is at every chunk."""

    def read(chunks: Iterable[str]) -> Arguments:
        value: Arguments = {}
        text = bytearray()
        for chunk in chunks:
            text += chunk.encode()
            value = parse(bytes(text))
        return value

    return read


def jiter_parse(text: bytes) -> Any:
    """As far as the text goes, the last string included."""
    return jiter.from_json(text, partial_mode="trailing-strings")


def pydantic_parse(text: bytes) -> Any:
    """As far as the text goes, the last string included."""
    return pydantic_core.from_json(text, allow_partial="trailing-strings")


READERS = {"JSON": Way(json.dumps, read_json), "notation": Way(as_line, read_notation)}
PARSERS = {
    "jiter, each time": Way(json.dumps, reparse(jiter_parse)),
    "pydantic_core, each time": Way(json.dumps, reparse(pydantic_parse)),
}


async def cost(
    ways: Mapping[str, Way], arguments: Arguments, chunk: int, rounds: int
) -> dict[str, float]:
    """Microseconds of processor time a character: the median of some rounds."""
    texts = {name: way.write(arguments) for name, way in ways.items()}

    def reading(name: str) -> Callable[[], Awaitable[Arguments]]:
        text, read = texts[name], ways[name].read

        async def run() -> Arguments:
            return read(text[at : at + chunk] for at in range(0, len(text), chunk))

        return run

    runs = {name: reading(name) for name in ways}
    found = await harness.interleave(runs, rounds, expected=arguments)
    return {name: samples.as_dict(len(texts[name]))["cpu_us"] for name, samples in found.items()}


async def measure(quick: bool = False) -> Costs:
    """A program as the argument, at every size of text and chunk."""
    rounds = 1 if quick else 3
    found: Costs = {name: {chunk: {} for chunk in CHUNKS} for name in (*READERS, *PARSERS)}
    for size in SIZES[:4] if quick else SIZES:
        ways = {**READERS, **PARSERS} if size <= MOST_REPARSED else READERS
        for chunk in CHUNKS:
            for name, figure in (await cost(ways, program(size), chunk, rounds)).items():
                found[name][chunk][size] = figure
    return found


async def measure_records(quick: bool = False) -> dict[str, dict[int, float]]:
    """The costliest arguments for the readers, by way and chunk: 64,000 characters of records."""
    rounds = 1 if quick else 3
    found: dict[str, dict[int, float]] = {name: {} for name in READERS}
    for chunk in CHUNKS:
        for name, figure in (await cost(READERS, records(64_000), chunk, rounds)).items():
            found[name][chunk] = figure
    return found


def growth(by_size: Mapping[int, float]) -> float:
    """The exponent of the time of a long text over its length: 1 is linear, 2 quadratic."""
    long = {size: figure for size, figure in by_size.items() if size >= LONG}
    lengths = [math.log(size) for size in long]
    times = [math.log(size * figure) for size, figure in long.items()]
    return statistics.linear_regression(lengths, times).slope


def table(found: Costs) -> str:
    """Cost by size of text, a line for each way and chunk."""
    sizes = list(found["JSON"][1])
    rows = [
        [f"{name}, {chunk}", *(by_size.get(size) for size in sizes), growth(by_size)]
        for name, by_chunk in found.items()
        for chunk, by_size in by_chunk.items()
    ]
    headings = ["reader, chunk: us CPU a character", *(f"{size:,}" for size in sizes), "exponent"]
    return harness.table(headings, rows)


def records_table(found: Mapping[str, Mapping[int, float]]) -> str:
    """Cost by chunk."""
    rows = [[name, *by_chunk.values()] for name, by_chunk in found.items()]
    headings = ["records, chunk: us CPU a character", *(str(chunk) for chunk in CHUNKS)]
    return harness.table(headings, rows)


def goals(found: Costs) -> list[Goal]:
    """Cost a character in the longest text, and linear time, of both readers."""
    out = []
    for name in READERS:
        for chunk, most in ((16, 1.0), (1, 3.0)):
            by_size = found[name][chunk]
            figure = by_size[max(by_size)]
            out.append(Goal(f"{name}, chunks of {chunk}", figure, most, "us a character"))
        worst = max(growth(by_size) for by_size in found[name].values())
        out.append(Goal(f"{name}, growth to {max(found[name][1]):,}", worst, 1.1, "exponent"))
    return out


def main() -> None:
    """Measure, and print the tables and the goals."""
    options = harness.parser(__doc__ or "").parse_args()
    found = asyncio.run(measure(options.quick))
    print(table(found), end="\n\n")
    print(records_table(dense := asyncio.run(measure_records(options.quick))))
    results = {"cpu_us_a_character": found, "records": dense}
    harness.report("argument_cpu", results, goals(found), options.json)


if __name__ == "__main__":
    main()
