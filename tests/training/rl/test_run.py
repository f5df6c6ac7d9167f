"""Whole runs of a tiny model: what they leave, resuming after SIGKILL, and each way in which a run ends early."""

from __future__ import annotations

import json
import resource
import shutil
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from multiverse import LLM
from multiverse.errors import ConfigError, DiskError, ModelError, RewardError
from multiverse.training.callbacks import InterruptedRunError
from multiverse.training.config import Lora
from multiverse.training.rl.algorithms import Algorithm
from multiverse.training.rl.collapse import CollapseError, EarlyStopping
from multiverse.training.rl.config import RLConfig, Sampling, dump
from multiverse.training.rl.rewards import Reward
from multiverse.training.rl.run import check_folder, train
from tests.forks import Fork, Server, forks, run_two
from tests.training.rl.runs import LETTERS, PAID, REWARDS, command, configured, log, weights


@pytest.fixture(scope="module")
def processes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with forks(tmp_path_factory.mktemp("processes"), "multiverse.cli", "multiverse.training.rl.run", "accelerate") as server:
        yield server


@pytest.fixture
def config(start: Path, tmp_path: Path) -> RLConfig:
    return configured(start, tmp_path / "run")


def test_a_run_leaves_a_model_that_the_engine_loads_and_says_how_it_came_about(config: RLConfig) -> None:
    config = replace(config, rewards=PAID, validation_questions=2, eval_every=2, samples_every=2, samples=1)
    out = Path(config.out)
    folder = train(config)
    assert folder == out / "model"
    records = log(out)
    steps = [record for record in records if "loss" in record]
    assert [record["step"] for record in steps] == [1, 2, 3]
    for record in steps:
        assert record["grad_norm"] > 0
        assert record["first_ratio_deviation"] < 1e-3, "what is trained is what was rolled out"
        assert record["first_ratio_mean"] == pytest.approx(1, abs=1e-4)
        assert record["reward"] == pytest.approx(
            record["rewards/correct"] + 0.5 * record[f"rewards/{LETTERS}"] + 0.1 * record["rewards/forked"]
        )
        assert {
            "right",
            "parallelism",
            "critical_path_tokens",
            "malformed",
            "entropy",
            "grad_norm",
            "ending_length",
        } <= record.keys()
    assert [record["stage/worksheet"] for record in steps] == [0, 1, 1]
    assert [record["step"] for record in records if "eval_reward" in record] == [0, 2, 3]
    assert "<svg" in (out / "curve.svg").read_text()
    samples = sorted(path.name for path in (out / "samples").iterdir())
    assert samples == ["step-000001", "step-000002"]
    recorded = json.loads(next((out / "samples" / "step-000001").glob("*.json")).read_text())
    assert recorded["format"] == "multiverse-recording"
    assert "reward" in recorded["note"]
    summary = json.loads((folder / "training.json").read_text())
    assert summary["validation_first"]["reward"] == pytest.approx(records[0]["eval_reward"])
    assert "multiverse rl" in (folder / "README.md").read_text()
    assert yaml.safe_load((folder / "training.yaml").read_text())["group_size"] == 3
    assert LLM(folder, kv_memory=8 << 20).chat([{"role": "user", "content": "Hi"}])[0].usage.total_tokens > 0
    assert train(config) == folder, "a finished run is finished"
    assert log(out) == records


def test_a_run_killed_with_sigkill_resumes_to_the_same_curve(config: RLConfig, processes: Server, tmp_path: Path) -> None:
    """Killed between two updates on the same rollouts, and again while rollouts are decoded."""
    algorithm = Algorithm(updates_per_batch=2, no_spread="resample", max_resamples=1)
    config = replace(config, rewards=PAID, algorithm=algorithm, max_steps=4, keep=9)
    whole, cut = replace(config, out=str(tmp_path / "whole")), replace(config, out=str(tmp_path / "cut"))
    train(whole)
    expected = log(Path(whole.out))
    assert [record["step"] for record in expected] == [1, 2, 3, 4]
    assert expected[-1]["grad_norm"] > 0

    line, out = command(cut, tmp_path), Path(cut.out)
    for step in (1, 2):
        running = processes.start(*line)
        while running.poll() is None and not (out / f"checkpoint-{step}" / "complete").exists():
            time.sleep(0.002)
        running.kill()
        assert running.wait() == -signal.SIGKILL
        assert not (out / "model").exists(), "the run was to be cut in the middle"
        for path in out.glob("checkpoint-*"):  # what came in between
            if int(path.name.rpartition("-")[2]) > step:
                shutil.rmtree(path)
    with (out / "log.jsonl").open("a") as file:
        file.write('{"step": 99')  # half a line
    again = processes.start(*line)
    assert again.wait() == 0, again.stderr
    assert log(out) == expected
    first, second = weights(Path(whole.out)), weights(out)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_two_processes_train_to_the_same_curve_as_one(config: RLConfig, processes: Server, tmp_path: Path) -> None:
    """Three questions: one process asks two of them, and in the first of the two updates the other one has no rollouts."""
    algorithm = Algorithm(updates_per_batch=2)
    config = replace(
        config,
        rewards=PAID,
        algorithm=algorithm,
        questions_per_batch=3,
        group_size=2,
        max_steps=2,
        sampling=Sampling(max_tokens=24),
        save_every=9,
    )
    one, two = replace(config, out=str(tmp_path / "one")), replace(config, out=str(tmp_path / "two"))
    train(one)
    run_two(processes, command(two, tmp_path))
    assert_same_run(Path(one.out), Path(two.out))


@pytest.mark.slow
@pytest.mark.parametrize(
    "change", [{"fsdp": True}, {"fsdp": True, "precision": "bf16"}, {"fsdp": True, "lora": Lora(rank=2)}, {}]
)
def test_two_processes_that_were_killed_resume_to_the_same_curve(
    config: RLConfig, processes: Server, tmp_path: Path, change: dict[str, Any]
) -> None:
    config = replace(
        config, rewards=PAID, questions_per_batch=3, max_steps=4, algorithm=Algorithm(updates_per_batch=2), keep=9, **change
    )
    one, two, cut = (replace(config, out=str(tmp_path / name)) for name in ("one", "two", "cut"))
    run_two(processes, command(two, tmp_path))
    if config.precision == "fp32":
        train(one)
        assert_same_run(Path(one.out), Path(two.out))
    line, out = command(cut, tmp_path), Path(cut.out)

    def kill(running: list[Fork]) -> None:
        while all(own.poll() is None for own in running) and not (out / "checkpoint-1" / "complete").exists():
            time.sleep(0.002)
        for own in running:
            own.kill()

    run_two(processes, line, kill)
    assert not (out / "model").exists(), "the run was to be cut in the middle"
    for path in out.glob("checkpoint-*"):
        if int(path.name.rpartition("-")[2]) > 1:
            shutil.rmtree(path)
    run_two(processes, line)
    assert_same_run(Path(two.out), out)


def assert_same_run(first: Path, second: Path) -> None:
    """Figures of every step within 1e-4, and weights within a hundredth of the learning rate."""
    for expected, found in zip(log(first), log(second), strict=True):
        assert found == pytest.approx(expected, rel=1e-4, abs=1e-5)
        assert found["grad_norm"] > 0
    wanted, got = weights(first), weights(second)
    for name, tensor in wanted.items():
        torch.testing.assert_close(got[name], tensor, atol=3e-5, rtol=1e-4)


def test_ctrl_c_while_rollouts_are_decoded_leaves_a_checkpoint(config: RLConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    from multiverse.training.rl import decoding

    config, collect = replace(config, save_every=1000, max_steps=2), decoding.collect

    def interrupted(*args: Any, draw: Any, **kwargs: Any) -> Any:
        if draw.step == 1:
            signal.raise_signal(signal.SIGINT)
        return collect(*args, draw=draw, **kwargs)

    monkeypatch.setattr(decoding, "collect", interrupted)
    with pytest.raises(InterruptedRunError, match="stopped at step 1 of 2; start again to continue"):
        train(config)
    assert (Path(config.out) / "checkpoint-1" / "complete").exists()
    monkeypatch.undo()
    train(config)
    assert [record["step"] for record in log(Path(config.out))] == [1, 2]


def test_a_reward_that_fails_for_everything_ends_the_run_and_its_rollouts_are_judged_again(
    config: RLConfig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from multiverse.training.rl import decoding

    module = tmp_path / "mine.py"
    module.write_text("def reward(question, rollout):\n    raise KeyError('no such thing')\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    config = replace(config, rewards=[*REWARDS, Reward(name="mine:reward", workers=1)], max_steps=1)
    with pytest.raises(RewardError, match=r"'mine:reward' failed for all 6 rollouts.*no such thing"):
        train(config)
    module.write_text("def reward(question, rollout):\n    return len(rollout.generation.token_ids) / 50\n")
    collected: list[Any] = []
    monkeypatch.setattr(decoding, "collect", lambda *args, **_: collected.append(args))
    train(config)
    assert not collected, "the rollouts were kept"
    (record,) = log(Path(config.out))
    assert record["rewards/mine:reward"] > 0
    assert not list(Path(config.out).glob("pending-*"))


def test_a_run_that_collapses_ends_with_its_reason_and_a_checkpoint(config: RLConfig) -> None:
    config = replace(config, early_stopping=EarlyStopping(patience=2, entropy=100.0), save_every=1000, max_steps=3)
    with pytest.raises(
        CollapseError, match=r"the entropy is .* \(the mean of the last 2 steps\), below early_stopping.entropy=100.0"
    ):
        train(config)
    out = Path(config.out)
    assert (out / "checkpoint-2" / "complete").exists()
    assert [record["step"] for record in log(out)] == [1, 2]
    assert (out / "curve.svg").exists()
    with pytest.raises(CollapseError, match="ended early"):
        train(config)
    assert train(replace(config, early_stopping=EarlyStopping(entropy=None))).name == "model", "other limits let it go on"
    assert [record["step"] for record in log(out)] == [1, 2, 3]


def test_a_disk_that_fills_up_is_an_error_that_names_the_path(config: RLConfig) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))  # Python ignores the signal, so that writing fails
    try:
        with pytest.raises(DiskError, match="free some space") as caught:
            train(config)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert config.out in str(caught.value)


@pytest.mark.slow
def test_adapters_several_updates_and_a_reference(config: RLConfig, start: Path) -> None:
    config = replace(
        config,
        rewards=PAID,
        lora=Lora(rank=2),
        algorithm=Algorithm(name="apr"),
        max_steps=4,
        gradient_checkpointing=True,
        optimizer=replace(config.optimizer, lr=2e-2),
    )
    train(config)
    steps = log(Path(config.out))
    assert [("first_ratio_deviation" in record, record["kl"] == 0) for record in steps] == [
        (True, True), (False, False), (True, False), (False, False)
    ]  # fmt: skip
    assert all(record.get("first_ratio_deviation", 0) < 1e-3 for record in steps)
    assert steps[1]["ratio_deviation"] > 1e-3, "the weights have changed since the rollouts"
    before, after = load(start), weights(Path(config.out))
    assert before.keys() == after.keys()
    assert any(not torch.equal(before[name], after[name]) for name in before)


def load(folder: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")


@pytest.mark.slow
def test_rows_of_any_length_make_the_same_step(config: RLConfig, tmp_path: Path) -> None:
    config = replace(config, rewards=PAID, max_steps=1)
    few, many = (
        replace(config, out=str(tmp_path / "few"), packed_length=4096),
        replace(config, out=str(tmp_path / "many"), packed_length=2, group_packing=False),
    )
    train(few)
    train(many)
    (one,), (other,) = log(Path(few.out)), log(Path(many.out))
    assert other["grad_norm"] == pytest.approx(one["grad_norm"], rel=1e-4)
    assert other["loss"] == pytest.approx(one["loss"], abs=1e-6)


def test_other_settings_in_the_same_folder_are_refused(config: RLConfig) -> None:
    out = Path(config.out)
    out.mkdir()
    (out / "config.yaml").write_text(dump(config))
    with pytest.raises(ConfigError, match="group_size was 3, is 4"):
        check_folder(replace(config, group_size=4), out)
    with pytest.raises(ConfigError, match=r"algorithm\.name was 'grpo', is 'dapo'"):
        check_folder(replace(config, algorithm=Algorithm(name="dapo")), out)
    check_folder(
        replace(config, max_steps=9, packed_length=512, early_stopping=EarlyStopping(entropy=0.1), keep=1), out
    )  # makes no difference
    linear = replace(config.optimizer, schedule="linear")
    (out / "config.yaml").write_text(dump(replace(config, optimizer=linear)))
    with pytest.raises(ConfigError, match="max_steps was 3, is 9"):
        check_folder(replace(config, optimizer=linear, max_steps=9), out)


def test_a_model_without_tags_is_refused(config: RLConfig, start: Path, tmp_path: Path) -> None:
    plain = shutil.copytree(start, tmp_path / "plain")
    for path in plain.glob("*.json"):
        path.write_text(path.read_text().replace("Parallel>", "Paralel>"))
    with pytest.raises(ModelError, match="has no tags, so it never forks: teach it to with multiverse train"):
        train(replace(config, model=str(plain)))
