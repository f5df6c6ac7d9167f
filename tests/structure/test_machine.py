"""One machine per branch, with branches interleaved at random, as in an engine."""

from __future__ import annotations

import copy
import random
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from multiverse.errors import StructureError
from multiverse.structure import (
    MULTIVERSE,
    NPR,
    THREADWEAVER,
    BranchEnd,
    Dialect,
    Document,
    Encoded,
    Fork,
    Join,
    Machine,
    Role,
    State,
    TokenDialect,
    Transition,
    allowed_tokens,
    encode,
)
from tests.structure.adapted import TOKENS, dialect_documents

Path = tuple[int, ...]
"""(block, child) steps from the trunk, flattened."""


@dataclass
class Line:
    """A branch: its machine, the tokens still to be fed, and those fed so far, with position and whether they were forced."""

    path: Path
    machine: Machine
    position: int
    todo: list[int]
    parent: Line | None = None
    children: list[Line] = field(default_factory=list)
    blocks: int = 0
    fed: list[tuple[int, int, bool]] = field(default_factory=list)
    events: list[Transition] = field(default_factory=list)


def paths_of(encoded: Encoded) -> dict[int, Path]:
    """The path of each branch of a layout."""
    paths: dict[int, Path] = {0: ()}
    blocks: dict[int, list[int]] = {}
    for index, branch in enumerate(encoded.layout.table):
        if branch.parent >= 0:
            numbers = blocks.setdefault(branch.parent, [])
            if branch.block not in numbers:
                numbers.append(branch.block)
            paths[index] = (*paths[branch.parent], numbers.index(branch.block), int(branch.label.rpartition(".")[2]) - 1)
    return paths


def drive(encoded: Encoded, tokens: TokenDialect, rng: random.Random) -> dict[Path, Line]:
    """Feed a document to its branches: in each step a random branch that neither waits nor is closed takes one token."""
    paths = paths_of(encoded)
    todo: dict[Path, list[int]] = {path: [] for path in paths.values()}
    for token, branch in zip(encoded.token_ids, encoded.layout.branches, strict=True):
        todo[paths[branch]].append(token)
    trunk = Line((), Machine(tokens), 0, todo[()])
    lines = {(): trunk}
    active = [trunk] if trunk.todo else []
    while active:
        line = rng.choice(active)
        token = line.todo.pop(0)
        found = None if line.machine.forced else allowed_tokens(line.machine)
        alone = found is None or (found.only is not None and len(found.only) == 1 and not found.may_end)
        forced = alone if tokens.dialect.exact else found is None
        if found is None:
            assert token == line.machine.forced[0]
        event = line.machine.feed(token)
        if event is not None:
            line.events.append(event)
        line.fed.append((token, line.position, forced))
        line.position += 1
        if line.machine.waiting:
            active.remove(line)
            line.children = []
            for index, label in enumerate(line.machine.labels):
                path = (*line.path, line.blocks, index)
                child = Line(path, Machine(tokens, label), line.position, todo[path], parent=line)
                lines[path] = child
                line.children.append(child)
                active.append(child)
            line.blocks += 1
        elif line.machine.ended:
            active.remove(line)
            parent = line.parent
            assert parent is not None
            assert not line.todo
            if all(child.machine.ended for child in parent.children):
                parent.position = max(child.position for child in parent.children)
                parent.machine.resume()
                active.append(parent)
        elif not line.todo:
            assert line is trunk
            active.remove(line)
    return lines


@given(pair=dialect_documents(), rng=st.randoms(use_true_random=False))
def test_any_interleaving_of_branches_agrees_with_the_layout(pair: tuple[TokenDialect, Document], rng: random.Random) -> None:
    tokens, document = pair
    encoded = encode(document, tokens)
    lines = drive(encoded, tokens, rng)
    found = encoded.layout
    expected: dict[Path, list[tuple[int, int, bool]]] = {path: [] for path in paths_of(encoded).values()}
    for index, token in enumerate(encoded.token_ids):
        path = paths_of(encoded)[found.branches[index]] if found.branches[index] else ()
        expected[path].append((token, found.positions[index], found.forced[index]))
    assert {path: line.fed for path, line in lines.items()} == expected
    assert lines[()].machine.complete


@given(pair=dialect_documents(), rng=st.randoms(use_true_random=False))
def test_transitions_come_in_the_order_of_the_grammar(pair: tuple[TokenDialect, Document], rng: random.Random) -> None:
    tokens, document = pair
    lines = drive(encode(document, tokens), tokens, rng)
    forks = [event for line in lines.values() for event in line.events if isinstance(event, Fork)]
    assert sum(len(fork.labels) for fork in forks) == len(lines) - 1
    for path, line in lines.items():
        label = ".".join(str(child + 1) for child in path[1::2])
        assert line.machine.label == label
        assert line.machine.depth == len(path) // 2
        events = line.events
        if path:
            assert events[-1] == BranchEnd(label)
            events = events[:-1]
        assert len(events) == 2 * line.blocks
        for fork, join in zip(events[::2], events[1::2], strict=True):
            assert isinstance(fork, Fork)
            assert join == Join(fork.labels)
            prefix = f"{label}." if label else ""
            assert fork.labels == tuple(f"{prefix}{index + 1}" for index in range(len(fork.labels)))


def state_of(machine: Machine) -> dict[str, Any]:
    return dict(vars(machine))


@given(pair=dialect_documents(depth=2), rng=st.randoms(use_true_random=False))
@settings(max_examples=60)
def test_an_error_leaves_the_machine_unchanged_and_legal_tags_are_accepted(
    pair: tuple[TokenDialect, Document], rng: random.Random
) -> None:
    tokens, document = pair
    encoded = encode(document, tokens)
    paths = paths_of(encoded)
    branch = rng.randrange(len(encoded.layout.table))
    own = [token for token, owner in zip(encoded.token_ids, encoded.layout.branches, strict=True) if owner == branch]
    machine = Machine(tokens, encoded.layout.table[branch].label)
    for token in own[: rng.randrange(len(own) + 1)]:
        machine.feed(token)
        if machine.waiting:
            machine.resume()
    assert machine.depth == len(paths[branch]) // 2
    text = tokens.encode("x")[0]
    for token in [*tokens.roles, text, *tokens.sep]:
        before = state_of(machine)
        other = copy.copy(machine)
        role = tokens.roles.get(token)
        refusal = None
        try:
            other.feed(token)
        except StructureError as error:
            refusal = error
        if refusal is None:
            # What is accepted is what is forced, what is legal, or text.
            assert machine.forced[:1] == (token,) or role in machine.legal_roles() or role is None
        else:
            assert state_of(other) == before
            assert refusal.offset is None
            assert refusal.problem.startswith(f"found {tokens.name(token)}")
            assert refusal.expected
            assert role not in machine.legal_roles()
        assert state_of(machine) == before


def fed(tokens: TokenDialect, text: str, label: str = "") -> Machine:
    machine = Machine(tokens, label)
    for token in tokens.encode(text):
        machine.feed(token)
    return machine


GOAL = "<Think>\n<Parallel>\n<Goal>\n<Outline>\n1: x\n</Outline>\n"


@pytest.mark.parametrize(
    ("text", "label", "then", "problem", "expected"),
    [
        ("", "", "</Think>", "found </Think> in text outside the thinking", "text or <Think>"),
        ("hello", "", "<Parallel>", "found <Parallel> in text outside the thinking", "text or <Think>"),
        ("<Think>\n", "", "<Think>", "found <Think> in thinking", "text or <Parallel> or </Think>"),
        ("<Think>\nx\n</Think>\n\n", "", "<Parallel>", "found <Parallel> in text outside the thinking", "text or <Think>"),
        ("<Think>\n", "", "<Path>", "found <Path> in thinking", "text or <Parallel> or </Think>"),
        ("<Think>\n", "", "<Conclusion>", "found <Conclusion> in thinking", "text or <Parallel> or </Think>"),
        ("<Think>\n<Parallel>\n", "", "x", "found text in the opening of a block", "<Goal>"),
        ("<Think>\n<Parallel>\n<Goal>\n", "", "</Goal>", "found </Goal> in a goal", "<Outline>"),
        ("<Think>\n<Parallel>\n<Goal>\n", "", "x", "found text in a goal", "<Outline>"),
        (GOAL, "", "</Outline>", "found </Outline> in a goal", "<Outline> or </Goal>"),
        (GOAL + "<Outline>", "", "<Outline>", "found <Outline> in an outline", "text or </Outline>"),
        (GOAL + "</Goal>", "", "x", "found text", "text (forced)"),
        (GOAL + "</Goal>\n", "", "x", "found text in a fork", "nothing"),
        (GOAL + "</Goal>\n", "", "\n", "found text in a fork", "nothing"),
        (GOAL + "</Goal>\n", "", "<Path>", "found <Path> in a fork", "nothing"),
        ("", "1", "x", "found text", "<Path> (forced)"),
        ("<Path>\n", "1", "2", "found text", "text (forced)"),
        ("<Path>\n1: a\n", "1", "</Think>", "found </Think> in thinking", "text or <Parallel> or </Path>"),
        ("<Path>\n1: a\n", "1", "<Path>", "found <Path> in thinking", "text or <Parallel> or </Path>"),
        ("<Path>\n1: a\n</Path>\n", "1", "x", "found text in a closed branch", "nothing"),
        ("<Path>\n1: a\n</Path>\n", "1", "</Path>", "found </Path> in a closed branch", "nothing"),
    ],
)
def test_illegal_tokens_raise_with_problem_and_expected_tokens(
    text: str, label: str, then: str, problem: str, expected: str
) -> None:
    tokens = TOKENS["multiverse"]
    machine = fed(tokens, text, label)
    with pytest.raises(StructureError) as caught:
        machine.feed(tokens.encode(then)[0])
    assert (caught.value.problem, caught.value.expected) == (problem, expected)


def test_a_block_resumes_with_its_conclusion_and_closes() -> None:
    tokens = TOKENS["multiverse"]
    machine = fed(tokens, GOAL + "</Goal>\n")
    assert machine.waiting
    assert machine.labels == ("1",)
    machine.resume()
    assert not machine.waiting
    assert machine.forced == tokens.resume_head
    with pytest.raises(StructureError, match=r"found <Parallel>, expected <Conclusion> \(forced\)"):
        machine.feed(tokens.ids[Role.BLOCK_OPEN])
    assert machine.feed(tokens.resume_head[0]) == Join(("1",))
    assert machine.feed(tokens.resume_head[1]) is None
    with pytest.raises(StructureError, match="expected text or </Conclusion>"):
        machine.feed(tokens.ids[Role.BLOCK_OPEN])
    for token in tokens.encode("so\n</Conclusion>\n"):
        assert machine.feed(token) is None
    with pytest.raises(StructureError, match="found text in the closing of a block, expected </Parallel>"):
        machine.feed(tokens.encode("x")[0])
    machine.feed(tokens.ids[Role.BLOCK_CLOSE])
    assert machine.state is State.BODY
    assert machine.labels == ()


@pytest.mark.parametrize("dialect", [MULTIVERSE, NPR, THREADWEAVER], ids=lambda dialect: dialect.name)
def test_outlines_are_counted_while_a_block_opens(dialect: Dialect) -> None:
    tokens = TOKENS[dialect.name]
    machine = Machine(tokens)
    if dialect.think is not None:
        assert not machine.thinking
        machine.feed(tokens.ids[Role.THINK_OPEN])
    assert machine.thinking == (dialect.think is not None)
    assert machine.outlines == 0
    machine.feed(tokens.fork_tag)
    if dialect.block is not None:
        machine.feed(tokens.ids[Role.GOAL_OPEN])
    for number in range(1, 4):
        machine.feed(tokens.outline_tag)
        machine.feed(tokens.ids[Role.OUTLINE_CLOSE])
        assert machine.outlines == number
    assert machine.feed(tokens.ids[Role.GOAL_CLOSE]) == Fork(("1", "2", "3"))
    assert not machine.waiting
    assert machine.legal_roles() == ()
    machine.feed(tokens.sep[0])
    assert machine.waiting


def test_complete_is_true_where_a_document_may_end() -> None:
    tokens, plain = TOKENS["multiverse"], TOKENS["npr"]
    assert [fed(tokens, text).complete for text in ("", "x", "<Think>\n", "<Think>\nx\n</Think>", GOAL)] == [
        True, True, False, True, False,
    ]  # fmt: skip
    assert [fed(plain, text).complete for text in ("", "x", "<guideline>\n")] == [True, True, False]
    assert not fed(tokens, "<Path>\n1: a\n</Path>\n", "1").complete


def test_labels_of_a_second_block_start_at_1() -> None:
    tokens = TOKENS["npr"]
    machine = fed(tokens, "<guideline>\n<plan>\n1: x\n</plan>\n<plan>\n2: y\n</plan>\n</guideline>\n")
    assert machine.labels == ("1", "2")
    machine.resume()
    for token in tokens.encode("<takeaway>\nso\n</takeaway>\n<guideline>\n<plan>\n1: x\n</plan>\n</guideline>\n"):
        machine.feed(token)
    assert machine.labels == ("1",)
