"""What a model is sent in a turn.

Every request holds the dialogue's image exactly once, in its first user message: with a history, that is the first turn's;
without one, it is the turn that is asked. A question about an image cannot be answered without it, so leaving it out would
measure something else than what the history is worth.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from ...prompting import DEFAULT
from .config import Setting
from .dialogue import PERSONA, Dialogue, Turn
from .images import Picture


class Message(NamedTuple):
    """One message of a request."""

    role: str
    text: str
    image: Picture | None = None


def request(dialogue: Dialogue, number: int, said: Mapping[int, str], setting: Setting) -> list[Message]:
    """The messages of a turn.

    Args:
        number: of the turn, from 0.
        said: the model's answers to earlier turns, as they stand in the history.
    """
    first = number if setting.history == "none" else 0
    found: list[Message] = []
    for at in range(first, number + 1):
        turn = dialogue.turns[at]
        text = turn.utterance
        if at == first and setting.persona and (shown := persona(dialogue)):
            text = f"{shown}\n\n{text}"
        if setting.mode != "as-is":
            text = DEFAULT.instruct_chat([{"role": "user", "content": text}], setting.mode)[0]["content"]
        found.append(Message("user", text, dialogue.image if at == first else None))
        if at < number:
            found.append(Message("assistant", said[at] if setting.history == "own" else _reference(turn, setting)))
    return found


def persona(dialogue: Dialogue) -> str:
    """Who the user is, as it stands before the first utterance; empty if the set does not say."""
    lines = [(name.capitalize(), dialogue.persona.get(name, "").strip()) for name in PERSONA]
    return "\n".join(f"{name}: {text}" for name, text in lines if text)


def _reference(turn: Turn, setting: Setting) -> str:
    """The reference as an earlier answer; models of this project get it as they write."""
    return turn.solutions.get(setting.mode, turn.reference) if setting.mode != "as-is" else turn.reference
