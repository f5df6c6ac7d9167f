"""Adapters are merged as peft merges them, load by themselves, and say what is wrong with them."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel, Qwen2Config, Qwen2ForCausalLM

from multiverse import LLM, SamplingParams
from multiverse.errors import ModelError
from multiverse.models.adapter import read_adapter
from multiverse.models.fingerprint import fingerprint
from multiverse.models.merge import write_merged
from multiverse.models.resolve import BASE
from multiverse.models.weights import load_weights
from tests.conftest import SHAPE, build_tokenizer, save_model

ROWS = [3, 7, 11]
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # peft's


def make_base(folder: Path, *, tied: bool = True, dtype: torch.dtype = torch.float32) -> Path:
    tokenizer = build_tokenizer()
    torch.manual_seed(1)
    model = Qwen2ForCausalLM(Qwen2Config(vocab_size=len(tokenizer), tie_word_embeddings=tied, **SHAPE)).to(dtype)
    return save_model(folder, model, tokenizer)


def make_adapter(folder: Path, base: Path, *, tables: tuple[str, ...] = ("embed_tokens",), **changes: Any) -> Path:
    """An adapter as peft saves it, with random values everywhere."""
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    settings: dict[str, Any] = {"r": 3, "lora_alpha": 5, "target_modules": "all-linear", **changes}
    if tables:
        settings["trainable_token_indices"] = dict.fromkeys(tables, ROWS)
    adapted: Any = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **settings))
    torch.manual_seed(2)
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.normal_(0, 0.1)
    adapted.save_pretrained(folder)
    return folder


def merged_by_peft(base: Path, adapter: Path, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    model: Any = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), str(adapter))
    return {name: tensor.to(dtype) for name, tensor in model.merge_and_unload().state_dict().items()}


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return make_base(tmp_path / "base")


@pytest.mark.parametrize(
    ("tied", "dtype", "changes"),
    [
        (True, torch.float32, {}),
        (False, torch.float32, {"tables": ("embed_tokens", "lm_head")}),
        (True, torch.bfloat16, {}),
        (True, torch.float32, {"use_rslora": True, "tables": ()}),
        (
            True,
            torch.float32,
            {"alpha_pattern": {"q_proj": 9, "layers.1.mlp.down_proj": 2}, "rank_pattern": {"q_proj": 2}, "tables": ()},
        ),
    ],
    ids=["tied", "untied", "bf16", "rslora", "patterns"],
)
def test_merged_weights_are_those_of_peft(tmp_path: Path, tied: bool, dtype: torch.dtype, changes: dict[str, Any]) -> None:
    base = make_base(tmp_path / "base", tied=tied, dtype=dtype)
    adapter = make_adapter(tmp_path / "adapter", base, **changes)
    expected = merged_by_peft(base, adapter, dtype)
    found = load_weights(str(adapter), "auto")
    assert found.dtype == dtype, "the base's"
    state = found.state_dict()
    assert state.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(state[name], tensor), name
    untouched = AutoModelForCausalLM.from_pretrained(base).state_dict()
    assert sum(not torch.equal(state[name], tensor) for name, tensor in untouched.items()) >= 14
    wide = load_weights(str(adapter), "float32").state_dict()
    for name, tensor in merged_by_peft(base, adapter, torch.float32).items():
        assert torch.equal(wide[name], tensor), name


def test_layers_that_store_inputs_by_outputs(tmp_path: Path) -> None:
    torch.manual_seed(0)
    GPT2LMHeadModel(GPT2Config(vocab_size=64, n_embd=32, n_layer=1, n_head=4)).save_pretrained(tmp_path / "base")
    adapter = make_adapter(
        tmp_path / "adapter", tmp_path / "base", tables=(), target_modules=["c_attn", "c_fc"], fan_in_fan_out=True
    )
    expected = merged_by_peft(tmp_path / "base", adapter, torch.float32)
    found = load_weights(str(adapter), "auto").state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_an_adapter_of_anybody_loads_with_its_base(base: Path, tmp_path: Path) -> None:
    """As peft leaves it: configuration and tokenizer are the base's."""
    adapter = make_adapter(tmp_path / "adapter", base)
    merged = tmp_path / "merged"
    write_merged(adapter, merged)
    assert read_adapter(merged) is None
    params = SamplingParams(temperature=0, max_tokens=12, logprobs=True)
    expected = LLM(merged, kv_memory=8 << 20).generate("Hi there", params)[0]
    found = LLM(adapter, kv_memory=8 << 20).generate("Hi there", params)[0]
    assert (found.token_ids, found.logprobs) == (expected.token_ids, expected.logprobs)
    plain = LLM(base, kv_memory=8 << 20).generate("Hi there", params)[0]
    assert plain.logprobs != expected.logprobs


def test_an_adapter_may_stand_on_an_adapter(base: Path, tmp_path: Path) -> None:
    first = make_adapter(tmp_path / "first", base)
    write_merged(first, tmp_path / "merged")
    second = make_adapter(tmp_path / "second", tmp_path / "merged", r=2)
    expected = load_weights(str(second), "auto").state_dict()
    settings = second / "adapter_config.json"
    settings.write_text(json.dumps({**json.loads(settings.read_text()), "base_model_name_or_path": str(first)}))
    found = load_weights(str(second), "auto").state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_other_weights_of_the_base_are_noticed(base: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    adapter = make_adapter(tmp_path / "adapter", base)
    config = json.loads((base / "config.json").read_text())
    (adapter / "config.json").write_text(json.dumps({**config, BASE: {"fingerprint": fingerprint(base)}}))
    with caplog.at_level(logging.WARNING):
        load_weights(str(adapter), "auto")
        assert not caplog.records
        tensors = load_file(base / "model.safetensors")
        save_file({name: tensor * 1.01 for name, tensor in tensors.items()}, base / "model.safetensors", {"format": "pt"})
        load_weights(str(adapter), "auto")
    assert "was trained on other weights of" in caplog.text


def _edited(adapter: Path, **values: Any) -> None:
    path = adapter / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"base_model_name_or_path": None}, "names no base model"),
        ({"base_model_name_or_path": "/nowhere/base"}, "needs its base model '/nowhere/base', which is not there"),
        ({"peft_type": "IA3"}, "is of type 'IA3'"),
        ({"use_dora": True}, "use_dora=True, which is not supported"),
        ({"modules_to_save": ["norm"]}, "modules_to_save=['norm']"),
        ({"trainable_token_indices": {"embed_tokens": [1, 2]}}, "rows of model.embed_tokens for 2 tokens"),
    ],
)
def test_what_cannot_be_merged_is_named(base: Path, tmp_path: Path, values: dict[str, Any], words: str) -> None:
    adapter = make_adapter(tmp_path / "adapter", base)
    _edited(adapter, **values)
    with pytest.raises(ModelError) as error:
        LLM(adapter)
    assert words in str(error.value)


def test_an_adapter_of_another_model(base: Path, tmp_path: Path) -> None:
    adapter = make_adapter(tmp_path / "adapter", base)
    tokenizer = build_tokenizer()
    other = Qwen2ForCausalLM(Qwen2Config(vocab_size=len(tokenizer), **{**SHAPE, "intermediate_size": 40}))
    _edited(adapter, base_model_name_or_path=str(save_model(tmp_path / "other", other, tokenizer)))
    with pytest.raises(ModelError, match="it was trained on another model"):
        LLM(adapter)
    fewer = Qwen2ForCausalLM(Qwen2Config(vocab_size=len(tokenizer), **{**SHAPE, "num_hidden_layers": 1}))
    shutil.rmtree(tmp_path / "other")
    save_model(tmp_path / "other", fewer, tokenizer)
    with pytest.raises(ModelError, match=r"holds tensors for which its base .* has no place, such as .*layers.1"):
        LLM(adapter)


def test_an_adapter_on_itself(base: Path, tmp_path: Path) -> None:
    adapter = make_adapter(tmp_path / "adapter", base)
    _edited(adapter, base_model_name_or_path=str(adapter))
    with pytest.raises(ModelError, match="needs its base model"):
        LLM(adapter)


def test_half_a_folder(base: Path, tmp_path: Path) -> None:
    adapter = make_adapter(tmp_path / "adapter", base)
    (adapter / "adapter_model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"holds adapter_config.json and no adapter_model.safetensors"):
        LLM(adapter)
    (adapter / "adapter_config.json").write_text("{")
    with pytest.raises(ModelError, match=r"adapter_config.json cannot be read"):
        LLM(adapter)


def test_tensor_parallelism_names_the_command_that_merges(base: Path, tmp_path: Path) -> None:
    adapter = make_adapter(tmp_path / "adapter", base)
    with pytest.raises(ModelError) as error:
        load_weights(str(adapter), "auto", distributed_config=object())
    assert f"multiverse merge {adapter} --out FOLDER" in str(error.value)
