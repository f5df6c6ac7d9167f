"""Curation against a local endpoint that knows the planted structure, behaving well and badly."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from multiverse.curation.config import CurationConfig, EndpointConfig
from multiverse.curation.job import Job, Result
from multiverse.structure import parse
from tests.curation import endpoint as served
from tests.curation.annotator import Planted, answer, planted_rows, recovered, whole


def curated(
    folder: Path, rows: Sequence[Planted], timeout: float = 60, **how: Any
) -> tuple[Result, list[dict[str, Any]], served.Endpoint]:
    """A run over planted rows: what came of it, row by row."""
    planted = {row.trace.id: row for row in rows}
    with served.serving(served.Endpoint(answer, planted, **how)) as up:
        endpoint = EndpointConfig(up.url, "model", timeout=timeout, backoff=0.01, tries=12)
        job = Job(folder / "out", endpoint, CurationConfig(), "planted.jsonl", len(rows))
        result = job.start(lambda: [row.trace for row in rows])
    lines = (folder / "out" / "outcomes.jsonl").read_text(encoding="utf-8").splitlines()
    return result, [json.loads(line) for line in lines], up


@pytest.mark.parametrize("number", [40, pytest.param(300, marks=pytest.mark.slow)])
def test_planted_groups_are_recovered(tmp_path: Path, number: int) -> None:
    rows = planted_rows(number)
    result, found, up = curated(tmp_path, rows)
    assert result.ended is None
    right = [
        row["status"] == "curated" and recovered(parse(row["document"]), one) for row, one in zip(found, rows, strict=True)
    ]
    assert sum(right) >= 0.99 * number
    assert set(up.answered.values()) == {1}


@pytest.mark.parametrize("number", [24, pytest.param(300, marks=pytest.mark.slow)])
def test_every_row_is_curated_correctly_or_rejected(tmp_path: Path, number: int) -> None:
    rows = planted_rows(number, seed=1)
    result, found, up = curated(tmp_path, rows, timeout=1.0, rate=0.3, seed=2)
    assert result.ended is None
    assert set(up.kinds) == set(served.KINDS)
    assert [row["id"] for row in found] == [row.trace.id for row in rows]
    for row, one in zip(found, rows, strict=True):
        if row["status"] != "curated":
            assert row["reason"]
            assert row["detail"]
            continue
        assert recovered(parse(row["document"]), one), row["id"]
        assert row["distances"]["refilled"] <= 0.2
        assert row["distances"]["final"] <= 0.7
        # Nothing invented, nothing lost: put back are the trace's own sentences.
        assert row["reasoning"] == one.trace.reasoning
        assert whole(parse(row["refilled"]), one.trace)
    assert result.curated >= 0.95 * number
