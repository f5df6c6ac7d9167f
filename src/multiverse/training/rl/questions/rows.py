"""A row of a file, under any of the field names that people use, as a question with what judges its answers."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import Any, NamedTuple

from ....errors import DataError
from ....evaluation.benchmarks import ifeval, livecodebench
from ....evaluation.graders.choice import LETTERS
from ....structure import last_box
from .config import QuestionSource

QUESTION_FIELDS = ("messages", "question", "problem", "prompt", "instruction", "query", "question_content", "input")
ANSWER_FIELDS = (
    *("answer", "final_answer", "expected_answer", "reference", "reference_answer", "ground_truth", "gold", "target", "label"),
    *("reward_model.ground_truth", "solution", "output", "response"),
)
"""Fields in the order in which they are looked for; a dot leads into an object (verl's files have one)."""

_CASES, _ASSERTS = ("tests", "test_cases", "input_output"), ("test_list", "test", "asserts")
_CHOICES = ("choices", "options")
_MARKED = re.compile(r"####\s*(.+?)\s*$", re.DOTALL)


class Row(NamedTuple):
    """A question as it is read.

    Attributes:
        id: what the file calls it; `None` without a name.
    """

    messages: tuple[dict[str, str], ...]
    reference: str | None
    extra: dict[str, Any]
    id: str | None


def read_row(value: Any, source: QuestionSource, number: int) -> Row:
    """The question in a record.

    Args:
        number: of the row, from 0, for what has no name.

    Raises:
        DataError: it has no question, nothing that judges an answer, or something that cannot be read.
    """
    if not isinstance(value, Mapping):
        raise DataError(f"the record is a {type(value).__name__}, not an object with a question and an answer")
    messages, said = _messages(value, source)
    check, extra = _check(value, source, number)
    right = _references(value, source)
    reference = right[0] if right else None
    if reference is None and said is not None:
        reference = answer_in(said)
    if "choices" in extra:
        reference, messages = _lettered(reference, extra["choices"], messages)
    if check in ("auto", "math", "exact", "number", "choice") and not (reference or "").strip():
        wanted = source.answer_field or "/".join(ANSWER_FIELDS[:6])
        raise DataError(f"it has no answer ({wanted}): its fields are {', '.join(map(str, value)) or 'none'}")
    if check in ("auto", "math", "exact", "number") and len(right) > 1:
        extra["also"] = right[1:]
    if source.append:
        *earlier, last = messages
        messages = (*earlier, {**last, "content": f"{last['content'].rstrip()}\n\n{source.append}"})
    name = next((str(value[key]) for key in ("id", "unique_id", "question_id", "key") if value.get(key) is not None), None)
    return Row(messages, reference, {"check": check, **extra}, name)


def answer_in(text: str) -> str:
    """The answer in a solution: what follows ``####`` (GSM8K), else the content of its last box, else all of it."""
    if (marked := _MARKED.search(text)) is not None:
        answer = marked[1].rpartition("####")[2].strip()
        return re.sub(r"(?<=\d),(?=\d{3}\b)", "", answer)
    box = last_box(text)
    return text.strip() if box is None else box


def _found(value: Mapping[str, Any], names: Sequence[str]) -> Any:
    """The value of the first of these fields that is there and not null."""
    for name in names:
        found: Any = value
        for part in name.split("."):
            found = found.get(part) if isinstance(found, Mapping) else None
        if found is not None:
            return found
    return None


def _messages(value: Mapping[str, Any], source: QuestionSource) -> tuple[tuple[dict[str, str], ...], str | None]:
    """The chat up to the question, and the answer that follows it in the file, if it does."""
    names = (source.question_field,) if source.question_field is not None else QUESTION_FIELDS
    found = _found(value, names)
    if found is None:
        wanted = source.question_field or "/".join(QUESTION_FIELDS[:4])
        raise DataError(f"it has no question ({wanted}): its fields are {', '.join(map(str, value)) or 'none'}")
    if isinstance(found, str):
        if not found.strip():
            raise DataError("its question is empty")
        return ({"role": "user", "content": found.strip()},), None
    if not isinstance(found, list) or not found:
        raise DataError(f"its question is a {type(found).__name__}: it has to be a text, or a list of messages")
    chat = []
    for place, message in enumerate(found, 1):
        role, content = (message.get("role"), message.get("content")) if isinstance(message, Mapping) else (None, None)
        if role not in ("system", "user", "assistant") or not isinstance(content, str):
            raise DataError(f"message {place} is not valid: it needs a role (system, user or assistant) and a text as content")
        chat.append({"role": str(role), "content": content})
    said = chat.pop()["content"] if chat[-1]["role"] == "assistant" else None
    if not chat or chat[-1]["role"] != "user" or not chat[-1]["content"].strip():
        raise DataError("its messages do not end with a question of the user's")
    return tuple(chat), said


def _references(value: Mapping[str, Any], source: QuestionSource) -> list[str]:
    """The right answer, and others that are as right (a list in the file); none if it has none."""
    names = (source.answer_field,) if source.answer_field is not None else ANSWER_FIELDS
    found = _found(value, names)
    return [_reference(one) for one in (found if isinstance(found, list) else [found]) if one is not None]


def _reference(found: Any) -> str:
    if isinstance(found, bool):
        return "true" if found else "false"
    if isinstance(found, int | float):
        return f"{found:g}" if isinstance(found, float) and found.is_integer() else str(found)
    if not isinstance(found, str):
        raise DataError(f"its answer is a {type(found).__name__}: it has to be a text or a number")
    return answer_in(found)


def _check(value: Mapping[str, Any], source: QuestionSource, number: int) -> tuple[str, dict[str, Any]]:
    """The check of a row, and what it needs beside the reference."""
    check = source.check or "auto"
    if check == "instructions" or (check == "auto" and value.get("instruction_id_list") is not None):
        asked = ifeval.read({"key": number, "prompt": "-", **value}, number)
        return "instructions", dict(asked.data)
    if check in ("auto", "code") and (found := _tests(value, number)):
        return "code", found
    if check == "code":
        raise DataError(f"it has no tests ({', '.join((*_CASES, 'public_test_cases', *_ASSERTS))})")
    if check in ("auto", "choice") and (choices := _found(value, _CHOICES)) is not None:
        return "choice", {"choices": _texts(choices)}
    return check, {}


def _tests(value: Mapping[str, Any], number: int) -> dict[str, Any]:
    """Tests of a program: cases with input and output, those of LiveCodeBench, or lines that assert; empty without any."""
    if value.get("public_test_cases") is not None:
        row = {"question_id": number, "question_content": "-", **value}
        return {"cases": [list(case) for case in livecodebench.read(row, number).data["cases"]]}
    asserts = _found(value, _ASSERTS)
    if isinstance(asserts, str) and "def check(" in asserts and value.get("entry_point"):  # HumanEval
        return {"asserts": f"{asserts}\ncheck({value['entry_point']})"}
    if isinstance(asserts, str) or (isinstance(asserts, list) and all(isinstance(line, str) for line in asserts)):
        setup = str(value.get("test_setup_code") or "")
        lines = [asserts] if isinstance(asserts, str) else asserts
        return {"asserts": "\n".join([setup, *lines])} if "".join(lines).strip() else {}
    found = _found(value, _CASES)
    if isinstance(found, Mapping):  # APPS, TACO: lists of inputs and outputs
        inputs, outputs = found.get("inputs"), found.get("outputs")
        if not isinstance(inputs, list) or not isinstance(outputs, list) or len(inputs) != len(outputs):
            raise DataError("its tests need as many inputs as outputs, as lists")
        function = found.get("fn_name")
        found = [{"input": one, "output": other, "function": function} for one, other in zip_longest(inputs, outputs)]
    if not isinstance(found, list) or not found:
        return {}
    cases = []
    for place, case in enumerate(found, 1):
        if not isinstance(case, Mapping) or "input" not in case or "output" not in case:
            raise DataError(f"test {place} has no input and output")
        cases.append([*(_text(case[key]) for key in ("input", "output")), case.get("function") or case.get("fn_name")])
    return {"cases": cases}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else "\n".join(map(str, value)) if isinstance(value, list) else str(value)


def _texts(choices: Any) -> list[str]:
    """The texts of choices: a list, an object by letter, or ARC's lists of texts and labels."""
    if isinstance(choices, Mapping):
        choices = choices["text"] if isinstance(choices.get("text"), list) else [choices[key] for key in sorted(choices)]
    if not isinstance(choices, list) or not 2 <= len(choices) <= len(LETTERS):
        raise DataError(f"its choices are not a list of 2 to {len(LETTERS)} texts")
    return [str(choice) for choice in choices]


def _lettered(
    reference: str | None, choices: Sequence[str], messages: tuple[dict[str, str], ...]
) -> tuple[str, tuple[dict[str, str], ...]]:
    """The letter of the right choice, and the chat with the choices at the end of the question, unless they are in it."""
    letters = LETTERS[: len(choices)]
    bare = (reference or "").strip().strip("().").upper()
    if bare in letters and len(bare) == 1:
        letter = bare
    elif reference in choices:
        letter = letters[choices.index(reference)]
    elif bare.isdecimal() and int(bare) < len(choices):
        letter = letters[int(bare)]
    else:
        raise DataError(f"its answer {reference!r} is none of its {len(choices)} choices: give a letter, an index or the text")
    *earlier, last = messages
    if not all(choice in last["content"] for choice in choices):
        listed = "\n".join(f"{name}) {choice}" for name, choice in zip(letters, choices, strict=True))
        last = {**last, "content": f"{last['content']}\n\n{listed}"}
    return letter, (*earlier, last)
