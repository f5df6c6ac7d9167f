"""Masks of packed rows, and that packing changes nothing for a document."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from multiverse.attention import dense_mask
from multiverse.structure import TokenDialect, layout
from multiverse.training import IGNORED, Features, answer_logits, collate, pack


@pytest.fixture(scope="module")
def model(tokenizer: Any) -> Any:
    from recipes.mini.model import SHAPES, build_model

    torch.manual_seed(0)
    return build_model(SHAPES["test"], tokenizer).eval()


def test_mask_is_the_layouts_visibility_within_a_document_and_nothing_across(
    solved: list[Features], tokens: TokenDialect
) -> None:
    first, second = solved[0], solved[4]
    batch = collate([[first, second]], pad_id=0, multiple_of=64)
    mask_LL, start = batch.mask_B1LL[0, 0], 0
    for document in (first, second):
        here = slice(start, start + len(document))
        # The prompt holds no tag, so that replaying the whole row gives the layout of prompt and solution.
        assert torch.equal(mask_LL[here, here], dense_mask(layout(document.token_ids, tokens)))
        assert not mask_LL[here, :start].any()
        assert not mask_LL[here, here.stop :].any()
        assert batch.position_ids_BL[0, here].tolist() == list(document.positions)
        start = here.stop
    assert batch.input_ids_BL.shape[1] % 64 == 0
    assert batch.tokens == len(first) + len(second)
    padding = slice(start, None)
    assert torch.equal(mask_LL[padding, padding], torch.eye(mask_LL.shape[0] - start, dtype=torch.bool))
    assert (batch.labels_BL[0, padding] == IGNORED).all()


def test_mask_of_a_small_document_literally() -> None:
    """Row a [b c] [d] e with two paths: the picture of `dense_mask`, and one document of a single token beside it."""
    forked = Features((1, 2, 3, 4, 5), (IGNORED,) * 5, (0, 1, 2, 1, 3), (0, 1, 1, 2, 0), ((1, 1, 1), (1, 1, 0), (1, 0, 1)))  # type: ignore[arg-type]
    single = Features((6,), (6,), (0,), (0,), ((True,),))
    batch = collate([[forked, single]], pad_id=0)
    assert batch.mask_B1LL[0, 0].int().tolist() == [
        [1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0],
        [1, 0, 0, 1, 0, 0],
        [1, 1, 1, 1, 1, 0],
        [0, 0, 0, 0, 0, 1],
    ]


def test_packing_changes_no_logit_of_a_document(model: Any, solved: list[Features]) -> None:
    with torch.no_grad():
        apart = [answer_logits(model, collate([[document]], pad_id=0)) for document in solved]
        rows = pack(solved, row_length=900)
        assert len(rows) < len(solved)
        together_NV, targets_N = answer_logits(model, collate(rows, pad_id=0, multiple_of=128))
    index = {id(document): number for number, document in enumerate(solved)}
    order = [index[id(document)] for row in rows for document in row]
    assert torch.equal(targets_N, torch.cat([apart[number][1] for number in order]))
    torch.testing.assert_close(together_NV, torch.cat([apart[number][0] for number in order]), atol=1e-5, rtol=1e-5)


def test_answer_logits_are_those_of_the_whole_model(model: Any, solved: list[Features]) -> None:
    document = solved[0]
    batch = collate([[document]], pad_id=0)
    with torch.no_grad():
        logits_NV, targets_N = answer_logits(model, batch)
        whole = model(input_ids=batch.input_ids_BL, position_ids=batch.position_ids_BL, attention_mask=batch.mask_B1LL)
    wanted = [index for index, label in enumerate(document.labels) if label != IGNORED]
    assert targets_N.tolist() == [document.labels[index] for index in wanted]
    torch.testing.assert_close(logits_NV, whole.logits[0, [index - 1 for index in wanted]])
