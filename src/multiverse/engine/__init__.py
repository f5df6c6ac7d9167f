"""The fork and join engine: many requests, each a family of branches, in one continuously filled batch.

What is imported here needs no torch; the engine itself is `multiverse.engine.engine.Engine`.
"""

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
