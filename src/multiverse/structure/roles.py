"""Roles of the tokens' text: text, outline, conclusion, answer or structure."""

from __future__ import annotations

from typing import Literal, NamedTuple

from .dialect import Role, child_label
from .machine import Machine, State

TextRole = Literal["text", "outline", "conclusion", "answer", "structure"]
"""``structure`` is tags, separators and labels; ``answer`` is the text after a thinking that the generation closed, and in a
dialect with blocks in the answer all text of the trunk outside of thinking and blocks."""


class TokenRole(NamedTuple):
    """Role of one token.

    Attributes:
        role: role of the token's text; of the part after the label, if `label_length` is not 0.
        outline: label of the path that the text describes, with the role ``outline``.
        label_length: characters at the beginning of the text that belong to an outline's label (role ``structure``).
        opens_goal: whether the token opens a goal.
        in_answer: whether that is the goal of a block of the answer's trunk.
    """

    role: TextRole
    outline: str | None = None
    label_length: int = 0
    opens_goal: bool = False
    in_answer: bool = False


_STRUCTURE = TokenRole("structure")
_TEXT = TokenRole("text")
_ANSWER = TokenRole("answer")
_CONCLUSION = TokenRole("conclusion")


class RoleTracker:
    """Classifies the tokens of one branch, in order; call after feeding each token to the branch's machine.

    Args:
        machine: the branch's machine; `None` for a model without a dialect, all of whose tokens are text.
    """

    def __init__(self, machine: Machine | None) -> None:
        self._machine = machine
        # Whether text of the trunk is an answer: from the start, or from where a classified token has closed the thinking.
        self._answering = machine is not None and machine.tokens.dialect.forks_answer
        self._outline: str | None = None  # text of the open outline, as long as it may still be part of the label

    def classify(self, token: int, text: str, *, forced: bool = False, legal: bool = True) -> TokenRole:
        """The role of the token that the machine has just been fed.

        Args:
            text: what the token adds to the branch's text.
            forced: whether the engine wrote it.
            legal: whether the machine accepted it; if not, it was not changed.
        """
        machine = self._machine
        if machine is None:
            return _TEXT
        tag = machine.tokens.roles.get(token)
        if forced:
            self._outline = None  # if it was a label, all of it is forced
        if tag is None and legal and not forced:
            return self._classify_text(machine, text)
        if legal and tag is Role.THINK_CLOSE:
            self._answering = True
        elif legal and tag is Role.OUTLINE_OPEN:
            self._outline = ""
        elif legal and tag is Role.GOAL_OPEN:
            return TokenRole("structure", opens_goal=True, in_answer=machine.base is State.TEXT)
        return _STRUCTURE

    def _classify_text(self, machine: Machine, text: str) -> TokenRole:
        match machine.state:
            case State.TEXT:
                return _ANSWER if self._answering else _TEXT
            case State.BODY:
                return _TEXT
            case State.CONCLUSION:
                return _CONCLUSION
            case State.OUTLINE:
                return self._classify_outline(machine, text)
            case _:
                return _STRUCTURE

    def _classify_outline(self, machine: Machine, text: str) -> TokenRole:
        """An outline begins with its label; one token may hold the end of the label and the beginning of the text."""
        label = child_label(machine.label, machine.outlines - 1)
        length = 0
        if self._outline is not None:
            dialect = machine.tokens.dialect
            before, self._outline = len(self._outline), self._outline + text
            rest = dialect.without_label(self._outline, label)
            left = self._outline.lstrip()
            if rest == left and dialect.begins_label(left, label):
                return _STRUCTURE
            if rest != left:
                length = max(0, len(self._outline) - len(rest) - before)
            self._outline = None
        return TokenRole("outline", label, length) if text[length:] else _STRUCTURE
