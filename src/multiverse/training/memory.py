"""Memory of a training step on one device, estimated from the model's shape.

The estimate counts what grows with the model and the rows. It leaves out what CUDA and the framework reserve for themselves
(often 1 to 2 GiB).
"""

from __future__ import annotations

from typing import Any, NamedTuple

from .config import RunConfig
from .head import LOGITS

GIB = 1 << 30


class MemoryEstimate(NamedTuple):
    """Bytes on one device.

    Attributes:
        weights: in the precision of the computation, and in fp32 where those are the ones that are updated.
        gradients: of the trained parameters.
        optimizer: two moments of each trained parameter (one for matrices with Muon).
        activations: kept for the backward pass.
        logits: of a stretch of tokens, as computed and in fp32, with their gradients.
        mask: the dense mask; a block mask is negligible.
    """

    weights: int
    gradients: int
    optimizer: int
    activations: int
    logits: int
    mask: int

    @property
    def total(self) -> int:
        """Sum of all parts."""
        return sum(self)


def estimate_memory(
    config: RunConfig,
    model_config: Any,
    parameters: int,
    trained: int,
    *,
    devices: int,
    rows: int,
    row_length: int,
    dense: bool,
) -> MemoryEstimate:
    """Memory of one device during a step.

    Args:
        model_config: the model's transformers configuration.
        parameters: of the whole model.
        trained: number of trained parameters.
        devices: processes over which FSDP shards the weights.
        rows, row_length: of a forward pass.
        dense: whether the mask is dense.
    """
    shards = devices if config.fsdp else 1
    text = model_config.get_text_config()
    tokens = row_length * rows
    master = 2 if config.precision == "bf16_weights" else 4
    # Under autocast each layer's weights are cast when they are used; under FSDP they are gathered layer by layer.
    working = 2 * parameters // max(1, text.num_hidden_layers) if config.precision == "bf16" or shards > 1 else 0
    width, layers = text.hidden_size, text.num_hidden_layers
    intermediate = getattr(text, "intermediate_size", None) or 4 * width
    element = 4 if config.precision == "fp32" else 2
    # A layer keeps about: its input, and the inputs of norms, projections, attention and the gated feed-forward.
    one_layer = tokens * (12 * width + 3 * intermediate) * element
    kept = layers * tokens * width * element + one_layer if config.gradient_checkpointing else layers * one_layer
    moments = 4 if config.optimizer.name == "muon" else 8
    return MemoryEstimate(
        weights=parameters * master // shards + working,
        gradients=trained * master // shards,
        optimizer=trained * (moments if master == 4 else moments // 2) // shards,
        activations=kept,
        logits=min(tokens * text.vocab_size, LOGITS) * (element + 4 + 4),
        mask=rows * row_length**2 if dense else 0,
    )
