"""What each token is, how far a generation has come, and what may be shown of it in the order of the document."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from multiverse import LLM, SamplingParams
from multiverse.engine import BranchEndEvent, Event, FinishEvent, ForkEvent, JoinEvent, TokenEvent
from multiverse.engine.events import Counts
from multiverse.streaming import DocumentOrder, WireEvent, opens_thinking, wire_events
from multiverse.structure import MULTIVERSE, Role, TokenDialect, render
from tests.cli.scripted import NESTED, scripted_llm


@pytest.fixture(scope="module")
def llm(model_folders: dict[str, Path]) -> LLM:
    return scripted_llm(model_folders["qwen3"], lambda _: NESTED)


@pytest.fixture(scope="module")
def events(llm: LLM) -> list[Event]:
    return list(llm.stream("Q"))


@pytest.fixture(scope="module")
def wired(events: list[Event]) -> list[WireEvent]:
    return [event for event in events for event in wire_events(event)]


def text_of(wired: list[WireEvent], role: str, branch: str = "") -> str:
    return "".join(event.text or "" for event in wired if event.role == role and event.branch == branch)


def up_to(events: list[Event], kind: type, count: int = 1) -> list[Event]:
    """The events up to and including the `count`-th of a kind."""
    indices = [index for index, event in enumerate(events) if isinstance(event, kind)]
    return events[: indices[count - 1] + 1]


# -- wired -----------------------------------------------------------------------------------------------------------


def test_every_character_has_a_role(wired: list[WireEvent], events: list[Event]) -> None:
    told = [event for event in wired if event.event == "token"]
    assert all(event.role is not None and event.tokens is not None for event in told)
    for branch in ("", "1", "2", "1.1"):
        written = "".join(event.text for event in events if isinstance(event, TokenEvent) and event.branch == branch)
        assert "".join(event.text or "" for event in told if event.branch == branch) == written


def test_roles_are_those_of_the_document(wired: list[WireEvent]) -> None:
    outlines: dict[str | None, str] = {}
    for event in wired:
        if event.role == "outline":
            outlines[event.outline] = outlines.get(event.outline, "") + (event.text or "")
    # Two blocks of one trunk use the same labels.
    assert outlines == {"1": "Red team\nCheck\n", "2": "Blue team\n", "1.1": "Mia\n", "1.2": "Tom\n"}
    assert text_of(wired, "text", "2").strip() == "20+1=21."
    assert text_of(wired, "text", "1.2").strip() == "4+5=9, 9+1=10."
    assert text_of(wired, "conclusion", "1").strip() == "3+10=13."
    assert text_of(wired, "answer").strip() == NESTED.plain_answer
    assert text_of(wired, "text").split() == ["Two", "teams.", "Once", "more."]
    structure = "".join(event.text or "" for event in wired if event.role == "structure")
    assert all(tag in structure for tag in MULTIVERSE.tags)


def test_goals_forks_ends_and_joins(wired: list[WireEvent]) -> None:
    shape = [(event.event, event.branch, event.labels) for event in wired if event.event not in ("token", "finish")]
    assert shape[:2] == [("goal", "", None), ("fork", "", ("1", "2"))]
    assert [entry for entry in shape if entry[0] == "join"] == [
        ("join", "1", ("1.1", "1.2")),
        ("join", "", ("1", "2")),
        ("join", "", ("1",)),
    ]
    assert [entry[1] for entry in shape if entry[0] == "goal"] == ["", "1", ""]
    ends = [event for event in wired if event.event == "branch_end"]
    assert sorted(event.branch for event in ends) == ["1", "1", "1.1", "1.2", "2"]
    assert {event.reason for event in ends} == {"stop"}


def test_counts_end_where_the_usage_is(wired: list[WireEvent], events: list[Event]) -> None:
    finish = events[-1]
    assert isinstance(finish, FinishEvent)
    usage, last = finish.generation.usage, wired[-1]
    assert last.tokens is not None
    assert (last.tokens.total, last.tokens.critical_path) == (usage.total_tokens, usage.critical_path_tokens)
    assert last.usage is not None
    assert last.usage["parallelism"] == usage.parallelism
    assert (last.finish_reason, last.answer, last.structure_error) == ("stop", finish.generation.answer, None)
    totals = [event.tokens.total for event in wired if event.tokens is not None]
    assert totals == sorted(totals)
    # A later block takes the labels of an earlier one, and counts afresh.
    own = [event.tokens.branch for event in wired if event.event == "branch_end" and event.branch == "1" and event.tokens]
    assert own == [sum(e.branch == "1" for e in part if isinstance(e, TokenEvent)) for part in blocks_of(events)]


def blocks_of(events: list[Event]) -> list[list[Event]]:
    """The events of the trunk's first block, and those after it."""
    end = next(index for index, event in enumerate(events) if isinstance(event, JoinEvent) and not event.branch)
    return [events[:end], events[end:]]


def test_events_round_trip_through_json(wired: list[WireEvent]) -> None:
    for event in wired:
        values = json.loads(json.dumps(event.to_json()))
        assert WireEvent.from_json(values) == event
        assert WireEvent.from_json({**values, "of a later version": 1}) == event
    token = next(event for event in wired if event.branch == "1.2")
    assert token.to_json()["parent"] == token.parent == "1"
    assert wired[0].to_json()["parent"] is None
    assert "labels" not in wired[0].to_json()
    assert wired[-1].to_json()["structure_error"] is None


@pytest.mark.parametrize(
    "values", [{}, {"event": "token", "tokens": {"total": 1}}, {"event": "token", "branch": "", "labels": 5}]
)
def test_invalid_events_are_refused(values: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="no event"):
        WireEvent.from_json(values)


def test_a_token_that_ends_a_label_is_two_events() -> None:
    counts = Counts(3, 3, 3)
    event = TokenEvent("", 5, "1: Red", 7, False, role="outline", outline="1", label_length=2, counts=counts)
    assert [(event.text, event.role, event.outline) for event in wire_events(event)] == [
        ("1:", "structure", None),
        (" Red", "outline", "1"),
    ]
    assert all(event.tokens == counts and event.position == 7 for event in wire_events(event))


def test_the_end_of_a_text_has_no_text() -> None:
    event = TokenEvent("", 9, "<end>", 7, False, role="structure", end_of_text=True)
    assert [(event.text, event.role) for event in wire_events(event)] == [("", "structure")]


def test_a_prompt_may_have_opened_the_thinking(tokens: TokenDialect) -> None:
    prompt = [3, tokens.ids[Role.THINK_OPEN], *tokens.sep]
    assert opens_thinking(prompt, tokens)
    assert not opens_thinking([*prompt, tokens.ids[Role.THINK_CLOSE]], tokens)
    assert not opens_thinking([3], tokens)
    assert not opens_thinking(prompt, None)


# -- order --------------------------------------------------------------------------------------------------------


def test_tokens_come_in_the_order_of_the_document(events: list[Event]) -> None:
    order, written = DocumentOrder(), ""
    finish = events[-1]
    assert isinstance(finish, FinishEvent)
    pieces = 0
    for event in events:
        new = order.feed_text(event)
        written += new
        pieces += bool(new)
        assert finish.generation.text.startswith(written)
    assert written == finish.generation.text == render(NESTED)
    assert pieces > 100  # a stream, not one piece at the end


def test_order_holds_a_branch_until_its_sibling_has_closed(events: list[Event]) -> None:
    order = DocumentOrder()
    written = "".join(order.feed_text(event) for event in up_to(events, BranchEndEvent))
    assert "20+1=21." not in written
    assert "Red team" in written


def test_all_text_is_given_out_at_the_finish(llm: LLM) -> None:
    for most in range(20, 270, 60):
        order = DocumentOrder()
        *before, finish = llm.stream("Q", SamplingParams(temperature=0, max_tokens=most, guard=False))
        assert isinstance(finish, FinishEvent)
        told = "".join(order.feed_text(event) for event in [*before, finish])
        # All but a wide character that never came to its end.
        assert finish.generation.text.startswith(told)
        assert not finish.generation.text[len(told) :].strip("\ufffd")


STOPS = st.lists(st.text("1234+=,.\nRBedalu m", min_size=1, max_size=5), min_size=1, max_size=3)


@settings(max_examples=8)
@given(stops=STOPS)
def test_no_part_of_a_stop_string_is_given_out(llm: LLM, stops: list[str]) -> None:
    order, written = DocumentOrder(), ""
    for event in llm.stream("Q", SamplingParams(temperature=0, stop=stops)):
        written += order.feed_text(event)
        if isinstance(event, FinishEvent):
            assert written == event.generation.text
        else:
            last = written
    assert written.startswith(last)


def test_a_stop_string_may_span_a_block(llm: LLM) -> None:
    # What the trunk itself writes around the block is one text: the separator behind the goal, and the conclusion's tag.
    assert MULTIVERSE.conclusion is not None
    stop = MULTIVERSE.goal.close + MULTIVERSE.sep + MULTIVERSE.conclusion.open
    order, written, held = DocumentOrder(), "", ""
    for event in llm.stream("Q", SamplingParams(temperature=0, stop=[stop])):
        written += order.feed_text(event)
        if isinstance(event, ForkEvent):
            held = written
    assert isinstance(event, FinishEvent)
    assert written == event.generation.text
    assert MULTIVERSE.path.open in written
    assert held.endswith(MULTIVERSE.outline.close + MULTIVERSE.sep)  # not yet the tag behind it
