"""`multiverse rl` as a user runs it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from multiverse.cli import main
from multiverse.cli.rl import print_report
from multiverse.training.rl.dryrun import RLReport


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    from recipes.mini.start import write

    write(tmp_path / "start", shape="test", texts=50)
    rows = [{"question": f"What is {n} + 1?", "answer": str(n + 1)} for n in range(20)]
    (tmp_path / "questions.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    path = tmp_path / "rl.yaml"
    path.write_text(
        f"model: {tmp_path}/start\nquestions: [{{file: {tmp_path}/questions.jsonl, validation: 0.2}}]\nout: {tmp_path}/run\n"
        "questions_per_batch: 2\ngroup_size: 2\nmax_steps: 2\nsampling: {max_tokens: 24}\nkv_memory: 0.01\n"
        "validation_questions: 2\n"
    )
    return path


def test_a_dry_run_shows_memory_and_time_and_trains_nothing(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rl", str(recipe), "--dry-run", "--json", "--devices", "2"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["devices"] == 2
    assert report["rollouts"] == 4
    assert 0 < report["peak"] <= sum(report["memory"].values())
    assert report["memory"]["keys and values"] == int(0.01 * 2**30)
    assert set(report["seconds"]) == {"rollouts", "update"}
    assert report["tiny"]["first_ratio_deviation"] < 1e-3
    assert "held out" in report["questions"][0]
    assert not (recipe.parent / "run").exists()
    print_report(RLReport(**report), as_json=False)
    shown = capsys.readouterr().out
    assert "2 updates, 1 for each batch of 4 rollouts" in shown
    assert "memory: weights" in shown


def test_a_file_of_questions_becomes_a_model_that_generates(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rl", str(recipe), "--json"]) == 0
    captured = capsys.readouterr()
    result = json.loads(captured.out)
    assert "step 2 of 2  reward" in captured.err
    assert "step 0: validation  reward" in captured.err
    assert main(["generate", "--model", result["model"], "--max-tokens", "20", "--json", "Hi"]) == 0
    assert json.loads(capsys.readouterr().out)["usage"]["total_tokens"] <= 20


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--set", "seed"], "--set 'seed' is not valid: write NAME=VALUE"),
        (["--set", "algoritm.name=dapo"], "unknown setting algoritm: did you mean 'algorithm'?"),
        (["--set", "model=/nowhere/at/all"], "/nowhere/at/all"),
        (["--set", "questions=[{file: /nowhere.jsonl}]"], "/nowhere.jsonl"),
        (["--set", "sampling.presence_penalty=1"], "sampling.presence_penalty is not for rollouts"),
        (["--devices", "2"], "--devices 2 has no effect without --dry-run"),
        (["--dry-run", "--fresh"], "--fresh has no effect with --dry-run"),
        (["--set", "rewards=[{name: nowhere:reward}]"], "nowhere"),
    ],
)
def test_bad_settings_are_one_line_and_exit_code_2(
    recipe: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    assert main(["rl", str(recipe), *arguments]) == 2
    assert words in capsys.readouterr().err
    assert not (recipe.parent / "run" / "log.jsonl").exists()
