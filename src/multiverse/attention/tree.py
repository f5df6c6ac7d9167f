"""Registration of the engine's attention with transformers.

transformers runs the model; only its attention is replaced. The engine passes a `TreeContext` through the model call, which
reaches every layer's attention unchanged. All rows of a forward (prompts and single decode tokens of many requests) are one
sequence ``[1, N]``; the context decides which row reads which slots of the KV pool.

Shape legend: N rows of the forward, H query heads, K key/value heads, D head size (V of values where it differs).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import AttentionInterface

from ..errors import ModelError

TREE_ATTENTION = "multiverse_tree"
_running: ContextVar[TreeContext] = ContextVar("tree_context")


class TreeContext(Protocol):
    """One forward, as the attention of every layer needs it."""

    @property
    def softcap(self) -> float | None:
        """The cap that it puts on scores; `None` without one."""
        ...

    def attend(
        self, layer: int, query_NHD: Tensor, key_NKD: Tensor, value_NKV: Tensor, scale: float, window: int | None
    ) -> Tensor:
        """Store the rows' keys and values, and return their attention output [N, H, V].

        Args:
            window: a row reads a slot only if it is less than `window` positions back; `None` for full attention.
        """
        ...


@contextmanager
def within(context: TreeContext) -> Iterator[None]:
    """Set the context of attention whose layers do not pass on what the model was called with (StableLM, Nemotron)."""
    token = _running.set(context)
    try:
        yield
    finally:
        _running.reset(token)


def tree_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,  # noqa: ARG001  (always None: visibility is part of the context)
    scaling: float | None = None,
    dropout: float = 0.0,  # noqa: ARG001  (inference only)
    *,
    tree_context: TreeContext | None = None,
    sliding_window: int | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """The function that transformers calls in every layer: `query` [1, H, N, D], `key` and `value` [1, K, N, D], RoPE applied.

    Models that are run branch by branch have several sequences of equal length, whose rows are those of the context in order.

    Raises:
        ModelError: the model was called without a context, or needs something that this attention does not compute.
    """
    tree_context = tree_context or _running.get(None)
    if tree_context is None:
        raise ModelError(
            "tree attention runs inside the engine only: load the model through multiverse.LLM, or with another attention"
        )
    if kwargs.get("softcap") == tree_context.softcap:
        kwargs.pop("softcap", None)
    refuse_unsupported(module, kwargs, "tree attention cannot compute")
    if getattr(module, "is_causal", True) is False:
        raise ModelError(f"{type(module).__name__} attends to later tokens, too (is_causal is false): choose a decoder")
    query_NHD, key_NKD, value_NKV = (tensor.transpose(1, 2).flatten(0, 1) for tensor in (query, key, value))
    scale = scaling if scaling is not None else query.shape[-1] ** -0.5
    layer = int(module.layer_idx)  # type: ignore[arg-type]
    out_NHV = tree_context.attend(layer, query_NHD, key_NKD, value_NKV, scale, sliding_window)
    return out_NHV.view(query.shape[0], query.shape[2], *out_NHV.shape[1:]), None


def refuse_unsupported(module: torch.nn.Module, options: dict[str, Any], problem: str) -> None:
    """Raise ModelError if transformers requests capped scores or attention sinks."""
    for name in ("softcap", "s_aux"):
        if options.get(name) is not None:
            raise ModelError(f"{type(module).__name__} uses {name!r}, which {problem}: choose a model without it")


def register() -> str:
    """Register the attention with transformers; returns its name."""
    AttentionInterface.register(TREE_ATTENTION, tree_attention)
    return TREE_ATTENTION
