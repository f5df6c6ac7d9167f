"""The runner of the comparison: which cell comes next, who works on it, and what a finished one says."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from multiverse.training.callbacks import InterruptedRunError
from recipes.mini import start
from recipes.paper import cell, data, run
from recipes.paper.arms import ARMS, CELLS, RUNS, config_of
from recipes.paper.cell import Scale
from recipes.paper.claims import claim

ROOT = Path(__file__).parents[2]
QUIET = Console(quiet=True)


def test_every_arm_comes_once_before_any_comes_twice() -> None:
    order = list(run.cells(["causal", "multiverse"], [0, 1]))
    assert order == [("multiverse", 0), ("causal", 0), ("multiverse", 1), ("causal", 1)]
    assert len(list(run.cells(list(ARMS), run.SEEDS))) == 27


def test_arms_differ_in_nothing_but_what_makes_them() -> None:
    usual = vars(config_of("multiverse", 1))
    for name, arm in ARMS.items():
        config = vars(config_of(name, 1))
        differing = {key for key in config if config[key] != usual[key]} - {"out"}
        assert differing == set(arm.training)


def test_the_questions_are_a_function_of_the_seed_and_no_test_problem_is_among_them() -> None:
    first, again, other = ([p.question for p in data.training(seed, 200)] for seed in (1, 1, 2))
    assert first == again != other
    assert {p.family for p in data.training(1, 60)} == set(data.FAMILIES)
    held = {p.question for family in data.FAMILIES for p in data.held_out(family, 200)}
    assert held.isdisjoint(first)
    assert all(p.structured.depth <= 2 for p in data.held_out("nested", 50))


def test_work_takes_the_next_missing_cells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[str, int]] = []

    def make(arm: str, seed: int, scale: Scale, console: Console, runs: Path) -> dict[str, Any]:  # noqa: ARG001
        made.append((arm, seed))
        return {"arm": arm}

    monkeypatch.setattr(run, "make", make)
    wanted = list(run.cells(["multiverse", "sequential"], [0, 1]))
    folder = tmp_path / "cells"
    run.write(folder / "multiverse-0.json", {})
    with claim(tmp_path / "claims" / "sequential-0") as mine:
        assert mine
        assert run.work(wanted, 1, QUIET, runs=tmp_path, folder=folder) == 1
        assert made == [("multiverse", 1)], "one is there, one is in work elsewhere"
    assert run.work(wanted, None, QUIET, runs=tmp_path, folder=folder) == 2
    assert made == [("multiverse", 1), ("sequential", 0), ("sequential", 1)]
    assert json.loads((folder / "sequential-1.json").read_text()) == {"arm": "sequential"}
    assert run.work(wanted, None, QUIET, runs=tmp_path, folder=folder) == 0


def test_another_length_of_training_has_places_of_its_own() -> None:
    assert run.place(data.DOCUMENTS) == (RUNS, CELLS)
    assert run.place(10_000) == (RUNS / "10000", CELLS / "10000")


HOLD = """
import sys, time
from pathlib import Path
from recipes.paper.claims import claim
with claim(Path(sys.argv[1])) as mine:
    print(mine, flush=True)
    time.sleep(60)
"""


def test_a_lock_is_released_when_its_process_ends(tmp_path: Path) -> None:
    path = tmp_path / "claims" / "causal-0"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True, cwd=ROOT, env={**os.environ}
    )
    assert holder.stdout is not None
    try:
        assert holder.stdout.readline().strip() == "True"
        with claim(path) as mine:
            assert not mine
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        with claim(path) as mine:
            assert mine
        assert path.read_text().strip() == str(os.getpid())
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()


@pytest.mark.parametrize("arm", ["causal", "message-join"])
def test_a_stopped_cell_resumes_and_is_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arm: str) -> None:
    start.write(tmp_path / "start", "test", texts=200)
    scale = Scale(tmp_path / "start", documents=40, n=2, max_tokens=20)
    monkeypatch.setattr(cell, "config_of", lambda *args: _small(config_of(*args)))
    stopped = 0
    honest = cell.train

    def stopping(config: Any, **kwargs: Any) -> Path:
        nonlocal stopped
        if not stopped:
            stopped += 1
            monkeypatch.setattr("multiverse.training.callbacks.GracefulStop.on_step_end", _stop_at_two)
            with pytest.raises(InterruptedRunError):
                honest(config, **kwargs)
            monkeypatch.undo()
            monkeypatch.setattr(cell, "config_of", lambda *args: _small(config_of(*args)))
            raise InterruptedRunError("stopped")
        return honest(config, **kwargs)

    monkeypatch.setattr(cell, "train", stopping)
    with pytest.raises(InterruptedRunError):
        cell.make(arm, 0, scale, QUIET, tmp_path)
    assert (tmp_path / f"{arm}-0" / "checkpoint-2" / "complete").exists()
    found = cell.make(arm, 0, scale, QUIET, tmp_path)
    assert not list((tmp_path / f"{arm}-0").glob("checkpoint-*"))
    assert [step for step, _ in found["training"]["curve"]] == [1, 2, 3, 4]
    assert set(found["tasks"]) == {"worksheet", "countdown", "nested", "worksheet-5", "worksheet-6"}
    for name, figures in found["tasks"].items():
        assert figures["n"] == (1 if "-" in name else 2)
        assert 0 < figures["critical_path_tokens"] <= 20
        assert figures["stored"] > 0
    assert found["alone"]["n"] == 3
    assert found["alone"]["plain_tokens"] > 0
    assert ("also" in found) == (arm == "causal")
    assert json.loads(json.dumps(found)) == found, "it can be written and read again"


def _small(config: Any) -> Any:
    from dataclasses import replace

    return replace(config, max_steps=4, global_batch_size=1, micro_batch_size=1)


def _stop_at_two(self: Any, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG001
    if state.global_step == 2:
        self.requested = control.should_save = control.should_training_stop = True
