"""A small stand-in for curation: two stages, answers that can be checked, documents that fork once.

python -m tests.curation.fake URL FOLDER ROWS    # a run in a process of its own, to be killed
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from multiverse.curation.config import BudgetConfig, CurationConfig, EndpointConfig
from multiverse.curation.job import Job, Result
from multiverse.curation.run import CurateRow
from multiverse.curation.types import Ask, Curated, Outcome, Rejected, Request, Trace
from multiverse.structure import MULTIVERSE, Block, Document

ATTEMPTS = 3


def traces(number: int) -> Iterator[Trace]:
    """Traces of five sentences; the first two and the last three belong together."""
    for index in range(number):
        sentences = tuple(f"Sentence {part} of row {index} — ünïcode 🙂. " for part in range(1, 6))
        yield Trace(f"rows.jsonl:{index + 1}", f"What is {index}?", sentences, f"Answer: {index}", "rows.jsonl", index + 1)


class Planted(dict[str, str]):
    """What is planted in a row is its own id, whatever row is asked for."""

    def __missing__(self, row: str) -> str:
        return row


def answer(stage: str, messages: list[dict[str, str]], row: str) -> str:  # noqa: ARG001
    """What a good model would answer."""
    if stage == "split":
        return json.dumps({"parts": [[1, 2], [3, 5]]})
    return json.dumps({"text": f"{row} comes to its end"})


async def curate(trace: Trace, ask: Ask) -> Outcome:
    """Two paths, and a conclusion."""
    attempts: dict[str, int] = {}
    said: dict[str, Any] = {}
    for stage in ("split", "conclude"):
        messages: tuple[tuple[str, str], ...] = (("user", f"stage: {stage}\nrow: {trace.id}\n\n{trace.reasoning}"),)
        error = ""
        for attempt in range(ATTEMPTS):
            attempts[stage] = attempt + 1
            got = await ask(Request(trace.id, stage, attempt, messages, max_tokens=200))
            error = _error(stage, got.text, got.finish_reason)
            if not error:
                said[stage] = json.loads(got.text)
                break
            messages = (*messages, ("assistant", got.text), ("user", f"stage: {stage}\nrow: {trace.id}\n{error}"))
        else:
            return Rejected(trace, stage, error, f"{error}: {messages[-2][1]}", attempts)
    paths = tuple(("".join(trace.sentences[first - 1 : last]).strip(),) for first, last in said["split"]["parts"])
    document = Document((Block(("the first", "the second"), paths, said["conclude"]["text"]),), trace.answer)
    return Curated(trace, document, document, {"refilled": 0.0, "final": 0.0}, (), attempts)


def _error(stage: str, text: str, reason: str) -> str:
    if reason == "length":
        return "cut short"
    try:
        said = json.loads(text)
        good = said["parts"] == [[1, 2], [3, 5]] if stage == "split" else isinstance(said["text"], str)
        text.encode()
        json.dumps(said, ensure_ascii=False).encode()
    except (ValueError, LookupError, TypeError):
        return "unreadable"
    if any(tag in text for tag in MULTIVERSE.tags):
        return "tag"
    return "" if good else "wrong numbers"


def start(
    url: str,
    out: Path,
    rows: int,
    *,
    fresh: bool = False,
    budget: BudgetConfig | None = None,
    curate: CurateRow = curate,
    **endpoint: Any,
) -> Result:
    """Start a run over this many rows."""
    how = EndpointConfig(url, **{"model": "fake", "timeout": 5.0, "backoff": 0.01, "concurrency": 8, **endpoint})
    chosen = BudgetConfig(1, 10) if budget is None else budget
    job = Job(out, how, CurationConfig(validation=0.2), "rows.jsonl", rows, chosen, documents=True)
    return job.start(lambda: traces(rows), fresh=fresh, curate=curate)


if __name__ == "__main__":
    result = start(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
    if result.ended is not None:
        raise result.ended
