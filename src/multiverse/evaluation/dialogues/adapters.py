"""Other sets of several turns, each by one adapter: how a row is recognised, and the dialogue that it holds.

These sets have no checklists. The questions here are ours: what the user asked for, whether it is right, and whether it fits
what was said before.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from .dialogue import Dialogue, Item, Turn

Row = Mapping[str, Any]

_ASKED = Item("Does the answer do everything that the user asks for in this turn?", "Instruction", "Completeness")
_RIGHT = Item("Is everything that the answer states correct?", "Correctness", "Facts and reasoning")
_FITS = Item("Does the answer fit what was said in earlier turns?", "Context", "Consistency")


class Adapter(NamedTuple):
    """A set of another form.

    Attributes:
        title: in messages.
        fits: whether a row is of this set.
        read: the dialogue of a row; raises `ValueError`.
    """

    title: str
    fits: Callable[[Row], bool]
    read: Callable[[Row], Dialogue]


def _mt_bench(row: Row) -> Dialogue:
    """``turns`` (on the hub also ``prompt``) with ``category``, and ``reference`` for some: MT-Bench and sets like it."""
    asked, references = _texts(row, "turns", "prompt"), _texts(row, "reference")
    if not asked:
        raise ValueError("turns is empty: it must be a list of texts")
    name = next((row[name] for name in ("question_id", "prompt_id", "id") if row.get(name) is not None), None)
    if name is None:
        raise ValueError("the row has no question_id")
    turns = [
        Turn(
            text,
            references[number] if number < len(references) else "",
            (_ASKED, _RIGHT, *((_FITS,) if number else ())),
        )
        for number, text in enumerate(asked)
    ]
    return Dialogue(str(name), tuple(turns), categories={"main_task_category": str(row.get("category") or "")})


def _multi_challenge(row: Row) -> Dialogue:
    """MultiChallenge: a conversation whose last answer is judged by one question. Ask it with history reference."""
    messages = row["CONVERSATION"]
    if not isinstance(messages, list) or not all(isinstance(one, Mapping) for one in messages):
        raise ValueError("CONVERSATION must be a list of objects with role and content")
    roles = [str(one.get("role")) for one in messages]
    if roles != ["user", "assistant"] * (len(roles) // 2) + ["user"]:
        raise ValueError(f"CONVERSATION has the roles {', '.join(roles)}: user and assistant take turns, the user is last")
    texts = [str(one.get("content")) for one in messages]
    question, axis = str(row["TARGET_QUESTION"]), str(row.get("AXIS") or "")
    earlier = [Turn(asked, said, ()) for asked, said in zip(texts[:-1:2], texts[1::2], strict=True)]
    if str(row.get("PASS_CRITERIA", "YES")).strip().upper() != "YES":
        question = f"Is the answer to this question no: {question}"
    last = Turn(texts[-1], "", (Item(question, axis, axis),))
    return Dialogue(str(row.get("QUESTION_ID")), (*earlier, last), categories={"main_task_category": axis})


def _texts(row: Row, *names: str) -> list[str]:
    value = next((row[name] for name in names if row.get(name) is not None), None)
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise ValueError(f"{names[0]} must be a list of texts")
    return [one.replace("\r\n", "\n") for one in value]


ADAPTERS = (
    Adapter("MT-Bench", lambda row: isinstance(row.get("turns", row.get("prompt")), list), _mt_bench),
    Adapter("MultiChallenge", lambda row: "CONVERSATION" in row and "TARGET_QUESTION" in row, _multi_challenge),
)
