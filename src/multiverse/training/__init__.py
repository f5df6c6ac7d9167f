"""Fine-tuning: from structured documents to a model that forks.

Features, mixtures and configurations are torch-free; batches are tensors for a plain transformers model.
"""

from .features import IGNORED, Features, Featurizer, View, pack

__all__ = ["IGNORED", "Features", "Featurizer", "View", "pack"]
