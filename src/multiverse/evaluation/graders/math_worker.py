"""The worker process of `MathGrader`: one JSON line in, one JSON line out.

It parses untrusted text with libraries that evaluate expressions, so it confines itself before it reads any input.
"""

from __future__ import annotations

import json
import os
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

MEMORY = 4 << 30
"""Bytes of address space."""


def main() -> None:
    """Answer requests until standard input is closed."""
    # Libraries may print to standard output: keep it for results.
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    # Not by their full names, which would import the whole package.
    sys.path.insert(0, str(Path(__file__).parent))
    jail = import_module("jail")
    for pair in (("1", "\\boxed{1}"), ("\\sum_{k=1}^2 k", "\\boxed{3}")):  # lazy imports, before the file system is restricted
        warm = compare(*pair)
        assert warm["right"], warm
    jail.confine(memory=MEMORY, seconds=None, file_size=0, writable=())
    print("ready", file=out, flush=True)
    for line in sys.stdin:
        expected, answer = json.loads(line)
        print(json.dumps(compare(expected, answer)), file=out, flush=True)


def compare(expected: str, answer: str) -> dict[str, Any]:
    """Whether an answer is equivalent to the expected one, what was taken as the answer, and the error if it failed.

    By our own reader; what that cannot read is left to math-verify.
    """
    equivalence = import_module("equivalence")
    taken = ""
    try:
        for taken in equivalence.candidates(answer):
            right = equivalence.equivalent(expected, taken)
            if right is not None:
                return {"right": right, "taken": taken, "error": ""}
        return {"taken": taken, **_by_math_verify(expected, answer)}
    except MemoryError:
        return {"right": False, "taken": taken, "error": "the comparison took too much memory"}
    except Exception as error:  # of any class: caused by the answer
        return {"right": False, "taken": taken, "error": f"the comparison failed ({type(error).__name__}: {error})"[:300]}


def _by_math_verify(expected: str, answer: str) -> dict[str, Any]:
    from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse, verify

    latex, plain = LatexExtractionConfig(boxed_match_priority=0), ExprExtractionConfig()
    # Without the library's time limits, which need the main thread and can be caught: `MathGrader` has its own.
    gold = parse(f"\\boxed{{{expected}}}", [latex, plain], parsing_timeout=None)
    found = parse(answer, [latex, plain], parsing_timeout=None)
    if not gold:
        return {"right": False, "error": f"the expected answer {expected!r} cannot be read as mathematics"}
    if not found:
        return {"right": False, "error": "no mathematics can be read in the answer"}
    # More digits than by default, which take small numbers for equal.
    return {"right": bool(verify(gold, found, float_rounding=40, numeric_precision=50, timeout_seconds=None)), "error": ""}


if __name__ == "__main__":
    main()
