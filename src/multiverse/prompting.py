"""How a question asks for sequential or for parallel thinking: the last sentence of the prompt (the paper's wording)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

Mode = Literal["parallel", "sequential"]
Instruction = Literal["parallel", "sequential", "as-is"]
"""Which instruction ends a question; ``as-is`` adds none."""

INSTRUCTIONS: dict[Mode, str] = {
    "parallel": "Think step by step and in parallel before answering.",
    "sequential": "Think step by step before answering.",
}


def ask(question: str, mode: Mode = "parallel") -> list[dict[str, str]]:
    """The question as a one-turn chat that ends with the instruction of this mode."""
    return instruct([{"role": "user", "content": question}], mode)


def instruct(messages: Sequence[Mapping[str, str]], mode: Mode) -> list[dict[str, str]]:
    """The chat with the instruction of this mode at the end of its last message."""
    *earlier, last = (dict(message) for message in messages)
    return [*earlier, {**last, "content": f"{last['content'].strip()} {INSTRUCTIONS[mode]}".lstrip()}]
