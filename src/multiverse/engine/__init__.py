"""The fork and join engine: many requests, each a tree of branches, in one continuously filled batch.

What is imported here needs no torch; the engine itself is `multiverse.engine.engine.Engine`.
"""

from .branch import Branch, Span
from .events import BranchEndEvent, Counts, Event, FinishEvent, ForkEvent, JoinEvent, TokenEvent
from .generation import Generation, Usage
from .params import SamplingParams
from .prefix_cache import PrefixCache
from .request import Request
from .scheduler import Scheduler
from .scoring import ScoringRequest
from .slots import SlotPool
from .tree import BranchTree, ModelInfo

__all__ = [
    "Branch",
    "BranchEndEvent",
    "BranchTree",
    "Counts",
    "Event",
    "FinishEvent",
    "ForkEvent",
    "Generation",
    "JoinEvent",
    "ModelInfo",
    "PrefixCache",
    "Request",
    "SamplingParams",
    "Scheduler",
    "ScoringRequest",
    "SlotPool",
    "Span",
    "TokenEvent",
    "Usage",
]
