"""From the messages of a chat to token ids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ..errors import StructureError
from ..prompting import INSTRUCTIONS, Instruction, instruct
from ..structure import encode_chat, parse
from .config import ServerConfig
from .errors import invalid
from .requests import AssistantMessage, Content, Message

if TYPE_CHECKING:
    from ..llm import LLM


def mode_of(given: Instruction | None, llm: LLM, config: ServerConfig) -> Instruction:
    """Which instruction ends the user's messages.

    A model that cannot fork gets none unless it is asked for, and one that was trained without none at all.
    """
    if llm.engine.tokens is None:
        return given if given is not None else "as-is"
    if not llm.instructed:
        return "as-is"
    return given if given is not None else config.mode


def chat_prompt(llm: LLM, messages: Sequence[Message], mode: Instruction) -> list[int]:
    """A chat as token ids, through the model's template.

    The reasoning of earlier answers is put back in front of them. What forks in them, in the reasoning or in the answer itself,
    is tokenised as it was generated, and so found in the prefix cache.

    Raises:
        ApiError: 400, naming the message that is at fault.
    """
    if getattr(llm.tokenizer, "chat_template", None) is None:
        raise invalid(f"the model {llm.model_path!r} has no chat template: use /v1/completions", "messages")
    structured: list[str] = []
    plain = [_plain(llm, message, number, mode, structured) for number, message in enumerate(messages)]
    try:
        text = llm.tokenizer.apply_chat_template(plain, tokenize=False, add_generation_prompt=True)
    except Exception as error:  # templates refuse by raising exceptions of any kind
        raise invalid(f"the model's chat template refuses these messages: {error}", "messages") from None
    tokens = llm.engine.tokens
    return encode_chat(text, structured, tokens) if tokens is not None else llm.encode_text(text)


def _plain(llm: LLM, message: Message, number: int, mode: Instruction, structured: list[str]) -> Mapping[str, str]:
    content = _text(message.content)
    named = {"name": message.name} if message.name is not None else {}
    if isinstance(message, AssistantMessage):
        return {"role": "assistant", "content": _answer(llm, message, content, number, structured), **named}
    role = "system" if message.role == "developer" else message.role
    plain = {"role": role, "content": content, **named}
    # Earlier questions had it too when they were answered. A message that ends with an instruction gets no second one.
    if role == "user" and mode != "as-is" and not content.rstrip().endswith(tuple(INSTRUCTIONS.values())):
        (plain,) = instruct([plain], mode)
    return plain


def _text(content: Content | None) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    return "\n".join(part.text for part in content)


def _answer(llm: LLM, message: AssistantMessage, content: str, number: int, structured: list[str]) -> str:
    """An earlier answer as it was generated; what may fork in it is added to `structured`."""
    reasoning, param = message.reasoning, f"messages.{number}.reasoning"
    if reasoning is None:
        reasoning, param = message.reasoning_content, f"messages.{number}.reasoning_content"
    elif message.reasoning_content not in (None, reasoning):
        raise invalid("reasoning and reasoning_content differ: give one of them", param)
    if reasoning is None:
        if message.content is None:
            raise invalid("the assistant message has no content: leave it out", f"messages.{number}.content")
        structured.append(content)
        return content
    tokens = llm.engine.tokens
    think = tokens.dialect.think if tokens is not None else None
    if tokens is None or think is None:
        raise invalid("this model has no tags for its thinking: leave the reasoning out", param)
    sep = tokens.dialect.sep
    closing = think.close if not reasoning or reasoning.endswith(sep) else sep + think.close
    thought = f"{think.open}{sep}{reasoning}{closing}"
    try:
        parse(thought, tokens.dialect)
    except StructureError as error:
        raise invalid(
            f"the reasoning is not as this model writes it ({error.problem}, expected {error.expected}): "
            "send it as it came, or leave it out",
            param,
        ) from None
    whole = f"{thought}{tokens.dialect.answer_sep}{content}" if content else thought
    # An answer without tags is left to the template, which may strip it.
    structured.append(whole if any(tag in content for tag in tokens.dialect.tags) else thought)
    return whole
