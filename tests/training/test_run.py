"""Whole runs of a tiny model: the folder they leave, resuming after SIGKILL, two processes, adapters, and what is refused."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partialmethod
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from multiverse import LLM
from multiverse.errors import ConfigError, DataError, DiskError
from multiverse.structure import render
from multiverse.tasks import problems
from multiverse.training.config import Config, Lora, Optimizer, dump
from multiverse.training.run import train
from tests.forks import Server, forks, run_two

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def write_data(path: Path, count: int = 12) -> Path:
    lines = [
        json.dumps(
            {
                "messages": [
                    {"role": "user", "content": problem.question},
                    {"role": "assistant", "content": render(problem.structured)},
                ],
                "sequential": render(problem.sequential),
            }
        )
        for problem in islice(problems("worksheet", seed=1, width=2), count)
    ]
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from recipes.mini.start import write

    folder = tmp_path_factory.mktemp("start")
    write(folder, shape="test", texts=100)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data") / "data.jsonl")


@pytest.fixture(scope="module")
def processes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with forks(tmp_path_factory.mktemp("processes"), "multiverse.cli", "multiverse.training.run", "accelerate") as server:
        yield server


@pytest.fixture
def config(start: Path, data: Path, tmp_path: Path) -> Config:
    return configured(start, data, tmp_path / "run")


def configured(start: Path, data: Path, out: Path) -> Config:
    return Config(
        model=str(start),
        data=[str(data)],
        out=str(out),
        mixture=[0.0, 0.5, 1.0],
        max_length=512,
        packing=True,
        global_batch_size=4,
        micro_batch_size=2,
        precision="fp32",
        optimizer=Optimizer(lr=3e-3, warmup=0.2),
        save_every=1000,
    )


def losses(out: Path) -> dict[int, float]:
    records = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    found = [(record["step"], record["loss"]) for record in records if "loss" in record]
    assert len(dict(found)) == len(found), "a step is logged once"
    return dict(found)


def command(config: Config, folder: Path) -> list[str]:
    path = folder / f"{Path(config.out).name}.yaml"
    path.write_text(dump(config))
    return ["multiverse", "train", str(path)]


def test_a_run_leaves_a_model_that_the_engine_loads(config: Config) -> None:
    config = replace(config, validation=0.25)
    folder = train(config)
    out = Path(config.out)
    assert folder == out / "model"
    llm = LLM(folder, kv_memory=8 << 20)
    assert llm.engine.tokens is not None
    assert llm.generate("Hi").__len__() == 1
    assert yaml.safe_load((folder / "training.yaml").read_text())["mixture"] == [0.0, 0.5, 1.0]
    seen = losses(out)
    assert seen[max(seen)] < seen[1]
    records = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert any("eval_parallel_loss" in record and "eval_sequential_loss" in record for record in records)
    assert "<svg" in (out / "curve.svg").read_text()
    assert (out / "faults.jsonl").read_text() == ""
    assert train(config) == folder, "a finished run is finished"
    assert losses(out) == seen


# torch's compiler asks for it, and hides the warning in a way that a filter for errors precedes.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")
@pytest.mark.parametrize(
    "change",
    [
        {},
        {"share_every": 4},
        {"lora": Lora(rank=2)},
        {"gradient_checkpointing": True},
        {"packing": False, "micro_batch_size": 1},
        {"instruct": False},
        {"compile": True},
        pytest.param({"compile": True, "lora": Lora(rank=2), "gradient_checkpointing": True}, marks=pytest.mark.slow),
    ],
    ids=["plain", "sharing", "adapters", "checkpointing", "unpacked", "uninstructed", "compiled", "compiled-adapters"],
)
def test_the_loss_of_the_first_step_is_what_the_engine_scores(
    config: Config, change: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole way, from the file to the log: any other mask, position, label or division would show here."""
    from multiverse.structure import parse
    from multiverse.training import IGNORED, Featurizer, View

    # Traced and differentiated as always; only the compilation of the kernels is left out, which takes minutes.
    monkeypatch.setattr(torch.nn.Module, "compile", partialmethod(torch.nn.Module.compile, backend="aot_eager"))

    config = replace(config, mixture=[1.0], global_batch_size=12, max_steps=1, **change)
    folder = train(replace(config, optimizer=Optimizer(lr=0.0)))  # the model as it is prepared, and as it is logged
    llm = LLM(folder, kv_memory=8 << 20)
    assert llm.engine.tokens is not None
    assert llm.instructed == config.instruct
    make = Featurizer(llm.tokenizer, llm.engine.tokens, View(share_every=config.share_every))
    total = count = 0.0
    for line in Path(config.data[0]).read_text().splitlines():
        question, answer = (message["content"] for message in json.loads(line)["messages"])
        features = make([{"role": "user", "content": question}], parse(answer), "parallel" if config.instruct else None)
        scored = llm.score([list(features.token_ids)], share_every=config.share_every)[0]
        values = [v for v, label in zip(scored.logprobs, features.labels, strict=True) if label != IGNORED and v is not None]
        total, count = total - sum(values), count + features.num_loss_tokens
    assert losses(Path(config.out))[1] == pytest.approx(total / count, abs=1e-4)


def test_a_run_killed_with_sigkill_resumes_to_the_same_curve(config: Config, processes: Server, tmp_path: Path) -> None:
    config = replace(config, save_every=1)
    whole, cut = replace(config, out=str(tmp_path / "whole")), replace(config, out=str(tmp_path / "cut"))
    done = processes.start(*command(whole, tmp_path))
    assert done.wait() == 0, done.stderr
    expected = losses(Path(whole.out))
    assert len(expected) >= 5

    line = command(cut, tmp_path)
    log = Path(cut.out) / "log.jsonl"
    running = processes.start(*line)
    while running.poll() is None and (not log.exists() or log.read_text().count("\n") < 3):
        time.sleep(0.005)
    running.kill()
    assert running.wait() == -signal.SIGKILL
    assert not (Path(cut.out) / "model").exists(), "the run was to be cut in the middle"
    # What a killed run may leave behind as well: a checkpoint without its end, and half a line.
    (Path(cut.out) / "checkpoint-9999").mkdir()
    with log.open("a") as file:
        file.write('{"step": 99')

    again = processes.start(*line)
    assert again.wait() == 0, again.stderr
    assert losses(Path(cut.out)) == expected
    first, second = (
        torch.load(path, weights_only=True) if path.suffix == ".pt" else _weights(path)
        for path in (Path(whole.out) / "model", Path(cut.out) / "model")
    )
    assert all(torch.equal(first[name], second[name]) for name in first)


def _weights(folder: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")


@pytest.fixture(scope="module")
def alone(start: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Config:
    """A run of one process."""
    config = replace(configured(start, data, tmp_path_factory.mktemp("alone") / "one"), save_every=2, max_steps=4)
    train(config)
    return config


@pytest.mark.parametrize(
    ("fsdp", "launched"),
    [(True, False), (False, False), pytest.param(True, True, marks=pytest.mark.slow)],
    ids=["fsdp", "ddp", "fsdp-launched"],
)
def test_two_processes_train_to_the_same_loss_as_one(
    alone: Config, processes: Server, tmp_path: Path, fsdp: bool, launched: bool
) -> None:
    one = alone
    two = replace(one, out=str(tmp_path / "two"), fsdp=fsdp, micro_batch_size=1)
    line = command(two, tmp_path)
    if launched:
        launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone", "-m", *line]
        done = subprocess.run(launch, env=ENVIRONMENT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    else:
        run_two(processes, line)
    expected, found_losses = losses(Path(one.out)), losses(Path(two.out))
    assert found_losses == pytest.approx(expected, rel=2e-4)
    checkpoints = sorted(Path(two.out).glob("checkpoint-*"))
    assert len(checkpoints) == 2
    assert all((path / "pytorch_model_fsdp.bin").exists() == fsdp for path in checkpoints), "sharded if asked, only then"

    shutil.rmtree(checkpoints[-1])
    shutil.rmtree(Path(two.out) / "model")
    run_two(processes, line)
    assert losses(Path(two.out)) == pytest.approx(found_losses, rel=1e-6)
    first, second = _weights(Path(one.out) / "model"), _weights(Path(two.out) / "model")
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        torch.testing.assert_close(second[name], tensor, atol=2e-3, rtol=2e-2)


@pytest.mark.slow
def test_a_process_that_gets_nothing_but_padding_takes_part(config: Config, processes: Server, tmp_path: Path) -> None:
    """Of the last two rows, one is empty: the second process has no token, and yet a gradient for each weight."""
    config = replace(
        config,
        data=[str(write_data(tmp_path / "odd.jsonl", 5))],
        mixture=[1.0],
        packing=False,
        global_batch_size=2,
        micro_batch_size=1,
        gradient_checkpointing=True,  # without, DDP looks for weights that were not used
    )
    one, two = replace(config, out=str(tmp_path / "one")), replace(config, out=str(tmp_path / "two"))
    train(one)
    run_two(processes, command(two, tmp_path))
    assert losses(Path(two.out)) == pytest.approx(losses(Path(one.out)), rel=2e-4)
    first, second = _weights(Path(one.out) / "model"), _weights(Path(two.out) / "model")
    for name, tensor in first.items():
        torch.testing.assert_close(second[name], tensor, atol=1e-4, rtol=1e-3)


def test_forward_passes_of_any_size_make_the_same_step(config: Config, tmp_path: Path) -> None:
    alone, many = (
        replace(config, out=str(tmp_path / "alone"), micro_batch_size=1, max_steps=3),
        replace(config, out=str(tmp_path / "many"), micro_batch_size=4, max_steps=3),
    )
    train(alone)
    train(many)
    assert losses(Path(alone.out)) == pytest.approx(losses(Path(many.out)), rel=1e-4)


@pytest.mark.parametrize("merge", [True, False])
def test_adapters(config: Config, start: Path, merge: bool) -> None:
    config = replace(config, lora=Lora(rank=4, merge=merge), gradient_checkpointing=True, optimizer=Optimizer(lr=2e-2))
    folder = train(config)
    seen = losses(Path(config.out))
    assert seen[max(seen)] < seen[1]
    assert (Path(config.out) / "adapter" / "adapter_model.safetensors").exists()
    if merge:
        assert LLM(folder, kv_memory=8 << 20).engine.tokens is not None
        before, after = _weights(start), _weights(folder)
        assert before.keys() == after.keys()
        assert any(not torch.equal(before[name], after[name]) for name in before)
    else:
        assert folder.name == "adapter"


def test_muon_and_bf16(config: Config) -> None:
    muon = Optimizer(name="muon", lr=3e-3, muon_lr=5e-3, schedule="wsd", warmup=0.1)
    config = replace(config, optimizer=muon, precision="bf16", save_every=2)
    train(config)
    seen = losses(Path(config.out))
    assert seen[max(seen)] < seen[1]
    *_, last = sorted(Path(config.out).glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]))
    shutil.rmtree(last)
    train(config)
    assert losses(Path(config.out)) == seen, "both optimizers go on where they were"


@pytest.mark.parametrize("view", [{"share_every": 4}, {"positions": "linear"}, {"attention": "causal", "positions": "linear"}])
def test_baselines_train(config: Config, view: dict[str, Any]) -> None:
    train(replace(config, mixture=[1.0], max_steps=2, **view))
    assert len(losses(Path(config.out))) == 2


def test_the_first_step_is_the_same_whatever_the_view_shows_of_sequential_text(config: Config, tmp_path: Path) -> None:
    plain = replace(config, mixture=[0.0], max_steps=1)
    found = []
    for number, view in enumerate(
        ({}, {"share_every": 2}, {"positions": "linear"}, {"attention": "causal", "positions": "linear"})
    ):
        run = replace(plain, out=str(tmp_path / str(number)), **view)
        train(run)
        found.append(losses(Path(run.out))[1])
    assert found[1:3] == pytest.approx([found[0]] * 2, rel=1e-5)
    # A plain engine writes the separators of the thinking by itself, so their loss counts too.
    assert found[3] == pytest.approx(found[0], rel=1e-2)
    assert found[3] != pytest.approx(found[0], rel=1e-5)


def test_faulty_rows_stop_the_run_before_it_starts_each_with_its_line(config: Config, tmp_path: Path) -> None:
    good = Path(config.data[0]).read_text().splitlines()
    unbalanced = json.loads(good[0])
    unbalanced["messages"][1]["content"] = unbalanced["messages"][1]["content"].replace("</Goal>", "", 1)
    long = json.loads(good[1])
    long["messages"][0]["content"] += " and so on" * 300
    silent = json.loads(good[2])
    silent["messages"] = silent["messages"][1:]
    path = tmp_path / "mixed.jsonl"
    lines = [good[0], json.dumps(unbalanced), good[1], json.dumps(long), json.dumps(silent), '{"messages": [', good[3]]
    path.write_text("\n".join(lines))
    config = replace(config, data=[str(path)])
    with pytest.raises(DataError) as caught:
        train(config)
    text = str(caught.value)
    assert "4 faulty rows, 3 good ones" in text
    for line in (2, 4, 5, 6):
        assert f"mixed.jsonl:{line}: " in text
    assert "over the limit max_length=512" in text
    assert not (Path(config.out) / "log.jsonl").exists()

    train(replace(config, on_error="skip", mixture=[1.0]), fresh=True)
    kept = [json.loads(line) for line in (Path(config.out) / "faults.jsonl").read_text().splitlines()]
    assert sorted(fault["line"] for fault in kept) == [2, 4, 5, 6]


def test_an_empty_file_is_named(config: Config, tmp_path: Path) -> None:
    empty = tmp_path / "empty.jsonl"
    empty.write_text("")
    with pytest.raises(DataError, match=r"empty\.jsonl"):
        train(replace(config, data=[str(empty)]))


def test_other_settings_in_the_same_folder_are_refused(config: Config) -> None:
    train(replace(config, max_steps=1))
    with pytest.raises(ConfigError, match="max_steps was 1, is 2"):
        train(replace(config, max_steps=2))
    train(replace(config, max_steps=2), fresh=True)
    assert len(losses(Path(config.out))) == 2


def test_a_run_of_an_earlier_version_resumes(config: Config) -> None:
    """Its stored configuration has the earlier names of the settings."""
    config = replace(config, optimizer=replace(config.optimizer, schedule="wsd", stable_ratio=0.5), save_every=2)
    train(config)
    out = Path(config.out)
    seen = losses(out)
    stored = (out / "config.yaml").read_text()
    for now, before in {
        "max_length": "length",
        "packing: true": "packing: true\nrow_length: null\nphases: 8",
        "global_batch_size": "batch",
        "micro_batch_size": "rows",
        "gradient_checkpointing": "checkpointing",
        "on_error": "faults",
        "schedule: wsd": "schedule: steady",
        "stable_ratio": "steady",
        "max_grad_norm": "clip",
    }.items():
        assert now in stored
        stored = stored.replace(now, before)
    (out / "config.yaml").write_text(stored)
    *_, last = sorted(out.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]))
    shutil.rmtree(last)
    shutil.rmtree(out / "model")
    train(config)
    assert losses(out) == seen
    with pytest.raises(ConfigError, match=r"optimizer\.stable_ratio was 0\.5, is 0\.6"):
        train(replace(config, optimizer=replace(config.optimizer, stable_ratio=0.6)))


def test_adapters_for_layers_that_the_model_does_not_have(config: Config) -> None:
    with pytest.raises(ConfigError, match=r"lora\.targets=\['query'\] does not fit this model"):
        train(replace(config, lora=Lora(targets=["query"])))


def test_ctrl_c_saves_and_the_run_resumes(config: Config, processes: Server, tmp_path: Path) -> None:
    log = Path(config.out) / "log.jsonl"
    running = processes.start(*command(config, tmp_path))
    while running.poll() is None and (not log.exists() or not log.read_text()):
        time.sleep(0.005)
    running.send_signal(signal.SIGINT)
    assert running.wait() == 130, running.stderr
    assert "start again to continue" in running.stderr
    stopped = max(losses(Path(config.out)))
    train(config)
    assert min(losses(Path(config.out))) == 1
    assert max(losses(Path(config.out))) > stopped


def test_a_batch_that_cannot_be_divided_is_refused(config: Config) -> None:
    with pytest.raises(
        ConfigError,
        match="global_batch_size=4 cannot be divided over 1 processes with micro_batch_size=3: make it a multiple of 3",
    ):
        train(replace(config, micro_batch_size=3))


@pytest.mark.parametrize("name", ["CP_SIZE", "SP_SIZE"])
def test_what_would_replace_the_mask_is_refused(config: Config, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(f"PARALLELISM_CONFIG_{name}", "2")
    with pytest.raises(ConfigError, match="replaces the mask"):
        train(config)


def test_a_tracker_that_is_not_installed_is_named(config: Config) -> None:
    with pytest.raises(ConfigError, match="report_to='paper' is not installed"):
        train(replace(config, report_to=["paper"]))


def test_block_masks_need_cuda(config: Config) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is CUDA here")
    with pytest.raises(ConfigError, match="mask='block' needs CUDA"):
        train(replace(config, mask="block"))


def test_a_folder_with_splits_trains_on_one_and_is_measured_on_the_other(config: Config, tmp_path: Path) -> None:
    from multiverse.training.loading import read_rows

    (tmp_path / "set" / "data").mkdir(parents=True)
    write_data(tmp_path / "set" / "data" / "train.jsonl", 3)
    write_data(tmp_path / "set" / "data" / "validation.jsonl", 2)
    for split, count in (("train", 3), ("validation", 2)):
        rows, faults = read_rows(config, [str(tmp_path / "set")], split)
        assert not faults
        assert len(rows) == count
        assert all(split in row.source for row in rows)
    assert len(read_rows(config, config.data, "validation")[0]) == 12, "a file has no splits"


def test_a_share_for_validation_that_holds_no_document_is_no_reason_to_fail(config: Config) -> None:
    train(replace(config, validation=1e-9, max_steps=1))
    assert len(losses(Path(config.out))) == 1


def test_a_disk_that_fills_up_is_an_error_that_names_the_path(config: Config) -> None:
    config = replace(config, save_every=1, max_steps=2)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))  # Python ignores the signal, so that writing fails
    try:
        with pytest.raises(DiskError, match="free some space") as caught:
            train(config)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert config.out in str(caught.value)
    assert not [path for path in Path(config.out).rglob("*") if path.is_file() and path.stat().st_size > 20_000]
    assert train(config).name == "model"  # the rest of a checkpoint is in nobody's way
