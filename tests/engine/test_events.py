"""The stream of events tells the same story as the finished generation."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, given, settings

from multiverse import LLM, Generation, SamplingParams
from multiverse.engine import BranchEndEvent, Event, FinishEvent, ForkEvent, JoinEvent, TokenEvent
from multiverse.engine.scripted import Script, ScriptedSampler
from multiverse.structure import Document
from tests.engine.steering import GREEDY, NESTED, two_paths
from tests.strategies import documents


@dataclass
class Node:
    """A branch as a listener sees it: texts and forks in the order in which it wrote them."""

    label: str
    items: list[str | list[Node]] = field(default_factory=list)
    tokens: int = 0
    ended: bool = False

    def text(self) -> str:
        return "".join(item if isinstance(item, str) else "".join(child.text() for child in item) for item in self.items)


def listen(events: list[Event], end: int) -> tuple[Node, Generation]:
    """Put the events together, and check their order on the way."""
    trunk = Node("")
    nodes = {"": trunk}
    waiting: dict[str, list[Node]] = {}
    finish = events[-1]
    assert isinstance(finish, FinishEvent)
    for event in events[:-1]:
        assert not isinstance(event, FinishEvent)
        node = nodes[event.branch]
        assert not node.ended
        match event:
            case TokenEvent():
                assert event.branch not in waiting
                node.tokens += 1
                if event.token_id != end:
                    node.items.append(event.text)
            case ForkEvent():
                prefix = f"{event.branch}." if event.branch else ""
                assert event.labels == tuple(f"{prefix}{i + 1}" for i in range(len(event.labels)))
                children = [Node(label) for label in event.labels]
                waiting[event.branch] = children
                node.items.append(children)
                nodes |= {child.label: child for child in children}
            case BranchEndEvent():
                node.ended = True
            case JoinEvent():
                children = waiting.pop(event.branch)
                assert event.labels == tuple(child.label for child in children)
                assert all(child.ended for child in children)
    assert not waiting
    return trunk, finish.generation


def stream(llm: LLM, document: Document, params: SamplingParams = GREEDY) -> list[Event]:
    """Events of one scripted document; a neighbour runs beside it."""
    engine, tokens = llm.engine, llm.engine.tokens
    assert tokens is not None
    sampler = ScriptedSampler()
    engine.sampler = sampler
    end = int(llm.tokenizer.eos_token_id)
    request = engine.submit(tokens.encode("Q"), params, listening=True)
    sampler.scripts[request.id] = Script(document, tokens, end)
    neighbour = engine.submit(tokens.encode("another"), GREEDY)
    sampler.scripts[neighbour.id] = Script(two_paths(), tokens, end)
    events: list[Event] = []
    while request.finish_reason is None:
        engine.step()
        events += engine.drain(request)
    engine.run([neighbour])
    return events


@given(document=documents(depth=2, forks=True))
@settings(max_examples=4, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_events_make_up_the_text(llm: LLM, document: Document) -> None:
    trunk, generation = listen(stream(llm, document), int(llm.tokenizer.eos_token_id))
    assert trunk.text() == generation.text
    assert generation.tree == document


def test_the_order_of_a_small_fork(llm: LLM) -> None:
    tokens = llm.engine.tokens
    assert tokens is not None
    events = stream(llm, two_paths("x", "yyy"))
    marks = [event for event in events if not isinstance(event, TokenEvent)]
    assert marks[:-1] == [
        ForkEvent("", ("1", "2")),
        BranchEndEvent("1"),
        BranchEndEvent("2"),
        JoinEvent("", ("1", "2")),
    ]
    fork, first_end, second_end, join = (events.index(mark) for mark in marks[:-1])
    closing = tokens.dialect.goal.close

    def texts(start: int, stop: int, branch: str) -> str:
        return "".join(e.text for e in events[start:stop] if isinstance(e, TokenEvent) and e.branch == branch)

    assert texts(0, fork, "").endswith(closing + "\n")
    assert texts(0, fork, "1") == texts(0, fork, "2") == ""
    assert texts(fork, first_end, "1") == "<Path>\n1: x\n</Path>\n"
    assert texts(fork, second_end, "2") == "<Path>\n2: yyy\n</Path>\n"
    assert texts(fork, join, "") == ""
    assert texts(first_end, len(events), "1") == ""
    assert texts(second_end, len(events), "2") == ""
    assert texts(join, len(events), "").startswith("<Conclusion>\nso\n")


def test_nested_forks(llm: LLM) -> None:
    marks = [event for event in stream(llm, NESTED) if isinstance(event, ForkEvent | JoinEvent)]
    assert marks == [
        ForkEvent("", ("1", "2")),
        ForkEvent("2", ("2.1", "2.2")),
        JoinEvent("2", ("2.1", "2.2")),
        JoinEvent("", ("1", "2")),
        ForkEvent("", ("1",)),
        JoinEvent("", ("1",)),
    ]


def test_token_events_carry_what_the_generation_reports(llm: LLM) -> None:
    events = stream(llm, NESTED)
    finish = events[-1]
    assert isinstance(finish, FinishEvent)
    generation = finish.generation
    assert generation.logprobs is not None
    reported = zip(
        generation.branches, generation.token_ids, generation.positions, generation.forced, generation.logprobs, strict=True
    )
    token_events = [event for event in events if isinstance(event, TokenEvent)]
    seen = [(event.branch, event.token_id, event.position, event.forced, event.logprob) for event in token_events]
    assert sorted(seen, key=repr) == sorted(reported, key=repr)
    assert len(seen) == generation.usage.total_tokens
    assert [event.counts.total for event in token_events] == list(range(1, len(seen) + 1))
    usage = generation.usage
    assert finish.counts[:2] == (usage.total_tokens, usage.critical_path_tokens)
    for number, event in enumerate(token_events):
        before = token_events[: number + 1]
        assert event.counts.critical_path == max(e.position for e in before) + 1 - usage.prompt_tokens


def test_events_count_the_tokens_of_their_branch(llm: LLM) -> None:
    counted: dict[str, int] = {"": 0}
    for event in stream(llm, NESTED)[:-1]:
        assert not isinstance(event, FinishEvent)
        if isinstance(event, TokenEvent):
            counted[event.branch] += 1
        elif isinstance(event, ForkEvent):  # a later block takes the labels of an earlier one, and counts afresh
            counted |= dict.fromkeys(event.labels, 0)
        own = counted[event.branch]
        assert event.counts.branch == own


def test_every_token_is_told_as_it_comes(llm: LLM) -> None:
    engine, tokens = llm.engine, llm.engine.tokens
    assert tokens is not None
    request = engine.submit(tokens.encode("Q"), SamplingParams(temperature=0, max_tokens=5, max_depth=0), listening=True)
    kinds = []
    while request.finish_reason is None:
        engine.step()
        kinds.append([type(event).__name__ for event in engine.drain(request)])
    assert kinds == [["TokenEvent"]] * 4 + [["TokenEvent", "FinishEvent"]]


@pytest.mark.parametrize("cut", [1, 45, 60, 80])
def test_a_cut_generation_streams_what_it_has(llm: LLM, cut: int) -> None:
    events = stream(llm, two_paths(), SamplingParams(temperature=0, max_tokens=cut))
    finish = events[-1]
    assert isinstance(finish, FinishEvent)
    generation = finish.generation
    assert generation.finish_reason == "length"
    for label in set(generation.branches):
        told = [event.token_id for event in events if isinstance(event, TokenEvent) and event.branch == label]
        assert told == [t for t, b in zip(generation.token_ids, generation.branches, strict=True) if b == label]
