"""Whole runs: outputs, faulty rows, interruptions."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from multiverse.curation.config import IN_PROCESS, DataflowConfig, EndpointConfig
from multiverse.curation.dataflow.curate import DataflowCurator, Ordered
from multiverse.curation.dataflow.solution import Solution, read_solutions, solution_of
from multiverse.curation.errors import ValidationError
from multiverse.curation.job import Job, Result
from multiverse.data import read
from tests.curation.dataflow.problems import CASES
from tests.curation.test_run import files

ORDERED = sum(not isinstance(case.wanted, str) for case in CASES.values())
FORKED = sum(
    not isinstance(case.wanted, str) and any(not isinstance(part, int) for part in case.wanted) for case in CASES.values()
)


PIECES = (
    "3",
    "4",
    " + ",
    "*",
    "/",
    "=",
    "<<3*4=12>>12",
    "<<",
    ">>",
    "$",
    "%",
    ". ",
    "\n",
    " he ",
    "They",
    " this ",
    " half ",
    ":",
    "(",
    ")",
    " x ",
)


def written(path: Path, times: int = 1) -> Path:
    """The problems as a file; each time with other questions."""
    records = [
        {"question": f"{case.question}{' ' * 3}{'Please. ' * number}", "answer": case.solution}
        for number in range(times)
        for case in CASES.values()
    ]
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def start(source: Path, out: Path, *, fresh: bool = False, **options: Any) -> Result:
    config = DataflowConfig(**options)
    rows = [one for one in read_solutions(source) if isinstance(one, Solution)]
    job = Job(out, EndpointConfig(base_url=IN_PROCESS, model="none", seed=0), config, str(source), len(rows))
    return job.start(lambda: rows, curate=DataflowCurator(config).curate, fresh=fresh)


def test_a_run(tmp_path: Path) -> None:
    result = start(written(tmp_path / "x.jsonl"), tmp_path / "out", validation=0.3)
    assert (result.ended, result.curated, result.rejected) == (None, ORDERED, len(CASES) - ORDERED)
    assert result.totals is not None
    assert result.totals["forked"] == FORKED
    assert 1 < result.totals["content_parallelism"] < 2
    sets = [read(tmp_path / "out" / "data", split=name) for name in ("train", "validation")]
    rows = [row for loaded in sets for row in loaded.rows]
    assert not any(loaded.faults for loaded in sets)
    assert len(rows) == ORDERED
    assert all(loaded.rows for loaded in sets)
    case = CASES["two chains"]
    (row,) = (row for row in rows if row.question == case.question)
    assert row.sequential is not None
    assert row.sequential.thinking == (
        "Rosa bakes 4*12 = 48 rolls.\nHer brother bakes 3*15 = 45 buns.\nAfter burning some, 45-5 = 40 buns are good.\n"
        "Together there are 48+40 = 88 good pieces.",
    )
    assert row.document.answer == row.sequential.answer
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Content parallelism" in page
    assert "forked" in page


def test_solutions_without_a_block_may_be_left_out(tmp_path: Path) -> None:
    result = start(written(tmp_path / "x.jsonl"), tmp_path / "out", keep_sequential=False)
    assert result.curated == FORKED
    assert result.totals is not None
    assert result.totals["reasons"]["nothing parallel"] == ORDERED - FORKED


def test_the_same_input_makes_the_same_files(tmp_path: Path) -> None:
    source = written(tmp_path / "x.jsonl")
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        start(source, tmp_path / name / "out")
    assert files(tmp_path / "a" / "out") == files(tmp_path / "b" / "out")


def test_a_run_that_was_cut_goes_on(tmp_path: Path) -> None:
    source = written(tmp_path / "x.jsonl")
    for name in ("whole", "cut"):
        (tmp_path / name).mkdir()
    start(source, tmp_path / "whole" / "out")
    start(source, tmp_path / "cut" / "out")
    outcomes = tmp_path / "cut" / "out" / "outcomes.jsonl"
    outcomes.write_bytes(outcomes.read_bytes()[:-1000])
    assert start(source, tmp_path / "cut" / "out").curated == ORDERED
    assert files(tmp_path / "cut" / "out") == files(tmp_path / "whole" / "out")


def test_strange_rows_are_never_fatal(tmp_path: Path) -> None:
    texts = [
        "<<" * 500 + "1=1" + ">>" * 500,
        "1" * 10_000 + " = 1 + 1 = <<1+1=2>>2",
        "It is <<" + "1+" * 5_000 + "1=5001>>5001.",
        "<Parallel> 1+1 = <<1+1=2>>2 </Parallel>",
        "\n".join(f"Step {n}: {n}+1 = <<{n}+1={n + 1}>>{n + 1}" for n in range(60)),
        "½ of ٣ is 1.5 = <<3/2=1.5>>1.5 \u202e",
        "= = = 5 = <<=5>>5",
        "He has -5 - -3 = <<-5--3=-2>>-2.",
    ]
    path = tmp_path / "x.jsonl"
    path.write_text("".join(json.dumps({"question": "How many?", "answer": f"{text}\n#### 2"}) + "\n" for text in texts))
    result = start(path, tmp_path / "out")
    assert result.ended is None
    assert result.curated + result.rejected == len(texts)
    assert result.totals is not None
    assert "internal error" not in result.totals["reasons"], (tmp_path / "out" / "set_aside.jsonl").read_text()


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(PIECES), min_size=1, max_size=25))
def test_any_text_becomes_a_document_or_is_rejected(pieces: list[str]) -> None:
    record = {"question": "How many do Tom and Mia have? He has 3, she has 4.", "answer": f"{''.join(pieces)}\n#### 12"}
    solution = solution_of(record, "x", 1)
    assert isinstance(solution, Solution)
    with suppress(ValidationError):
        Ordered(solution, DataflowConfig())


def command(*args: str | Path) -> list[str]:
    return [sys.executable, "-m", "multiverse", "curate", "dataflow", *map(str, args)]


def test_ctrl_c_and_kill_leave_a_run_that_goes_on(tmp_path: Path) -> None:
    source = written(tmp_path / "x.jsonl", times=60)
    whole, cut = tmp_path / "whole" / "out", tmp_path / "cut" / "out"
    for out in (whole, cut):
        out.parent.mkdir()
    subprocess.run(command(source, "-o", whole), check=True, capture_output=True)
    for number in (signal.SIGINT, signal.SIGKILL):
        process = subprocess.Popen(command(source, "-o", cut), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        before = (cut / "outcomes.jsonl").stat().st_size if cut.exists() else 0
        while process.poll() is None and not (
            (cut / "outcomes.jsonl").exists() and (cut / "outcomes.jsonl").stat().st_size > before + 20_000
        ):
            time.sleep(0.002)
        process.send_signal(number)
        _, err = process.communicate()
        assert process.returncode == (130 if number == signal.SIGINT else -number), err
    subprocess.run(command(source, "-o", cut), check=True, capture_output=True)
    assert files(cut) == files(whole)
