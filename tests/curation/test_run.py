"""Runs against a local endpoint: no row is lost, whatever fails, and outputs are reproducible."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet

from multiverse.curation.config import BudgetConfig, CurationConfig, EndpointConfig
from multiverse.curation.errors import BudgetError, EndpointError, RunError, StoppedError, StoreError
from multiverse.curation.job import Job
from multiverse.curation.outcomes import INTERNAL_ERROR, REFUSED, UNWRITABLE
from multiverse.curation.output import file_name
from multiverse.curation.store import Store
from multiverse.curation.types import Ask, Curated, Outcome, Request, Trace
from multiverse.data import read
from multiverse.errors import ExtraError
from multiverse.structure import MULTIVERSE, NPR, Document, parse
from tests.curation import endpoint as served
from tests.curation.fake import Planted, answer, curate, start, traces

ROWS = 40

Serve = Callable[..., Any]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Bring up an endpoint that answers the fake task."""
    with served.many() as up:
        yield lambda **how: up(served.Endpoint(answer, Planted(), **how))


def outcomes(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "outcomes.jsonl").read_text(encoding="utf-8").splitlines()]


def files(out: Path) -> dict[str, bytes]:
    """Every file that must be the same, with its bytes."""
    apart = {"runs.jsonl", "answers.sqlite"}
    return {
        str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file() and path.name not in apart
    }


def test_a_whole_run(serve: Serve, tmp_path: Path) -> None:
    up = serve()
    out = tmp_path / "out"
    result = start(up.url, out, ROWS)
    assert (result.ended, result.curated, result.rejected) == (None, ROWS, 0)
    assert result.paid.calls == 2 * ROWS == sum(up.calls.values())
    assert up.most_flying <= 8
    found = outcomes(out)
    assert [row["id"] for row in found] == [trace.id for trace in traces(ROWS)]
    assert parse(found[3]["document"]).branches == 2
    assert found[3]["usage"]["calls"] == 2
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["complete"] is True
    assert manifest["totals"]["calls"] == 2 * ROWS
    assert manifest["totals"]["cost"] == pytest.approx(result.spent.prompt_tokens / 1e6 + result.spent.completion_tokens / 1e5)
    assert manifest["settings"]["model"] == "fake"
    (run,) = (json.loads(line) for line in (out / "runs.jsonl").read_text().splitlines())
    assert run["paid"]["calls"] == 2 * ROWS
    assert (out / "report.html").stat().st_size > 1000
    assert not [path.name for path in out.iterdir() if path.name.endswith(".part")]


def test_data_is_what_training_reads(serve: Serve, tmp_path: Path) -> None:
    out = tmp_path / "out"
    start(serve().url, out, ROWS)
    train, held = (read(out / "data", split=name) for name in ("train", "validation"))
    assert not train.faults + held.faults
    assert len(train.rows) + len(held.rows) == ROWS
    assert held.rows
    originals = {trace.question: trace for trace in traces(ROWS)}
    for row in [*train.rows, *held.rows]:
        trace = originals[row.question]
        assert row.document.branches == 2
        assert row.sequential == Document((trace.reasoning.strip(),), trace.answer)
    assert parquet.read_schema(out / "data" / "train.parquet").names == ["messages", "sequential"]
    texts = sorted((out / "documents").iterdir())
    assert len(texts) == ROWS
    assert not read(texts[0]).faults
    assert "data/train.parquet" in (out / "README.md").read_text()


def test_misbehaviour_at_thirty_percent(serve: Serve, tmp_path: Path) -> None:
    up = serve(rate=0.3, seed=3)
    out = tmp_path / "out"
    result = start(up.url, out, 150, timeout=1.0, tries=12)
    assert result.ended is None
    assert len(up.kinds) >= len(served.KINDS) - 2, up.kinds
    found = outcomes(out)
    assert [row["id"] for row in found] == [trace.id for trace in traces(150)]
    for row, trace in zip(found, traces(150), strict=True):
        if row["status"] == "curated":
            body = parse(row["document"]).thinking
            assert body is not None
            (block,) = body
            assert not isinstance(block, str)
            assert block.paths == (("".join(trace.sentences[:2]).strip(),), ("".join(trace.sentences[2:]).strip(),))
            assert block.conclusion == f"{trace.id} comes to its end"
        else:
            assert row["reason"]
            assert row["detail"]
            assert row["stage"] in ("split", "conclude")
    assert result.curated + result.rejected == 150
    assert result.curated > 140
    assert (out / "set_aside.jsonl").read_bytes().count(b"\n") == result.rejected
    assert (out / "answers.sqlite").stat().st_size < 1_000_000, "an answer of a million characters was kept"


def test_a_second_start_requests_nothing_and_changes_nothing(serve: Serve, tmp_path: Path) -> None:
    up = serve()
    out = tmp_path / "out"
    start(up.url, out, ROWS)
    before, calls = files(out), sum(up.calls.values())
    again = start(up.url, out, ROWS)
    assert (again.paid.calls, again.curated) == (0, ROWS)
    anew = start(up.url, out, ROWS, fresh=True)
    assert (anew.paid.calls, anew.curated) == (0, ROWS)
    assert files(out) == before
    assert sum(up.calls.values()) == calls


def test_a_truncated_line_is_dropped(serve: Serve, tmp_path: Path) -> None:
    up = serve()
    out = tmp_path / "out"
    start(up.url, out, ROWS)
    before = files(out)
    whole = before["outcomes.jsonl"]
    for cut in (0, 10, len(whole) // 2, len(whole) - 1):
        (out / "outcomes.jsonl").write_bytes(whole[:cut])
        assert start(up.url, out, ROWS).paid.calls == 0
        assert files(out) == before
    lines = whole.splitlines(keepends=True)
    (out / "outcomes.jsonl").write_bytes(b"".join(lines[:5] + lines[6:]))  # a gap
    start(up.url, out, ROWS)
    (out / "outcomes.jsonl").write_bytes(b"".join(lines[:5]) + b"\xff\n" + b"".join(lines[6:]))  # a broken line
    start(up.url, out, ROWS)
    assert files(out) == before


def test_a_run_continues_with_more_rows(serve: Serve, tmp_path: Path) -> None:
    up = serve()
    start(up.url, tmp_path / "out", 10)
    assert start(up.url, tmp_path / "out", ROWS).paid.calls == 2 * (ROWS - 10)
    whole = tmp_path / "whole" / "out"
    whole.parent.mkdir()
    start(up.url, whole, ROWS)
    assert files(tmp_path / "out") == files(whole)


def test_other_settings_are_refused(serve: Serve, tmp_path: Path) -> None:
    up = serve()
    out = tmp_path / "out"
    start(up.url, out, 5)
    with pytest.raises(RunError, match=r'model "fake" there, "other" here.*--fresh'):
        start(up.url, out, 5, model="other")
    with pytest.raises(RunError, match=r"temperature null there, 0.5 here"):
        start(up.url, out, 5, temperature=0.5)
    assert start(up.url, out, 5, model="other", fresh=True).paid.calls == 10
    (out / "manifest.json").write_text("{")
    with pytest.raises(RunError, match=r"cannot be read.*--fresh"):
        start(up.url, out, 5)


def test_another_input_is_refused(serve: Serve, tmp_path: Path) -> None:
    up = serve()
    job = Job(tmp_path / "out", EndpointConfig(up.url, "fake"), CurationConfig(), "rows.jsonl", 5)
    job.start(lambda: traces(5), curate=curate)
    with pytest.raises(RunError, match="row 1 of the input"):
        job.start(lambda: [trace for trace in traces(6) if trace.line > 1], curate=curate)


def test_a_folder_of_something_else(serve: Serve, tmp_path: Path) -> None:
    up = serve()
    (tmp_path / "thesis.txt").write_text("my only copy")
    with pytest.raises(RunError, match=r"'thesis.txt', which does not belong to a run"):
        start(up.url, tmp_path, 1)
    with pytest.raises(RunError, match="cannot be used"):
        start(up.url, tmp_path / "thesis.txt", 1)


def test_two_runs_in_one_folder(serve: Serve, tmp_path: Path) -> None:
    up = serve()
    out = tmp_path / "out"
    out.mkdir()
    store = Store(out / "answers.sqlite")
    try:
        with pytest.raises(StoreError, match="locked by another run"):
            start(up.url, out, 1)
    finally:
        store.close()
    assert start(up.url, out, 1).curated == 1


def test_a_spent_budget_stops_the_run(serve: Serve, tmp_path: Path) -> None:
    up = serve()
    out = tmp_path / "out"
    whole = start(up.url, tmp_path / "whole" / "out", ROWS).spent
    cap = whole.tokens // 2
    result = start(up.url, out, ROWS, budget=BudgetConfig(1, 10, token_budget=cap))
    assert isinstance(result.ended, BudgetError)
    assert f"--token-budget {cap}" in str(result.ended)
    assert cap - 600 < result.spent.tokens <= cap  # less than a call at its worst is left over
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["complete"] is False
    assert manifest["totals"]["not_reached"] == ROWS - result.curated > 0
    assert sum(len(read(out / "data", split=name).rows) for name in ("train", "validation")) == result.curated
    cost = start(up.url, out, ROWS, budget=BudgetConfig(1, 10, max_cost=1e-9))
    assert isinstance(cost.ended, BudgetError)
    assert cost.paid.calls == 0
    rest = start(up.url, out, ROWS)
    assert (rest.ended, rest.curated) == (None, ROWS)
    assert result.paid.calls + rest.paid.calls == 2 * ROWS
    assert set(up.answered.values()) == {2}  # once here, once in the other folder
    assert files(out) == files(tmp_path / "whole" / "out")


def test_interrupted(serve: Serve, tmp_path: Path) -> None:
    def interrupt(body: dict[str, Any], number: int) -> None:  # noqa: ARG001
        if number == 20:
            os.kill(os.getpid(), signal.SIGINT)

    up = serve(override=interrupt)
    out = tmp_path / "out"
    result = start(up.url, out, ROWS)
    assert isinstance(result.ended, StoppedError)
    assert "start again to continue" in str(result.ended)
    assert result.totals is None
    assert 20 <= result.paid.calls < 2 * ROWS
    assert result.paid.calls == sum(up.calls.values()), "calls in flight are waited for"
    rest = start(up.url, out, ROWS)
    assert rest.paid.calls == 2 * ROWS - result.paid.calls
    assert set(up.answered.values()) == {1}
    assert rest.curated == ROWS


def test_a_second_interrupt_cancels_calls_in_flight(serve: Serve, tmp_path: Path) -> None:
    def interrupt(body: dict[str, Any], number: int) -> None:  # noqa: ARG001
        if number == 3:
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGINT)

    up = serve(override=interrupt, rate=1.0, kinds=("hang",))
    result = start(up.url, tmp_path / "out", ROWS, timeout=3600.0)
    assert isinstance(result.ended, StoppedError)


def test_the_endpoint_is_gone(serve: Serve, tmp_path: Path) -> None:
    def broken(body: dict[str, Any], number: int) -> served.Reply | None:  # noqa: ARG001
        return served.error(500, "on fire") if number > 20 else None

    up = serve(override=broken)
    out = tmp_path / "out"
    result = start(up.url, out, ROWS, tries=4, backoff=0.05)
    assert isinstance(result.ended, EndpointError)
    assert "500" in str(result.ended)
    assert result.paid.calls == 20
    up.override = None
    rest = start(up.url, out, ROWS)
    assert (rest.curated, rest.paid.calls) == (ROWS, 2 * ROWS - 20)


def test_one_row_that_the_endpoint_refuses(serve: Serve, tmp_path: Path) -> None:
    def refuses(body: dict[str, Any], number: int) -> served.Reply | None:  # noqa: ARG001
        long = "row: rows.jsonl:7\n" in body["messages"][0]["content"]
        return served.error(400, "this model's maximum context length is 10 tokens") if long else None

    up = serve(override=refuses)
    out = tmp_path / "out"
    result = start(up.url, out, ROWS)
    assert (result.ended, result.curated, result.rejected) == (None, ROWS - 1, 1)
    (row,) = (row for row in outcomes(out) if row["status"] != "curated")
    assert (row["id"], row["stage"], row["reason"]) == ("rows.jsonl:7", "split", REFUSED)
    assert "context length" in row["detail"]
    up.override = None
    again = start(up.url, out, ROWS)  # such a row is tried again, and the others are not paid for
    assert (again.curated, again.rejected, again.paid.calls) == (ROWS, 0, 2)
    assert [row["row"] for row in outcomes(out)] == list(range(ROWS))


def test_a_bug_rejects_one_row(serve: Serve, tmp_path: Path) -> None:
    async def faulty(trace: Trace, ask: Ask) -> Outcome:
        if trace.line == 3:
            raise ZeroDivisionError("oh")
        outcome = await curate(trace, ask)
        if trace.line == 4:
            assert isinstance(outcome, Curated)
            broken = Document(("half \ud83d",), "")
            return Curated(trace, broken, broken, {})
        return outcome

    out = tmp_path / "out"
    result = start(serve().url, out, ROWS, curate=faulty)
    assert (result.ended, result.curated, result.rejected) == (None, ROWS - 2, 2)
    assert [row["reason"] for row in outcomes(out) if row["status"] != "curated"] == [INTERNAL_ERROR, UNWRITABLE]


def test_a_missing_library_ends_the_run(serve: Serve, tmp_path: Path) -> None:
    async def lacking(trace: Trace, ask: Ask) -> Outcome:  # noqa: ARG001
        raise ExtraError("jinja2", "curate")

    with pytest.raises(ExtraError, match="jinja2"):
        start(serve().url, tmp_path / "out", 3, curate=lacking)


def test_a_row_without_reasoning_has_no_sequential_column(serve: Serve, tmp_path: Path) -> None:
    async def sampled(trace: Trace, ask: Ask) -> Outcome:
        outcome = await curate(trace, ask)
        assert isinstance(outcome, Curated)
        return replace(outcome, trace=replace(trace, sentences=()))

    start(serve().url, tmp_path / "out", 3, curate=sampled)
    assert [row.sequential for row in read(tmp_path / "out" / "data", split="train").rows] == [None] * 3


def test_memory_is_limited_by_the_window(serve: Serve, tmp_path: Path) -> None:
    """The first row takes for ever; those behind it wait, and no more than so many are begun."""
    gate, begun = asyncio.Event(), []

    async def stuck(trace: Trace, ask: Ask) -> Outcome:
        begun.append(trace.line)
        if trace.line == 1:
            await gate.wait()
        outcome = await curate(trace, ask)
        if len(begun) == 2 * 16 + 1 or trace.line == 2 * 16 + 1:
            gate.set()
        return outcome

    result = start(serve().url, tmp_path / "out", 200, concurrency=1, curate=stuck)
    assert result.curated == 200
    assert [row["row"] for row in outcomes(tmp_path / "out")] == list(range(200))


def test_a_lone_surrogate_in_a_reason(serve: Serve, tmp_path: Path) -> None:
    up = serve(rate=1.0, kinds=("half a character",))
    out = tmp_path / "out"
    result = start(up.url, out, 2)
    assert (result.ended, result.rejected) == (None, 2)
    assert "\ud83d" in outcomes(out)[0]["detail"]


def test_file_names() -> None:
    names = ["a", "a/b", "a%2Fb", "../a", "%2E./a", ".", "", "x" * 300, "x" * 301, "ü", "half \ud83d", "a b.jsonl:3"]
    made = [file_name(name) for name in names]
    assert len(set(made)) == len(names)
    assert all(len(name.encode()) < 255 and "/" not in name and name.isascii() for name in made)
    assert not any(name.startswith(".") for name in made if name != ".xml")


def test_a_dialect_without_a_think_tag(serve: Serve, tmp_path: Path) -> None:
    async def trunk(trace: Trace, ask: Ask) -> Outcome:
        await ask(Request(trace.id, "split", 0, (("user", f"stage: split\nrow: {trace.id}"),)))
        document = Document((trace.reasoning.strip(),))
        return Curated(trace, document, document, {})

    job = Job(
        tmp_path / "out", EndpointConfig(serve().url, "fake"), CurationConfig(dialect="npr", validation=0.0), "rows.jsonl", 5
    )
    assert job.start(lambda: traces(5), curate=trunk).curated == 5
    row = read(tmp_path / "out" / "data", NPR).rows[0]
    assert row.sequential is not None
    assert str((row.sequential.thinking or ("",))[0]).endswith("\n\nAnswer: 0")
    assert MULTIVERSE.think is not None
