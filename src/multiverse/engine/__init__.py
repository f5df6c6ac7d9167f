"""The fork and join engine: many requests, each a tree of branches, in one continuously filled batch.

What is imported here needs no torch; the engine itself is `multiverse.engine.engine.Engine`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .branch import Branch, Drawn, Span, Support
    from .events import BranchEndEvent, Counts, Event, FinishEvent, ForkEvent, JoinEvent, PromptEvent, TokenEvent
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
    "Drawn",
    "Event",
    "FinishEvent",
    "ForkEvent",
    "Generation",
    "JoinEvent",
    "ModelInfo",
    "PrefixCache",
    "PromptEvent",
    "Request",
    "SamplingParams",
    "Scheduler",
    "ScoringRequest",
    "SlotPool",
    "Span",
    "Support",
    "TokenEvent",
    "Usage",
]

# Loaded on first use, so that the command line reads the declarations of `SamplingParams` without importing numpy.
_MODULES = {
    "Branch": "branch",
    "Drawn": "branch",
    "Span": "branch",
    "Support": "branch",
    "BranchEndEvent": "events",
    "Counts": "events",
    "Event": "events",
    "FinishEvent": "events",
    "ForkEvent": "events",
    "JoinEvent": "events",
    "PromptEvent": "events",
    "TokenEvent": "events",
    "Generation": "generation",
    "Usage": "generation",
    "SamplingParams": "params",
    "PrefixCache": "prefix_cache",
    "Request": "request",
    "Scheduler": "scheduler",
    "ScoringRequest": "scoring",
    "SlotPool": "slots",
    "BranchTree": "tree",
    "ModelInfo": "tree",
}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(import_module(f".{_MODULES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
