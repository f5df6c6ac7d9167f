"""A folder that version 0.1.0 left half-way is resumed without a request.

`recorded/` holds that run: its manifest, its outcomes, and its store as JSON lines. A completion is found only if the whole
rendered request is the same, so the test fails if a prompt changes, or an error message that a retry quotes. Such a change
makes stored completions useless; record the folder anew if it is intended.
"""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

from multiverse.curation import manifest
from multiverse.curation.config import CurationConfig, EndpointConfig
from multiverse.curation.job import Job
from multiverse.curation.sentences import cut
from multiverse.curation.store import Store
from multiverse.curation.types import Trace

RECORDED = Path(__file__).parent / "recorded"
CONFIG = CurationConfig(judge=True)
NOBODY = EndpointConfig("http://127.0.0.1:9/v1", "model", seed=7, tries=1)


def test_a_recorded_run_is_resumed_without_a_request(tmp_path: Path) -> None:
    whole = (RECORDED / "outcomes.jsonl").read_bytes()
    rows = [json.loads(line) for line in whole.splitlines()]
    traces = [
        Trace(row["id"], row["question"], cut(row["reasoning"]), row["answer"], row["source"], row["line"]) for row in rows
    ]
    recorded = json.loads((RECORDED / "manifest.json").read_text())
    description = manifest.create(CONFIG, NOBODY, "planted.jsonl", len(rows))
    assert list(description["settings"].items()) == list(recorded["settings"].items())

    Store(tmp_path / "answers.sqlite").close()
    with closing(sqlite3.connect(tmp_path / "answers.sqlite")) as file, (RECORDED / "answers.jsonl").open() as lines:
        file.executemany("INSERT INTO answers VALUES (?, ?, ?, ?, ?, ?, ?, ?)", map(json.loads, lines))
        file.commit()
    (tmp_path / "manifest.json").write_text(json.dumps({**description, **recorded}))
    (tmp_path / "outcomes.jsonl").write_bytes(whole[: whole.index(b"\n") + 20])  # killed while the second line was written

    result = Job(tmp_path, NOBODY, CONFIG, "planted.jsonl", len(rows)).start(lambda: traces)
    assert (result.ended, result.paid.calls) == (None, 0)
    assert (tmp_path / "outcomes.jsonl").read_bytes() == whole
    assert (tmp_path / "set_aside.jsonl").read_bytes().splitlines() == [
        line for line in whole.splitlines() if json.loads(line)["status"] == "set aside"
    ]
