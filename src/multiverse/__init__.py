"""Multiverse: language models that decide for themselves when to think in parallel."""

from typing import TYPE_CHECKING, Any

from . import threads

if TYPE_CHECKING:
    from .engine import Generation, SamplingParams, Usage
    from .llm import LLM

__version__ = "0.1.0"
__all__ = ["LLM", "Generation", "SamplingParams", "Usage", "__version__"]


threads.prepare()  # here, since it has to come before torch is loaded


def __getattr__(name: str) -> Any:
    # Loaded on first use, so that `multiverse.structure` and the command's help need neither torch nor transformers.
    if name == "LLM":
        from .llm import LLM

        return LLM
    if name in ("Generation", "SamplingParams", "Usage"):
        from . import engine

        return getattr(engine, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
