"""Positions of tokens, and visibility between branches."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from multiverse.errors import StructureError
from multiverse.structure import (
    MULTIVERSE,
    TRUNK,
    Block,
    BranchSpec,
    Document,
    Layout,
    Replay,
    TokenDialect,
    encode,
    layout,
    resolve,
    segments,
    visibility,
)
from tests.structure.adapted import EXACT_NPR, EXACT_THREADWEAVER, TOKENS, WordTokenizer, dialect_documents

Row = tuple[str, int, int, bool]

F = True  # forced
_ = False

# token, position, branch, forced. In FLAT the answer's first line end is the model's: the text may end before it.
FLAT: list[Row] = [
    ("<Think>", 0, 0, _), ("\n", 1, 0, F), ("so", 2, 0, _), ("\n", 3, 0, _),
    ("<Parallel>", 4, 0, _), ("\n", 5, 0, F), ("<Goal>", 6, 0, F), ("\n", 7, 0, F),
    ("<Outline>", 8, 0, F), ("\n", 9, 0, F), ("1:", 10, 0, F), (" x", 11, 0, _), ("\n", 12, 0, _), ("</Outline>", 13, 0, _),
    ("\n", 14, 0, F),
    ("<Outline>", 15, 0, _), ("\n", 16, 0, F), ("2:", 17, 0, F), (" y", 18, 0, _), ("\n", 19, 0, _), ("</Outline>", 20, 0, _),
    ("\n", 21, 0, F), ("</Goal>", 22, 0, _),
    ("\n", 23, 0, F),
    ("<Path>", 24, 1, F), ("\n", 25, 1, F), ("1:", 26, 1, F), (" a", 27, 1, _), ("\n", 28, 1, _), ("</Path>", 29, 1, _),
    ("\n", 30, 1, F),
    ("<Path>", 24, 2, F), ("\n", 25, 2, F), ("2:", 26, 2, F), (" b", 27, 2, _), (" c", 28, 2, _), (" d", 29, 2, _),
    ("\n", 30, 2, _), ("</Path>", 31, 2, _), ("\n", 32, 2, F),
    ("<Conclusion>", 33, 0, F), ("\n", 34, 0, F), ("ok", 35, 0, _), ("\n", 36, 0, _), ("</Conclusion>", 37, 0, _),
    ("\n", 38, 0, F), ("</Parallel>", 39, 0, F), ("\n", 40, 0, F), ("</Think>", 41, 0, _),
    ("\n", 42, 0, _), ("\n", 43, 0, F), ("4", 44, 0, _),
]  # fmt: skip

# A block inside path 2 of a block, then a second block in the same trunk: its path is also called 1, but is another branch.
NESTED: list[Row] = [
    ("<guideline>", 0, 0, _), ("\n", 1, 0, F),
    ("<plan>", 2, 0, F), ("\n", 3, 0, F), ("1:", 4, 0, F), (" x", 5, 0, _), ("\n", 6, 0, _), ("</plan>", 7, 0, _),
    ("\n", 8, 0, F),
    ("<plan>", 9, 0, _), ("\n", 10, 0, F), ("2:", 11, 0, F), (" y", 12, 0, _), ("\n", 13, 0, _), ("</plan>", 14, 0, _),
    ("\n", 15, 0, F), ("</guideline>", 16, 0, _), ("\n", 17, 0, F),
    ("<step>", 18, 1, F), ("\n", 19, 1, F), ("1:", 20, 1, F), ("\n", 21, 1, _), ("</step>", 22, 1, _), ("\n", 23, 1, F),
    ("<step>", 18, 2, F), ("\n", 19, 2, F), ("2:", 20, 2, F), (" b", 21, 2, _), ("\n", 22, 2, _),
    ("<guideline>", 23, 2, _), ("\n", 24, 2, F),
    ("<plan>", 25, 2, F), ("\n", 26, 2, F), ("2.1:", 27, 2, F), (" p", 28, 2, _), ("\n", 29, 2, _), ("</plan>", 30, 2, _),
    ("\n", 31, 2, F),
    ("<plan>", 32, 2, _), ("\n", 33, 2, F), ("2.2:", 34, 2, F), (" q", 35, 2, _), ("\n", 36, 2, _), ("</plan>", 37, 2, _),
    ("\n", 38, 2, F), ("</guideline>", 39, 2, _), ("\n", 40, 2, F),
    ("<step>", 41, 3, F), ("\n", 42, 3, F), ("2.1:", 43, 3, F), (" s", 44, 3, _), (" t", 45, 3, _), ("\n", 46, 3, _),
    ("</step>", 47, 3, _), ("\n", 48, 3, F),
    ("<step>", 41, 4, F), ("\n", 42, 4, F), ("2.2:", 43, 4, F), (" u", 44, 4, _), ("\n", 45, 4, _), ("</step>", 46, 4, _),
    ("\n", 47, 4, F),
    ("<takeaway>", 49, 2, F), ("\n", 50, 2, F), ("in", 51, 2, _), ("\n", 52, 2, _), ("</takeaway>", 53, 2, _),
    ("\n", 54, 2, F), ("</step>", 55, 2, _), ("\n", 56, 2, F),
    ("<takeaway>", 57, 0, F), ("\n", 58, 0, F), ("out", 59, 0, _), ("\n", 60, 0, _), ("</takeaway>", 61, 0, _),
    ("\n", 62, 0, _),
    ("<guideline>", 63, 0, _), ("\n", 64, 0, F),
    ("<plan>", 65, 0, F), ("\n", 66, 0, F), ("1:", 67, 0, F), (" z", 68, 0, _), ("\n", 69, 0, _), ("</plan>", 70, 0, _),
    ("\n", 71, 0, F), ("</guideline>", 72, 0, _), ("\n", 73, 0, F),
    ("<step>", 74, 5, F), ("\n", 75, 5, F), ("1:", 76, 5, F), (" v", 77, 5, _), ("\n", 78, 5, _), ("</step>", 79, 5, _),
    ("\n", 80, 5, F),
    ("<takeaway>", 81, 0, F), ("\n", 82, 0, F), ("end", 83, 0, _), ("\n", 84, 0, _), ("</takeaway>", 85, 0, _),
]  # fmt: skip

# No conclusion tag: the trunk resumes at the closing of the block, which is forced, and alone.
WOVEN: list[Row] = [
    ("<think>", 0, 0, _), ("\n", 1, 0, F),
    ("<Parallel>", 2, 0, _), ("\n", 3, 0, F), ("<Outlines>", 4, 0, F), ("\n", 5, 0, F),
    ("<Outline>", 6, 0, F), ("\n", 7, 0, F), ("1:", 8, 0, F), (" x", 9, 0, _), ("\n", 10, 0, _), ("</Outline>", 11, 0, _),
    ("\n", 12, 0, F),
    ("<Outline>", 13, 0, _), ("\n", 14, 0, F), ("2:", 15, 0, F), (" y", 16, 0, _), ("\n", 17, 0, _), ("</Outline>", 18, 0, _),
    ("\n", 19, 0, F), ("</Outlines>", 20, 0, _), ("\n", 21, 0, F),
    ("<Thread>", 22, 1, F), ("\n", 23, 1, F), ("1:", 24, 1, F), (" a", 25, 1, _), (" b", 26, 1, _), ("\n", 27, 1, _),
    ("</Thread>", 28, 1, _), ("\n", 29, 1, F),
    ("<Thread>", 22, 2, F), ("\n", 23, 2, F), ("2:", 24, 2, F), (" c", 25, 2, _), ("\n", 26, 2, _), ("</Thread>", 27, 2, _),
    ("\n", 28, 2, F),
    ("</Parallel>", 30, 0, F), ("\n", 31, 0, F), ("</think>", 32, 0, _),
]  # fmt: skip

FLAT_DOCUMENT = Document(("so", Block(("x", "y"), (("a",), ("b c d",)), "ok")), "4")
NESTED_DOCUMENT = Document(
    (
        Block(("x", "y"), ((), ("b", Block(("p", "q"), (("s t",), ("u",)), "in"))), "out"),
        Block(("z",), (("v",),), "end"),
    )
)
WOVEN_DOCUMENT = Document((Block(("x", "y"), (("a b",), ("c",)), ""),))

EXAMPLES = {
    "flat": (FLAT_DOCUMENT, MULTIVERSE, FLAT, (TRUNK, BranchSpec(0, 0, "1"), BranchSpec(0, 0, "2"))),
    "nested": (
        NESTED_DOCUMENT,
        EXACT_NPR,
        NESTED,
        (
            TRUNK,
            BranchSpec(0, 0, "1"),
            BranchSpec(0, 0, "2"),
            BranchSpec(2, 1, "2.1"),
            BranchSpec(2, 1, "2.2"),
            BranchSpec(0, 2, "1"),
        ),
    ),
    "without a conclusion": (WOVEN_DOCUMENT, EXACT_THREADWEAVER, WOVEN, (TRUNK, BranchSpec(0, 0, "1"), BranchSpec(0, 0, "2"))),
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_layout_is_that_of_the_examples(name: str) -> None:
    document, dialect, rows, table = EXAMPLES[name]
    tokenizer = WordTokenizer()
    tokens = resolve(tokenizer, dialect)
    ids, encoded = encode(document, tokens)
    assert tokenizer.pieces(ids) == [row[0] for row in rows]
    for found in (encoded, layout(ids, tokens)):
        assert found.positions == tuple(row[1] for row in rows)
        assert found.branches == tuple(row[2] for row in rows)
        assert found.forced == tuple(row[3] for row in rows)
        assert found.table == table
        assert found.labels == tuple(table[row[2]].label for row in rows)


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_layout_of_every_prefix_is_a_prefix_of_the_layout(name: str) -> None:
    document, dialect, _rows, _table = EXAMPLES[name]
    tokens = resolve(WordTokenizer(), dialect)
    ids, whole = encode(document, tokens)
    for end in range(len(ids) + 1):
        part = layout(ids[:end], tokens)
        assert_prefix(part, whole, end)


def assert_prefix(part: Layout, whole: Layout, end: int) -> None:
    assert len(part) == end
    assert part.positions == whole.positions[:end]
    assert part.branches == whole.branches[:end]
    assert part.forced == whole.forced[:end]
    assert part.table == whole.table[: len(part.table)]
    assert len(part.table) == max(part.branches, default=0) + 1


@given(pair=dialect_documents(), cuts=st.lists(st.floats(0, 1), min_size=1, max_size=5))
def test_the_layout_of_a_random_prefix_is_a_prefix_of_the_layout(
    pair: tuple[TokenDialect, Document], cuts: list[float]
) -> None:
    tokens, document = pair
    ids, whole = encode(document, tokens)
    for cut in cuts:
        end = round(cut * len(ids))
        assert_prefix(layout(ids[:end], tokens), whole, end)


@given(pair=dialect_documents())
def test_encode_and_layout_of_its_tokens_agree(pair: tuple[TokenDialect, Document]) -> None:
    tokens, document = pair
    encoded = encode(document, tokens)
    assert layout(encoded.token_ids, tokens) == encoded.layout


def brute_force(document: Document, tokens: TokenDialect) -> list[tuple[tuple[int, int], ...]]:
    """For each token its (block, path) steps from the trunk, from the renderer alone."""
    steps = []
    for segment in segments(document, tokens.dialect):
        steps += [segment.path] * len(tokens.encode(segment.text))
    return steps


def apart(a: tuple[tuple[int, int], ...], b: tuple[tuple[int, int], ...]) -> bool:
    """Whether two tokens are in different paths of one block."""
    for depth, (step_a, step_b) in enumerate(zip(a, b, strict=False)):
        if a[:depth] == b[:depth] and step_a[0] == step_b[0] and step_a[1] != step_b[1]:
            return True
    return False


@given(pair=dialect_documents(), rng=st.randoms(use_true_random=False))
def test_visibility_agrees_with_brute_force(pair: tuple[TokenDialect, Document], rng: random.Random) -> None:
    tokens, document = pair
    steps = brute_force(document, tokens)
    ids, found = encode(document, tokens)
    assert len(ids) == len(steps)
    # One token of every branch, and some more at random, against each other.
    firsts = [found.branches.index(branch) for branch in set(found.branches)]
    chosen = sorted({*firsts, *(rng.randrange(len(ids)) for _ in range(30 if ids else 0))})
    between = found.visibility()
    assert between == visibility(found.table)
    for i in chosen:
        for j in chosen:
            together = not apart(steps[i], steps[j])
            assert found.visible(i, j) == (j <= i and together)
            assert between[found.branches[i]][found.branches[j]] == together


@given(pair=dialect_documents())
def test_a_position_is_one_more_than_the_highest_visible_one(pair: tuple[TokenDialect, Document]) -> None:
    tokens, document = pair
    ids, found = encode(document, tokens)
    between = found.visibility()
    highest = [-1] * len(found.table)
    for i in range(len(ids)):
        seen = max(high for high, visible in zip(highest, between[found.branches[i]], strict=True) if visible)
        assert found.positions[i] == seen + 1
        highest[found.branches[i]] = found.positions[i]
    assert found.critical_path() == max(found.positions, default=-1) + 1


@pytest.mark.parametrize("name", TOKENS)
def test_without_tags_the_layout_is_causal(name: str) -> None:
    tokens = TOKENS[name]
    ids = tokens.encode("no tags here,\njust é text")
    found = layout(ids, tokens)
    assert found.positions == tuple(range(len(ids)))
    assert set(found.branches) == {0}
    assert not any(found.forced)
    assert found.table == (TRUNK,)
    assert all(found.visible(i, j) == (j <= i) for i in range(len(ids)) for j in range(len(ids)))
    assert found.parallelism() == 1.0
    assert layout([], tokens) == Layout((), (), ())


def test_critical_path_and_parallelism() -> None:
    assert (Layout((), (), ()).critical_path(), Layout((), (), ()).parallelism()) == (0, 1.0)
    # Trunk of 3, paths of 2 and 4, trunk of 1: 10 tokens, of which 3 + 4 + 1 lie on the critical path.
    table = (TRUNK, BranchSpec(0, 0, "1"), BranchSpec(0, 0, "2"))
    found = Layout((0, 1, 2, 3, 4, 3, 4, 5, 6, 7), (0, 0, 0, 1, 1, 2, 2, 2, 2, 0), (False,) * 10, table)
    assert found.critical_path() == 8
    assert found.parallelism() == 10 / 8
    # The first three are the prompt.
    assert found.critical_path(3) == 5
    assert found.parallelism(3) == 7 / 5
    # Nothing is generated yet.
    assert found.critical_path(10) == 0
    assert found.parallelism(10) == 1.0
    # A prompt that holds the finished block: its longest path counts, not its number of tokens.
    longer = Layout((*found.positions, 8, 9), (*found.branches, 0, 0), (False,) * 12, table)
    assert longer.critical_path(10) == 2
    assert longer.parallelism(10) == 1.0


def test_steps_are_the_chosen_tokens_of_the_longest_chain() -> None:
    found = encode(FLAT_DOCUMENT, resolve(WordTokenizer())).layout
    chosen = [(row[1], row[2]) for row in FLAT if not row[3]]
    # Path 2 chooses more than path 1: all but that path's own.
    assert found.critical_path_steps() == sum(branch != 1 for _, branch in chosen) == 23
    assert found.critical_path_steps(12) == sum(branch != 1 and position > 11 for position, branch in chosen)
    assert found.critical_path_steps(len(found)) == 0
    assert Layout((), (), ()).critical_path_steps() == 0
    nothing_forced = Layout(found.positions, found.branches, (False,) * len(found), found.table)
    assert nothing_forced.critical_path_steps() == found.critical_path()


@given(pair=dialect_documents(merging=True))
def test_steps_agree_with_a_walk_over_the_tree(pair: tuple[TokenDialect, Document]) -> None:
    """The same by recursion: a branch's own choices, and for each of its blocks the most of any of its paths."""
    tokens, document = pair
    found = encode(document, tokens).layout

    def steps(branch: int) -> int:
        own = sum(b == branch and not f for b, f in zip(found.branches, found.forced, strict=True))
        blocks: dict[int, int] = {}
        for child, spec in enumerate(found.table):
            if spec.parent == branch:
                blocks[spec.block] = max(blocks.get(spec.block, 0), steps(child))
        return own + sum(blocks.values())

    assert found.critical_path_steps() == steps(0) <= found.critical_path()


def test_replay_at_trunk_is_true_outside_of_blocks() -> None:
    tokens = resolve(WordTokenizer())
    ids, whole = encode(FLAT_DOCUMENT, tokens)
    replay = Replay(tokens)
    at_trunk = []
    for token in ids:
        at_trunk.append(replay.at_trunk)
        replay.feed(token)
    first, last = FLAT.index(("<Path>", 24, 1, True)), FLAT.index(("<Conclusion>", 33, 0, True))
    assert at_trunk == [not first <= index <= last for index in range(len(FLAT))]
    assert replay.at_trunk
    assert replay.layout() == whole


@given(pair=dialect_documents(depth=2), rng=st.randoms(use_true_random=False))
@settings(max_examples=60)
def test_an_illegal_token_raises_with_its_index_and_changes_nothing(
    pair: tuple[TokenDialect, Document], rng: random.Random
) -> None:
    tokens, document = pair
    ids, whole = encode(document, tokens)
    at = rng.randrange(len(ids) + 1)
    replay = Replay(tokens)
    for token in ids[:at]:
        replay.feed(token)
    for token in rng.sample(sorted(tokens.roles), len(tokens.roles)):
        if at < len(ids) and token == ids[at]:
            continue
        try:
            layout([*ids[:at], token], tokens)
        except StructureError:
            with pytest.raises(StructureError, match=f"^token {at}: found ") as caught:
                replay.feed(token)
            assert caught.value.offset == at
    for token in ids[at:]:
        replay.feed(token)
    assert replay.layout() == whole
