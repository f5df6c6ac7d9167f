"""From the messages of a chat to token ids."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..errors import RequestError
from ..prompting import Instruction
from ..structure import ChatPrompt, broken_thinking, text_of
from .config import ServerConfig
from .errors import invalid
from .requests import AssistantMessage, Message

if TYPE_CHECKING:
    from ..llm import LLM


def mode_of(given: Instruction | None, llm: LLM, config: ServerConfig) -> Instruction:
    """Which instruction ends the user's messages.

    A model that cannot fork gets none unless it is asked for, and one that was trained without none at all.
    """
    if llm.tokens is None:
        return given if given is not None else "as-is"
    if not llm.instructed:
        return "as-is"
    return given if given is not None else config.mode


def chat_prompt(llm: LLM, messages: Sequence[Message], mode: Instruction) -> ChatPrompt:
    """A chat as token ids, through the model's template.

    The reasoning of earlier answers is put back in front of them. What forks in them, in the reasoning or in the answer itself,
    is tokenised as it was generated, and so found in the prefix cache. Whatever reads like a tag elsewhere is text.

    Raises:
        ApiError: 400, naming the message that is at fault.
    """
    if getattr(llm.tokenizer, "chat_template", None) is None:
        raise invalid(f"the model {llm.model_path!r} has no chat template: use /v1/completions", "messages")
    plain = [_plain(llm, message, number, mode) for number, message in enumerate(messages)]
    try:
        return llm.read_chat(plain)
    except RequestError as error:
        raise invalid(str(error), "messages") from None


def left_out(chat: ChatPrompt) -> list[str]:
    """What the template has left out of a chat, in words."""
    return [f"{part} is not in the prompt: the model's chat template leaves it out" for part in chat.left_out]


def _plain(llm: LLM, message: Message, number: int, mode: Instruction) -> dict[str, str]:
    parts = message.content
    content = text_of([part.model_dump() for part in parts] if isinstance(parts, list) else parts) or ""
    named = {"name": message.name} if message.name is not None else {}
    if isinstance(message, AssistantMessage):
        return {**_answer(llm, message, content, number), **named}
    plain = {"role": message.role, "content": content, **named}
    # Earlier questions had it too when they were answered. A message that ends with an instruction gets no second one.
    if message.role == "user" and mode != "as-is" and not llm.prompting.ends(content):
        (plain,) = llm.prompting.instruct([plain], mode)
    return plain


def _answer(llm: LLM, message: AssistantMessage, content: str, number: int) -> dict[str, str]:
    """An earlier answer, with its reasoning."""
    reasoning, param = message.reasoning, f"messages.{number}.reasoning"
    if reasoning is None:
        reasoning, param = message.reasoning_content, f"messages.{number}.reasoning_content"
    elif message.reasoning_content not in (None, reasoning):
        raise invalid("reasoning and reasoning_content differ: give one of them", param)
    if reasoning is None:
        if message.content is None:
            raise invalid("the assistant message has no content: leave it out", f"messages.{number}.content")
        return {"role": "assistant", "content": content}
    tokens = llm.tokens
    if tokens is None or tokens.dialect.think is None:
        raise invalid("this model has no tags for its thinking: leave the reasoning out", param)
    if (problem := broken_thinking(reasoning, tokens.dialect)) is not None:
        raise invalid(
            f"the reasoning is not as this model writes it ({problem.problem}, expected {problem.expected}): "
            "send it as it came, or leave it out",
            param,
        )
    return {"role": "assistant", "content": content, "reasoning": reasoning}
