"""`multiverse train` as a user runs it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from multiverse.cli import main
from tests.training.test_run import write_data


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    from recipes.mini.start import write

    write(tmp_path / "start", shape="test", texts=50)
    write_data(tmp_path / "data.jsonl", 6)
    path = tmp_path / "train.yaml"
    path.write_text(
        f"model: {tmp_path}/start\ndata: [{tmp_path}/data.jsonl]\nout: {tmp_path}/run\n"
        "mixture: [0.5, 1.0]\nmax_length: 512\nglobal_batch_size: 2\nprecision: fp32\noptimizer: {lr: 1.0e-3}\n"
    )
    return path


def test_a_dry_run_shows_the_plan_and_trains_nothing(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", str(recipe), "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert "6 documents" in shown
    assert "6 steps, 12 rows" in shown
    assert "50%  100%  parallel" in shown
    assert not (recipe.parent / "run").exists()
    assert main(["train", str(recipe), "--dry-run", "--json", "--set", "global_batch_size=4", "--devices", "2"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["steps"] == 3
    assert report["devices"] == 2
    assert report["memory"]["total"] == sum(v for k, v in report["memory"].items() if k != "total")


def test_training_writes_a_model_that_generates(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", str(recipe), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert main(["generate", "--model", result["model"], "--max-tokens", "20", "--json", "Hi"]) == 0
    assert json.loads(capsys.readouterr().out)["usage"]["total_tokens"] <= 20


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--set", "seed"], "--set 'seed' is not valid: write NAME=VALUE"),
        (["--set", "sede=2"], "unknown setting sede: did you mean 'seed'?"),
        (["--set", "model=/nowhere/at/all"], "/nowhere/at/all"),
        (["--set", "max_length=20"], "data.jsonl:1: "),
        (["--devices", "2"], "--devices 2 has no effect without --dry-run"),
        (["--dry-run", "--fresh"], "--fresh has no effect with --dry-run"),
        (["--set", "epochs=2"], "epochs=2 has no effect"),
        (["--set", "optimizer.betas=[0.9]"], "optimizer.betas=[0.9] is not valid"),
    ],
)
def test_bad_settings_are_one_line_and_exit_code_2(
    recipe: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    assert main(["train", str(recipe), *arguments]) == 2
    assert words in capsys.readouterr().err
