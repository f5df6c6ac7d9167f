"""LiveCodeBench: programs that pass tests, by reading and printing or as a function."""

from __future__ import annotations

import base64
import binascii
import io
import json
import pickle
import zlib
from typing import Any, NoReturn

from ...errors import DataError
from ..graders.code import Case, grade_code
from ..graders.verdict import Verdict
from .base import Benchmark, Hub, Question, Row, cell, optional

_STDIN = "Write a Python program that reads the input from standard input and prints the answer to standard output."
_FUNCTION = "Write it in Python, beginning with this code:\n```python\n{starter}\n```"
_FORM = "Put the whole program in one block that begins with ```python and ends with ```."


def read(row: Row, number: int) -> Question:
    """A row with a problem, its starter code if it has any, and its tests, public and private."""
    starter = str(optional(row, "starter_code") or "").strip()
    wanted = _FUNCTION.format(starter=starter) if starter else _STDIN
    tests = [
        *_tests(cell(row, number, "public_test_cases"), number),
        *_tests(optional(row, "private_test_cases") or "[]", number),
    ]
    function = _json(optional(row, "metadata") or "{}", number).get("func_name")
    try:
        cases = tuple(_case(test, function) for test in tests)
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"row {number + 1} has a test that cannot be read ({type(error).__name__}: {error})") from None
    if not cases:
        raise DataError(f"row {number + 1} has no tests")
    return Question(
        id=str(cell(row, number, "question_id")),
        text=f"{str(cell(row, number, 'question_content')).strip()}\n\n{wanted}\n\n{_FORM}",
        expected=f"a program that passes {len(cases)} tests",
        data={"cases": cases},
    )


def grade(asked: Question, answer: str) -> Verdict:
    """Grade by running the program against all tests, in the sandbox."""
    return grade_code(answer, asked.data["cases"])


def _case(test: dict[str, Any], function: str | None) -> Case:
    given, expected = str(test["input"]), str(test["output"])
    if test.get("testtype", "stdin") == "stdin":
        return Case(given, expected)
    if not function:
        raise ValueError("a functional test, and no func_name in the metadata")
    json.loads(expected)
    return Case(given, expected, str(function))


def _tests(cell: Any, number: int) -> list[dict[str, Any]]:
    """Tests as the data set holds them: a list, JSON, or JSON that was pickled, compressed and written in base 64."""
    if isinstance(cell, list):
        return [dict(test) for test in cell]
    try:
        return list(json.loads(cell))
    except ValueError:
        pass
    try:
        pickled = zlib.decompress(base64.b64decode(cell))
        return list(json.loads(_TextOnly(io.BytesIO(pickled)).load()))
    except (ValueError, TypeError, binascii.Error, zlib.error, pickle.UnpicklingError, EOFError) as error:
        raise DataError(f"row {number + 1} has private tests that cannot be read ({error})") from None


class _TextOnly(pickle.Unpickler):
    """Unpickles text only: every global is refused, since a pickle can call any function."""

    def find_class(self, module: str, name: str) -> NoReturn:
        raise pickle.UnpicklingError(f"it wants {module}.{name}, and only text is expected")


def _json(cell: Any, number: int) -> dict[str, Any]:
    if isinstance(cell, dict):
        return cell
    try:
        return dict(json.loads(cell))
    except (ValueError, TypeError) as error:
        raise DataError(f"row {number + 1} has metadata that is no JSON object ({error})") from None


BENCHMARKS = (
    # The newest release of the benchmark; earlier ones are files of their own.
    Benchmark(
        "livecodebench",
        "LiveCodeBench",
        grade,
        hub=Hub("livecodebench/code_generation_lite", "test", files="test6.jsonl"),
        read=read,
        grades="content",
    ),
)
