"""Start models of the reinforcement learning runs, how models are measured, and how two of them are compared."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from rich.console import Console

from multiverse import LLM
from recipes.rl import starts
from recipes.rl.figures import difference, mean, ratio
from recipes.rl.measure import measure


def test_differences_are_of_pairs() -> None:
    before, after = [2.0, 4.0], [1.0, 4.0]
    assert difference(before, after) == pytest.approx((-0.5, 0.5))
    # 5/6; each residual is a ninth of 2 away from 0, in thirds of the mean before.
    assert ratio(before, after) == pytest.approx((5 / 6, 2 / 9))
    assert ratio(before, before) == pytest.approx((1.0, 0.0))
    assert mean([0, 1]).show(1, 100) == "50.0 ± 50.0"
    assert difference([0, 0], [1, 1]).show(1, 100, sign=True) == "+100.0 ± 0.0"


def test_of_one_problem_there_is_no_error() -> None:
    assert mean([1.0]).error == float("inf")


def test_documents_of_a_start_depend_on_nothing(tmp_path: Path) -> None:
    short = starts.Start(5, starts.STARTS["able"].problems)
    for name in ("one", "two"):
        short.write(tmp_path / f"{name}.jsonl")
    assert (tmp_path / "one.jsonl").read_text() == (tmp_path / "two.jsonl").read_text()
    records = [json.loads(line) for line in (tmp_path / "one.jsonl").read_text().splitlines()]
    assert len(records) == 5
    assert all({"messages", "sequential"} <= record.keys() for record in records)
    (tmp_path / "one.jsonl").write_text("")
    short.write(tmp_path / "one.jsonl")
    assert not (tmp_path / "one.jsonl").read_text(), "what is there is kept"


def test_a_start_that_is_there_is_not_trained_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "runs/rl/starts/form"
    folder.mkdir(parents=True)
    trained: list[str] = []
    monkeypatch.setattr(starts, "train", lambda config, **_: trained.append(config.out))
    assert starts.make("form", Console(quiet=True)) == Path("runs/rl/starts/form/model")
    assert starts.make("form", Console(quiet=True)) == Path("runs/rl/starts/form/model")
    assert trained == ["runs/rl/starts/form"]


def test_the_mini_is_measured() -> None:
    llm = LLM(dtype="float32", packed_linears=False)
    forked, line = measure(llm, ["cases"], ["parallel", "sequential"], 1)
    assert (forked.right, line.right, forked.malformed, line.malformed) == ([1], [1], [0], [0])
    assert all(forked.forks), "all cases fork"
    assert not any(line.forks)
    summary = forked.summary()
    assert summary["forked"] == 1.0
    assert summary["parallelism"] == pytest.approx(forked.total[0] / forked.critical[0])
    assert line.critical == line.total
