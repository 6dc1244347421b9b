"""Conversations through a pool of two real llama.cpp servers, with a tiny random model.

    python benchmarks/affinity_llama.py [--quick] [--json] [--calibrate]

`make llama` builds the server and the model. What is counted is exact and is compared with its
goal; times depend on the machine and are only printed. With ``--calibrate`` the rates of the server
are measured, and how far off `agentflow.testing.ServingModel` is.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from random import Random
from string import ascii_lowercase
from typing import Any

import harness
from affinity_calibration import calibrate
from affinity_rivals import HASH, OURS, TABLE, Home, RoundRobin
from affinity_servers import Server, missing, servers

from agentflow import _http
from agentflow.caches.affinity.completion import EarliestCompletion
from agentflow.caches.affinity.jobs import Pause
from agentflow.caches.affinity.policies import Policy, Sticky
from agentflow.executor.affinity.metrics import Metrics
from agentflow.executor.affinity.pool import Pool
from agentflow.executor.models.base import ChatRequest, Message, Reply, SessionTag

SHARED = 300
"""Tokens of the system prompt, which all conversations have."""

SHARE = 95.0
"""Percent of the reusable tokens that have to be cached."""


POLICIES: dict[str, Callable[[], Policy]] = {
    "round robin": RoundRobin,
    HASH: Sticky,
    TABLE: Home,
    OURS: EarliestCompletion,
}


@dataclass(frozen=True)
class Setting:
    """What is asked of the servers.

    Attributes:
        name: For the table.
        sessions: Conversations at once.
        turns: Requests of each.
        slots: Of each server.
        saves: Whether servers can save slots.
        policies: Who is compared.
    """

    name: str
    sessions: int
    turns: int
    slots: int
    saves: bool = False
    policies: Sequence[str] = (TABLE, OURS)


CROWDED = "two sessions for each slot"
"""Here a part of what is reusable is lost, whatever is done."""

SETTINGS = (
    Setting("a slot for each session", sessions=6, turns=6, slots=4, policies=tuple(POLICIES)),
    Setting(CROWDED, sessions=8, turns=6, slots=2),
    Setting("the same, slots are saved", sessions=8, turns=6, slots=2, saves=True),
)


@dataclass
class Counts:
    """What came of the requests.

    Attributes:
        reusable: Tokens of prompts that were computed before in the same conversation.
        cached: Of these, what the server had.
        first: Seconds to the first tokens of these.
        told: What the servers say that they had, of all prompts.
        replied: What the replies say, of all prompts.
    """

    reusable: int = 0
    cached: int = 0
    first: list[float] = field(default_factory=list)
    told: int = 0
    replied: int = 0

    def note(self, before: Reply | None, reply: Reply) -> None:
        """A reply, and the one before it in its conversation."""
        self.replied += reply.usage.cached_tokens or 0
        if before is None:
            return
        # of the reply's last token nothing was computed, and of a prompt's last all is
        reusable = before.usage.prompt_tokens + before.usage.completion_tokens - 1
        self.reusable += reusable
        self.cached += min(reusable, reply.usage.cached_tokens or 0)
        self.first.append(reply.first_token_seconds or 0.0)

    @property
    def share(self) -> float:
        """Percent of the reusable tokens that were cached."""
        return 100 * self.cached / self.reusable


def words(random: Random, least: int, most: int) -> str:
    """Some letters, each of them a token."""
    return "".join(random.choices(ascii_lowercase, k=random.randint(least, most)))


async def converse(pool: Pool, number: int, turns: int, counts: Counts) -> None:
    """Hold one conversation, with pauses in which tools would run."""
    random = Random(number)
    session = f"session {number}"
    messages: list[Message] = [{"role": "system", "content": words(Random(0), SHARED, SHARED)}]
    before: Reply | None = None
    for _ in range(turns):
        messages.append({"role": "user", "content": words(random, 100, 400)})
        tag = SessionTag(session, began=float(number))
        reply = await pool.complete(
            ChatRequest(messages=list(messages), max_tokens=random.randint(8, 32), session=tag)
        )
        counts.note(before, reply)
        before = reply
        messages.append(reply.as_message())
        pause = random.uniform(0.05, 0.5)
        pool.away(session, Pause(0.25, 0.5))
        await asyncio.sleep(pause)
    pool.ended(session)


async def told(running: Sequence[Server]) -> int:
    """Prompt tokens that the servers had so far, as they say themselves."""
    found = 0.0
    async with _http.client() as http:
        for server in running:
            page = await http.get(server.url.removesuffix("/v1") + "/metrics")
            found += Metrics(page.text).total("llamacpp:prompt_tokens_cached") or 0.0
    return int(found)


async def play(setting: Setting, policy: Policy) -> Counts:
    """All conversations, with servers of their own."""
    counts = Counts()
    with tempfile.TemporaryDirectory() as folder:
        saves = f"{folder}/" if setting.saves else ""
        async with servers(2, saves=saves, slots=setting.slots) as running:
            pool = Pool([server.url for server in running], "tiny", policy=policy)
            held = (
                converse(pool, number, setting.turns, counts) for number in range(setting.sessions)
            )
            await asyncio.gather(*held)
            counts.told = await told(running)
            await pool.aclose()
    return counts


Llama = dict[tuple[str, str], Counts]
"""What was counted, by the names of the setting and of the policy."""


async def compare(settings: Sequence[Setting]) -> Llama:
    """All policies in all settings."""
    found: Llama = {}
    for setting in settings:
        for name in setting.policies:
            print(f"{setting.name}: {name} ...", file=sys.stderr, flush=True)
            counts = found[setting.name, name] = await play(setting, POLICIES[name]())
            if counts.told != counts.replied:
                raise AssertionError(
                    f"{name}: replies tell of {counts.replied} cached tokens, the servers of "
                    f"{counts.told}"
                )
    return found


def measure(quick: bool) -> Llama | None:
    """Play; None, and a word, if there are no servers."""
    if reason := missing():
        print(f"skipped: {reason}")
        return None
    return asyncio.run(compare(SETTINGS[:1] if quick else SETTINGS))


def show(found: Llama) -> str:
    """The table."""
    rows = [
        [*names, its.reusable, its.cached, its.share, statistics.median(its.first)]
        for names, its in found.items()
    ]
    headings = ("real servers", "policy", "reusable", "cached", "%", "first token, s")
    return harness.table(headings, rows)


def goals(found: Llama) -> Iterator[harness.Goal]:
    """What ours is to reach."""
    for (setting, policy), its in found.items():
        if policy == OURS and setting != CROWDED:
            yield harness.Goal(f"{setting}: cached", its.share, SHARE, "%", at_most=False)


def results(found: Llama) -> dict[str, Any]:
    """The counts, for JSON."""
    return {
        f"{setting}, {policy}": {"reusable": its.reusable, "cached": its.cached}
        for (setting, policy), its in found.items()
    }


async def calibrated(rounds: int) -> None:
    """Measure one server, and say how far off the model is."""
    async with servers(1) as (server,):
        await calibrate(server, rounds)


def main() -> int:
    """Read the command line, play, and report; whether the goals are met."""
    options = harness.parser((__doc__ or "").partition("\n")[0])
    options.add_argument("--calibrate", action="store_true", help="measure a server's rates")
    given = options.parse_args()
    if given.calibrate:
        print(missing()) if missing() else asyncio.run(calibrated(1 if given.quick else 2))
        return 0
    if (found := measure(given.quick)) is None:
        return 0
    print(show(found))
    kept = list(goals(found))
    harness.report("affinity_llama", results(found), kept, given.json)
    return 0 if all(goal.holds for goal in kept) else 1


if __name__ == "__main__":
    sys.exit(main())
