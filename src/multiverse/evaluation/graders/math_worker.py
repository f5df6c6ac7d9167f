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
    # Not by its full name, which would import the whole package.
    sys.path.insert(0, str(Path(__file__).parent))
    jail = import_module("jail")
    warm = compare("1", "\\boxed{1}")  # loads lazy imports before the file system is restricted
    jail.confine(memory=MEMORY, seconds=None, file_size=0, writable=())
    assert warm["right"], warm
    print("ready", file=out, flush=True)
    for line in sys.stdin:
        expected, answer = json.loads(line)
        print(json.dumps(compare(expected, answer)), file=out, flush=True)


def compare(expected: str, answer: str) -> dict[str, Any]:
    """Whether the two are equivalent, and the error if the comparison failed."""
    from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse, verify

    latex, plain = LatexExtractionConfig(boxed_match_priority=0), ExprExtractionConfig()
    try:
        # Without the library's time limits, which need the main thread and can be caught: `MathGrader` has its own.
        gold = parse(f"\\boxed{{{expected}}}", [latex, plain], parsing_timeout=None)
        found = parse(answer, [latex, plain], parsing_timeout=None)
        if not gold:
            return {"right": False, "error": f"the expected answer {expected!r} cannot be read as mathematics"}
        if not found:
            return {"right": False, "error": "no mathematics can be read in the answer"}
        return {"right": bool(verify(gold, found, timeout_seconds=None)), "error": ""}
    except MemoryError:
        return {"right": False, "error": "the comparison took too much memory"}
    except Exception as error:  # of any class: caused by the answer
        return {"right": False, "error": f"the comparison failed ({type(error).__name__}: {error})"[:300]}


if __name__ == "__main__":
    main()
