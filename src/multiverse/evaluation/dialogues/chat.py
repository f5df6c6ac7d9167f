"""Messages as inspect has them. Needs inspect."""

from __future__ import annotations

from inspect_ai.model import ChatMessage, ChatMessageAssistant, ChatMessageUser, ContentImage, ContentText

from .messages import Message


def as_chat(message: Message) -> ChatMessage:
    """A message of the user or the assistant, its image before its text."""
    if message.role == "assistant":
        return ChatMessageAssistant(content=message.text)
    if message.image is None:
        return ChatMessageUser(content=message.text)
    return ChatMessageUser(content=[ContentImage(image=message.image.url), ContentText(text=message.text)])
