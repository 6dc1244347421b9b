from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.caches.speculation.candidates import Candidate, CandidateSource
from agentflow.caches.speculation.guesses import WEIGHED
from agentflow.caches.speculation.predictor import Predictor
from agentflow.caches.speculation.trail import Trail

Session = Callable[["Play", int], None]


class Play:
    """A session that a predictor may learn from."""

    def __init__(self, predictor: Predictor, workflow: str = "", *, learn: bool = True) -> None:
        self.predictor = predictor
        self.trail = Trail(workflow)
        self._learn = learn
        self._learned()

    def said(self, text: str, by: str = "user") -> None:
        self.trail.said(text, by)
        self._learned()

    def called(self, tool: str, arguments: dict[str, Any], result: Any = None, **how: bool) -> None:
        self.trail.called(tool, arguments, result, **how)
        self._learned()

    def close(self) -> None:
        self.predictor.close(self.trail)

    def candidates(self, limit: int = 3) -> list[Candidate]:
        return self.predictor.candidates(self.trail, limit)

    def best(self) -> tuple[str, dict[str, Any]]:
        [first] = self.candidates(1)
        return first.tool, dict(first.arguments)

    def _learned(self) -> None:
        if self._learn:
            self.predictor.learn(self.trail)


def taught(session: Session, times: int = 12, workflow: str = "") -> Predictor:
    predictor = Predictor()
    for number in range(times):
        play = Play(predictor, workflow)
        session(play, number)
        play.close()
    return predictor


def orders(play: Play, n: int) -> None:
    play.said(f"I am user_{n}")
    play.called("profile", {"user": f"user_{n}"}, {"orders": [f"{n}a", f"{n}b", f"{n}c"]})
    for order in ("a", "b", "c"):
        play.called("order", {"id": f"{n}{order}"}, {"status": "sent", "product": f"p{n}{order}"})
    play.said("done", "model")
    play.said("thanks")


def opened(play: Play, n: int) -> None:
    """The beginning of `orders`."""
    play.said(f"I am user_{n}")
    play.called("profile", {"user": f"user_{n}"}, {"orders": [f"{n}a", f"{n}b", f"{n}c"]})


def test_a_predictor_is_a_source_of_candidates() -> None:
    source: CandidateSource = Predictor()
    assert list(source.candidates(Trail(), 3)) == []


def test_nothing_is_expected_before_anything_was_learned() -> None:
    play = Play(Predictor())
    play.said("hello")
    assert play.candidates() == []


def test_the_words_of_the_user_become_arguments() -> None:
    play = Play(taught(orders))
    play.said("Hi, I am user_77.")
    assert play.best() == ("profile", {"user": "user_77"})


def test_the_elements_of_a_list_are_expected_one_after_the_other() -> None:
    play = Play(taught(orders))
    opened(play, 77)
    for order in ("77a", "77b", "77c"):
        assert play.best() == ("order", {"id": order})
        play.called("order", {"id": order}, {"status": "sent"})


def test_several_elements_are_several_candidates() -> None:
    play = Play(taught(orders))
    opened(play, 77)
    found = play.candidates(3)
    assert [candidate.arguments["id"] for candidate in found] == ["77a", "77b", "77c"]
    assert found[0].probability > 2 * found[1].probability
    assert all(candidate.later > 0.5 for candidate in found)


def test_what_was_called_is_not_expected_again() -> None:
    play = Play(taught(orders))
    opened(play, 77)
    play.called("order", {"id": "77a"}, {"status": "sent"})
    repeated = [c for c in play.candidates(20) if c.arguments == {"id": "77a"}]
    assert all(candidate.probability < 0.1 for candidate in repeated)


def test_what_is_read_again_after_each_change_is_expected_again() -> None:
    def session(play: Play, n: int) -> None:
        play.said("look")
        play.called("status", {}, {"on": False})
        play.called("toggle", {}, {"ok": True}, changes=True)
        play.called("status", {}, {"on": True})
        play.said("bye")

    play = Play(taught(session, 30))
    play.said("look")
    play.called("status", {}, {"on": False})
    quiet = play.candidates(1)[0].probability
    play.called("toggle", {}, {"ok": True}, changes=True)
    assert play.best() == ("status", {})
    assert play.candidates(1)[0].probability > max(0.5, 2 * quiet)


def test_a_call_that_changes_something_is_never_proposed() -> None:
    def session(play: Play, n: int) -> None:
        play.called("buy", {"what": "it"}, {"ok": True}, changes=True)

    assert Play(taught(session)).candidates(100) == []


def test_a_constant_is_learned() -> None:
    def session(play: Play, n: int) -> None:
        play.said("why is it slow?")
        play.called("permissions", {"app": "messaging"}, "none")

    play = Play(taught(session))
    play.said("why is it slow?")
    assert play.best() == ("permissions", {"app": "messaging"})


def test_what_the_user_said_decides_between_tools() -> None:
    def session(play: Play, n: int) -> None:
        asked = ("weather", "traffic")[n % 2]
        play.said(f"tell me about the {asked} today")
        play.called(asked, {}, "fine")

    predictor = taught(session, 30)
    for asked in ("weather", "traffic"):
        play = Play(predictor, learn=False)
        play.said(f"the {asked}, please")
        assert play.best() == (asked, {})


def test_what_a_record_holds_decides_between_its_fellows() -> None:
    def session(play: Play, n: int) -> None:
        wanted = ("kettle", "lamp", "chair")[n % 3]
        items = [{"name": name, "product": f"{name}-{n}"} for name in ("lamp", "chair", "kettle")]
        play.called("order", {}, {"items": items})
        play.said(f"I want to return the {wanted}")
        play.called("product", {"id": f"{wanted}-{n}"}, "fine")

    play = Play(taught(session, 60), learn=False)
    items = [{"name": name, "product": f"{name}-99"} for name in ("lamp", "table", "kettle")]
    play.called("order", {}, {"items": items})
    play.said("I want to return the table")
    assert play.best() == ("product", {"id": "table-99"})


def test_a_result_decides_what_follows() -> None:
    def session(play: Play, n: int) -> None:
        suspended = bool(n % 2)
        play.called("line", {}, {"status": "suspended" if suspended else "active"})
        play.called("bills" if suspended else "usage", {}, "fine")

    predictor = taught(session, 40)
    for status, expected in (("suspended", "bills"), ("active", "usage")):
        play = Play(predictor, learn=False)
        play.called("line", {}, {"status": status})
        assert play.best() == (expected, {})


def test_each_workflow_has_its_own_habits_and_a_new_one_starts_from_all() -> None:
    predictor = Predictor()
    for _ in range(40):
        for workflow, tool in (("day", "sun"), ("night", "moon")):
            play = Play(predictor, workflow)
            play.called("start", {}, None)
            play.called(tool, {}, None)
            play.close()
    for workflow, tool in (("day", "sun"), ("night", "moon")):
        play = Play(predictor, workflow, learn=False)
        play.called("start", {}, None)
        assert play.best() == (tool, {})
    play = Play(predictor, "dusk", learn=False)
    play.called("start", {}, None)
    assert {candidate.tool for candidate in play.candidates(2)} == {"sun", "moon"}


def test_a_longer_past_is_used_where_it_helps() -> None:
    def session(play: Play, n: int) -> None:
        first = ("a", "b")[n % 2]
        play.called(first, {}, None)
        play.called("middle", {}, None)
        play.called(first + "_end", {}, None)

    predictor = taught(session, 40)
    for first in ("a", "b"):
        play = Play(predictor, learn=False)
        play.called(first, {}, None)
        play.called("middle", {}, None)
        assert play.best() == (first + "_end", {})


def test_an_unknown_past_falls_back_on_the_last_call() -> None:
    play = Play(taught(orders), learn=False)
    for _ in range(3):
        play.called("unheard_of", {}, None)
    opened(play, 77)
    assert play.best() == ("order", {"id": "77a"})


def test_a_session_that_goes_in_circles_is_expected_to_go_on() -> None:
    play = Play(taught(orders), learn=False)
    opened(play, 77)
    for _ in range(4):
        play.called("order", {"id": "77b"}, {"status": "lost"})
        play.said("try again")
    assert play.best() == ("order", {"id": "77b"})


def test_a_turn_without_a_call_makes_calls_less_likely() -> None:
    def session(play: Play, n: int) -> None:
        play.said("look")
        play.called("status", {}, None)
        for _ in range(3):
            play.said("fine", "model")
            play.said("tell me more")
        play.said("bye", "model")

    play = Play(taught(session, 30), learn=False)
    play.said("look")
    likely = play.candidates(1)[0].probability
    play.called("status", {}, None)
    play.said("fine", "model")
    play.said("tell me more")
    assert max(candidate.probability for candidate in play.candidates()) < 0.2 < likely


def test_probabilities_are_what_they_say() -> None:
    def session(play: Play, n: int) -> None:
        play.said("go")
        if n % 4:
            play.called("usual", {}, None)
        else:
            play.called("rare", {}, None)

    predictor = taught(session, 400)
    play = Play(predictor, learn=False)
    play.said("go")
    found = {candidate.tool: candidate.probability for candidate in play.candidates()}
    assert found["usual"] == pytest.approx(0.75, abs=0.1)
    assert found["rare"] == pytest.approx(0.25, abs=0.1)


def test_later_counts_until_something_is_changed() -> None:
    def session(play: Play, n: int) -> None:
        play.said("go")
        play.called("first", {}, None)
        play.called("soon", {}, None)
        play.called("change", {}, None, changes=True)
        play.called("after", {}, None)

    play = Play(taught(session, 60), learn=False)
    play.said("go")
    later = {candidate.tool: candidate.later for candidate in play.candidates()}
    assert later["soon"] > 0.6
    assert later["after"] < 0.3


def test_later_is_never_less_likely_than_now() -> None:
    play = Play(taught(orders))
    opened(play, 77)
    assert all(c.probability <= c.later for c in play.candidates(50))


def test_a_candidate_says_what_speaks_for_it() -> None:
    play = Play(taught(orders))
    opened(play, 77)
    assert play.candidates(1)[0].reason == "id = result orders[*] of profile"


def test_the_limit_is_kept_and_asking_changes_nothing() -> None:
    play = Play(taught(orders))
    opened(play, 77)
    before = json.dumps(play.predictor.dump())
    assert len(play.candidates(2)) == 2
    assert play.candidates(3) == play.candidates(3)
    assert json.dumps(play.predictor.dump()) == before


def test_a_trail_that_is_only_supposed_is_predicted_like_a_real_one() -> None:
    predictor = taught(orders)
    play = Play(predictor, learn=False)
    opened(play, 77)
    supposed = play.trail.supposing("order", {"id": "77a"}, {"status": "sent"})
    expected = predictor.candidates(supposed, 3)
    assert expected[0].arguments == {"id": "77b"}
    play.called("order", {"id": "77a"}, {"status": "sent"})
    assert play.candidates() == expected


def test_tools_of_other_workflows_do_not_crowd_out_its_own() -> None:
    predictor = taught(orders, workflow="shop")
    for number in range(3 * WEIGHED):
        play = Play(predictor, "elsewhere")
        play.called(f"tool{number}", {}, None)
        play.close()
    play = Play(predictor, "shop", learn=False)
    opened(play, 77)
    assert [c.arguments["id"] for c in play.candidates(3)] == ["77a", "77b", "77c"]


def test_a_cold_predictor_claims_little_of_words_that_nobody_may_mean() -> None:
    predictor = Predictor()
    claimed = []
    for n, name in enumerate(("whale", "tower", "river", "planet", "engine")):
        play = Play(predictor)
        play.said(f"How heavy is the biggest {name} that was ever seen by anybody?")
        claimed += [candidate.later for candidate in play.candidates(50)]
        play.called("search", {"query": f"biggest {name}"}, {"hits": [f"http://a{n}.org", "other"]})
        claimed += [c.later for c in play.candidates(50) if c.tool == "search"]
        play.called("open", {"url": f"http://a{n}.org"}, f"a page about a {name}, of {n} tons")
        claimed += [candidate.later for candidate in play.candidates(50)]
        play.close()
    assert len(claimed) > 10
    assert max(claimed) < 0.25


def test_a_change_is_remembered_over_other_calls() -> None:
    def session(play: Play, n: int) -> None:
        play.said("look")
        play.called("status", {}, None)
        play.called("touch", {}, None, changes=bool(n % 2))
        for tool in ("one", "two", "three"):
            play.called(tool, {}, None)
        if n % 2:
            play.called("status", {}, None)
        play.said("bye")

    predictor = taught(session, 60)
    found = []
    for changes in (True, False):
        play = Play(predictor, learn=False)
        play.said("look")
        play.called("status", {}, None)
        play.called("touch", {}, None, changes=changes)
        for tool in ("one", "two", "three"):
            play.called(tool, {}, None)
        found += [c.probability for c in play.candidates(50) if c.tool == "status"]
    assert found[0] > 0.5 > 2 * found[1]


_EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("said"), st.sampled_from(["I am user_1", "order AB12", ""])),
        st.tuples(st.just("model"), st.sampled_from(["done", "see AB12"])),
        st.tuples(st.sampled_from(["look", "find"]), st.sampled_from(["AB12", "user_1", "z"])),
    ),
    max_size=12,
)


@given(_EVENTS)
def test_the_same_stream_gives_the_same_candidates(events: list[tuple[str, str]]) -> None:
    def played() -> list[Candidate]:
        play = Play(taught(orders, 3))
        for kind, text in events:
            if kind in ("said", "model"):
                play.said(text, "user" if kind == "said" else "model")
            else:
                play.called(kind, {"x": text}, {"y": [text, "w"]})
        return play.candidates(30)

    found = played()
    assert found == played()
    assert found == sorted(found, key=lambda candidate: -candidate.probability)
    assert all(0 <= candidate.probability <= candidate.later <= 1 for candidate in found)
