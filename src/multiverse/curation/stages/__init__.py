"""The stages of curation: each makes one request of the model and validates the completion.

A stage is a frozen dataclass: its fields are its inputs, its prompt is the file of its name under `prompts/`.
"""

from .base import Failure, Stage
from .conclude import Conclude, Concluded
from .groups import Groups
from .judge import Judge, Verdict
from .outline import Outline
from .refill import Refill
from .rewrite import Rewrite, units_of
from .summary import Summary

__all__ = [
    "Conclude",
    "Concluded",
    "Failure",
    "Groups",
    "Judge",
    "Outline",
    "Refill",
    "Rewrite",
    "Stage",
    "Summary",
    "Verdict",
    "units_of",
]
