"""The fork and join engine: many requests, each a family of branches, in one continuously filled batch.

What is imported here needs no torch; the engine itself is `multiverse.engine.engine.Engine`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .branch import Branch, Run
    from .cache import PrefixCache
    from .events import BranchEndEvent, Event, FinishEvent, ForkEvent, JoinEvent, TokenEvent
    from .generation import Generation, Usage
    from .params import SamplingParams
    from .request import Request, Traits
    from .scheduler import Scheduler
    from .slots import SlotPool

__all__ = [
    "Branch",
    "BranchEndEvent",
    "Event",
    "FinishEvent",
    "ForkEvent",
    "Generation",
    "JoinEvent",
    "PrefixCache",
    "Request",
    "Run",
    "SamplingParams",
    "Scheduler",
    "SlotPool",
    "TokenEvent",
    "Traits",
    "Usage",
]

# Loaded on first use, so that the command line reads the declarations of `SamplingParams` without importing numpy.
_MODULES = {
    "Branch": "branch",
    "Run": "branch",
    "PrefixCache": "cache",
    "BranchEndEvent": "events",
    "Event": "events",
    "FinishEvent": "events",
    "ForkEvent": "events",
    "JoinEvent": "events",
    "TokenEvent": "events",
    "Generation": "generation",
    "Usage": "generation",
    "SamplingParams": "params",
    "Request": "request",
    "Traits": "request",
    "Scheduler": "scheduler",
    "SlotPool": "slots",
}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(import_module(f".{_MODULES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
