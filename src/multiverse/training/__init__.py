"""From documents to what a model trains on. Features are torch-free; batches are tensors for a plain transformers model."""

from .batch import Batch, answer_logits, collate
from .features import IGNORED, Features, featurize, micro_batches, pack

__all__ = ["IGNORED", "Batch", "Features", "answer_logits", "collate", "featurize", "micro_batches", "pack"]
