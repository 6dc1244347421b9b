"""Which slot of a llama.cpp server a request uses, and what happens to whom it held before.

Each slot keeps the last sequence it worked on, and only the client knows which of them will be
wanted first. Left alone, the server gives a new conversation the slot of another that begins
alike, which loses it. What nobody will ask for again serves whoever begins alike: the system
prompt of conversations that are over is not computed for the next one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from agentflow.caches.affinity.prompts import Prompt, alike

SWAP = 1.0 / 35_000.0
"""Seconds to save or restore a token before it was measured; the server's README tells of 1,745
tokens in 50 ms."""

NOTHING = Prompt((), 0)
"""What an unused slot holds, and what is known of a prompt of which nothing is."""

FILES = 64
"""Sequences that are kept on the server's disk at most: it offers no way to delete a file."""

MEMORY = 0.8
"""Weight of earlier measurements."""


@dataclass(slots=True)
class Slot:
    """One slot as the table knows it.

    Attributes:
        number: As the server calls it.
        session: Whose sequence it holds; empty for nobody's.
        prompt: With which that sequence begins.
        tokens: Length of that sequence.
        busy: A request has it.
        used: When it was last given back.
    """

    number: int
    session: str = ""
    prompt: Prompt = NOTHING
    tokens: int = 0
    busy: bool = False
    used: float = -math.inf


@dataclass(frozen=True, slots=True)
class Seat:
    """Where a request goes, and what is to be done before.

    Attributes:
        slot: Number of the slot.
        save: File in which to save what it holds, or empty.
        saved: Whose that is.
        restore: File from which to restore the session's sequence, or empty.
    """

    slot: int
    save: str = ""
    saved: str = ""
    restore: str = ""


@dataclass(slots=True)
class SlotTable:
    """The slots of one server.

    Args:
        count: How many it has.
        label: Part of the names of files, so that servers can save in one folder.
        saves: Whether it can save and restore them.

    Attributes:
        slots: By number.
    """

    count: int
    label: str = "slots"
    saves: bool = True
    slots: list[Slot] = field(init=False)
    _swap: float = SWAP
    _files: list[str] = field(init=False)
    _saved: dict[str, str] = field(default_factory=dict)  # files, by session

    def __post_init__(self) -> None:
        self.slots = [Slot(number) for number in range(self.count)]
        self._files = [f"agentflow-{self.label}-{number}.bin" for number in reversed(range(FILES))]

    def take(
        self,
        session: str,
        prompt: Prompt,
        next_use: Callable[[str], float],
        compute: Callable[[int], float],
    ) -> Seat:
        """A slot for a request, which is to be given back; there has to be a free one.

        That of the session if it has one; else, of those to which nobody will be back, the one
        that begins most alike, or was unused longest; else that of the session which will be back
        last (Bélády's rule, with expected times). What is lost there is saved before if saving and
        restoring it takes less than computing it again, which is InferCept's choice between
        swapping and discarding.

        Args:
            session: Whose request it is; empty for one that belongs to none.
            prompt: What it asks to be computed.
            next_use: Seconds until a session will probably ask again; infinite for never.
            compute: Seconds to compute so many tokens of a prompt.
        """
        free = [slot for slot in self.slots if not slot.busy]
        if own := [slot for slot in free if session and slot.session == session]:
            slot = max(
                own, key=lambda slot: (alike(slot.prompt.blocks, prompt.blocks), slot.tokens)
            )
            seat = Seat(slot.number)
        else:
            slot = max(free, key=lambda slot: _spare(slot, prompt, next_use))
            seat = self._seat(slot, session, next_use, compute)
            slot.session, slot.tokens = session, 0
        slot.prompt, slot.busy = prompt, True
        return seat

    def give_back(self, number: int, tokens: int, now: float) -> None:
        """A request has left a slot, which holds so many tokens now (0: that is not known)."""
        slot = self.slots[number]
        slot.busy = False
        slot.tokens, slot.used = tokens or slot.tokens, now

    def end(self, session: str) -> None:
        """A session asks nothing more: its slot keeps what it holds, and is nobody's."""
        self._forget(session)
        for slot in self.slots:
            if slot.session == session:
                slot.session = ""

    def swapped(self, tokens: int, seconds: float) -> None:
        """So many tokens were saved, or restored, in that time."""
        if tokens:
            self._swap = MEMORY * self._swap + (1 - MEMORY) * seconds / tokens

    def lost(self, session: str) -> None:
        """What was to be saved was not, or could not be restored."""
        self._forget(session)

    def _seat(
        self,
        slot: Slot,
        session: str,
        next_use: Callable[[str], float],
        compute: Callable[[int], float],
    ) -> Seat:
        restore = self._saved.get(session, "")
        victim = slot.session
        returns = bool(victim) and next_use(victim) < math.inf
        pays = 2 * self._swap * slot.tokens < compute(slot.tokens)
        if not (self.saves and returns and slot.tokens and pays):
            return Seat(slot.number, restore=restore)
        if (file := self._file(victim)) is None:
            return Seat(slot.number, restore=restore)
        self._saved[victim] = file
        return Seat(slot.number, save=file, saved=victim, restore=restore)

    def _file(self, session: str) -> str | None:
        """A file for a session: the one it had, or a free one."""
        if session in self._saved:
            return self._saved[session]
        return self._files.pop() if self._files else None

    def _forget(self, session: str) -> None:
        if (file := self._saved.pop(session, None)) is not None:
            self._files.append(file)


def _spare(
    slot: Slot, prompt: Prompt, next_use: Callable[[str], float]
) -> tuple[float, int, float, int]:
    """How well a slot can be given to a prompt: the more, the better."""
    back = next_use(slot.session) if slot.session else math.inf
    return back, alike(slot.prompt.blocks, prompt.blocks), -slot.used, -slot.number
