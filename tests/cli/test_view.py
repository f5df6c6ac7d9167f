"""The view of a generation, without a terminal."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given

from multiverse import SamplingParams
from multiverse.cli.errors import InputError
from multiverse.cli.view import Lane, Split, Stage, View
from multiverse.engine import BranchEndEvent, Event, FinishEvent, ForkEvent, JoinEvent, TokenEvent
from multiverse.streaming import DocumentOrder, WireEvent, wire_events
from multiverse.structure import Block, Body, Document, Machine, RoleTracker, TokenDialect, encode
from tests.cli.scripted import NESTED, scripted_llm
from tests.strategies import documents


def body_of(lane: Lane) -> Body:
    """A lane turned back into a tree."""
    items: list[str | Block] = []
    for item in lane.items:
        if isinstance(item, Split):
            outlines = tuple(child.outline for child in item.lanes)
            items.append(Block(outlines, tuple(body_of(child) for child in item.lanes), item.conclusion.strip()))
        elif item.strip():
            items.append(item.strip())
    return tuple(items)


def fed(events: list[Event]) -> View:
    view = View()
    for event in events:
        for wired in wire_events(event):
            view.feed(wired)
    return view


def answer_of(view: View) -> str:
    """The texts of the answer; empty before it."""
    return view.answer.text if view.answer is not None else ""


def up_to(events: list[Event], kind: type, count: int = 1) -> list[Event]:
    """The events up to and including the `count`-th of a kind."""
    indices = [index for index, event in enumerate(events) if isinstance(event, kind)]
    return events[: indices[count - 1] + 1]


def test_view_of_finished_document_is_the_document(nested_events: list[Event]) -> None:
    view = fed(nested_events)
    assert body_of(view.trunk) == NESTED.thinking
    assert view.answer is not None
    assert view.answer.text.strip() == NESTED.plain_answer
    assert view.finish is not None
    assert view.finish.answer == "34"


def test_outlines_become_lanes_before_the_fork(nested_events: list[Event]) -> None:
    view = fed(up_to(nested_events, ForkEvent)[:-1])
    lanes = view.trunk.block.lanes
    assert [(lane.label, lane.outline, lane.stage) for lane in lanes] == [
        ("1", "Red team", Stage.PLANNED),
        ("2", "Blue team", Stage.PLANNED),
    ]


def test_outline_never_shows_half_a_label(nested_events: list[Event]) -> None:
    view = View()
    seen = set()
    for event in nested_events:
        for wired in wire_events(event):
            view.feed(wired)
        if isinstance(view.trunk.items[-1] if view.trunk.items else None, Split):
            seen |= {lane.outline for lane in view.trunk.block.lanes}
    assert seen
    assert all(any(title.startswith(outline) for title in ("Red team", "Blue team", "Check")) for outline in seen)


def test_lanes_fill_side_by_side_and_close(nested_events: list[Event]) -> None:
    view = fed(up_to(nested_events, BranchEndEvent))
    red, blue = view.trunk.block.lanes
    assert (red.stage, blue.stage) == (Stage.RUNNING, Stage.ENDED)
    assert red.items
    assert blue.items == [" 20+1=21.\n"]
    assert not view.trunk.block.joined


def test_second_block_takes_the_labels_of_the_first(nested_events: list[Event]) -> None:
    joins = [event.branch for event in nested_events if isinstance(event, JoinEvent)]
    assert joins == ["1", "", ""]
    view = fed(up_to(nested_events, ForkEvent, 3))
    first, second = (item for item in view.trunk.items if isinstance(item, Split))
    assert first.joined
    assert [lane.label for lane in second.lanes] == ["1"]
    assert second.lanes[0].items == []
    assert body_of(first.lanes[1]) == ("20+1=21.",)


def test_end_of_text_is_not_shown(nested_events: list[Event]) -> None:
    assert answer_of(fed(nested_events)).strip() == "Answer: 34"


def test_plain_model_has_one_trunk() -> None:
    events: list[Event] = [TokenEvent("", 1, "one ", 0, False), TokenEvent("", 2, "two", 1, False)]
    end = TokenEvent("", 9, "", 2, False, role="structure", end_of_text=True)
    view = fed([*events, end])
    assert view.trunk.items == ["one two"]
    assert view.answer is None


def splits_in(lane: Lane) -> list[Split]:
    own = [item for item in lane.items if isinstance(item, Split)]
    return [*own, *(split for item in own for child in item.lanes for split in splits_in(child))]


def test_a_generation_closed_for_a_limit_is_shown_as_it_came(model_folders: dict[str, Path]) -> None:
    llm = scripted_llm(model_folders["qwen3"], lambda _: NESTED)
    blocks = set()
    for most in range(20, 270, 13):
        events = list(llm.stream("Q", SamplingParams(temperature=0, max_tokens=most)))
        finish = events[-1]
        assert isinstance(finish, FinishEvent)
        generation = finish.generation
        assert generation.finish_reason == "length"
        ends = [(event.branch, event.reason) for event in events if isinstance(event, BranchEndEvent)]
        assert tuple(end for end in ends if end[1] != "stop") == generation.closed
        order = DocumentOrder()
        told = "".join(order.feed_text(event) for event in events)
        view = fed(events)
        assert generation.text.startswith(told)
        if generation.tree is not None:
            # All but a wide character that never came to its end.
            assert not generation.text[len(told) :].strip("\ufffd")
            splits = splits_in(view.trunk)
            assert len(splits) == sum(1 for _ in generation.tree.blocks())
            assert all(split.joined and {lane.stage for lane in split.lanes} == {Stage.ENDED} for split in splits), most
            assert (generation.tree.plain_answer or "").strip().startswith(answer_of(view).strip()), most
            blocks.add(len(splits))
    assert len(blocks) > 2


@given(document=documents(depth=2))
def test_any_document_can_be_viewed(tokens: TokenDialect, document: Document) -> None:
    # Straight from the encoder, in the order in which one branch after the other would be written.
    encoded = encode(document, tokens)
    events = serial_events(encoded.token_ids, encoded.layout.branches, encoded.layout.table, tokens)
    view = fed(events)
    assert sum(1 for _ in document.blocks()) == count_splits(view.trunk)


def count_splits(lane: Lane) -> int:
    splits = [item for item in lane.items if isinstance(item, Split)]
    return len(splits) + sum(count_splits(child) for split in splits for child in split.lanes)


def serial_events(token_ids: tuple[int, ...], branches: tuple[int, ...], table: tuple, tokens: TokenDialect) -> list[Event]:  # type: ignore[type-arg]
    events: list[Event] = []
    before = 0
    begun: set[int] = set()
    machines = [Machine(tokens, branch.label) for branch in table]
    roles = [RoleTracker(machine) for machine in machines]
    for token, branch in zip(token_ids, branches, strict=True):
        if branch != before:
            if table[branch].parent == before:
                labels = tuple(b.label for b in table if b.block == table[branch].block)
                events.append(ForkEvent(table[before].label, labels))
                begun |= {branch}
            else:
                events.append(BranchEndEvent(table[before].label))
                if table[before].parent == branch:
                    events.append(JoinEvent(table[branch].label, ()))
        if machines[branch].waiting:
            machines[branch].resume()
        machines[branch].feed(token)
        text = f"<{token}>" if token in tokens.roles else "x"
        events.append(TokenEvent(table[branch].label, token, text, 0, False, None, None, *roles[branch].classify(token, text)))
        before = branch
    return events


def test_a_fork_plans_the_lanes_whose_outlines_were_empty() -> None:
    view = View()
    for wired in (
        WireEvent("goal"),
        WireEvent("token", text="go", role="outline", outline="2"),
        WireEvent("fork", labels=("1", "2")),
    ):
        view.feed(wired)
    assert [(lane.label, lane.outline, lane.stage) for lane in view.trunk.block.lanes] == [
        ("1", "", Stage.RUNNING),
        ("2", "go", Stage.RUNNING),
    ]


@pytest.mark.parametrize(
    "wired", [WireEvent("token", "7", text="x", role="text"), WireEvent("join"), WireEvent("fork", labels=("1",))]
)
def test_an_event_of_a_branch_that_does_not_exist_is_refused(wired: WireEvent) -> None:
    with pytest.raises(InputError, match="branch"):
        View().feed(wired)
