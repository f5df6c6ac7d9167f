"""Visibility as masks, attention for training, and the registration of the engine's attention with transformers."""

from .dense import dense_inputs, dense_mask, segment_mask

__all__ = ["dense_inputs", "dense_mask", "segment_mask"]
