"""The fork and join engine: many requests, each a family of branches, in one continuously filled batch.

What is imported here needs no torch; the engine itself is `multiverse.engine.engine.Engine`.
"""

from .events import BranchEndEvent, Event, FinishEvent, ForkEvent, JoinEvent, TokenEvent
from .generation import Generation, Usage
from .params import SamplingParams
from .request import Branch, Request
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
    "Request",
    "SamplingParams",
    "Scheduler",
    "SlotPool",
    "TokenEvent",
    "Usage",
]
