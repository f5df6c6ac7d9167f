"""What a model says of itself to a person, and a warning about questions that are not for it: on stderr, never on stdout."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..llm import LLM
    from ..models.about import About


def introduce(about: About | None, note: str | None = None) -> None:
    """One line about the model, if its folder has one; and what there is to say of its family."""
    if about is not None:
        _say(about.line, "dim")
    if note is not None:
        _say(note, "dim")


def warn_unlike(about: About | None) -> None:
    """The question is unlike those that this model was trained on."""
    if about is not None:
        _say(about.notice, "yellow")


def warn_tagless(llm: LLM, name: str) -> None:
    """A model without tags was asked to think in parallel."""
    if llm.tokens is None:
        _say(f"{name} has no tags to fork with: it answers as any other model, without forks", "yellow")


def _say(text: str, style: str) -> None:
    from rich.console import Console
    from rich.text import Text

    Console(stderr=True).print(Text(text, style), soft_wrap=True)
