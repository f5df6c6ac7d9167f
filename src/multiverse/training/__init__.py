"""Fine-tuning a causal language model on structured documents.

Features, mixtures and configurations need no torch; batches are tensors for a plain transformers model.
"""

from .features import IGNORED, Features, Featurizer, View, pack

__all__ = ["IGNORED", "Features", "Featurizer", "View", "pack"]
