"""Which models can be forked and joined, and how."""

from __future__ import annotations

from typing import Any

from ..errors import ModelError

# Layer types of transformers' `config.layer_types` whose state is a list of keys and values, which a join concatenates.
_JOINABLE_LAYERS = frozenset({"full_attention", "sliding_attention"})
# Those whose state is one thing that every token changes, beside keys and values or instead of them; and layers without any.
_STATEFUL_LAYERS = frozenset({"linear_attention", "conv", "hybrid", "hybrid_sliding"})
_STATELESS_LAYERS = frozenset({"moe", "mlp"})


def check_joinable(config: Any, name: str) -> None:
    """Refuse models for which a join of keys and values would not be exact, or that cannot be trained for one.

    Raises:
        ModelError: encoder-decoder, recurrent or linear-attention layers, or attention that is more than softmax(QK)V.
    """
    text = config.get_text_config()
    kind = _kind(config, name)
    _check_decoder(config, kind)
    odd = sorted(_layers(text) - _JOINABLE_LAYERS)
    if odd:
        raise ModelError(
            f"{kind} has layers of type {', '.join(odd)}, whose state cannot be joined: choose a model with full or "
            f"sliding-window attention in every layer, such as Qwen2, Qwen3, Llama or Mistral"
        )
    if softcap(config) is not None:
        raise ModelError(f"{kind} caps its attention logits, which tree attention cannot compute: choose a model without it")


def check_runnable(config: Any, name: str) -> None:
    """Refuse models that cannot be run with any join.

    Raises:
        ModelError: encoder-decoder, or layers of a type that is not known here.
    """
    kind = _kind(config, name)
    _check_decoder(config, kind)
    odd = sorted(_layers(config.get_text_config()) - _JOINABLE_LAYERS - _STATEFUL_LAYERS - _STATELESS_LAYERS)
    if odd:
        raise ModelError(
            f"{kind} has layers of type {', '.join(odd)}, which can neither be joined nor be run branch by branch: choose a "
            f"model with full, sliding-window or linear attention, or with recurrent layers"
        )


def is_stateful(config: Any) -> bool:
    """Whether the model has layers whose state cannot be joined, so that each branch needs one of its own."""
    return bool(_layers(config.get_text_config()) & _STATEFUL_LAYERS)


def softcap(config: Any) -> float | None:
    """The cap of the attention's scores; `None` without one."""
    cap = getattr(config.get_text_config(), "attn_logit_softcapping", None)
    return float(cap) if cap else None


def _layers(text: Any) -> set[str]:
    return set(getattr(text, "layer_types", None) or ())


def _kind(config: Any, name: str) -> str:
    return f"{name!r} (model type {config.model_type!r})"


def _check_decoder(config: Any, kind: str) -> None:
    if getattr(config, "is_encoder_decoder", False):
        raise ModelError(f"{kind} is an encoder-decoder and cannot be forked and joined: choose a decoder-only model")
