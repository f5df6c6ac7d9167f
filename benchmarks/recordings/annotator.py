"""Serve the scripted annotator of a checkout's tests: python annotator.py TRACES, with the checkout on the path.

It writes the traces that it knows to TRACES, prints its URL, and serves until its standard input is closed.
"""

from __future__ import annotations

import json
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

ROWS = 9
INSTANCE = {"kind": "collective", "parts": [[1, 1], [2, 2]], "reason": "neither needs the other"}
"""What an audit finds in every trace: more than two sentences each."""


def main() -> None:
    annotator, endpoint = import_module("tests.curation.annotator"), import_module("tests.curation.endpoint")
    rows = annotator.planted_rows(ROWS)
    traces = [row.trace for row in rows]
    records = [{"question": trace.question, "reasoning": trace.reasoning, "answer": trace.answer} for trace in traces]
    Path(sys.argv[1]).write_text("".join(f"{json.dumps(record)}\n" for record in records))

    def answer(stage: str, messages: Any, row: Any) -> str:
        if stage == "audit":
            return json.dumps({"instances": [INSTANCE]})
        return str(annotator.answer(stage, messages, row))

    planted = {trace.id: row for trace, row in zip(traces, rows, strict=True)}
    with endpoint.serving(endpoint.Endpoint(answer, planted)) as up:
        print(up.url, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
