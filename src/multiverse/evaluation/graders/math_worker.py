"""The process that compares mathematics: a line in, a line out. Run by `MathGrader`, as a program.

It reads what a model wrote with libraries that evaluate expressions, so it shuts itself in before it reads anything.
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
    """Answer until there are no more questions."""
    # What the libraries print is no answer.
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    # Not by its full name, under which it would bring the whole package along.
    sys.path.insert(0, str(Path(__file__).parent))
    jail = import_module("jail")
    warm = compare("1", "\\boxed{1}")  # also loads what is loaded at the first use, before the files are shut
    jail.confine(memory=MEMORY, seconds=None, file_size=0, writable=())
    assert warm["right"], warm
    print("ready", file=out, flush=True)
    for line in sys.stdin:
        expected, answer = json.loads(line)
        print(json.dumps(compare(expected, answer)), file=out, flush=True)


def compare(expected: str, answer: str) -> dict[str, Any]:
    """Whether the two are worth the same, and what went wrong."""
    from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse, verify

    latex, plain = LatexExtractionConfig(boxed_match_priority=0), ExprExtractionConfig()
    try:
        # The time limits of these need the main thread and can be caught; the one that counts is the grader's.
        gold = parse(f"\\boxed{{{expected}}}", [latex, plain], parsing_timeout=None)
        found = parse(answer, [latex, plain], parsing_timeout=None)
        if not gold:
            return {"right": False, "error": f"the expected answer {expected!r} cannot be read as mathematics"}
        if not found:
            return {"right": False, "error": "no mathematics can be read in the answer"}
        return {"right": bool(verify(gold, found, timeout_seconds=None)), "error": ""}
    except MemoryError:
        return {"right": False, "error": "the comparison took too much memory"}
    except Exception as error:  # of whatever kind: it says something about the answer, not about us
        return {"right": False, "error": f"the comparison failed ({type(error).__name__}: {error})"[:300]}


if __name__ == "__main__":
    main()
