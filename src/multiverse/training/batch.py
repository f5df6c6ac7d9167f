"""Rows of documents as tensors: token ids, positions and a dense mask that a plain transformers model takes as they are.

Several documents may share a row. Each has its own positions from 0, and the mask keeps them apart.

Shape legend: B rows, L tokens in a row, S segments in a row, N tokens that take loss, D width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .features import IGNORED, Features, row_width


class Batch(NamedTuple):
    """Packed rows.

    Attributes:
        input_ids_BL: token ids, padded at the end.
        position_ids_BL: per document from 0; padding goes on counting, which nothing sees.
        mask_B1LL: whether row token i may attend to row token j; padding sees itself only, so that no softmax is empty.
        labels_BL: aligned with `input_ids_BL`, `IGNORED` where no loss is taken.
        document_BL: index of the document within its row; -1 for padding.
    """

    input_ids_BL: Tensor
    position_ids_BL: Tensor
    mask_B1LL: Tensor
    labels_BL: Tensor
    document_BL: Tensor

    def to(self, device: torch.device | str) -> Batch:
        """The batch on another device."""
        return Batch(*(tensor.to(device, non_blocking=True) for tensor in self))

    @property
    def tokens(self) -> int:
        """Tokens that are not padding."""
        return int((self.document_BL >= 0).sum())


def collate(rows: Sequence[Sequence[Features]], pad_id: int, multiple_of: int = 1) -> Batch:
    """Rows of documents as one batch, as long as the longest row (rounded up to a multiple)."""
    width = -(-row_width(rows) // multiple_of) * multiple_of
    shape = (len(rows), width)
    input_ids_BL = torch.full(shape, pad_id, dtype=torch.long)
    position_ids_BL = torch.arange(width).repeat(len(rows), 1)
    labels_BL = torch.full(shape, IGNORED, dtype=torch.long)
    document_BL = torch.full(shape, -1, dtype=torch.long)
    visible_BLL = torch.zeros((len(rows), width, width), dtype=torch.bool)
    for index, row in enumerate(rows):
        start = 0
        for number, document in enumerate(row):
            here = slice(start, start + len(document))
            input_ids_BL[index, here] = torch.tensor(document.token_ids)
            position_ids_BL[index, here] = torch.tensor(document.positions)
            labels_BL[index, here] = torch.tensor(document.labels)
            document_BL[index, here] = number
            segment_L = torch.tensor(document.segments)
            visible_BLL[index, here, here] = torch.tensor(document.visibility)[segment_L][:, segment_L]
            start = here.stop
    mask_BLL = visible_BLL.tril_() | torch.eye(width, dtype=torch.bool)
    return Batch(input_ids_BL, position_ids_BL, mask_BLL[:, None], labels_BL, document_BL)


def answer_logits(model: Any, batch: Batch) -> tuple[Tensor, Tensor]:
    """Logits where loss is taken, and what they should have predicted.

    The head is applied to those tokens only: prompts, forced tokens and padding would cost as much and count for nothing.

    Args:
        model: a transformers causal language model that attends with ``sdpa`` (a bool mask is silently wrong with ``eager``).

    Returns:
        `logits_NV` in fp32 and `targets_N`, in row order.
    """
    hidden_BLD = model.model(
        input_ids=batch.input_ids_BL,
        position_ids=batch.position_ids_BL,
        attention_mask=batch.mask_B1LL,
        use_cache=False,
    ).last_hidden_state
    targets_BL = batch.labels_BL[:, 1:]
    wanted_BL = targets_BL != IGNORED
    logits_NV = model.lm_head(hidden_BLD[:, :-1][wanted_BL]).float()
    return logits_NV, targets_BL[wanted_BL]
