"""Which models can be forked and joined."""

from __future__ import annotations

from typing import Any

from ..errors import ModelError

# Layer types of transformers' `config.layer_types` whose state is a list of keys and values, which a join concatenates.
_JOINABLE_LAYERS = frozenset({"full_attention", "sliding_attention"})


def check_joinable(config: Any, name: str) -> None:
    """Refuse models for which fork and join would not be exact.

    Raises:
        ModelError: encoder-decoder, recurrent or linear-attention layers, or attention that is more than softmax(QK)V.
    """
    text = config.get_text_config()
    kind = f"{name!r} (model type {config.model_type!r})"
    if getattr(config, "is_encoder_decoder", False):
        raise ModelError(f"{kind} is an encoder-decoder and cannot be forked and joined: choose a decoder-only model")
    odd = sorted(set(getattr(text, "layer_types", None) or ()) - _JOINABLE_LAYERS)
    if odd:
        raise ModelError(
            f"{kind} has layers of type {', '.join(odd)}, whose state cannot be joined: choose a model with full or "
            f"sliding-window attention in every layer, such as Qwen2, Qwen3, Llama or Mistral"
        )
    if getattr(text, "attn_logit_softcapping", None):
        raise ModelError(f"{kind} caps its attention logits, which tree attention cannot compute: choose a model without it")
