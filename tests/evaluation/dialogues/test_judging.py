"""Replies of judges: one verdict for each item, in order, and nothing else."""

from __future__ import annotations

import json
from typing import Any

import pytest

from multiverse.evaluation.dialogues.judging import read_verdicts


def verdict(item: int = 1, met: Any = True, reason: Any = "so") -> dict[str, Any]:
    return {"item": item, "reason": reason, "met": met}


GOOD = json.dumps({"verdicts": [verdict(1), verdict(2, False)]})


@pytest.mark.parametrize("text", [GOOD, f"```json\n{GOOD}\n```", f"\n{GOOD}  "])
def test_valid_replies(text: str) -> None:
    decisions, problem = read_verdicts(text, 2)
    assert problem == ""
    assert [(one.met, one.reason) for one in decisions] == [(True, "so"), (False, "so")]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "it is empty"),
        ("I'm sorry, I can't.", "it is not one JSON object"),
        (GOOD[:-5], "it is not one JSON object"),
        (f"Here it is: {GOOD}", "it is not one JSON object"),
        (f"{GOOD} {GOOD}", "it is not one JSON object"),
        ("[true, false]", "it must be an object with the one field verdicts"),
        (json.dumps({"verdicts": [verdict(1), verdict(2)], "score": 1}), "it must be an object with the one field verdicts"),
        (json.dumps({"verdicts": [verdict(1)]}), "it has 1 verdicts, and the checklist has 2 questions"),
        (json.dumps({"verdicts": [verdict(1), verdict(2), verdict(3)]}), "it has 3 verdicts"),
        (json.dumps({"verdicts": {"1": True}}), "it has no list of verdicts"),
        (json.dumps({"verdicts": [verdict(2), verdict(1)]}), "verdict 1 is on item 2"),
        (json.dumps({"verdicts": [verdict(1), verdict(1)]}), "verdict 2 is on item 1"),
        (json.dumps({"verdicts": [verdict(1), verdict(2, "yes")]}), "verdict 2 has met = 'yes'"),
        (json.dumps({"verdicts": [verdict(1), verdict(2, 1)]}), "verdict 2 has met = 1"),
        (json.dumps({"verdicts": [verdict(1), verdict(2, None)]}), "verdict 2 has met = None"),
        (json.dumps({"verdicts": [verdict(1), verdict(2, reason=None)]}), "verdict 2 has no short reason"),
        (json.dumps({"verdicts": [verdict(1), {"item": 2, "met": True}]}), "verdict 2 must be an object with item, reason"),
        (json.dumps({"verdicts": [verdict(1), "yes"]}), "verdict 2 must be an object"),
        ('{"verdicts": [], "verdicts": []}', "a field stands twice"),
        ("[" * 100_000, "it has|nested too deeply|not one JSON"),
        ("x" * 200_000, "it has 200,000 characters"),
        ('{"verdicts": NaN}', "no list of"),
    ],
)
def test_replies_that_are_not_valid(text: str, problem: str) -> None:
    import re

    decisions, found = read_verdicts(text, 2)
    assert decisions == ()
    assert re.search(problem, found), found
