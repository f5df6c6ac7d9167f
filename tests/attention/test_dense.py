"""The dense mask, literally and against the layout."""

from __future__ import annotations

import torch
from hypothesis import given, settings

from multiverse.attention import dense_inputs, dense_mask, segment_mask
from multiverse.structure import TRUNK, Block, BranchSpec, Document, Layout, TokenDialect, encode
from tests.structure.adapted import TOKENS, dialect_documents


def rows(mask_LL: torch.Tensor) -> list[str]:
    return ["".join("1" if seen else "." for seen in row) for row in mask_LL.tolist()]


def test_the_matrix_of_the_docstring() -> None:
    # a <goal> [b c] [d] <conclusion> e
    layout = Layout((0, 1, 2, 1, 3), (0, 1, 1, 2, 0), (False,) * 5, (TRUNK, BranchSpec(0, 0, "1"), BranchSpec(0, 0, "2")))
    mask_LL = dense_mask(layout)
    assert mask_LL.dtype == torch.bool
    assert rows(mask_LL) == [
        "1....",
        "11...",
        "111..",
        "1..1.",
        "11111",
    ]


def test_a_block_in_a_path_and_a_second_block() -> None:
    # t [a  (b) (c)  a] [d] t [e] t: two blocks of the trunk, the first path of the first one forks again.
    table = (
        TRUNK,
        BranchSpec(0, 0, "1"),
        BranchSpec(1, 1, "1.1"),
        BranchSpec(1, 1, "1.2"),
        BranchSpec(0, 0, "2"),
        BranchSpec(0, 2, "1"),
    )
    branches = (0, 1, 2, 3, 1, 4, 0, 5, 0)
    layout = Layout((0, 1, 2, 2, 3, 1, 4, 5, 6), branches, (False,) * 9, table)
    assert rows(dense_mask(layout)) == [
        "1........",  # t
        "11.......",  # a
        "111......",  # b
        "11.1.....",  # c
        "11111....",  # a, behind its join
        "1....1...",  # d
        "1111111..",  # t, behind the join
        "11111111.",  # e
        "111111111",
    ]


def test_without_a_block_it_is_causal() -> None:
    layout = Layout(tuple(range(6)), (0,) * 6, (False,) * 6)
    assert torch.equal(dense_mask(layout), torch.ones(6, 6, dtype=torch.bool).tril())
    assert dense_mask(Layout((), (), ())).shape == (0, 0)


@given(pair=dialect_documents(depth=2))
@settings(max_examples=20)
def test_the_mask_is_the_layout_s_visibility(pair: tuple[TokenDialect, Document]) -> None:
    tokens, document = pair
    layout = encode(document, tokens).layout
    length = min(len(layout), 60)
    cut = Layout(layout.positions[-length:], layout.branches[-length:], layout.forced[-length:], layout.table)
    mask_LL = dense_mask(cut)
    assert mask_LL.tolist() == [[cut.visible(i, j) for j in range(len(cut))] for i in range(len(cut))]


def test_segments_stand_for_themselves() -> None:
    # Two segments that never see each other, as two documents packed into one row of a batch.
    table_SS = torch.eye(2, dtype=torch.bool)
    assert rows(segment_mask(torch.tensor([0, 0, 1, 1]), table_SS)) == ["1...", "11..", "..1.", "..11"]


def test_dense_inputs() -> None:
    tokens = TOKENS["multiverse"]
    document = Document((Block(("x", "y"), (("a",), ("b",)), "c"),), "d")
    ids, layout = encode(document, tokens)
    inputs = dense_inputs(ids, layout)
    assert inputs["input_ids"].tolist() == [list(ids)]
    assert inputs["position_ids"].tolist() == [list(layout.positions)]
    assert inputs["attention_mask"].shape == (1, 1, len(ids), len(ids))
    assert torch.equal(inputs["attention_mask"][0, 0], dense_mask(layout))
