"""Programs: run against their tests in the sandbox, one process per test."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

from .sandbox import Call, Limits, Outcome, run
from .verdict import Verdict


@dataclass(frozen=True)
class Case:
    """One test.

    Attributes:
        given: standard input of the program; for a function, its arguments as JSON, one per line.
        expected: expected output; for a function, its expected result as JSON.
        function: name of the function to call; `None` runs the program.
    """

    given: str
    expected: str
    function: str | None = None


_WORDS = {
    "time": "it took longer than {seconds:g} seconds",
    "memory": "it took more than its memory",
    "output": "it wrote more than it may",
    "forbidden": "it tried what the sandbox forbids",
    "error": "it failed",
}


def grade_code(answer: str, cases: Sequence[Case], limits: Limits | None = None) -> Verdict:
    """Whether the program in an answer passes all of its tests; stops at the first failure."""
    program = program_in(answer)
    limits = limits if limits is not None else Limits()
    if program is None:
        return Verdict(False, "", "there is no program in the answer")
    for number, case in enumerate(cases, 1):
        problem = _fails(program, case, limits)
        if problem is not None:
            return Verdict(False, program, f"test {number} of {len(cases)}: {problem}")
    return Verdict(True, program)


def program_in(answer: str) -> str | None:
    """The last fenced block of Python (or of no language) in an answer; `None` if there is none."""
    fences = re.findall(r"```[ \t]*(\w*)[^\n]*\n(.*?)(?:```|\Z)", answer, re.DOTALL)
    programs = [text for language, text in fences if language.lower() in ("", "python", "python3", "py") and text.strip()]
    return programs[-1] if programs else None


def _fails(program: str, case: Case, limits: Limits) -> str | None:
    """Why a test failed; `None` if it passed."""
    if case.function is None:
        outcome = run(program, stdin=case.given, limits=limits)
        good = outcome.status == "ok" and same_output(outcome.output, case.expected)
    else:
        arguments = [json.loads(line) for line in case.given.split("\n") if line.strip()]
        outcome = run(program, call=Call(case.function, arguments), limits=limits)
        good = outcome.status == "ok" and outcome.result == json.loads(case.expected)
    return None if good else _problem(outcome, case, limits)


def _problem(outcome: Outcome, case: Case, limits: Limits) -> str:
    if outcome.status == "ok":
        found: Any = outcome.output.strip() if case.function is None else json.dumps(outcome.result)
        return f"it gave {found[:100]!r}, and not {case.expected.strip()[:100]!r}"
    reason = outcome.detail.splitlines()[-1] if outcome.detail else ""
    words = _WORDS[outcome.status].format(seconds=limits.seconds)
    return f"{words} ({reason[:200]})" if reason else words


def same_output(found: str, expected: str) -> bool:
    """Whether two outputs are the same, as LiveCodeBench compares them: line by line, without the blanks around lines and
    text; a line of numbers by their values."""
    ours, theirs = ([line.strip() for line in text.strip().split("\n")] for text in (found, expected))
    return len(ours) == len(theirs) and all(
        one == other or _same_numbers(one, other) for one, other in zip(ours, theirs, strict=True)
    )


def _same_numbers(found: str, expected: str) -> bool:
    try:
        return [Decimal(word) for word in found.split()] == [Decimal(word) for word in expected.split()]
    except InvalidOperation:
        return False
