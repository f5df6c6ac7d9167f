"""Multiverse: language models that decide for themselves when to think in parallel."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from . import threads

if TYPE_CHECKING:
    from .async_llm import AsyncLLM
    from .engine import Generation, SamplingParams, Usage
    from .llm import LLM
    from .stock.llm import StockLLM

__version__ = "0.1.0"
__all__ = ["LLM", "AsyncLLM", "Generation", "SamplingParams", "StockLLM", "Usage", "__version__"]

_MODULES = {
    "LLM": "llm",
    "AsyncLLM": "async_llm",
    "Generation": "engine.generation",
    "Usage": "engine.generation",
    "SamplingParams": "engine.params",
    "StockLLM": "stock.llm",
}

threads.prepare()  # here, since it has to come before torch is loaded


def __getattr__(name: str) -> Any:
    # Loaded on first use, so that `multiverse.structure` and the command's help need nothing of the engine.
    if name in _MODULES:
        return getattr(import_module(f".{_MODULES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
