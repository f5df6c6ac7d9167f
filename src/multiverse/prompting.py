"""How a question asks for sequential or for parallel thinking: the last sentence of the prompt (the paper's wording)."""

from __future__ import annotations

from typing import Literal

Mode = Literal["parallel", "sequential"]

INSTRUCTIONS: dict[Mode, str] = {
    "parallel": "Think step by step and in parallel before answering.",
    "sequential": "Think step by step before answering.",
}


def ask(question: str, mode: Mode = "parallel") -> list[dict[str, str]]:
    """The question as a one-turn chat that ends with the instruction of this mode."""
    return [{"role": "user", "content": f"{question.strip()} {INSTRUCTIONS[mode]}"}]
