"""Runs a reader on mutated texts, and measures how its work grows with the text."""

from __future__ import annotations

import random
import signal
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from tests.fuzz.mutate import mutated
from tests.fuzz.target import Target

PATIENCE = 5
"""Seconds that one text may take."""


class Stuck(KeyboardInterrupt):
    """A reader does not come to its end; raised where it is."""


@dataclass(frozen=True)
class Finding:
    """A text that a reader should have refused, or read, and did neither."""

    target: str
    data: bytes
    error: BaseException

    def __str__(self) -> str:
        shown = self.data if len(self.data) <= 600 else self.data[:600] + b"..."
        return f"{self.target}: {type(self.error).__name__}: {self.error}\n  {shown!r}"


def attempt(target: Target, data: bytes, chance: random.Random) -> Finding | None:
    """Read one text."""
    try:
        with _in_time(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # whoever sees them is told what was set aside
            target.read(data, chance)
    except target.raises:
        return None
    except Stuck as error:
        return Finding(target.name, data, error)
    except Exception as error:  # noqa: BLE001  # what is looked for
        return Finding(target.name, data, error)
    return None


def fuzz(target: Target, seed: int, go_on: Callable[[int], bool]) -> Iterator[Finding | None]:
    """Read the corpus, and mutated texts for as long as `go_on` says; what each came to."""
    chance = random.Random(seed)
    for data in target.corpus:
        yield attempt(target, data, chance)
    count = 0
    while go_on(count):
        yield attempt(target, mutated(target.corpus, chance), chance)
        count += 1


def growth(target: Target, text: Callable[[int], bytes], size: int, times: int) -> float:
    """How many times as long a text takes that is so many times as long, at best."""
    ratios = []
    for _ in range(3):
        short, long = (_cost(target, text(length)) for length in (size, size * times))
        ratios.append(long / short)
        if ratios[-1] <= times:
            break
    return min(ratios)


def _cost(target: Target, data: bytes) -> float:
    """Processor seconds to read a text, what is too little to be measured added."""
    chance = random.Random(0)
    began = time.process_time()
    finding = attempt(target, data, chance)
    if finding is not None:
        raise AssertionError(str(finding)) from finding.error
    return time.process_time() - began + 0.002


@contextmanager
def _in_time() -> Iterator[None]:
    before = signal.signal(signal.SIGALRM, _stuck)
    signal.setitimer(signal.ITIMER_REAL, PATIENCE)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _stuck(_number: int, frame: FrameType | None) -> None:
    place = "" if frame is None else f" at {frame.f_code.co_filename}:{frame.f_lineno}"
    raise Stuck(f"one text takes more than {PATIENCE} s{place}")
