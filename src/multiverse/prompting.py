"""How a question asks for sequential or for parallel thinking: the last sentence of the prompt (the paper's wording)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

Mode = Literal["parallel", "sequential"]
Instruction = Literal["parallel", "sequential", "as-is"]
"""Which instruction ends a question; ``as-is`` adds none."""

INSTRUCTIONS: dict[Mode, str] = {
    "parallel": "Think step by step and in parallel before answering.",
    "sequential": "Think step by step before answering.",
}


_SAVED_AS = "multiverse_instruct"


def write_instructed(config: Any, instructed: bool) -> None:
    """Store in a transformers model configuration whether the prompts of the training ended with an instruction."""
    setattr(config, _SAVED_AS, instructed)


def read_instructed(config: Any) -> bool:
    """Whether questions to a model end with an instruction; yes, if its configuration does not say.

    A model that was trained without decides by the question itself. It gets no instruction in any mode, and ``sequential`` is
    kept by its limit on the depth alone.
    """
    return bool(getattr(config, _SAVED_AS, True))


def ask(question: str, mode: Instruction = "parallel") -> list[dict[str, str]]:
    """The question as a one-turn chat that ends with the instruction of this mode."""
    return instruct([{"role": "user", "content": question}], mode)


def instruct(messages: Sequence[Mapping[str, str]], mode: Instruction) -> list[dict[str, str]]:
    """The chat with the instruction of this mode at the end of its last message."""
    *earlier, last = (dict(message) for message in messages)
    if mode == "as-is":
        return [*earlier, last]
    return [*earlier, {**last, "content": f"{last['content'].strip()} {INSTRUCTIONS[mode]}".lstrip()}]


def instruct_chat(messages: Sequence[Mapping[str, Any]], mode: Mode) -> list[dict[str, Any]]:
    """The chat with the instruction of this mode at the end of each of the user's messages, as earlier ones had it, too.

    A message that ends with an instruction gets no second one.
    """
    return [
        dict(message)
        if message["role"] != "user" or message["content"].rstrip().endswith(tuple(INSTRUCTIONS.values()))
        else instruct([message], mode)[0]
        for message in messages
    ]


def without_instruction(messages: Sequence[Mapping[str, str]]) -> tuple[list[dict[str, str]], Mode | None]:
    """The chat as it was before `instruct`, and the mode; `None` if it ends with no instruction."""
    *earlier, last = (dict(message) for message in messages)
    for mode, instruction in INSTRUCTIONS.items():
        if last["content"].endswith(instruction):
            return [*earlier, {**last, "content": last["content"].removesuffix(instruction).rstrip()}], mode
    return [*earlier, last], None
