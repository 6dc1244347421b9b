"""What was seen of models at kinds of tasks, as it is kept: bounded, and forgotten in time."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple, TypeAlias, TypeVar

FORMAT = 1

KINDS = 128
"""Kinds of tasks, and workflows, that are remembered; those seen last stay."""

MODELS = 16
"""Models of a kind that are remembered."""

ROWS = 64
"""Samples of a model at a kind, of each outcome, whose lengths are remembered."""

PATTERNS = 48
"""Different outcomes of the jobs of a kind that are told apart."""

JOBS = 512.0
"""Jobs that all that is known of a kind weighs at most."""

RUNS = 100
"""Runs of a workflow that are remembered."""

_COARSE = (6, 8, 12)
"""What more than four samples of a job count as; that a job is hopeless is clear by then."""

_FORGOTTEN = 1e-3
"""Weight below which a job is as good as forgotten."""

Pattern: TypeAlias = tuple[tuple[str, int, int], ...]
"""What came of a job: of each model that tried it, samples that passed and that did not."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one sample.

    Attributes:
        passed: Whether it passed its check; None if it was cancelled before that was known.
        seconds: From its start to its end.
        prompt_tokens: Tokens of its input.
        completion_tokens: Tokens of its output.
    """

    passed: bool | None
    seconds: float
    prompt_tokens: int = 0
    completion_tokens: int = 0


class Row(NamedTuple):
    """The size of a sample that ended at a wall time."""

    at: int
    seconds: float
    prompt_tokens: int
    completion_tokens: int


class Run(NamedTuple):
    """What came of a run of a workflow that ended at a wall time."""

    at: int
    passed: bool
    usd: float


def _rows() -> deque[Row]:
    return deque(maxlen=ROWS)


@dataclass(slots=True)
class Record:
    """What was seen of one model at one kind of task.

    Attributes:
        loose: Samples that passed, and that did not, of jobs that are not settled.
        won: Sizes of samples that passed, the newest last.
        lost: Of those that did not.
        cut: Of those that were cancelled.
    """

    loose: list[float] = field(default_factory=lambda: [0.0, 0.0])
    won: deque[Row] = field(default_factory=_rows)
    lost: deque[Row] = field(default_factory=_rows)
    cut: deque[Row] = field(default_factory=_rows)

    def rows(self, passed: bool | None) -> deque[Row]:
        """The samples of one outcome."""
        return self.cut if passed is None else self.won if passed else self.lost


@dataclass(slots=True)
class Kind:
    """What was seen of one kind of task.

    Attributes:
        at: The wall time that the weights are of.
        jobs: How much jobs weigh, by what came of them.
        models: Those that tried, the one seen last at the end.
        changes: Grows with every outcome.
        agreement: How much the samples of one job have in common, as it was worked out last.
        agreement_at: The changes there were then; -1 before.
    """

    at: int
    jobs: dict[Pattern, float] = field(default_factory=dict)
    models: dict[str, Record] = field(default_factory=dict)
    changes: int = 0
    agreement: float = 0.5
    agreement_at: int = -1

    def age(self, at: int, half_life: float) -> float:
        """Forget what time has passed; the weight of what was seen at a wall time."""
        self.changes += 1
        if at <= self.at:
            return _half((self.at - at) / half_life)
        self.scale(_half((at - self.at) / half_life))
        self.at = at
        return 1.0

    def scale(self, factor: float) -> None:
        """Make all that was seen weigh less."""
        aged = {pattern: weight * factor for pattern, weight in self.jobs.items()}
        self.jobs = {pattern: weight for pattern, weight in aged.items() if weight > _FORGOTTEN}
        for record in self.models.values():
            record.loose = [count * factor for count in record.loose]

    def bound(self) -> None:
        """Keep to what is remembered of a kind: of jobs, the rarest counts as the most alike."""
        if len(self.jobs) > PATTERNS:
            rarest = min(self.jobs, key=self.jobs.__getitem__)
            weight = self.jobs.pop(rarest)
            self.jobs[min(self.jobs, key=partial(_distance, rarest))] += weight
        loose = sum(sum(record.loose) for record in self.models.values())
        if (total := sum(self.jobs.values()) + loose) > JOBS:
            self.scale(JOBS / total)

    def tried_by(self) -> set[str]:
        """Everybody who tried it."""
        return {model for pattern in self.jobs for model, _, _ in pattern}.union(self.models)

    def tried(self, model: str) -> tuple[float, float]:
        """Jobs that a model tried, and how many it passed: each by the share of its samples."""
        jobs = passes = 0.0
        for pattern, weight in self.jobs.items():
            for name, passed, failed in pattern:
                if name == model:
                    jobs += weight
                    passes += weight * passed / (passed + failed)
        record = self.models.get(model)
        won, lost = record.loose if record else (0.0, 0.0)
        return jobs + won + lost, passes + won


class Records:
    """All that was seen.

    Args:
        half_life: Seconds after which an outcome weighs half.

    Attributes:
        kinds: By name, the one seen last at the end.
        workflows: The newest runs by name, the one that ran last at the end.
    """

    def __init__(self, half_life: float) -> None:
        self.half_life = half_life
        self.kinds: dict[str, Kind] = {}
        self.workflows: dict[str, deque[Run]] = {}

    def record(self, kind: str, model: str) -> Record:
        """What was seen of a model at a kind."""
        known = self.kinds.get(kind)
        return (known.models.get(model) if known else None) or Record()

    def weight(self, kind: Kind, now: int) -> float:
        """How much of what a kind's outcomes weighed at the last is left."""
        return _half(max(0, now - kind.at) / self.half_life)

    def tried(self, kind: str, model: str, now: int) -> tuple[float, float]:
        """Jobs of a kind that a model tried, and how many of them it passed, by their weight."""
        if (known := self.kinds.get(kind)) is None:
            return 0.0, 0.0
        weight = self.weight(known, now)
        jobs, passes = known.tried(model)
        return weight * jobs, weight * passes

    def note(self, at: int, kind: str, model: str, outcome: Outcome) -> None:
        """Add a sample."""
        row = Row(at, *_size(outcome))
        known = self._kind(kind, at)
        weight = known.age(at, self.half_life)
        record = _newest(known.models, model, known.models.get(model) or Record(), MODELS)
        record.rows(outcome.passed).append(row)
        if outcome.passed is not None:
            record.loose[not outcome.passed] += weight
        known.bound()

    def settle(self, at: int, kind: str, counts: Mapping[str, tuple[int, int]]) -> None:
        """Add a job; its samples are no longer loose."""
        known = self._kind(kind, at)
        weight = known.age(at, self.half_life)
        for model, samples in counts.items():
            if record := known.models.get(model):
                pairs = zip(record.loose, samples, strict=True)
                record.loose = [max(0.0, loose - count) for loose, count in pairs]
        pattern = _pattern(counts)
        if pattern:
            known.jobs[pattern] = known.jobs.get(pattern, 0.0) + weight
        known.bound()

    def ran(self, at: int, name: str, passed: bool, usd: float) -> None:
        """Add a run of a workflow."""
        runs = self.workflows.get(name) or deque(maxlen=RUNS)
        _newest(self.workflows, name, runs, KINDS).append(Run(at, passed, usd))

    def _kind(self, name: str, at: int) -> Kind:
        return _newest(self.kinds, name, self.kinds.get(name) or Kind(at), KINDS)

    def dump(self) -> dict[str, Any]:
        """All of it as JSON."""
        return {
            "format": FORMAT,
            "kinds": {name: _dumped(kind) for name, kind in self.kinds.items()},
            "workflows": {name: list(runs) for name, runs in self.workflows.items()},
        }

    @classmethod
    def load(cls, dumped: Any, half_life: float, at: int) -> Records:
        """What `dump` gave; nothing of it is younger than a wall time.

        Raises:
            ValueError: It did not give this.
        """
        records = cls(half_life)
        try:
            for name, kind in list(dumped["kinds"].items())[-KINDS:]:
                records.kinds[name] = _kind(kind, at)
            for name, runs in list(dumped["workflows"].items())[-KINDS:]:
                found = (Run(min(_whole(w), at), _flag(p), _number(usd)) for w, p, usd in runs)
                records.workflows[name] = deque(found, maxlen=RUNS)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise ValueError(f"these are no estimates: {error}") from error
        return records


_Value = TypeVar("_Value")


def _half(lives: float) -> float:
    """What is left after so many half-lives."""
    return math.pow(2.0, -lives)


def _newest(table: dict[str, _Value], name: str, value: _Value, limit: int) -> _Value:
    """Put a value at the end of a table that holds so many."""
    table.pop(name, None)
    table[name] = value
    if len(table) > limit:
        del table[next(iter(table))]
    return value


def _size(outcome: Outcome) -> tuple[float, int, int]:
    """Seconds and tokens of a sample, as exact as they are worth keeping.

    Raises:
        TypeError, ValueError: They are none.
    """
    seconds = float(f"{_number(outcome.seconds):.6g}")
    return seconds, _whole(outcome.prompt_tokens), _whole(outcome.completion_tokens)


def _pattern(counts: Mapping[str, tuple[int, int]]) -> Pattern:
    entries = (
        (name, _coarse(passed), _coarse(failed)) for name, (passed, failed) in counts.items()
    )
    return tuple(sorted(entry for entry in entries if entry[1] or entry[2]))


def _coarse(count: int) -> int:
    return count if count <= 4 else min(_COARSE, key=lambda other: abs(other - count))


def _distance(one: Pattern, other: Pattern) -> float:
    """How far apart two outcomes of jobs are: by orders of magnitude of the samples."""
    counts: dict[tuple[str, bool], float] = {}
    for sign, pattern in ((1, one), (-1, other)):
        for model, passed, failed in pattern:
            for outcome, samples in ((True, passed), (False, failed)):
                key = model, outcome
                counts[key] = counts.get(key, 0.0) + sign * math.log1p(samples)
    return sum(map(abs, counts.values()))


def _dumped(kind: Kind) -> dict[str, Any]:
    models = {
        name: {
            "loose": record.loose,
            "won": list(record.won),
            "lost": list(record.lost),
            "cut": list(record.cut),
        }
        for name, record in kind.models.items()
    }
    jobs = [[weight, pattern] for pattern, weight in kind.jobs.items()]
    return {
        "at": kind.at,
        "changes": kind.changes,
        "agreement": [kind.agreement, kind.agreement_at],
        "jobs": jobs,
        "models": models,
    }


def _kind(dumped: Any, at: int) -> Kind:
    jobs = {
        _read_pattern(pattern): _number(weight) for weight, pattern in dumped["jobs"][-PATTERNS:]
    }
    models = {
        name: _record(record, at) for name, record in list(dumped["models"].items())[-MODELS:]
    }
    agreement, agreement_at = dumped["agreement"]
    return Kind(
        min(_whole(dumped["at"]), at),
        jobs,
        models,
        _whole(dumped["changes"]),
        min(_number(agreement), 0.9),
        _whole(agreement_at + 1) - 1,
    )


def _record(dumped: Any, at: int) -> Record:
    passed, failed = map(_number, dumped["loose"])
    won, lost, cut = (deque(_read_rows(dumped[n], at), ROWS) for n in ("won", "lost", "cut"))
    return Record([passed, failed], won, lost, cut)


def _read_rows(rows: Iterable[Any], at: int) -> Iterator[Row]:
    for when, seconds, prompt, completion in rows:
        yield Row(min(_whole(when), at), _number(seconds), _whole(prompt), _whole(completion))


def _read_pattern(pattern: Iterable[Any]) -> Pattern:
    read = tuple((_text(name), _whole(passed), _whole(failed)) for name, passed, failed in pattern)
    if not read or not all(0 < passed + failed <= 2 * _COARSE[-1] for _, passed, failed in read):
        raise ValueError("a job was tried by nobody, or too often")
    return read


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{value!r:.40} is no number")
    if not 0 <= value < math.inf:
        raise ValueError(f"{value!r:.40} is out of range")
    return float(value)


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**53:
        raise TypeError(f"{value!r:.40} is no count")
    return value


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{value!r:.40} is neither true nor false")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r:.40} is no name")
    return value
