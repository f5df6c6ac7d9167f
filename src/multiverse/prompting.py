"""How a question asks for sequential or for parallel thinking: the last sentence of the prompt (the paper's wording)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
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


def trained_here(config: Any) -> bool:
    """Whether the model comes from a training of this package, which notes how it asked."""
    return getattr(config, _SAVED_AS, None) is not None


@dataclass(frozen=True)
class Prompting:
    """The instructions that a model was trained with.

    Attributes:
        instructions: the instruction of each mode.
        sep: what stands between a question and its instruction.
    """

    instructions: Mapping[Mode, str] = field(default_factory=lambda: INSTRUCTIONS)
    sep: str = " "

    def ends(self, content: str) -> bool:
        """Whether a question ends with an instruction."""
        return content.rstrip().endswith(tuple(self.instructions.values()))

    def instruct(self, messages: Sequence[Mapping[str, Any]], mode: Instruction) -> list[dict[str, Any]]:
        """The chat with the instruction of this mode at the end of its last message."""
        *earlier, last = (dict(message) for message in messages)
        if mode == "as-is":
            return [*earlier, last]
        question = last["content"].strip()
        instruction = self.instructions[mode]
        return [*earlier, {**last, "content": f"{question}{self.sep}{instruction}" if question else instruction}]

    def instruct_chat(self, messages: Sequence[Mapping[str, Any]], mode: Mode) -> list[dict[str, Any]]:
        """The chat with the instruction of this mode at the end of each of the user's messages, as earlier ones had it, too.

        A message that ends with an instruction gets no second one.
        """
        return [
            dict(message) if message["role"] != "user" or self.ends(message["content"]) else self.instruct([message], mode)[0]
            for message in messages
        ]

    def without_instruction(self, messages: Sequence[Mapping[str, str]]) -> tuple[list[dict[str, str]], Mode | None]:
        """The chat as it was before `instruct`, and the mode; `None` if it ends with no instruction."""
        *earlier, last = (dict(message) for message in messages)
        for mode, instruction in self.instructions.items():
            if last["content"].endswith(instruction):
                return [*earlier, {**last, "content": last["content"].removesuffix(instruction).rstrip()}], mode
        return [*earlier, last], None


DEFAULT = Prompting()
"""The paper's instructions, one space behind the question: those of every training here, unless a preset says otherwise."""


def read_prompting(entry: Mapping[str, Any]) -> Prompting:
    """The instructions of a model in a server's list of models; the paper's, if it says nothing that can be read."""
    given, sep = entry.get("instructions"), entry.get("instruction_separator")
    if not isinstance(given, Mapping) or not isinstance(sep, str):
        return DEFAULT
    own: dict[Mode, str] = {mode: text for mode in INSTRUCTIONS if isinstance(text := given.get(mode), str)}
    return Prompting(own, sep) if own.keys() == INSTRUCTIONS.keys() else DEFAULT


def ask(question: str, mode: Instruction = "parallel") -> list[dict[str, str]]:
    """The question as a one-turn chat that ends with the instruction of this mode."""
    return instruct([{"role": "user", "content": question}], mode)


def instruct(messages: Sequence[Mapping[str, str]], mode: Instruction) -> list[dict[str, str]]:
    """`Prompting.instruct` of the paper's instructions."""
    return DEFAULT.instruct(messages, mode)


def without_instruction(messages: Sequence[Mapping[str, str]]) -> tuple[list[dict[str, str]], Mode | None]:
    """`Prompting.without_instruction` of the paper's instructions."""
    return DEFAULT.without_instruction(messages)
