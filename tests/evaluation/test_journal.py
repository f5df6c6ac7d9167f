"""The journal: what was finished is there, what was torn is not, and runs are not mixed."""

from __future__ import annotations

import json
import resource
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from multiverse.errors import DataError, DiskError
from multiverse.evaluation.journal import Journal
from multiverse.evaluation.sample import RUN, SAMPLES, Run, Sample, read_run

RUN_HEAD = Run("mini multiverse", "mini", {"seed": 7}, "a machine", "2026-11-27")


def sample(id: str = "0", epoch: int = 0, task: str = "chain") -> Sample:  # noqa: A002
    return Sample(task, id, epoch, "parallel", "Q?", "1", "1", "… 1", True, "stop", False, 0, 5, 5, 5, 0.1)


def test_written_and_resumed(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "run", RUN_HEAD)
    for id in ("10", "9"):  # noqa: A001
        journal.add(sample(id))
    assert [json.loads(line)["id"] for line in (tmp_path / "run" / SAMPLES).read_text().splitlines()] == ["10", "9"]
    again = Journal(tmp_path / "run", RUN_HEAD)
    assert set(again.finished) == {("chain", "9", 0), ("chain", "10", 0)}
    again.add(sample("10", epoch=1))
    run = again.close(2.5)
    assert [(one.id, one.epoch) for one in run.samples] == [("9", 0), ("10", 0), ("10", 1)]
    assert run.seconds == 2.5
    assert read_run(tmp_path / "run") == run
    assert Journal(tmp_path / "run", RUN_HEAD).close(1).seconds == 3.5


@pytest.mark.parametrize("torn", ['{"task": "cha', "{", "\x00"])
def test_an_incomplete_line_is_dropped(tmp_path: Path, torn: str) -> None:
    Journal(tmp_path, RUN_HEAD).add(sample())
    with (tmp_path / SAMPLES).open("a") as file:
        file.write(torn)
    journal = Journal(tmp_path, RUN_HEAD)
    assert set(journal.finished) == {("chain", "0", 0)}
    journal.add(sample("1"))
    assert len(read_run(tmp_path).samples) == 2


def test_killed_before_the_first_sample(tmp_path: Path) -> None:
    Journal(tmp_path, RUN_HEAD)
    (tmp_path / SAMPLES).unlink()
    assert Journal(tmp_path, RUN_HEAD).finished == {}


def test_other_runs_are_refused(tmp_path: Path) -> None:
    Journal(tmp_path, RUN_HEAD)
    with pytest.raises(DataError, match="holds a run with seed = 7, and this one has 8"):
        Journal(tmp_path, replace(RUN_HEAD, settings={"seed": 8}))
    with pytest.raises(DataError, match=r"model = .*other"):
        Journal(tmp_path, replace(RUN_HEAD, model="other"))
    with pytest.raises(DataError, match="limit = nothing, and this one has 3"):
        Journal(tmp_path, replace(RUN_HEAD, settings={"seed": 7, "limit": 3}))
    (tmp_path / RUN).write_text("{")
    with pytest.raises(DataError, match="no evaluation that can be read"):
        Journal(tmp_path, RUN_HEAD)


@pytest.mark.parametrize(
    ("torn", "problem"), [('{"task": "cha', "torn"), ("[1]", "no sample"), ('{"task": "chain"}', "no sample")]
)
def test_a_torn_line_inside_is_named_with_file_and_line(tmp_path: Path, torn: str, problem: str) -> None:
    journal = Journal(tmp_path, RUN_HEAD)
    journal.add(sample())
    with (tmp_path / SAMPLES).open("a") as file:
        file.write(f"{torn}\n")
    journal.add(sample("1"))
    message = f"{tmp_path / SAMPLES}:2: the line is {problem}: remove it, and its question is asked again"
    with pytest.raises(DataError) as caught:
        read_run(tmp_path)
    assert str(caught.value) == message
    with pytest.raises(DataError, match=":2: "):
        Journal(tmp_path, RUN_HEAD)


def test_a_full_disk_is_named_and_leaves_no_torn_line(tmp_path: Path) -> None:
    journal = Journal(tmp_path, RUN_HEAD)
    journal.add(sample())
    before = (tmp_path / SAMPLES).read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handled = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 20, limits[1]))  # the next line does not fit
    try:
        with pytest.raises(
            DiskError, match=rf"{SAMPLES}' cannot be written \(File too large; .* MB are free\): free some space"
        ):
            journal.add(sample("1"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handled)
    assert (tmp_path / SAMPLES).read_bytes() == before
    assert set(journal.finished) == {("chain", "0", 0)}
    journal.add(sample("1"))
    assert len(read_run(tmp_path).samples) == 2
