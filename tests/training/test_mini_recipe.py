"""The training loop of the mini model: resuming, the schedule, the mixture, the folder it writes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from recipes.mini.mixture import Source, documents, held_out
from recipes.mini.train import Settings, Trainer, rate, train

SETTINGS = Settings(shape="test", steps=6, tokens=1200, row=512, micro=1200, warmup=2)


def make(tokenizer_folder: Path, run: Path, settings: Settings = SETTINGS) -> Trainer:
    shutil.copytree(tokenizer_folder, run / "tokenizer", dirs_exist_ok=True)
    return Trainer(settings, run)


def losses(run: Path) -> list[tuple[int, float]]:
    records = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [(record["step"], record["loss"]) for record in records if "loss" in record]


def test_a_killed_run_resumes_to_the_same_curve(tokenizer_folder: Path, tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    first = make(tokenizer_folder, whole)
    train(first, stop=6, held=0)

    train(make(tokenizer_folder, cut), stop=3, held=0)
    with (cut / "log.jsonl").open("a") as log:
        log.write('{"step": 4, "loss": 9.9}\n')  # steps after the last checkpoint are done again
    second = make(tokenizer_folder, cut)
    assert second.resume()
    assert second.step == 3
    train(second, stop=6, held=0)

    assert [step for step, _ in losses(cut)] == [1, 2, 3, 4, 5, 6]
    assert losses(cut) == losses(whole)
    for name, tensor in first.model.state_dict().items():
        assert torch.equal(tensor, second.model.state_dict()[name]), name


def test_a_checkpoint_of_other_settings_is_refused(tokenizer_folder: Path, tmp_path: Path) -> None:
    make(tokenizer_folder, tmp_path).save()
    with pytest.raises(ValueError, match="--fresh"):
        make(tokenizer_folder, tmp_path, Settings(shape="test", steps=7)).resume()


def test_loss_does_not_depend_on_the_micro_batch(tokenizer_folder: Path, tmp_path: Path) -> None:
    small = Settings(shape="test", steps=6, tokens=1200, row=1, micro=1, warmup=2)
    one, many = make(tokenizer_folder, tmp_path / "one"), make(tokenizer_folder, tmp_path / "many", small)
    drawn = documents(one.source(), 0)
    assert one.train_step(drawn) == pytest.approx(many.train_step(drawn), rel=1e-3)


def test_documents_of_a_step_depend_on_seed_and_step_alone(tokenizer_folder: Path) -> None:
    source = Source(str(tokenizer_folder), seed=1, tokens=1500)
    assert documents(source, 5) == documents(source, 5)
    assert documents(source, 5) != documents(source, 6)
    assert documents(source, 5) != documents(source._replace(seed=2), 5)
    assert sum(map(len, documents(source, 5))) >= 1500


def test_evaluation_counts_documents(tokenizer_folder: Path, tmp_path: Path) -> None:
    trainer = make(tokenizer_folder, tmp_path)
    groups = held_out(trainer.tokenizer_folder, 2)
    assert len(groups) == 10
    for group in groups.values():
        tokens_right, documents_right = trainer.evaluate(group)
        assert 0 <= tokens_right < 0.5
        assert documents_right == 0


def test_the_exported_folder_loads_plainly(tokenizer_folder: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    trainer = make(tokenizer_folder, tmp_path / "run")
    trainer.export(tmp_path / "model")
    names = {file.name for file in (tmp_path / "model").iterdir()}
    assert names == {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    assert {tensor.dtype for tensor in load_file(tmp_path / "model" / "model.safetensors").values()} == {torch.float32}
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    assert model.config.model_type == "qwen3"
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id
    assert Trainer(SETTINGS, tmp_path / "run", init=tmp_path / "model").model.config.hidden_size == 32


def test_the_learning_rate_climbs_stays_and_falls_to_zero() -> None:
    settings = Settings(steps=100, warmup=10, steady=0.5)
    assert rate(0.0, 0, settings) == pytest.approx(0.1)
    assert rate(0.3, 30, settings) == 1.0
    assert rate(0.75, 75, settings) == pytest.approx(0.5)
    assert rate(1.0, 100, settings) == 0.0
