"""From the messages of a chat to token ids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ..errors import StructureError
from ..prompting import INSTRUCTIONS, Instruction, instruct
from ..structure import encode, parse
from .config import ServerConfig
from .errors import invalid
from .requests import AssistantMessage, Content, Message

if TYPE_CHECKING:
    from ..llm import LLM


def mode_of(given: Instruction | None, llm: LLM, config: ServerConfig) -> Instruction:
    """Which instruction ends the user's messages; a model that cannot fork gets none unless it is asked for."""
    if given is not None:
        return given
    return config.mode if llm.engine.tokens is not None else "as-is"


def chat_prompt(llm: LLM, messages: Sequence[Message], mode: Instruction) -> list[int]:
    """A chat as token ids, through the model's template.

    The reasoning of earlier answers is put back in front of them, and tokenised as it was generated: what the engine wrote
    (labels, separators) apart from what the model wrote. So it is the same sequence of tokens as then, and found in the prefix
    cache.

    Raises:
        ApiError: 400, naming the message that is at fault.
    """
    if getattr(llm.tokenizer, "chat_template", None) is None:
        raise invalid(f"the model {llm.model_path!r} has no chat template: use /v1/completions", "messages")
    thoughts: list[tuple[str, list[int]]] = []
    plain = [_plain(llm, message, number, mode, thoughts) for number, message in enumerate(messages)]
    try:
        text = llm.tokenizer.apply_chat_template(plain, tokenize=False, add_generation_prompt=True)
    except Exception as error:  # templates refuse by raising exceptions of any kind
        raise invalid(f"the model's chat template refuses these messages: {error}", "messages") from None
    ids: list[int] = []
    for thought, thought_ids in thoughts:
        before, found, after = text.partition(thought)
        if not found:  # some templates leave out the thinking of earlier turns
            continue
        ids += [*_encode(llm, before), *thought_ids]
        text = after
    return ids + _encode(llm, text)


def _encode(llm: LLM, text: str) -> list[int]:
    return list(llm.tokenizer.encode(text, add_special_tokens=False)) if text else []


def _plain(
    llm: LLM, message: Message, number: int, mode: Instruction, thoughts: list[tuple[str, list[int]]]
) -> Mapping[str, str]:
    content = _text(message.content)
    if isinstance(message, AssistantMessage):
        return {"role": "assistant", "content": _answer(llm, message, content, number, thoughts)}
    if not content.strip():
        raise invalid(f"the {message.role} message is empty: write something", f"messages.{number}.content")
    role = "system" if message.role == "developer" else message.role
    plain = {"role": role, "content": content}
    # Earlier questions had it too when they were answered. A message that ends with an instruction gets no second one.
    if role == "user" and mode != "as-is" and not content.rstrip().endswith(tuple(INSTRUCTIONS.values())):
        (plain,) = instruct([plain], mode)
    return plain


def _text(content: Content | None) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    return "\n".join(part.text for part in content)


def _answer(llm: LLM, message: AssistantMessage, content: str, number: int, thoughts: list[tuple[str, list[int]]]) -> str:
    """An earlier answer as it was generated."""
    reasoning, param = message.reasoning, f"messages.{number}.reasoning"
    if reasoning is None:
        reasoning, param = message.reasoning_content, f"messages.{number}.reasoning_content"
    elif message.reasoning_content not in (None, reasoning):
        raise invalid("reasoning and reasoning_content differ: give one of them", param)
    if reasoning is None:
        if not content.strip():
            raise invalid("the assistant message is empty: leave it out", f"messages.{number}.content")
        return content
    tokens = llm.engine.tokens
    think = tokens.dialect.think if tokens is not None else None
    if tokens is None or think is None:
        raise invalid("this model has no tags for its thinking: leave the reasoning out", param)
    sep = tokens.dialect.sep
    closing = think.close if not reasoning or reasoning.endswith(sep) else sep + think.close
    thought = f"{think.open}{sep}{reasoning}{closing}"
    try:
        document = parse(thought, tokens.dialect)
    except StructureError as error:
        raise invalid(
            f"the reasoning is not as this model writes it ({error.problem}, expected {error.expected}): "
            "send it as it came, or leave it out",
            param,
        ) from None
    thoughts.append((thought, list(encode(document, tokens).token_ids)))
    return f"{thought}{tokens.dialect.answer_sep}{content}" if content else thought
