"""Attention over packed rows of structured documents, for training: whole sequences, gradients, no cache.

transformers calls `packed_attention` in every layer. A `Visibility` is passed along: a segment per token and a small table over
segments, from which the mask is computed on the device, once per forward and window. The mask is one function of two tokens,
evaluated for all pairs (dense mask) or block by block (FlexAttention).

Shape legend: B rows, L tokens in a row or document, S segments in a row, H query heads, K key heads, or keys of a document and
its prefix, D head width, or documents.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from ..errors import ModelError
from .tree import refuse_unsupported

PACKED_ATTENTION = "multiverse_packed"
Kind = Literal["dense", "block"]
MaskFunction = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
BLOCK = 128
"""Tokens per side of FlexAttention's blocks, which are computed or skipped as a whole; lengths are multiples of it."""


class Stretch(NamedTuple):
    """A document, several short ones behind the same prefix, or padding (with mask `None`), of `size` tokens.

    Attributes:
        mask_LK: which of the prefix's and of the stretch's own tokens each of them may attend to.
        prefix: index of the stretch that is the prefix; -1 if there is none.
    """

    size: int
    mask_LK: Tensor | None
    prefix: int = -1


class Visibility:
    """Which tokens may attend to which in a batch of packed rows.

    Args:
        segment_BL: segment of each token, numbered per row; padding is a segment, too.
        table_BSS: whether tokens of one segment may attend to earlier tokens of another. False between documents.
        position_BL: position of each token, for sliding windows and for `share_every`.
        start_BSS: with `share_every`, for two segments in different paths of a block the position at which these paths
            begin; -1 for other pairs.
        share_every: as in `SamplingParams`.
        kind: ``dense`` for a bool mask, ``block`` for FlexAttention's block mask.
        document_BL: document of each token, numbered from 0 per row, -1 for padding. Dense attention is then computed per
            document, without pairs across documents; `None` computes whole rows.
        prefix_BL: number of the document that is the prefix of each token's document, earlier in the row, to which it attends
            as well; -1 for none. So continuations of one prompt share it, and no pairs across them are computed.
    """

    def __init__(
        self,
        segment_BL: Tensor,
        table_BSS: Tensor,
        position_BL: Tensor,
        start_BSS: Tensor | None = None,
        share_every: int | None = None,
        kind: Kind = "dense",
        document_BL: Tensor | None = None,
        prefix_BL: Tensor | None = None,
    ) -> None:
        self.segment_BL, self.table_BSS, self.position_BL = segment_BL, table_BSS, position_BL
        self.start_BSS, self.share_every, self.kind = start_BSS, share_every, kind
        self.document_BL, self.prefix_BL = document_BL, prefix_BL
        self._masks: dict[int | None, Tensor | BlockMask] = {}
        self._stretches: dict[int | None, list[Stretch]] = {}

    def visible(self, window: int | None = None) -> MaskFunction:
        """The mask as a function ``f(b, head, q, k)`` for FlexAttention: whether token q of row b may attend to token k.

        Args:
            window: only tokens that are less than this many positions back.
        """
        segment_BL, table_BSS, position_BL = self.segment_BL, self.table_BSS, self.position_BL
        start_BSS, share_every = self.start_BSS, self.share_every

        def visible(b: Tensor, head: Tensor, q: Tensor, k: Tensor) -> Tensor:  # noqa: ARG001
            row, column = segment_BL[b, q], segment_BL[b, k]
            allowed = (k <= q) & table_BSS[b, row, column]
            if start_BSS is not None and share_every is not None:
                start = start_BSS[b, row, column]
                chunk_q, chunk_k = (position_BL[b, q] - start) // share_every, (position_BL[b, k] - start) // share_every
                allowed = allowed | ((start >= 0) & (chunk_k < chunk_q))
            if window is not None:
                allowed = allowed & (position_BL[b, q] - position_BL[b, k] < window)
            return allowed

        return visible

    def mask(self, window: int | None = None) -> Tensor | BlockMask:
        """The mask of layers with this window, cached.

        Returns:
            bool [B, 1, L, L], or a block mask.
        """
        if window not in self._masks:
            self._masks[window] = self._dense(window) if self.kind == "dense" else self._block(window)
        return self._masks[window]

    def stretches(self, window: int | None = None) -> list[Stretch]:
        """The documents and stretches of padding of all rows, in order, each document with its part of the mask; cached."""
        assert self.document_BL is not None
        if window not in self._stretches:
            stretches: list[Stretch] = []
            for row in range(len(self.document_BL)):
                self._add_stretches(row, window, stretches)
            self._stretches[window] = stretches
        return self._stretches[window]

    def _add_stretches(self, row: int, window: int | None, stretches: list[Stretch]) -> None:
        """Append those of one row."""
        assert self.document_BL is not None
        visible, device = self.visible(window), self.document_BL.device
        documents, lengths = self.document_BL[row].unique_consecutive(return_counts=True)
        first_D = lengths.cumsum(0) - lengths
        prefixes = self.prefix_BL[row, first_D] if self.prefix_BL is not None else torch.full_like(documents, -1)
        spans: list[tuple[int, int, int, int]] = []  # document, its prefix, first token, and the one behind the last
        sizes: dict[int, int] = {}
        start = 0
        for document, length, prefix in zip(documents.tolist(), lengths.tolist(), prefixes.tolist(), strict=True):
            span = (document, prefix, start, start + length)
            sizes[document] = length
            # Short continuations of a prefix are computed together: fewer copies of its keys for a few pairs in vain.
            if prefix >= 0 and spans[-1][1] == prefix and span[3] - spans[-1][2] <= sizes[prefix]:
                span = (*spans.pop()[:3], span[3])
            spans.append(span)
            start += length
        row_1 = torch.tensor([row], device=device)
        found: dict[int, tuple[int, Tensor]] = {}  # documents of this row: number of the stretch, and its tokens
        for document, prefix, start, stop in spans:
            mask_LK, before = None, -1
            if document >= 0:
                key_K = token_L = torch.arange(start, stop, device=device)
                found[document] = len(stretches), token_L
                if prefix >= 0:
                    before, prefix_P = found[prefix]
                    key_K = torch.cat([prefix_P, token_L])
                mask_LK = visible(row_1, row_1, token_L[:, None], key_K)
            stretches.append(Stretch(stop - start, mask_LK, before))

    def _dense(self, window: int | None) -> Tensor:
        rows, length = self.segment_BL.shape
        device = self.segment_BL.device
        b = torch.arange(rows, device=device)[:, None, None]
        token_L = torch.arange(length, device=device)
        return self.visible(window)(b, b, token_L[:, None], token_L)[:, None]

    def _block(self, window: int | None) -> BlockMask:
        rows, length = self.segment_BL.shape
        # Compiled on CUDA: without compilation, the whole mask is computed in memory first.
        compiled = self.segment_BL.device.type == "cuda"
        return create_block_mask(
            self.visible(window), rows, None, length, length, self.segment_BL.device, BLOCK_SIZE=BLOCK, _compile=compiled
        )


def packed_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,  # noqa: ARG001  (always None: the mask is in the visibility)
    scaling: float | None = None,
    dropout: float = 0.0,
    *,
    visibility: Visibility | None = None,
    sliding_window: int | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """The function that transformers calls in every layer: `query` [B, H, L, D], `key` and `value` [B, K, L, D], RoPE applied.

    Returns:
        [B, L, H, D].

    Raises:
        ModelError: the model was called without a visibility, or needs something that this attention does not compute.
    """
    if visibility is None:
        raise ModelError(
            f"packed attention needs a visibility, and {type(module).__name__} got none: call the model as multiverse.training "
            f"does; if you did, its layers do not pass on what it is called with, so choose another model to train"
        )
    refuse_unsupported(module, kwargs, "cannot be trained here")
    mask = visibility.mask(sliding_window) if visibility.document_BL is None or visibility.kind == "block" else None
    if isinstance(mask, BlockMask):
        if dropout:
            raise ModelError("block-sparse attention has no dropout: set attention_dropout to 0 in the model's config")
        out = _flex(query.device.type)(query, key, value, block_mask=mask, scale=scaling, enable_gqa=True)
        return out.transpose(1, 2).contiguous(), None
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = (tensor.repeat_interleave(groups, dim=1) for tensor in (key, value))
    attend = partial(scaled_dot_product_attention, dropout_p=dropout, scale=scaling)
    if mask is not None:
        return attend(query, key, value, attn_mask=mask).transpose(1, 2).contiguous(), None
    return _by_document(attend, (query, key, value), visibility.stretches(sliding_window)), None


def _by_document(attend: Callable[..., Tensor], qkv: Sequence[Tensor], stretches: Sequence[Stretch]) -> Tensor:
    """Attention of each document to itself and its prefix, and none of padding: [B, L, H, D]."""
    rows, heads, length, _ = qkv[0].shape
    if all(stretch.mask_LK is None for stretch in stretches):
        # Nothing but padding. Processes exchange gradients weight by weight, so every weight has one, if only 0.
        return ((qkv[0] + qkv[1] + qkv[2]) * 0.0).to(qkv[0].dtype).transpose(1, 2)
    device, given = qkv[0].device.type, qkv[0].dtype
    # On a CPU in fp32: the backward of torch's bfloat16 kernel takes up to four times as long for a short document.
    dtype = torch.float32 if device == "cpu" else given
    # One split of all tokens: a slice per document would allocate a gradient of full size for each.
    sizes = [stretch.size for stretch in stretches]
    query, key, value = (tensor.transpose(1, 2).flatten(0, 1).to(dtype).split(sizes) for tensor in qkv)
    out = []
    with torch.autocast(device, enabled=False):
        for stretch, q_LHD, k_LHD, v_LHD in zip(stretches, query, key, value, strict=True):
            if stretch.mask_LK is None:
                out.append(torch.zeros_like(v_LHD))
                continue
            k_KHD, v_KHD = k_LHD, v_LHD
            if stretch.prefix >= 0:
                k_KHD, v_KHD = torch.cat([key[stretch.prefix], k_LHD]), torch.cat([value[stretch.prefix], v_LHD])
            q_1HLD, k_1HKD, v_1HKD = (tensor.transpose(0, 1)[None] for tensor in (q_LHD, k_KHD, v_KHD))
            out.append(attend(q_1HLD, k_1HKD, v_1HKD, attn_mask=stretch.mask_LK)[0].transpose(0, 1))
    return torch.cat(out).to(given).view(rows, length, heads, -1)


@cache
def _flex(device: str) -> Any:
    # One compilation per length (a multiple of the block size): with dynamic shapes the kernels are far slower.
    # On a CPU it is for tests only, and not compiled.
    return torch.compile(flex_attention, dynamic=False) if device == "cuda" else flex_attention


def register() -> str:
    """Register the attention with transformers; returns its name."""
    # In compiled layers it stays as it is: its masks differ in every batch.
    AttentionInterface.register(PACKED_ATTENTION, torch.compiler.disable(packed_attention))
    return PACKED_ATTENTION
