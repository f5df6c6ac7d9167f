"""Allowed tokens and closing tokens, against documents of all dialects and against the parser."""

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
    required_tokens,
)
from multiverse.structure import layout as replay
from tests.structure.adapted import MERGING, TOKENS, dialect_documents

EXACT = sorted(name for name in TOKENS if TOKENS[name].dialect.exact)
"""Dialects in which white space is exact."""

FREE = (State.BODY, State.OUTLINE, State.CONCLUSION)
"""States in which a separator must stand between a text and the tag behind it."""


@dataclass
class Line:
    """A branch of a walk: its machine, and the labels of the paths of its open block that have not started."""

    machine: Machine
    todo: list[str] = field(default_factory=list)


class Walk:
    """Feeds the tokens of a document, in document order, to one machine per branch.

    Attributes:
        lines: the open branches, trunk first and the current one last.
        out: the tokens fed so far.
    """

    def __init__(self, tokens: TokenDialect) -> None:
        self.tokens = tokens
        self.lines = [Line(Machine(tokens))]
        self.out: list[int] = []

    @property
    def machine(self) -> Machine:
        """The machine of the current branch."""
        return self.lines[-1].machine

    def feed(self, token: int) -> None:
        self.machine.feed(token)
        self.out.append(token)
        self._settle()

    def _settle(self) -> None:
        """Start the next path, resume the waiting branch, or stay."""
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
        """An independent copy."""
        other = copy.copy(self)
        other.lines = [Line(copy.copy(line.machine), list(line.todo)) for line in self.lines]
        other.out = list(self.out)
        return other

    def close(self) -> None:
        """Feed the closing tokens of all open branches, and check their cost on each level."""
        while True:
            line = self.lines[-1]
            cost, off = closing_cost(line.machine), deviation(line.machine)
            took = close(line.machine, self.out)
            if self.tokens.dialect.exact:
                assert took == ClosingCost(cost.tokens + off, cost.positions + off)
            else:  # an upper bound: white space may stand there already
                assert 0 <= cost.tokens - took.tokens <= 2
                assert 0 <= cost.positions - took.positions <= 2
            if len(self.lines) == 1:
                return
            self.lines.pop()
            line = self.lines[-1]
            for label in line.todo:
                child = Machine(self.tokens, label)
                assert closing_cost(child) == close(child, self.out)
            line.todo = []
            assert line.machine.waiting
            cost = closing_cost(line.machine)
            line.machine.resume()
            assert closing_cost(line.machine) == cost


def close(machine: Machine, out: list[int]) -> ClosingCost:
    """Feed the closing tokens of a branch and of all paths of its open blocks, in document order; returns their cost."""
    total = positions = 0
    while True:
        if machine.waiting:
            below = [close(Machine(machine.tokens, label), out) for label in machine.labels]
            total += sum(cost.tokens for cost in below)
            positions += max(cost.positions for cost in below)
            machine.resume()
        ahead = machine.forced or closing_tokens(machine)
        if not ahead:
            return ClosingCost(total, positions)
        for token in ahead:
            machine.feed(token)
        out += ahead
        total += len(ahead)
        positions += len(ahead)


def deviation(machine: Machine) -> int:
    """By how many tokens the closing tokens are more than `closing_cost`.

    They are fewer if the text ends in a separator already, and one more if a single space must become a text.
    """
    ahead = closing_tokens(machine)
    if machine.state not in FREE or machine.forced or not ahead:
        return 0
    if ahead[0] in machine.tokens.roles:
        return -len(machine.tokens.before[machine.tokens.roles[ahead[0]]])
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
    """Whether the newest text is white space alone."""
    machine = on.machine
    text = decode(on.tokens, on.out[len(on.out) - machine.since :]).strip()
    return text in ("", f"{machine.label}{on.tokens.dialect.label_end}")


def is_open(on: Walk) -> bool:
    """Whether a branch, block or thinking is open."""
    return len(on.lines) > 1 or bool(on.machine.forced or closing_tokens(on.machine))


@given(pair=dialect_documents())
def test_every_token_of_a_document_is_allowed(pair: tuple[TokenDialect, Document]) -> None:
    tokens, document = pair
    for on, token in walk(tokens, document):
        found = allowed_tokens(on.machine)
        if token is None:
            assert found.may_end
        else:
            assert allows(found, token), (on.text, tokens.name(token), found)


@given(pair=dialect_documents(merging=True))
def test_required_tokens_are_those_without_a_choice(pair: tuple[TokenDialect, Document]) -> None:
    tokens, document = pair
    on = Walk(tokens)
    ids, layout = encode(document, tokens)
    for place, (token, forced) in enumerate(zip(ids, layout.forced, strict=True)):
        required = required_tokens(on.machine)
        if not on.machine.forced:
            found = allowed_tokens(on.machine)
            alone = found.only is not None and len(found.only) == 1 and not found.may_end
            if not tokens.dialect.exact:  # nothing is forced but heads
                assert not required
                assert not forced
                on.feed(token)
                continue
            assert alone == bool(required) == forced, (on.text, found)
            assert not alone or found.only == required[:1]
        assert ids[place : place + len(required)] == required
        on.feed(token)
    assert required_tokens(on.machine) == ()
    assert replay(ids, tokens) == layout


@pytest.mark.parametrize("known", [TOKENS, MERGING], ids=["bytes", "merging"])
def test_the_text_does_not_end_directly_after_the_answers_separator(known: dict[str, TokenDialect]) -> None:
    # With tokenizers that have one token for two line ends, the separator once counted as a text of the answer.
    tokens = known["multiverse"]
    machine = Machine(tokens)
    for token in (tokens.ids[Role.THINK_OPEN], *tokens.sep, tokens.ids[Role.THINK_CLOSE]):
        machine.feed(token)
    assert allowed_tokens(machine).may_end
    for token in tokens.answer_sep:
        machine.feed(token)
        assert not allowed_tokens(machine).may_end
    machine.feed(tokens.encode("4")[0])
    assert allowed_tokens(machine).may_end


def test_a_text_without_canonical_separators_is_not_forced() -> None:
    # The grammar takes it (a prompt, or without the guard); only what the guard would have written counts as forced.
    tokens = TOKENS["multiverse"]
    ids = tokens.encode("<Think><Parallel>\n\n<Goal>")
    assert replay(ids, tokens).forced == (False, False, True, False, True)


@given(pair=dialect_documents(depth=2))
@settings(max_examples=40)
def test_closing_tokens_from_every_place_give_a_canonical_text(pair: tuple[TokenDialect, Document]) -> None:
    tokens, document = pair
    for on, _ in walk(tokens, document):
        if is_open(on):
            other = on.fork()
            other.close()
            assert not is_open(other)
            assert parse(other.text, tokens.dialect)


def is_canonical(on: Walk) -> bool:
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
def test_a_tag_is_allowed_exactly_where_the_text_stays_canonical(pair: tuple[TokenDialect, Document]) -> None:
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
                assert is_canonical(other), (on.text, role)
            elif not blank(on):  # after white space alone, some tags are forbidden that would be canonical
                assert not is_canonical(other), (on.text, role)


@given(pair=dialect_documents(depth=2))
@settings(max_examples=40)
def test_a_text_may_end_only_where_it_is_canonical(pair: tuple[TokenDialect, Document]) -> None:
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
        ("threadweaver, exact, thinking", "<think>\n\n"),
        ("npr, exact, thinking", "<guideline>\n<plan>\n1: a\n</plan>\n</guideline>\n<step>\n1: "),
    ],
)
def test_closing_tokens_of_a_blank_text_give_a_canonical_text(name: str, text: str) -> None:
    tokens = TOKENS[name]
    on = Walk(tokens)
    for token in tokens.encode(text):
        on.feed(token)
    on.close()
    assert parse(on.text, tokens.dialect)


@pytest.mark.parametrize("name", EXACT)
def test_a_space_must_follow_a_label(name: str) -> None:
    # Without the space neither an outline nor a path is canonical.
    tokens = TOKENS[name]
    machine = Machine(tokens, "1")
    for token in machine.forced:
        machine.feed(token)
    letter, space = tokens.encode("a")[0], tokens.encode(" ")[0]
    assert allows(allowed_tokens(machine), space)
    assert not allows(allowed_tokens(machine), letter)
    outline = where_it_forks(tokens, "")
    for role in [role for role in (Role.BLOCK_OPEN, Role.GOAL_OPEN) if role in tokens.ids]:
        outline.feed(tokens.ids[role])
        for token in tokens.sep:
            outline.feed(token)
    head = tokens.outline_head("1")
    for token in (tokens.outline_tag, *head[: len(head) - len(tokens.label_gap)]):
        outline.feed(token)
    assert outline.state is State.OUTLINE
    assert allows(allowed_tokens(outline), space)
    assert not allows(allowed_tokens(outline), letter)


@pytest.mark.parametrize("name", ["multiverse", "threadweaver, exact, thinking"])
def test_the_thinking_is_allowed_only_at_the_start_of_a_text(name: str) -> None:
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


def test_without_thinking_tags_a_block_is_allowed_at_the_start_and_after_the_prompt() -> None:
    tokens = TOKENS["npr, exact, thinking"]
    machine = Machine(tokens)
    assert allows(allowed_tokens(machine), tokens.fork_tag)
    machine.feed(tokens.encode("Q")[0])
    assert not allows(allowed_tokens(machine), tokens.fork_tag)
    machine.begin_turn()  # that was a prompt
    assert allows(allowed_tokens(machine), tokens.fork_tag)
    machine.feed(tokens.sep[0])  # the canonical text has no line end before the first tag
    assert not allows(allowed_tokens(machine), tokens.fork_tag)


def where_it_forks(tokens: TokenDialect, text: str, label: str = "") -> Machine:
    """A branch that has just written this text, in a path or where the trunk may fork: the thinking, or else the answer."""
    machine = Machine(tokens, label)
    thinks = Role.THINK_OPEN in tokens.ids and tokens.dialect.forks_thinking
    for token in machine.forced or ((tokens.ids[Role.THINK_OPEN], *tokens.sep) if thinks else ()):
        machine.feed(token)
    for token in tokens.encode(text):
        machine.feed(token)
    return machine


@pytest.mark.parametrize("name", [name for name in EXACT if TOKENS[name].sep])
@pytest.mark.parametrize("label", ["", "2.10"])
def test_a_tag_is_allowed_only_behind_a_separator(name: str, label: str) -> None:
    tokens = TOKENS[name]
    for text, apart in ((" so", False), (" so\n", True), (" so\n ", False), (" so\n\n", True)):
        machine = where_it_forks(tokens, text, label)
        assert allows(allowed_tokens(machine), tokens.fork_tag) == apart
        closing = Role.PATH_CLOSE if label else Role.THINK_CLOSE
        if not label and not tokens.dialect.forks_thinking:
            assert closing_tokens(machine) == ()
        elif closing in tokens.ids:
            ahead = (tokens.ids[closing],) if apart else (*tokens.sep, tokens.ids[closing])
            assert closing_tokens(machine) == ahead


def test_closing_tokens_of_the_shortest_block() -> None:
    tokens = TOKENS["multiverse"]
    machine = where_it_forks(tokens, "so\n")
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


def test_a_block_of_the_answer_closes_and_the_text_may_end_behind_it() -> None:
    tokens = TOKENS["multiverse-answer"]
    on = Walk(tokens)
    assert allows(allowed_tokens(on.machine), tokens.fork_tag)  # the text may begin with a block
    on.feed(tokens.fork_tag)
    assert not allowed_tokens(on.machine).may_end
    on.close()
    assert on.text == (
        "<Parallel>\n<Goal>\n<Outline>\n1: \n</Outline>\n</Goal>\n"
        "<Path>\n1:\n</Path>\n<Conclusion>\n\n</Conclusion>\n</Parallel>"
    )
    assert allowed_tokens(on.machine) == AllowedTokens(tokens.sep, (), may_end=True)
    on.feed(tokens.sep[0])
    found = allowed_tokens(on.machine)
    assert allows(found, tokens.fork_tag)  # another block, or text, but no end behind the separator alone
    assert not allows(found, tokens.ids[Role.THINK_OPEN])
    assert not found.may_end
    on.feed(tokens.encode("a")[0])
    assert allowed_tokens(on.machine).may_end
    assert not allows(allowed_tokens(on.machine), tokens.fork_tag)


def test_a_block_may_follow_the_closed_thinking_where_the_answer_forks() -> None:
    for name, where in (("multiverse", ""), ("multiverse-answer", "answer"), ("multiverse, both", "both answer")):
        tokens = TOKENS[name]
        on = Walk(tokens)
        for token in tokens.encode("<Think>\n"):
            on.feed(token)
        assert allows(allowed_tokens(on.machine), tokens.fork_tag) == (tokens.dialect.blocks != "answer")
        for token in tokens.encode("a\n</Think>"):
            on.feed(token)
        assert allowed_tokens(on.machine) == AllowedTokens(tokens.answer_sep[:1], (), may_end=True)
        for token in tokens.answer_sep:
            on.feed(token)
        assert allows(allowed_tokens(on.machine), tokens.fork_tag) == ("answer" in where)
        assert closing_cost(on.machine) == ClosingCost(0, 0)
        on.feed(tokens.sep[0])  # a third line end would be a text of the answer, and has no separator behind it
        assert not allows(allowed_tokens(on.machine), tokens.fork_tag)


@given(pair=dialect_documents(depth=2), text=st.sampled_from(["a", " ", "\n"]))
@settings(max_examples=40)
def test_a_token_of_text_does_not_raise_the_closing_cost(pair: tuple[TokenDialect, Document], text: str) -> None:
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
def test_growth_is_the_closing_cost_that_a_tag_adds(pair: tuple[TokenDialect, Document]) -> None:
    tokens, document = pair
    for on, _ in walk(tokens, document):
        for tag in (tokens.fork_tag, tokens.outline_tag):
            if not allows(allowed_tokens(on.machine), tag):
                continue
            before, state = closing_cost(on.machine), vars(on.machine).copy()
            more = growth(on.machine, tokens.roles[tag])
            assert vars(on.machine) == state
            # The closing tokens contain the first outline already.
            first = tag == tokens.outline_tag and not on.machine.outlines
            if tokens.dialect.exact:
                assert more == ClosingCost(0, 0) if first else min(more) > 0
            else:  # white space that was counted may be left out
                assert min(more) >= -len(tokens.after[Role.GOAL_OPEN]) if first else min(more) > 0
            after = copy.copy(on.machine)
            after.feed(tag)
            took = close(after, [])
            if not tokens.dialect.exact:
                assert took.tokens <= before.tokens + more.tokens - 1
                assert took.positions <= before.positions + more.positions - 1
                continue
            # The same, but for a separator that the closing cost always counts.
            assert took == ClosingCost(before.tokens + more.tokens - 1, before.positions + more.positions - 1)


@pytest.mark.parametrize("label", ["", "2.10"])
def test_without_separators_a_tag_is_allowed_behind_any_text(label: str) -> None:
    tokens = TOKENS["multiverse-compact"]
    for text in (" so", " so\n", " so "):
        machine = where_it_forks(tokens, text, label)
        assert allows(allowed_tokens(machine), tokens.fork_tag)
        assert closing_tokens(machine) == ((tokens.ids[Role.PATH_CLOSE],) if label else ())
    if label:  # the space after a label is no text
        assert not allows(allowed_tokens(where_it_forks(tokens, " ", label)), tokens.fork_tag)
        assert allows(allowed_tokens(where_it_forks(tokens, "", label)), tokens.fork_tag)


def test_without_a_closing_tag_the_next_tag_ends_an_outline() -> None:
    tokens = TOKENS["multiverse-compact"]
    machine = where_it_forks(tokens, "so")
    machine.feed(tokens.fork_tag)
    for token in (tokens.outline_tag, *tokens.outline_head("1"), *tokens.encode("a")):
        machine.feed(token)
    assert machine.legal_roles() == (Role.OUTLINE_OPEN, Role.GOAL_CLOSE)
    # Tag, label and space; and a path of its head and its end.
    assert growth(machine, Role.OUTLINE_OPEN) == ClosingCost(3 + 3, 3)
    assert closing_tokens(machine) == (tokens.ids[Role.GOAL_CLOSE],)
    machine.feed(tokens.ids[Role.GOAL_CLOSE])
    assert machine.waiting
    assert closing_tokens(Machine(tokens, "2.1")) == (tokens.ids[Role.PATH_CLOSE],)


@pytest.mark.parametrize("name", [name for name in EXACT if Role.OUTLINE_CLOSE in TOKENS[name].ids])
def test_an_outline_adds_positions_in_sequence_and_its_path_in_parallel(name: str) -> None:
    tokens = TOKENS[name]
    machine = where_it_forks(tokens, "so\n")
    machine.feed(tokens.fork_tag)
    while (
        machine.outlines == 0 or machine.state is not State.GOAL or closing_tokens(machine)[-1] != tokens.ids[Role.GOAL_CLOSE]
    ):
        for token in closing_tokens(machine):
            machine.feed(token)
    for token in tokens.sep:
        machine.feed(token)
    space, behind = tokens.dialect.after[Role.OUTLINE_OPEN], tokens.dialect.after[Role.PATH_CLOSE]
    outline = len(tokens.encode(f"<>{space}2: {space}<>\n")) - 2  # one token a tag
    path = closing_cost(Machine(tokens, "2"))
    assert path.tokens == path.positions == len(tokens.encode(f"<>\n2:\n<>{behind}")) - 2
    assert growth(machine, Role.OUTLINE_OPEN) == ClosingCost(outline + path.tokens, outline)


def test_a_closed_branch_has_no_closing_tokens() -> None:
    tokens = TOKENS["multiverse"]
    machine = Machine(tokens, "1")
    close(machine, [])
    assert machine.ended
    assert (closing_tokens(machine), closing_cost(machine)) == ((), ClosingCost(0, 0))
    assert closing_cost(Machine(tokens)) == ClosingCost(0, 0)  # nothing is open
