"""The dense visibility mask: the reference for all other implementations, and the input of the oracle's dense forward.

Shape legend: L tokens in document order, B rows of a batch.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..structure import Layout, check_share_every, partings


def dense_mask(layout: Layout, device: torch.device | str = "cpu", *, share_every: int | None = None) -> Tensor:
    """Bool mask `visible_LL`: row i may attend to column j.

    For ``a <goal> [b c] [d] <conclusion> e`` with paths [b c] and [d], and e after the join::

              a  b  c  d  e
          a   1  .  .  .  .
          b   1  1  .  .  .
          c   1  1  1  .  .
          d   1  .  .  1  .
          e   1  1  1  1  1

    Without a block it is the causal mask. With ``share_every=1`` tokens of a path may also attend to tokens of sibling paths at
    lower positions: here c, the second token of its path, to d, the first of the other one.

    Raises:
        ValueError: `share_every` is below 1.
    """
    check_share_every(share_every)
    branch_L = torch.tensor(layout.branches, dtype=torch.long, device=device)
    table_SS = torch.tensor(layout.visibility(), dtype=torch.bool, device=device)
    visible_LL = segment_mask(branch_L, table_SS)
    if share_every is not None:
        start_SS = torch.tensor(partings(layout.table, layout.starts), dtype=torch.long, device=device)
        start_LL = start_SS[branch_L][:, branch_L]
        position_L = torch.tensor(layout.positions, dtype=torch.long, device=device)
        row_LL, column_LL = position_L[:, None] - start_LL, position_L[None, :] - start_LL
        visible_LL |= (start_LL >= 0) & (column_LL // share_every < row_LL // share_every)
    return visible_LL


def segment_mask(branch_L: Tensor, table_SS: Tensor) -> Tensor:
    """Bool mask `visible_LL` from each token's segment and the segments' symmetric visibility table.

    Args:
        branch_L: segment (branch) of each token, in document order.
        table_SS: whether tokens of one segment may attend to earlier tokens of another.
    """
    length = branch_L.numel()
    causal_LL = torch.ones(length, length, dtype=torch.bool, device=branch_L.device).tril()
    return causal_LL & table_SS[branch_L][:, branch_L]


def dense_inputs(
    token_ids: Sequence[int], layout: Layout, device: torch.device | str = "cpu", *, share_every: int | None = None
) -> dict[str, Tensor]:
    """Arguments for a plain transformers model (with ``attn_implementation="sdpa"``) over one structured sequence.

    Returns:
        `input_ids` [1, L], `position_ids` [1, L] and `attention_mask` bool [1, 1, L, L], which transformers passes through.
    """
    return {
        "input_ids": torch.tensor([list(token_ids)], dtype=torch.long, device=device),
        "position_ids": torch.tensor([layout.positions], dtype=torch.long, device=device),
        "attention_mask": dense_mask(layout, device, share_every=share_every)[None, None],
    }
