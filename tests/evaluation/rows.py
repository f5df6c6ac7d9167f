"""Two made-up rows of each published benchmark, in its own columns, and answers to them."""

from __future__ import annotations

import base64
import json
import pickle
import zlib
from pathlib import Path
from typing import Any

ADD = "a, b = map(int, input().split())\nprint(a + b)"
DOUBLE = "class Solution:\n    def double(self, xs: List[int]) -> List[int]:\n        return [2 * x for x in xs]"


def packed(tests: list[dict[str, str]]) -> str:
    """Private tests as the data set packs them."""
    return base64.b64encode(zlib.compress(pickle.dumps(json.dumps(tests)))).decode()


def stdin(given: str, expected: str) -> dict[str, str]:
    return {"input": given, "output": expected, "testtype": "stdin"}


def functional(given: str, expected: str) -> dict[str, str]:
    return {"input": given, "output": expected, "testtype": "functional"}


def lcb(name: str, content: str, starter: str, public: Any, private: Any, function: str | None) -> dict[str, Any]:
    return {
        "question_title": name,
        "question_content": content,
        "platform": "atcoder",
        "question_id": name,
        "contest_id": "made up",
        "contest_date": "2026-01-01T00:00:00",
        "starter_code": starter,
        "difficulty": "easy",
        "public_test_cases": json.dumps(public),
        "private_test_cases": private,
        "metadata": json.dumps({"func_name": function} if function else {}),
    }


ROWS: dict[str, list[dict[str, Any]]] = {
    "aime24": [
        {"id": 60, "problem": "What is $40+2$?", "solution": "42.", "answer": "042", "url": "none", "year": "2024"},
        {"ID": "2024-II-4", "Problem": "What is $2^5$?", "Solution": "32.", "Answer": 32},
    ],
    "aime25": [
        {"id": "0", "problem": "What is $6 \\cdot 7$?", "answer": "42"},
        {"id": "1", "problem": "What is $100-1$?", "answer": "99"},
    ],
    "math500": [
        {
            "problem": "What is half of one?",
            "solution": "$\\boxed{\\frac{1}{2}}$",
            "answer": "\\frac{1}{2}",
            "subject": "Algebra",
            "level": 1,
            "unique_id": "test/algebra/1.json",
        },
        {
            "problem": "Name the interval.",
            "solution": "$\\boxed{[0,1)}$",
            "answer": "[0,1)",
            "subject": "Precalculus",
            "level": 2,
            "unique_id": "test/precalculus/2.json",
        },
    ],
    "gpqa": [
        {
            "Question": "What colour is the sky?",
            "Correct Answer": "Blue",
            "Incorrect Answer 1": "Green",
            "Incorrect Answer 2": "Red\n",
            "Incorrect Answer 3": "Black",
            "Record ID": "rec1",
            "Subdomain": "Optics",
        },
        {
            "Question": "How heavy is it?",
            "Correct Answer": "10^-8 kg",
            "Incorrect Answer 1": "10^-9 kg",
            "Incorrect Answer 2": "10^-4 kg",
            "Incorrect Answer 3": "10^-11 kg",
            "Record ID": "rec2",
            "Subdomain": "Mechanics",
        },
    ],
    "ifeval": [
        {
            "key": 1000,
            "prompt": "Write about tea, without commas.",
            "instruction_id_list": ["punctuation:no_comma"],
            "kwargs": [{}],
        },
        {
            "key": 1001,
            "prompt": "Write at least 3 words, in small letters.",
            "instruction_id_list": ["length_constraints:number_words", "change_case:english_lowercase"],
            "kwargs": [{"relation": "at least", "num_words": 3, "language": None}, {"num_words": None}],
        },
    ],
    "livecodebench": [
        lcb("add", "Add two numbers.", "", [stdin("1 2\n", "3\n")], packed([stdin("10 20", "30")]), None),
        lcb(
            "double",
            "Double all.",
            "class Solution:\n    def double(self, xs: List[int]) -> List[int]:\n        ",
            [functional("[1, 2]", "[2, 4]")],
            json.dumps([functional("[]", "[]")]),
            "double",
        ),
    ],
}

RIGHT: dict[str, list[str]] = {
    "aime24": ["So it is \\boxed{42}.", "32"],
    "aime25": ["\\boxed{42}", "The answer is $99$."],
    "math500": ["\\boxed{0.5}", "\\boxed{[0, 1)}"],
    "gpqa": ["\\boxed{Blue}", "It is 10^-8 kg."],
    "ifeval": ["Tea is good.", "tea is a very good drink"],
    "livecodebench": [f"Here:\n```python\n{ADD}\n```", f"```python\n{DOUBLE}\n```"],
}
WRONG: dict[str, list[str]] = {
    "aime24": ["\\boxed{43}", ""],
    "aime25": ["\\boxed{42.5}", "42"],
    "math500": ["\\boxed{\\frac{1}{3}}", "\\boxed{[0, 1]}"],
    "gpqa": ["\\boxed{Green}", "Blue or 10^-8 kg or 10^-9 kg"],
    "ifeval": ["Tea, is good.", "TEA IS GOOD"],
    "livecodebench": ["```python\nprint(3)\n```", "It is easy."],
}


def write(folder: Path, name: str) -> Path:
    """The rows of a benchmark as JSON lines."""
    path = folder / f"{name}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS[name]), encoding="utf-8")
    return path
