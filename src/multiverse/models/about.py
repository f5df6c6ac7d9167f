"""What a model says of itself to people: one line, an example, and from where on a question is unlike what it was trained on.

A model's folder may hold ``about.json``::

    {"text": "A puzzle model ...", "example": "Start with 7. ...", "otherwise": "For ...", "least_logprob": -13.5}

It is not copied when the model is trained further, since what it says then holds no longer.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import ModelError
from ..structure import ChatEncoder

FILE = "about.json"

UNLIKE = "This question is unlike those that the model was trained on: its answer is likely nonsense."


@dataclass(frozen=True)
class About:
    """The content of ``about.json``.

    Attributes:
        text: what the model is, in a sentence or two.
        example: a question that it answers well.
        otherwise: what to use for other questions, as a sentence.
        least_logprob: mean log-probability of a question's tokens, in nats, below which it is unlike those of the training;
            `None` if that is not known.
    """

    text: str
    example: str | None = None
    otherwise: str | None = None
    least_logprob: float | None = None

    @property
    def line(self) -> str:
        """What it is, with the example, and what to use otherwise."""
        example = None if self.example is None else f'For example: "{self.example}"'
        return " ".join(part for part in (self.text, example, self.otherwise) if part is not None)

    @property
    def notice(self) -> str:
        """What to tell a person whose question is unlike those of the training."""
        return UNLIKE if self.otherwise is None else f"{UNLIKE} {self.otherwise}"

    def is_unlike(self, logprob: float) -> bool:
        """Whether a question with this mean log-probability is unlike those of the training."""
        return self.least_logprob is not None and logprob < self.least_logprob


def read_about(folder: str | Path) -> About | None:
    """What the model in this folder says of itself; `None` if it says nothing.

    Raises:
        ModelError: the file is not valid.
    """
    file = Path(folder) / FILE
    if not file.is_file():
        return None
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{str(file)!r} cannot be read ({error}): correct or remove it") from None
    if not isinstance(found, dict) or not isinstance(found.get("text"), str) or not found["text"].strip():
        raise ModelError(f"{str(file)!r} has no text: it needs text, and may have example, otherwise and least_logprob")
    if unknown := found.keys() - {item.name for item in fields(About)}:
        raise ModelError(f"{str(file)!r} has {', '.join(sorted(unknown))}, which is not known: leave it out")
    for name in ("example", "otherwise"):
        if not isinstance(found.get(name), str | None):
            raise ModelError(f"{str(file)!r} has the {name} {found[name]!r}: it must be a text")
    least = found.get("least_logprob")
    if least is not None and (isinstance(least, bool) or not isinstance(least, int | float)):
        raise ModelError(f"{str(file)!r} has the least_logprob {least!r}: it must be a number")
    least = None if least is None else float(least)
    return About(found["text"].strip(), found.get("example"), found.get("otherwise"), least)


class Asked(NamedTuple):
    """A question as a prompt.

    Attributes:
        token_ids: of the chat that holds it, up to its end.
        first: the first of them that is its own.
    """

    token_ids: list[int]
    first: int

    def mean(self, logprobs: Sequence[float | None]) -> float:
        """Mean log-probability of the question's own tokens, from those of all."""
        own = [value for value in logprobs[self.first :] if value is not None]
        return sum(own) / len(own) if own else 0.0


def asked(tokenizer: Any, question: str) -> Asked:
    """A question by itself through the model's chat template, without what the template writes after it."""
    # The chat around any other question shows what is the template's own.
    own, other = (_chat(tokenizer, text) for text in (question, "z" if question.lstrip().startswith("0") else "0"))
    first = next((at for at, (a, b) in enumerate(zip(own, other, strict=False)) if a != b), min(len(own), len(other)))
    left = min(len(own), len(other)) - first
    last = next((at for at, (a, b) in enumerate(zip(own[::-1], other[::-1], strict=False)) if a != b), left)
    return Asked(own[: len(own) - min(last, left)], first)


def _chat(tokenizer: Any, question: str) -> list[int]:
    messages = [{"role": "user", "content": question.strip()}]
    return ChatEncoder(tokenizer, None)(messages).token_ids
