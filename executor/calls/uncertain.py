"""What stands for the run in a call that is not certain yet."""

from __future__ import annotations

from typing import Any


class Refused(Exception):
    """A guess wanted more than to be made: a run of its own, or a model."""


class NoRun:
    """Stands for the run while a guess is made: it starts no runs, and asks no models.

    Attributes:
        refused: Something was refused; what the guess gave then is not what the call gives.
    """

    def __init__(self) -> None:
        self.refused = False

    def said(self, text: str, by: str = "user") -> None:
        """Nobody hears it."""

    def __getattr__(self, name: str) -> Any:
        """Whatever else a run has costs money, or is seen.

        Raises:
            Refused: Always.
        """
        self.refused = True
        raise Refused("a call that is not certain yet cannot start a run or ask a model")
