"""The layout ``released``: positions and visibility as models of the released recipe are trained."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from multiverse.errors import DialectError
from multiverse.structure import (
    MULTIVERSE,
    Block,
    Document,
    Layout,
    Machine,
    Positions,
    Role,
    TokenDialect,
    closing_cost,
    encode,
    layout,
    parse,
    read_dialect,
    resolve,
    write_dialect,
)
from tests.strategies import documents
from tests.structure.adapted import TESTED, TOKENIZERS, adapt

RELEASED = {name: resolve(TOKENIZERS[name], replace(dialect, positions="released")) for name, dialect in TESTED.items()}


class Pieces:
    """Cuts text as tokenizers of large models do: line ends join the punctuation before them, digits are apart."""

    unk_token_id = None
    _pattern = re.compile(r"</?[A-Z][a-z]+>|\n+|[.:]+\n*| ?[A-Za-z]+|\d| ")

    def __init__(self) -> None:
        self.pieces: list[str] = []

    def encode(self, text: str, add_special_tokens: bool = False) -> list[int]:  # noqa: ARG002
        found = self._pattern.findall(text)
        assert "".join(found) == text
        self.pieces += dict.fromkeys(piece for piece in found if piece not in self.pieces)
        return [self.pieces.index(piece) for piece in found]

    def decode(self, ids: list[int], **_: Any) -> str:
        return "".join(self.pieces[i] for i in ids)


def tables() -> dict[str, Any]:
    """Each example's text, and a row for each of its tokens from number `first` on.

    A row is the token, its position in ``released`` and in ``engine``, and the tokens (first, last) seen in ``released`` alone.
    """
    found: dict[str, Any] = json.loads((Path(__file__).parent / "released.json").read_text())
    return found


@pytest.mark.parametrize("name", ["flat", "nested"])
def test_positions_and_visibility_are_those_of_the_tables(name: str) -> None:
    table = tables()[name]
    tokenizer = Pieces()
    document = parse(table["text"])
    found: dict[Positions, Layout] = {}
    for number, positions in enumerate(("released", "engine"), 1):
        tokens = resolve(tokenizer, replace(MULTIVERSE, positions=positions))
        ids, encoded = encode(document, tokens)
        assert tokenizer.decode([*ids]) == table["text"]
        assert [tokenizer.pieces[i] for i in ids[table["first"] :]] == [row[0] for row in table["rows"]]
        expected = [*range(table["first"]), *(row[number] for row in table["rows"])]
        found[positions] = layout(ids, tokens)
        assert found[positions] == encoded
        assert encoded.positions == tuple(expected)
    more = [range(0)] * table["first"] + [range(row[3][0], row[3][1] + 1) if row[3] else range(0) for row in table["rows"]]
    for i, only in enumerate(more):
        for j in range(len(more)):
            assert found["released"].visible(i, j) == (found["engine"].visible(i, j) or j in only), (i, j)
            assert not (found["engine"].visible(i, j) and j in only)


def counted(ids: tuple[int, ...], tokens: TokenDialect) -> list[int]:
    """As the training code counts: paths beside the line end behind the goal, the conclusion behind the longest path."""
    shift, blocks, positions = 0, [], []
    for index, token in enumerate(ids):
        role = tokens.roles.get(token)
        goal, longest = blocks[-1] if blocks else (None, 0)
        if role is Role.PATH_OPEN and goal is not None:
            shift = goal + 1 - index
        elif role is Role.CONCLUSION_OPEN and goal is not None:
            shift = goal + longest + 1 - index
        at = index + shift
        positions.append(at)
        if role is Role.BLOCK_OPEN:
            blocks.append((None, 0))
        elif role is Role.GOAL_CLOSE:
            blocks[-1] = (at, 0)
        elif role is Role.PATH_CLOSE and goal is not None:
            blocks[-1] = (goal, max(longest, at - goal))
        elif role is Role.BLOCK_CLOSE:
            blocks.pop()
    return positions


@pytest.mark.parametrize("name", [f"V{number}" for number in range(1, 11)])
def test_positions_are_counted_as_in_training_also_in_blocks_that_break_the_rules(name: str) -> None:
    """Without a goal nothing is shifted, and without a conclusion positions go on from the last path."""
    text = json.loads((Path(__file__).parent / "vectors.json").read_text())[name]["text"]
    dialect = replace(MULTIVERSE, positions="released", malformed="as-released")
    tokens = resolve(TOKENIZERS["multiverse"], dialect)
    ids, found = encode(parse(text, dialect), tokens)
    assert list(found.positions) == counted(ids, tokens)


@pytest.mark.parametrize("name", ["flat", "nested"])
def test_separators_belong_to_the_parent(name: str) -> None:
    tokenizer = Pieces()
    tokens = resolve(tokenizer, replace(MULTIVERSE, positions="released"))
    ids, trained = encode(parse(tables()[name]["text"]), tokens)
    decoded = layout(ids, tokens, decoded=True)
    behind = [i + 1 for i, token in enumerate(ids) if tokens.roles.get(token) is Role.PATH_CLOSE]
    for i in behind:
        writer = trained.table[trained.writers[i]]
        assert trained.branches[i] == writer.parent
        assert trained.labels[i] == decoded.labels[i] == trained.table[writer.parent].label
        assert decoded.table[decoded.branches[i]].separator
    assert decoded.positions == trained.positions
    assert decoded.forced == trained.forced
    assert sum(spec.separator for spec in decoded.table) == len(behind)
    # Decoded in parallel, a path lacks the separators behind its elder siblings, and nothing else differs.
    for i in range(len(ids)):
        for j in range(len(ids)):
            inside = i not in behind and trained.writers[i] != trained.branches[j]
            elder = j in behind and inside and not decoded.visible(i, j) and trained.visible(i, j)
            assert decoded.visible(i, j) == (trained.visible(i, j) and not elder)
            if elder:  # a token of a later path of the same block
                writers = {trained.table[step].block: step for step in _up(trained, trained.writers[i])}
                path = writers[trained.table[trained.writers[j]].block]
                assert path > trained.writers[j]
    assert any(trained.visible(i, j) and not decoded.visible(i, j) for i in range(len(ids)) for j in range(i))


def _up(found: Layout, branch: int) -> list[int]:
    steps = [branch]
    while found.table[steps[-1]].parent >= 0:
        steps.append(found.table[steps[-1]].parent)
    return steps


def released_positions(ids: tuple[int, ...], tokens: TokenDialect) -> list[int]:
    """The rule of the released code: count on, and shift a path's and a conclusion's opening with everything after it."""
    positions, shift = [], 0
    goals: list[int] = []  # position of the goal's closing, of each open block
    longest: list[int] = []
    resumes = Role.CONCLUSION_OPEN if Role.CONCLUSION_OPEN in tokens.ids else Role.BLOCK_CLOSE
    for index, token in enumerate(ids):
        match tokens.roles.get(token):
            case Role.GOAL_CLOSE:
                goals.append(index - shift)
                longest.append(index - shift)
            case Role.PATH_OPEN:
                shift = index - (goals[-1] + 1)
            case Role.PATH_CLOSE:
                longest[-1] = max(longest[-1], index - shift)
            case role if role is resumes:
                shift = index - (longest.pop() + 1)
                goals.pop()
        positions.append(index - shift)
    return positions


def released_mask(ids: tuple[int, ...], tokens: TokenDialect) -> list[list[bool]]:
    """The rule of the released code: causal, but for tokens between the tags of two paths of one block."""
    visible = [[j <= i for j in range(len(ids))] for i in range(len(ids))]
    resumes = Role.CONCLUSION_OPEN if Role.CONCLUSION_OPEN in tokens.ids else Role.BLOCK_CLOSE
    blocks: list[list[range]] = []
    opened: list[int] = []
    for index, token in enumerate(ids):
        match tokens.roles.get(token):
            case Role.GOAL_CLOSE:
                blocks.append([])
            case Role.PATH_OPEN:
                opened.append(index)
            case Role.PATH_CLOSE:
                blocks[-1].append(range(opened.pop(), index + 1))
            case role if role is resumes:
                spans = blocks.pop()
                for number, later in enumerate(spans):
                    for i in later:
                        for elder in spans[:number]:
                            for j in elder:
                                visible[i][j] = False
    return visible


@st.composite
def released_documents(draw: st.DrawFn, depth: int = 2) -> tuple[TokenDialect, Document]:
    # Where a trunk resumes with a separator, that stands behind the longest path, and the rule says nothing of it.
    known = sorted(name for name, tokens in RELEASED.items() if not tokens.dialect.join_sep)
    tokens = RELEASED[draw(st.sampled_from(known))]
    return tokens, adapt(draw(documents(depth=depth, forks=True, places=tokens.dialect.blocks)), tokens.dialect)


@settings(max_examples=40)
@given(pair=released_documents())
def test_random_documents_are_laid_out_as_by_the_released_code(pair: tuple[TokenDialect, Document]) -> None:
    tokens, document = pair
    ids, found = encode(document, tokens)
    assert layout(ids, tokens) == found
    assert list(found.positions) == released_positions(ids, tokens)
    mask, between = released_mask(ids, tokens), found.visibility()
    for i in range(len(ids)):
        row = between[found.branches[i]]
        assert [j <= i and row[branch] for j, branch in enumerate(found.branches)] == mask[i]


def test_one_path_shares_its_positions_too_and_nothing_is_masked() -> None:
    tokens = RELEASED["multiverse"]
    ids, found = encode(Document((Block(("x",), (("a",),), "c"),), "d"), tokens)
    assert list(found.positions) == released_positions(ids, tokens)
    assert all(found.visible(i, j) for i in range(len(ids)) for j in range(i + 1))
    plain = encode(Document((Block(("x",), (("a",),), "c"),), "d"), resolve(TOKENIZERS["multiverse"], MULTIVERSE)).layout
    assert plain.positions == tuple(range(len(ids)))
    assert (plain.critical_path(), found.critical_path()) == (len(ids), len(ids) - 2)
    assert plain.critical_path_steps() == found.critical_path_steps()


def test_closing_a_block_takes_two_positions_less() -> None:
    costs = []
    for positions in ("engine", "released"):
        tokens = resolve(TOKENIZERS["multiverse"], replace(MULTIVERSE, positions=positions))
        ids, found = encode(Document((Block(("a", "b"), ((), ()), ""),)), tokens)
        at = ids.index(tokens.ids[Role.GOAL_CLOSE])
        machine = Machine(tokens)
        for token in ids[:at]:
            machine.feed(token)
        costs.append(closing_cost(machine))
        # To the closing of the thinking, with paths and a conclusion without text. A separator may be counted too many.
        assert 0 <= costs[-1].tokens - (len(ids) - at) <= 3
        assert 0 <= costs[-1].positions - (found.positions[-1] - found.positions[at - 1]) <= 2
    assert costs[0].tokens == costs[1].tokens
    assert costs[0].positions == costs[1].positions + 2


def test_the_layout_is_saved_with_the_dialect() -> None:
    config = SimpleNamespace()
    write_dialect(config, replace(MULTIVERSE, positions="released"))
    assert read_dialect(config) == replace(MULTIVERSE, positions="released")
    config.multiverse_dialect["positions"] = "linear"
    with pytest.raises(DialectError, match="positions='linear': use one of engine, released"):
        read_dialect(config)
