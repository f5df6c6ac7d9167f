"""Rows of a vocabulary that no token has.

Shape legend: V rows of the vocabulary, D width of the model.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch


class Rows(NamedTuple):
    """How the rows of a prepared vocabulary are divided.

    Attributes:
        known: tokens that the base knew; their rows come first.
        used: tokens that there are now. Rows from here on belong to no token.
    """

    known: int
    used: int


def tables(model: Any) -> list[torch.Tensor]:
    """The tables with a row per token, `weight_VD`: the embedding, and the head's weight if it is another."""
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    if head is None or head.weight.data_ptr() == embedding.weight.data_ptr():
        return [embedding.weight]
    return [embedding.weight, head.weight]


@torch.no_grad()
def fill_unused(model: Any, rows: Rows) -> None:
    """Set the rows of no token to the mean row: they are never looked up, but are part of every softmax."""
    for weight_VD in tables(model):
        if rows.used < len(weight_VD):
            weight_VD[rows.used :] = weight_VD[: rows.known].float().mean(0).to(weight_VD.dtype)
