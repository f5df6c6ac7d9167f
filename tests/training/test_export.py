"""What a run leaves behind: a folder that loads by itself, in the base's type, and says where it comes from."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer, GenerationConfig

from multiverse import LLM, SamplingParams
from multiverse.cli import main
from multiverse.errors import ConfigError
from multiverse.models.adapter import WEIGHTS
from multiverse.structure import MULTIVERSE
from multiverse.training.config import Config, Lora, Optimizer, dump
from multiverse.training.run import train
from tests.training.test_run import write_data

KINDS: dict[str, Lora | None] = {"full": None, "merged": Lora(rank=2), "adapter": Lora(rank=2, merge=False)}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model in bf16 that knows no tags, with a licence, a card and settings for generation of its own."""
    from tests.conftest import FAMILIES, build_tokenizer, save_model

    folder = tmp_path_factory.mktemp("base")
    torch.manual_seed(0)
    tokenizer = build_tokenizer(None)
    save_model(folder, FAMILIES["llama"](len(tokenizer)).to(torch.bfloat16), tokenizer)
    GenerationConfig(eos_token_id=tokenizer.eos_token_id, do_sample=True, temperature=0.7).save_pretrained(folder)
    (folder / "LICENSE").write_text("Do as you like.\n")
    (folder / "README.md").write_text("---\nlanguage: en\nlicense: apache-2.0\n---\n# A base\n")
    return folder


@pytest.fixture
def config(base: Path, tmp_path: Path) -> Config:
    return Config(
        model=str(base),
        data=[str(write_data(tmp_path / "data.jsonl", 2))],
        out=str(tmp_path / "run"),
        mixture=[0.5],
        validation=0.5,
        max_length=2048,
        global_batch_size=1,
        max_steps=1,
        precision="fp32",
        optimizer=Optimizer(lr=1e-2, warmup=0.0),
    )


def run_hint(line: str, capsys: pytest.CaptureFixture[str]) -> str:
    """Run a command as it was printed, on a question."""
    words = shlex.split(line.replace("…", "Hi"), comments=True)
    assert words[0] == "multiverse"
    assert main([*words[1:], *(["--max-tokens", "8"] if words[1] == "generate" else [])]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("kind", KINDS)
def test_the_folder_is_complete_and_in_the_type_of_the_base(
    config: Config, kind: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = Path(config.out).with_suffix(".yaml")
    recipe.write_text(dump(replace(config, lora=KINDS[kind])))
    assert main(["train", str(recipe)]) == 0
    hint = capsys.readouterr().out.strip()
    folder = Path(config.out) / ("adapter" if kind == "adapter" else "model")
    assert hint.startswith(f"{folder}: try it with  multiverse generate --model ")

    own = json.loads((folder / "config.json").read_text())
    assert own["dtype"] == "bfloat16", "and so the engine loads it"
    (tensors,) = folder.glob("*.safetensors")
    assert {tensor.dtype for tensor in load_file(tensors).values()} == {torch.bfloat16}
    names = {path.name for path in folder.iterdir()}
    assert names >= {"config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "LICENSE"}
    assert names >= {"training.yaml", "training.json", "README.md"}
    assert names.isdisjoint({"training_args.bin"})
    llm = LLM(folder, kv_memory=8 << 20)
    assert llm.engine.tokens is not None
    assert llm.engine.tokens.dialect == MULTIVERSE
    assert llm.tokenizer.chat_template == AutoTokenizer.from_pretrained(config.model).chat_template
    assert llm.engine.loaded.model.generation_config.temperature == 0.7

    summary = json.loads((folder / "training.json").read_text())
    assert summary["kind"] == kind
    assert summary["base"]["license"] == "apache-2.0"
    assert summary["base"]["model"] == config.model
    assert summary["steps"] == 1
    assert summary["first_loss"] > 0
    assert summary["validation_losses"]["eval_parallel_loss"] > 0
    card = (folder / "README.md").read_text()
    assert "license: apache-2.0" in card

    run_hint(hint.partition("  ")[2], capsys)
    monkeypatch.chdir(folder)
    commands = re.findall(r"^    (multiverse .*)$", card, re.MULTILINE)
    assert len(commands) == (4 if kind == "adapter" else 3)
    for command in commands:
        if command.split()[1] in ("generate", "merge"):  # chat and serve take the same --model, and do not end by themselves
            run_hint(command, capsys)


def test_an_adapter_is_the_merged_model_bit_for_bit(config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    merged = train(replace(config, lora=Lora(rank=2)))
    adapter = Path(config.out) / "adapter"
    params = SamplingParams(temperature=0, max_tokens=16, logprobs=True)
    found, expected = (LLM(folder, kv_memory=8 << 20) for folder in (adapter, merged))
    state = found.engine.loaded.model.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in expected.engine.loaded.model.state_dict().items())
    first, second = (llm.generate("Why?", params)[0] for llm in (found, expected))
    assert (first.token_ids, first.logprobs) == (second.token_ids, second.logprobs)

    out = adapter.parent / "by hand"
    assert main(["merge", str(adapter), "--out", str(out)]) == 0
    hint = capsys.readouterr().out.strip()
    before, after = load_file(merged / "model.safetensors"), load_file(out / "model.safetensors")
    assert all(torch.equal(before[name], tensor) for name, tensor in after.items())
    assert {path.name for path in out.iterdir()} >= {path.name for path in merged.iterdir()}
    run_hint(hint.partition("  ")[2], capsys)
    assert main(["merge", str(adapter), "--out", str(out)]) == 2
    assert "is there already: name a new folder" in capsys.readouterr().err
    assert main(["merge", str(merged), "--out", str(out / "new")]) == 2
    assert "is no folder of an adapter" in capsys.readouterr().err


@pytest.mark.parametrize("kind", KINDS)
def test_another_type_on_request(config: Config, kind: str) -> None:
    folder = train(replace(config, lora=KINDS[kind], save_dtype="float16"))
    (tensors,) = folder.glob("*.safetensors")
    assert {tensor.dtype for tensor in load_file(tensors).values()} == {torch.float16}
    assert json.loads((folder / "config.json").read_text())["dtype"] == "float16"
    assert LLM(folder, kv_memory=8 << 20).engine.loaded.model.dtype == torch.float16


def test_training_goes_on_from_an_adapter(config: Config, tmp_path: Path) -> None:
    first = train(replace(config, lora=Lora(rank=2, merge=False)))
    before = LLM(first, kv_memory=8 << 20).score("Hi")[0].logprobs
    second = train(replace(config, model=str(first), out=str(tmp_path / "second"), lora=Lora(rank=2, merge=False)))
    assert json.loads((second / "adapter_config.json").read_text())["base_model_name_or_path"] == str(first)
    after = LLM(second, kv_memory=8 << 20).score("Hi")[0].logprobs
    assert len(after) == len(before)
    assert after != before


def test_the_same_adapter_is_trained_further(config: Config, tmp_path: Path) -> None:
    first = train(replace(config, lora=Lora(rank=2, merge=False)))

    def further(name: str, lora: Lora, **changes: Any) -> Path:
        return train(replace(config, out=str(tmp_path / name), lora=replace(lora, start=str(first)), **changes))

    same = further("same", Lora(rank=2, merge=False), optimizer=Optimizer(lr=0.0))
    before = load_file(first / WEIGHTS)
    assert any(tensor.any() for name, tensor in before.items() if ".lora_B." in name)
    assert all(torch.equal(before[name], tensor) for name, tensor in load_file(same / WEIGHTS).items())
    changed = load_file(further("changed", Lora(rank=2, merge=False)) / WEIGHTS)
    assert before.keys() == changed.keys()
    assert not all(torch.equal(before[name], tensor) for name, tensor in changed.items())
    with pytest.raises(ConfigError, match=r"lora\.start=.* does not fit this model and rank"):
        further("rank", Lora(rank=4))
    with pytest.raises(ConfigError, match=r"has alpha 32\.0, not 8"):
        further("alpha", Lora(rank=2, alpha=8))
    with pytest.raises(ConfigError, match=r"holds \d+ tensors where this run trains \d+"):
        further("targets", Lora(rank=2, targets=["q_proj"]))
    with pytest.raises(ConfigError, match=r"lora\.start='.*' holds no adapters"):
        train(replace(config, out=str(tmp_path / "none"), lora=Lora(rank=2, start=config.model)))


def test_a_base_given_by_a_relative_path_is_found_from_elsewhere(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    base = Path(config.model)
    monkeypatch.chdir(base.parent)
    folder = train(replace(config, model=f"./{base.name}", lora=Lora(rank=2, merge=False)))
    monkeypatch.chdir("/")
    assert LLM(folder, kv_memory=8 << 20).engine.tokens is not None
