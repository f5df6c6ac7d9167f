"""What may come next, and the way out: against documents of all dialects, and against the parser."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from multiverse.errors import StructureError
from multiverse.structure import (
    AllowedTokens,
    ClosingCost,
    Document,
    Machine,
    Role,
    State,
    TokenDialect,
    allowed_tokens,
    closing_cost,
    closing_tokens,
    encode,
    growth,
    parse,
)
from tests.structure.adapted import TOKENS, dialect_documents

FREE = (State.BODY, State.OUTLINE, State.CONCLUSION)
"""Where a separator has to stand between a text and the tag behind it."""


@dataclass
class Line:
    """A branch on the way through a document: its machine, and the paths of its open block that have not begun."""

    machine: Machine
    todo: list[str] = field(default_factory=list)


class Walk:
    """Feeds a document in document order, token by token, to one machine a branch.

    Attributes:
        lines: the branches that are open, trunk first, the one whose turn it is last.
        out: what has been fed.
    """

    def __init__(self, tokens: TokenDialect) -> None:
        self.tokens = tokens
        self.lines = [Line(Machine(tokens))]
        self.out: list[int] = []

    @property
    def machine(self) -> Machine:
        """The machine of the branch whose turn it is."""
        return self.lines[-1].machine

    def feed(self, token: int) -> None:
        self.machine.feed(token)
        self.out.append(token)
        self._settle()

    def _settle(self) -> None:
        """Begin the next path, resume whoever waited, or stay."""
        line = self.lines[-1]
        if line.machine.ended:
            self.lines.pop()
            line = self.lines[-1]
            if not line.todo:
                line.machine.resume()
        elif line.machine.waiting:
            line.todo = list(line.machine.labels)
        if line.todo:
            self.lines.append(Line(Machine(self.tokens, line.todo.pop(0))))

    @property
    def text(self) -> str:
        return decode(self.tokens, self.out)

    def fork(self) -> Walk:
        """A copy that can go another way."""
        other = copy.copy(self)
        other.lines = [Line(copy.copy(line.machine), list(line.todo)) for line in self.lines]
        other.out = list(self.out)
        return other

    def close(self) -> None:
        """Follow the way out of everything that is open, checking on each level what it takes."""
        while True:
            line = self.lines[-1]
            bound, off = closing_cost(line.machine), beside_the_bound(line.machine)
            assert close(line.machine, self.out) == ClosingCost(bound.tokens + off, bound.positions + off)
            if len(self.lines) == 1:
                return
            self.lines.pop()
            line = self.lines[-1]
            for label in line.todo:
                child = Machine(self.tokens, label)
                assert closing_cost(child) == close(child, self.out)
            line.todo = []
            assert line.machine.waiting
            bound = closing_cost(line.machine)
            line.machine.resume()
            assert closing_cost(line.machine) == bound


def close(machine: Machine, out: list[int]) -> ClosingCost:
    """Write the way out of a branch, through all paths of the blocks on that way, in document order; returns what it took."""
    total = positions = 0
    while True:
        if machine.waiting:
            below = [close(Machine(machine.tokens, label), out) for label in machine.labels]
            total += sum(way.tokens for way in below)
            positions += max(way.positions for way in below)
            machine.resume()
        ahead = machine.forced or closing_tokens(machine)
        if not ahead:
            return ClosingCost(total, positions)
        for token in ahead:
            machine.feed(token)
        out += ahead
        total += len(ahead)
        positions += len(ahead)


def beside_the_bound(machine: Machine) -> int:
    """By how many tokens the way out is longer than `closing_cost` says.

    It is shorter where the text ends in a separator already, and longer by one where a space alone has to become a text.
    """
    ahead = closing_tokens(machine)
    if machine.state not in FREE or machine.forced or not ahead:
        return 0
    if ahead[0] in machine.tokens.roles:
        return -len(machine.tokens.sep)
    return int(machine.state is State.BODY and ahead[0] == machine.tokens.encode(" ")[0])


def decode(tokens: TokenDialect, ids: list[int]) -> str:
    text: str = tokens._tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    return text


def walk(tokens: TokenDialect, document: Document) -> Iterator[tuple[Walk, int | None]]:
    """Every place of a document where the model chooses, and what stands there; at the very end, nothing."""
    on = Walk(tokens)
    for token in encode(document, tokens).token_ids:
        if not on.machine.forced:
            yield on, token
        on.feed(token)
    yield on, None


def allows(found: AllowedTokens, token: int) -> bool:
    return token in found.only if found.only is not None else token not in found.banned


def blank(on: Walk) -> bool:
    """Whether the newest text holds nothing but white space."""
    machine = on.machine
    text = decode(on.tokens, on.out[len(on.out) - machine.since :]).strip()
    return text in ("", f"{machine.label}{on.tokens.dialect.label_end}")


def is_open(on: Walk) -> bool:
    """Whether anything is there to be closed."""
    return len(on.lines) > 1 or bool(on.machine.forced or closing_tokens(on.machine))


@given(pair=dialect_documents())
def test_nothing_is_forbidden_that_a_document_holds(pair: tuple[TokenDialect, Document]) -> None:
    tokens, document = pair
    for on, token in walk(tokens, document):
        found = allowed_tokens(on.machine)
        if token is None:
            assert found.may_end
        else:
            assert allows(found, token), (on.text, tokens.name(token), found)


@given(pair=dialect_documents(depth=2))
@settings(max_examples=40)
def test_the_way_out_of_every_place_ends_in_a_canonical_text(pair: tuple[TokenDialect, Document]) -> None:
    tokens, document = pair
    for on, _ in walk(tokens, document):
        if is_open(on):
            other = on.fork()
            other.close()
            assert not is_open(other)
            assert parse(other.text, tokens.dialect)


def reads(on: Walk) -> bool:
    """Whether the text, with everything closed, is canonical."""
    other = on.fork()
    while other.machine.forced:
        other.feed(other.machine.forced[0])
    if is_open(other):
        other.close()
    try:
        parse(other.text, on.tokens.dialect)
    except StructureError:
        return False
    return True


@given(pair=dialect_documents(depth=2))
@settings(max_examples=25)
def test_a_tag_may_come_exactly_where_it_can_be_read(pair: tuple[TokenDialect, Document]) -> None:
    tokens, document = pair
    for on, _ in walk(tokens, document):
        found, legal = allowed_tokens(on.machine), on.machine.legal_roles()
        for token, role in tokens.roles.items():
            if role not in legal:
                assert not allows(found, token)
                continue
            other = on.fork()
            other.feed(token)
            if allows(found, token):
                assert reads(other), (on.text, role)
            elif not blank(on):  # of texts of white space alone, some that could be read are not let pass
                assert not reads(other), (on.text, role)


@given(pair=dialect_documents(depth=2))
@settings(max_examples=40)
def test_a_text_may_end_only_where_it_can_be_read(pair: tuple[TokenDialect, Document]) -> None:
    tokens, document = pair
    for on, _ in walk(tokens, document):
        if allowed_tokens(on.machine).may_end:
            assert parse(on.text, tokens.dialect) is not None, on.text


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("multiverse", "<Think>\n\n"),
        ("multiverse", "<Think>\n<Parallel>\n<Goal>\n<Outline>\n1: a\n</Outline>\n</Goal>\n<Path>\n1: "),
        ("multiverse", "<Think>\n<Parallel>\n<Goal>\n<Outline>\n1: a\n</Outline>\n</Goal>\n<Path>\n1: \n"),
        ("multiverse", "<Think>\n "),
        ("multiverse", "<Think>\n\n\n"),
        ("threadweaver", "<think>\n\n"),
        ("npr", "<guideline>\n<plan>\n1: a\n</plan>\n</guideline>\n<step>\n1: "),
    ],
)
def test_the_way_out_of_a_text_that_holds_nothing_yet(name: str, text: str) -> None:
    tokens = TOKENS[name]
    on = Walk(tokens)
    for token in tokens.encode(text):
        on.feed(token)
    on.close()
    assert parse(on.text, tokens.dialect)


@pytest.mark.parametrize("name", sorted(TOKENS))
def test_what_follows_a_label_stands_apart_from_it(name: str) -> None:
    # Written without the space, neither an outline nor a path can be read.
    tokens = TOKENS[name]
    machine = Machine(tokens, "1")
    for token in machine.forced:
        machine.feed(token)
    letter, space = tokens.encode("a")[0], tokens.encode(" ")[0]
    assert allows(allowed_tokens(machine), space)
    assert not allows(allowed_tokens(machine), letter)
    outline = Machine(tokens)
    opening = [role for role in (Role.THINK_OPEN, Role.BLOCK_OPEN, Role.GOAL_OPEN) if role in tokens.ids]
    for role in opening:
        outline.feed(tokens.ids[role])
        for token in tokens.sep:
            outline.feed(token)
    for token in (tokens.outline_tag, *tokens.outline_head("1")):
        outline.feed(token)
    assert outline.state is State.OUTLINE
    assert allows(allowed_tokens(outline), space)
    assert not allows(allowed_tokens(outline), letter)


@pytest.mark.parametrize("name", ["multiverse", "threadweaver"])
def test_the_thinking_begins_a_text_or_not_at_all(name: str) -> None:
    tokens = TOKENS[name]
    machine = Machine(tokens)
    think = tokens.ids[Role.THINK_OPEN]
    assert allows(allowed_tokens(machine), think)
    machine.feed(tokens.encode("a")[0])
    assert machine.state is State.TEXT
    assert not allows(allowed_tokens(machine), think)
    machine.begin_turn()  # that was a prompt
    assert allows(allowed_tokens(machine), think)
    machine.feed(think)
    for token in (*tokens.sep, tokens.ids[Role.THINK_CLOSE]):
        machine.feed(token)
    assert allowed_tokens(machine) == AllowedTokens(tokens.answer_sep[:1], (), may_end=True)
    for token in tokens.answer_sep:
        machine.feed(token)
    assert not allows(allowed_tokens(machine), think)


def test_without_thinking_tags_a_text_begins_where_its_prompt_ends() -> None:
    tokens = TOKENS["npr"]
    machine = Machine(tokens)
    assert allows(allowed_tokens(machine), tokens.fork_tag)
    machine.feed(tokens.encode("Q")[0])
    assert not allows(allowed_tokens(machine), tokens.fork_tag)
    machine.begin_turn()  # that was a prompt
    assert allows(allowed_tokens(machine), tokens.fork_tag)
    machine.feed(tokens.sep[0])  # a line end before the first tag is none of the canonical text
    assert not allows(allowed_tokens(machine), tokens.fork_tag)


def in_the_thinking(tokens: TokenDialect, text: str, label: str = "") -> Machine:
    """A branch that has just written this text."""
    machine = Machine(tokens, label)
    for token in machine.forced or ((tokens.ids[Role.THINK_OPEN], *tokens.sep) if Role.THINK_OPEN in tokens.ids else ()):
        machine.feed(token)
    for token in tokens.encode(text):
        machine.feed(token)
    return machine


@pytest.mark.parametrize("name", sorted(TOKENS))
@pytest.mark.parametrize("label", ["", "2.10"])
def test_a_tag_stands_behind_a_separator(name: str, label: str) -> None:
    tokens = TOKENS[name]
    for text, apart in ((" so", False), (" so\n", True), (" so\n ", False), (" so\n\n", True)):
        machine = in_the_thinking(tokens, text, label)
        assert allows(allowed_tokens(machine), tokens.fork_tag) == apart
        closing = Role.PATH_CLOSE if label else Role.THINK_CLOSE
        if closing in tokens.ids:
            ahead = (tokens.ids[closing],) if apart else (*tokens.sep, tokens.ids[closing])
            assert closing_tokens(machine) == ahead


def test_every_step_of_the_shortest_block() -> None:
    tokens = TOKENS["multiverse"]
    machine = in_the_thinking(tokens, "so\n")
    steps = []
    machine.feed(tokens.fork_tag)
    while not machine.waiting:
        ahead = machine.forced or closing_tokens(machine)
        steps.append(decode(tokens, list(ahead)))
        for token in ahead:
            machine.feed(token)
    assert steps == ["\n<Goal>", "\n<Outline>", "\n1: \n</Outline>", "\n</Goal>", "\n"]
    machine.resume()
    while not machine.complete:
        ahead = machine.forced or closing_tokens(machine)
        steps.append(decode(tokens, list(ahead)))
        for token in ahead:
            machine.feed(token)
    assert steps[5:] == ["<Conclusion>\n", "\n</Conclusion>", "\n</Parallel>", "\n</Think>"]


@given(pair=dialect_documents(depth=2), text=st.sampled_from(["a", " ", "\n"]))
@settings(max_examples=40)
def test_a_token_of_text_does_not_lengthen_the_way_out(pair: tuple[TokenDialect, Document], text: str) -> None:
    tokens, document = pair
    (token,) = tokens.encode(text)
    for on, _ in walk(tokens, document):
        found = allowed_tokens(on.machine)
        if found.only is None or token in found.only:
            before, after = closing_cost(on.machine), copy.copy(on.machine)
            after.feed(token)
            assert closing_cost(after).tokens <= before.tokens
            assert closing_cost(after).positions <= before.positions


@given(pair=dialect_documents(depth=2))
@settings(max_examples=40)
def test_what_a_tag_opens_costs_no_more_than_was_told(pair: tuple[TokenDialect, Document]) -> None:
    tokens, document = pair
    for on, _ in walk(tokens, document):
        for tag in (tokens.fork_tag, tokens.outline_tag):
            if not allows(allowed_tokens(on.machine), tag):
                continue
            before, state = closing_cost(on.machine), vars(on.machine).copy()
            more = growth(on.machine, tokens.roles[tag])
            assert vars(on.machine) == state
            # The first outline lies on the way out already.
            first = tag == tokens.outline_tag and not on.machine.outlines
            assert more == ClosingCost(0, 0) if first else min(more) > 0
            after = copy.copy(on.machine)
            after.feed(tag)
            took = close(after, [])
            # Exactly so, but for a separator that the way out has always counted.
            assert took == ClosingCost(before.tokens + more.tokens - 1, before.positions + more.positions - 1)


@pytest.mark.parametrize("name", sorted(TOKENS))
def test_outlines_lie_one_behind_the_other_and_their_paths_side_by_side(name: str) -> None:
    tokens = TOKENS[name]
    machine = in_the_thinking(tokens, "so\n")
    machine.feed(tokens.fork_tag)
    while (
        machine.outlines == 0 or machine.state is not State.GOAL or closing_tokens(machine)[-1] != tokens.ids[Role.GOAL_CLOSE]
    ):
        for token in closing_tokens(machine):
            machine.feed(token)
    for token in tokens.sep:
        machine.feed(token)
    outline = len(tokens.encode("<>\n2: \n<>\n")) - 2  # one token a tag
    path = closing_cost(Machine(tokens, "2"))
    assert path.tokens == path.positions == len(tokens.encode("<>\n2:\n<>\n")) - 2
    assert growth(machine, Role.OUTLINE_OPEN) == ClosingCost(outline + path.tokens, outline)


def test_a_closed_branch_needs_nothing() -> None:
    tokens = TOKENS["multiverse"]
    machine = Machine(tokens, "1")
    close(machine, [])
    assert machine.ended
    assert (closing_tokens(machine), closing_cost(machine)) == ((), ClosingCost(0, 0))
    assert closing_cost(Machine(tokens)) == ClosingCost(0, 0)  # nothing has been opened yet
