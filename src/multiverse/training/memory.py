"""What a run needs of a device's memory, from the model's shape alone.

An estimate to choose hardware by, not a promise: it counts what grows with the model and the rows, and leaves out what a
framework keeps for itself (often one or two GiB).
"""

from __future__ import annotations

from typing import Any, NamedTuple

from .config import Config

GIB = 1 << 30


class Memory(NamedTuple):
    """Bytes on one device.

    Attributes:
        weights: of the model as it is computed with; and in fp32, where those are the ones that are updated.
        gradients: of what is trained.
        optimizer: two moments of what is trained (one for matrices under Muon).
        activations: kept for the backward pass.
        logits: at the tokens that take loss, as computed and in fp32, with their gradients.
        mask: the dense mask; next to nothing when it is block-sparse.
    """

    weights: int
    gradients: int
    optimizer: int
    activations: int
    logits: int
    mask: int

    @property
    def total(self) -> int:
        """All of it."""
        return sum(self)


def estimate(config: Config, model_config: Any, parameters: int, trained: int, *, devices: int, dense: bool) -> Memory:
    """Memory of one device during a step.

    Args:
        model_config: the model's transformers configuration.
        parameters: of the whole model.
        trained: how many of them are updated.
        devices: processes over which weights are sharded, where they are.
        dense: whether the mask is dense.
    """
    shards = devices if config.fsdp else 1
    text = model_config.get_text_config()
    length = (config.row_length or config.length) * config.rows
    half = config.precision != "fp32"
    master = 2 if config.precision == "bf16_weights" else 4
    # Under autocast each layer's weights are cast as they are used; under FSDP they are gathered a layer at a time.
    working = 2 * parameters // max(1, text.num_hidden_layers) if config.precision == "bf16" or shards > 1 else 0
    width, layers = text.hidden_size, text.num_hidden_layers
    intermediate = getattr(text, "intermediate_size", None) or 4 * width
    element = 2 if half else 4
    # A layer keeps about: its input, what goes into norms, projections, attention and the gated feed-forward.
    one_layer = length * (12 * width + 3 * intermediate) * element
    kept = layers * length * width * element + one_layer if config.checkpointing else layers * one_layer
    moments = 4 if config.optimizer.name == "muon" else 8
    return Memory(
        weights=parameters * master // shards + working,
        gradients=trained * master // shards,
        optimizer=trained * (moments if master == 4 else moments // 2) // shards,
        activations=kept,
        logits=length * text.vocab_size * (element + 4 + 4),
        mask=config.rows * (config.row_length or config.length) ** 2 if dense else 0,
    )
