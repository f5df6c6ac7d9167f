"""Visibility as masks, and the tree attention of the engine."""

from .dense import dense_inputs, dense_mask, segment_mask

__all__ = ["dense_inputs", "dense_mask", "segment_mask"]
