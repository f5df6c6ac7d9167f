"""Masks of packed rows, and that packing changes nothing for a document."""

from __future__ import annotations

from itertools import islice
from typing import Any

import pytest
import torch
from torch.nn.attention.flex_attention import BlockMask
from torch.nn.functional import cross_entropy
from transformers import GraniteConfig, GraniteForCausalLM

from multiverse.attention import dense_mask
from multiverse.attention.packed import Visibility, register
from multiverse.structure import TokenDialect, layout
from multiverse.tasks import problems
from multiverse.training import IGNORED, Features, Featurizer, View, pack
from multiverse.training.batch import answer_loss, collate, visibility_of
from tests.conftest import SHAPE
from tests.training.logits import answer_logits

FORKED = Features(
    (1, 2, 3, 4, 5), (IGNORED,) * 5, (0, 1, 2, 1, 3), (0, 1, 1, 2, 0), ((1, 1, 1), (1, 1, 0), (1, 0, 1))
)  # a [b c] [d] e with two paths
SINGLE = Features((6,), (6,), (0,), (0,), ((True,),))


@pytest.fixture(scope="module")
def model(mini_tokenizer: Any) -> Any:
    from recipes.mini.model import SHAPES, build_model

    torch.manual_seed(0)
    model = build_model(SHAPES["test"], mini_tokenizer).eval()
    model.set_attn_implementation(register())
    return model


def test_mask_of_a_small_document_literally() -> None:
    """The picture of `dense_mask`, one document of a single token beside it, and two tokens of padding."""
    batch = collate([[FORKED, SINGLE]], pad_id=0, multiple_of=4)
    expected = [
        [1, 0, 0, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0, 0, 0],
        [1, 0, 0, 1, 0, 0, 0, 0],
        [1, 1, 1, 1, 1, 0, 0, 0],
        [0, 0, 0, 0, 0, 1, 0, 0],
        [0, 0, 0, 0, 0, 0, 1, 0],
        [0, 0, 0, 0, 0, 0, 1, 1],
    ]
    assert visibility_of(batch).mask()[0, 0].int().tolist() == expected
    assert batch["labels"].tolist() == [[IGNORED] * 5 + [6, IGNORED, IGNORED]]


def test_a_window_counts_positions_not_places() -> None:
    batch = collate([[FORKED]], pad_id=0)
    # e stands at position 3: within 2 of it are c (2), and nothing of [d] (1).
    assert visibility_of(batch).mask(2)[0, 0, 4].int().tolist() == [0, 0, 1, 0, 1]


@pytest.mark.parametrize("share_every", [None, 1, 3])
def test_mask_is_the_layouts_within_a_document_and_nothing_across(
    mini_tokenizer: Any, mini_tokens: TokenDialect, share_every: int | None
) -> None:
    make = Featurizer(mini_tokenizer, mini_tokens, View(share_every=share_every))
    first, second = (make(p.question, p.structured, "parallel") for p in islice(problems("nested", seed=1), 2))
    batch = collate([[first, second]], pad_id=0, multiple_of=64, segment_multiple=16)
    mask_LL, start = visibility_of(batch, share_every).mask()[0, 0], 0
    for document in (first, second):
        here = slice(start, start + len(document))
        # The prompt holds no tag, so that replaying all of it gives the layout of prompt and solution.
        assert torch.equal(mask_LL[here, here], dense_mask(layout(document.token_ids, mini_tokens), share_every=share_every))
        assert not mask_LL[here, :start].any()
        assert not mask_LL[here, here.stop :].any()
        assert batch["position_ids"][0, here].tolist() == list(document.positions)
        start = here.stop
    assert batch["input_ids"].shape[1] % 64 == 0
    assert batch["visibility"].shape[1] % 16 == 0
    assert mask_LL.any(-1).all(), "no token may see nothing"


@pytest.mark.parametrize("share_every", [None, 2])
def test_the_block_mask_is_the_dense_mask(mini_tokenizer: Any, mini_tokens: TokenDialect, share_every: int | None) -> None:
    make = Featurizer(mini_tokenizer, mini_tokens, View(share_every=share_every))
    documents = [make(p.question, p.structured, "parallel") for p in islice(problems("worksheet", seed=1, width=4), 6)]
    batch = collate([documents[:3], documents[3:]], pad_id=0, multiple_of=128, segment_multiple=16)
    dense, block = (visibility_of(batch, share_every, kind) for kind in ("dense", "block"))
    mask = block.mask()
    assert isinstance(mask, BlockMask)
    seen_BLL = dense.mask()[:, 0]
    rows, length = seen_BLL.shape[:2]
    blocks = seen_BLL.unflatten(2, (-1, 128)).unflatten(1, (-1, 128)).any(4).any(2)
    assert torch.equal(mask.to_dense()[:, 0].bool(), blocks), "a block is computed where a token in it sees one"
    assert not blocks.all(), "some blocks are left out, or there is nothing to gain"
    b = torch.arange(rows)[:, None, None]
    index_L = torch.arange(length)
    assert torch.equal(mask.mask_mod(b, b, index_L[:, None], index_L), seen_BLL)


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_block_sparse_attention_gives_the_same_logits(model: Any, solved: list[Features]) -> None:
    rows = pack(map(len, solved[:8]), 1024)
    batch = collate([[solved[i] for i in row] for row in rows], pad_id=0, multiple_of=128, segment_multiple=16)
    with torch.no_grad():
        dense_BNV, targets_BN = answer_logits(model, batch)
        block_BNV, _ = answer_logits(model, batch, kind="block")
    kept = targets_BN != IGNORED
    torch.testing.assert_close(dense_BNV[kept], block_BNV[kept], atol=1e-5, rtol=1e-5)


def test_masks_are_made_once_for_each_window() -> None:
    seen = Visibility(torch.zeros(1, 4, dtype=torch.long), torch.ones(1, 1, 1, dtype=torch.bool), torch.arange(4)[None])
    assert seen.mask() is seen.mask()
    assert seen.mask(2) is seen.mask(2)
    assert seen.mask(2) is not seen.mask()


def test_packing_changes_no_logit_of_a_document(model: Any, solved: list[Features]) -> None:
    with torch.no_grad():
        apart = []
        for document in solved:
            logits_1NV, targets_1N = answer_logits(model, collate([[document]], pad_id=0))
            apart.append((logits_1NV[0], targets_1N[0]))
        rows = pack(map(len, solved), 900)
        assert len(rows) < len(solved)
        packed = [[solved[i] for i in row] for row in rows]
        logits_BNV, targets_BN = answer_logits(model, collate(packed, pad_id=0, multiple_of=128))
    for number, row in enumerate(rows):
        kept = targets_BN[number] != IGNORED
        assert torch.equal(targets_BN[number][kept], torch.cat([apart[i][1][apart[i][1] != IGNORED] for i in row]))
        expected_NV = torch.cat([apart[i][0][apart[i][1] != IGNORED] for i in row])
        torch.testing.assert_close(logits_BNV[number][kept], expected_NV, atol=1e-5, rtol=1e-5)


def test_packing_changes_no_gradient(model: Any, solved: list[Features]) -> None:
    """One document at a time, and all of them in packed rows, with padding and an empty row beside them."""

    def gradients(batches: list[Any]) -> tuple[float, list[torch.Tensor]]:
        model.zero_grad()
        total = 0.0
        for batch in batches:
            loss, _ = answer_loss(model, batch)
            loss.backward()
            total += loss.item()
        return total, [p.grad.clone() for p in model.parameters() if p.grad is not None]

    apart, one_by_one = gradients([collate([[document]], pad_id=0) for document in solved])
    rows = [[solved[i] for i in row] for row in pack(map(len, solved), 900)]
    together, packed = gradients([collate([*rows, []], pad_id=0, multiple_of=64)])
    assert together == pytest.approx(apart, rel=1e-5)
    assert len(packed) == len(one_by_one) > 10
    for mine, theirs in zip(packed, one_by_one, strict=True):
        torch.testing.assert_close(mine, theirs, atol=2e-3 * float(theirs.abs().max()) + 1e-6, rtol=1e-3)


@pytest.mark.parametrize("scaled", [False, True])
def test_the_loss_is_computed_in_pieces(model: Any, solved: list[Features], scaled: bool) -> None:
    """Loss and gradients are those of all logits at once, of which the largest piece has no more than is allowed."""
    if scaled:  # logits that change behind the head
        torch.manual_seed(0)
        model = GraniteForCausalLM(GraniteConfig(vocab_size=model.config.vocab_size, logits_scaling=4.0, **SHAPE)).eval()
        model.set_attn_implementation(register())
    batch = collate([[solved[0], solved[1]], [solved[2]], []], pad_id=0)
    logits_BNV, targets_BN = answer_logits(model, batch)
    expected = cross_entropy(logits_BNV.flatten(0, 1), targets_BN.flatten(), ignore_index=IGNORED, reduction="sum")
    model.zero_grad()
    expected.backward()
    gradients = [p.grad.clone() for p in model.parameters()]
    vocabulary = model.config.vocab_size
    for most in (7 * vocabulary, 1 << 30):
        sizes: list[int] = []
        forward = model.lm_head.forward
        model.lm_head.forward = lambda hidden, forward=forward, sizes=sizes: sizes.append(hidden.shape[-2]) or forward(hidden)
        model.zero_grad()
        loss, count = answer_loss(model, batch, logits=most)
        loss.backward()
        del model.lm_head.forward
        assert int(count) == int((targets_BN != IGNORED).sum()) > 100
        assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
        if not scaled:
            assert max(sizes) == min(7 if most < 1 << 30 else int(count), int(count))
        for weight, wanted in zip(model.parameters(), gradients, strict=True):
            torch.testing.assert_close(weight.grad, wanted, rtol=1e-3, atol=1e-5 + 1e-4 * float(wanted.abs().max()))


def test_answer_logits_are_those_of_the_untouched_model(
    mini_tokenizer: Any, mini_tokens: TokenDialect, solved: list[Features]
) -> None:
    from multiverse.attention import dense_inputs
    from recipes.mini.model import SHAPES, build_model

    torch.manual_seed(0)
    model = build_model(SHAPES["test"], mini_tokenizer).eval()
    document = solved[0]
    with torch.no_grad():
        # The end of turn is no part of the grammar, and nothing follows it.
        whole = model(**dense_inputs(document.token_ids[:-1], layout(document.token_ids[:-1], mini_tokens)))
        model.set_attn_implementation(register())
        logits_1NV, targets_1N = answer_logits(model, collate([[document]], pad_id=0))
    wanted = [index for index, label in enumerate(document.labels) if label != IGNORED]
    assert targets_1N[0].tolist() == [document.labels[index] for index in wanted]
    torch.testing.assert_close(logits_1NV[0], whole.logits[0, [index - 1 for index in wanted]])


@pytest.mark.parametrize("share_every", [None, 2])
def test_going_by_document_gives_the_logits_and_gradients_of_whole_rows(
    model: Any, mini_tokenizer: Any, mini_tokens: TokenDialect, share_every: int | None
) -> None:
    """One document twice over, one alone, and a row of nothing but padding."""
    make = Featurizer(mini_tokenizer, mini_tokens, View(share_every=share_every))
    first, second, third = (make(p.question, p.structured, "parallel") for p in islice(problems("nested", seed=3), 3))
    batch = collate([[first, second], [third], []], pad_id=0)
    by_document, whole = (visibility_of(batch, share_every) for _ in range(2))
    whole.document_BL = None
    found = []
    for seen in (by_document, whole):
        logits_BLV = model(batch["input_ids"], position_ids=batch["position_ids"], visibility=seen, use_cache=False).logits
        kept_BL = batch["documents"] >= 0
        model.zero_grad()
        cross_entropy(logits_BLV[kept_BL], batch["input_ids"][kept_BL]).backward()
        found.append((logits_BLV[kept_BL].detach(), [p.grad.clone() for p in model.parameters() if p.grad is not None]))
    torch.testing.assert_close(*found, atol=1e-5, rtol=1e-4)


def test_a_forward_of_nothing_but_padding_gives_every_weight_a_gradient(model: Any) -> None:
    """With several processes, one may have nothing else: gradients are exchanged weight by weight, in all of them."""
    model.zero_grad()
    answer_loss(model, collate([[]], pad_id=0))[0].backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    assert not [name for name, gradient in gradients.items() if gradient is None]
    assert all(float(gradient.abs().max()) == 0 for gradient in gradients.values() if gradient is not None)
