"""Fuzz every reader for a while: ``python -m tests.fuzz --seconds 60``."""

from __future__ import annotations

import argparse
import sys
import time

from tests.fuzz.files import file_targets
from tests.fuzz.fuzzing import Finding, fuzz
from tests.fuzz.readers import text_targets
from tests.fuzz.target import Target


def main() -> int:
    """Fuzz the readers in turn; the number of texts that break one is the exit status."""
    parser = argparse.ArgumentParser(prog="fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="for each reader")
    parser.add_argument("--target", action="append", help="only this one; may be repeated")
    parser.add_argument("--seed", type=int, default=None, help="by default another each time")
    given = parser.parse_args()
    seed = given.seed if given.seed is not None else time.time_ns() % 2**32
    known = {target.name: target for target in [*text_targets(), *file_targets()]}
    if unknown := set(given.target or ()) - known.keys():
        parser.error(f"there is no {', '.join(unknown)}; known: {', '.join(known)}")
    print(f"seed {seed}")
    found = [
        finding
        for name, target in known.items()
        if given.target is None or name in given.target
        for finding in _fuzzed(target, seed, given.seconds)
    ]
    return min(len(found), 100)


def _fuzzed(target: Target, seed: int, seconds: float) -> list[Finding]:
    """Fuzz one reader; the first finding of each kind is printed."""
    until, count = time.monotonic() + seconds, 0
    kinds: dict[str, Finding] = {}
    for finding in fuzz(target, seed, lambda _count: time.monotonic() < until):
        count += 1
        if finding is not None and (kind := _kind(finding)) not in kinds:
            kinds[kind] = finding
            print(finding)
    print(f"{target.name}: {count} texts, {count / seconds:.0f} a second, {len(kinds)} findings")
    return list(kinds.values())


def _kind(finding: Finding) -> str:
    trace = finding.error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    where = "" if trace is None else f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}"
    return f"{type(finding.error).__name__} {where}"


if __name__ == "__main__":
    sys.exit(main())
