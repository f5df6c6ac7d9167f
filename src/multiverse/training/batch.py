"""Rows of documents as tensors, and the loss of a model on them.

Several documents may share a row. Each has positions from 0 and segments of its own, to which no other document may attend.
The mask is made on the device from the segments, so a batch stays small for rows of any length.

Shape legend: B rows, L tokens in a row, S segments in a row, T tokens with loss, C of them in a
stretch, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from ..attention.packed import Kind, Visibility
from .features import IGNORED, Features
from .head import LOGITS, measure_tokens

Batch = dict[str, Tensor]
"""Result of `collate`: a flat dictionary of tensors, which any trainer can move to devices, shard and count.

input_ids, position_ids, labels [B, L]; labels are not shifted; `IGNORED` where there is no loss.
segments [B, L]: segment of each token within its row; the last segment is padding.
documents [B, L]: index of each token's document within its row; -1 is padding.
visibility [B, S, S]: whether tokens of one segment may attend to earlier tokens of another.
starts [B, S, S]: only with `share_every`; see `Features`.
prefixes [B, L]: only where documents share prefixes: number of the document before each token's document; -1 for none.
"""

SEGMENT_BUCKET = 16
"""The number of segments is rounded up to a multiple of this, since attention is compiled for each number."""


def collate(rows: Sequence[Sequence[Features]], pad_id: int, multiple_of: int = 1, segment_multiple: int = 1) -> Batch:
    """Rows of documents as one batch, padded to the longest row.

    Args:
        rows: the documents of each row; a row without documents is padding.
        multiple_of, segment_multiple: row length and number of segments are rounded up to multiples of these.
    """
    width = _round_up(max(2, *(sum(map(len, row)) for row in rows)), multiple_of)  # a prediction needs two columns
    size = _round_up(max(sum(len(document.visibility) for document in row) for row in rows) + 1, segment_multiple)
    shape = (len(rows), width)
    input_ids_BL = torch.full(shape, pad_id, dtype=torch.long)
    position_ids_BL = torch.arange(width).repeat(len(rows), 1)
    labels_BL = torch.full(shape, IGNORED, dtype=torch.long)
    segments_BL = torch.full(shape, size - 1, dtype=torch.long)
    documents_BL = torch.full(shape, -1, dtype=torch.long)
    # Padding attends to earlier padding, so that no softmax is empty; no token attends to padding.
    visibility_BSS = torch.zeros((len(rows), size, size), dtype=torch.bool)
    visibility_BSS[:, -1, -1] = True
    starts_BSS = torch.full((len(rows), size, size), -1, dtype=torch.long)
    sharing = False
    for index, row in enumerate(rows):
        start = first = 0
        for number, document in enumerate(row):
            here, own = slice(start, start + len(document)), slice(first, first + len(document.visibility))
            input_ids_BL[index, here] = torch.tensor(document.token_ids)
            position_ids_BL[index, here] = torch.tensor(document.positions)
            labels_BL[index, here] = torch.tensor(document.labels)
            documents_BL[index, here] = number
            segments_BL[index, here] = torch.tensor(document.segments) + first
            visibility_BSS[index, own, own] = torch.tensor(document.visibility, dtype=torch.bool)
            if document.starts is not None:
                sharing = True
                starts_BSS[index, own, own] = torch.tensor(document.starts)
            start, first = here.stop, own.stop
    batch = {
        "input_ids": input_ids_BL,
        "position_ids": position_ids_BL,
        "labels": labels_BL,
        "segments": segments_BL,
        "documents": documents_BL,
        "visibility": visibility_BSS,
    }
    return batch | {"starts": starts_BSS} if sharing else batch


def visibility_of(batch: Batch, share_every: int | None = None, kind: Kind = "dense") -> Visibility:
    """The visibility of a batch, from which attention makes its mask on the batch's device."""
    return Visibility(
        batch["segments"],
        batch["visibility"],
        batch["position_ids"],
        batch.get("starts"),
        share_every=share_every,
        kind=kind,
        document_BL=batch["documents"],
        prefix_BL=batch.get("prefixes"),
    )


def forward_inputs(batch: Batch, share_every: int | None = None, kind: Kind = "dense") -> dict[str, Any]:
    """Arguments of a forward pass of a model set to packed attention."""
    return {
        "input_ids": batch["input_ids"],
        "position_ids": batch["position_ids"],
        "visibility": visibility_of(batch, share_every, kind),
    }


def answer_loss(
    model: Any, batch: Batch, share_every: int | None = None, kind: Kind = "dense", *, logits: int = LOGITS
) -> tuple[Tensor, Tensor]:
    """Cross entropy summed over all tokens with loss, in fp32, and their number.

    Other tokens, such as those of prompts, get no logits.

    Args:
        model: a transformers causal language model set to packed attention.
        logits: most logits at once; see `measure_tokens`.
    """
    targets_BL = batch["labels"][:, 1:]
    row_T, column_T = (targets_BL != IGNORED).nonzero(as_tuple=True)
    target_T = targets_BL[row_T, column_T]

    def measure(logits_CV: Tensor, here: slice) -> Tensor:
        return cross_entropy(logits_CV.float(), target_T[here], reduction="none")[:, None]

    inputs = forward_inputs(batch, share_every, kind)
    loss_T1 = measure_tokens(model, inputs, row_T, column_T, measure, logits=logits)
    return loss_T1.sum(), torch.tensor(len(target_T), device=target_T.device)


def _round_up(length: int, multiple: int) -> int:
    return -(-length // multiple) * multiple
