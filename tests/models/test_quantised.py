"""Weights in few bits: as transformers computes them, or refused with what is missing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM, TorchAoConfig

from multiverse import LLM
from multiverse.backends.plain import is_plain_linear
from multiverse.engine.scripted import ScriptedSampler
from multiverse.errors import ModelError
from tests.conftest import SHAPE, save_model
from tests.engine.steering import NESTED, run_documents
from tests.engine.test_oracle import check


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory, tokenizer: PreTrainedTokenizerFast) -> Path:
    torch.manual_seed(0)
    shape = {**SHAPE, "hidden_size": 64, "intermediate_size": 128}
    return save_model(
        tmp_path_factory.mktemp("plain"), Qwen2ForCausalLM(Qwen2Config(vocab_size=len(tokenizer), **shape)), tokenizer
    )


def states(plain: Path, folder: Path, settings: dict[str, Any]) -> Path:
    """A copy of a model whose configuration states that it is quantised."""
    for file in plain.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "quantization_config": settings}))
    return folder


@pytest.mark.filterwarnings("ignore")  # of the library, about parts of it that were built for other machines
def test_eight_bits_agree_with_transformers(plain: Path, tmp_path: Path) -> None:
    settings = TorchAoConfig(pytest.importorskip("torchao.quantization").Int8WeightOnlyConfig())
    quantised: Any = AutoModelForCausalLM.from_pretrained(plain, quantization_config=settings, device_map={"": "cpu"})
    quantised.save_pretrained(tmp_path)
    for file in plain.glob("*token*"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    llm = LLM(tmp_path, kv_memory=4 << 20)
    linear = llm.engine.loaded.model.model.layers[0].self_attn.q_proj
    assert not is_plain_linear(linear)
    assert type(linear.weight) is type(quantised.model.layers[0].self_attn.q_proj.weight)
    llm.engine.sampler = ScriptedSampler()
    tokens = llm.engine.tokens
    assert tokens is not None
    model = AutoModelForCausalLM.from_pretrained(tmp_path, attn_implementation="sdpa", device_map={"": "cpu"}).eval()
    (generation,) = run_documents(llm, [NESTED])
    assert check(model, generation, tokens) > 50


@pytest.mark.parametrize("method", ["gptq", "awq"])
def test_a_method_that_is_not_installed_is_named(plain: Path, tmp_path: Path, method: str) -> None:
    folder = states(plain, tmp_path, {"quant_method": method, "bits": 4, "group_size": 32})
    with pytest.raises(
        ModelError, match=rf"the weights of '.*' are quantised \({method}\), and could not be loaded: .*; install"
    ):
        LLM(folder)


def test_quantised_weights_are_not_split_over_processes(plain: Path, tmp_path: Path) -> None:
    folder = states(plain, tmp_path, {"quant_method": "torchao"})
    with pytest.raises(ModelError, match=r"tensor_parallel=2 does not go with the quantised weights \(torchao\) of"):
        LLM(folder, tensor_parallel=2)


@pytest.mark.parametrize(("settings", "method"), [({"quant_method": "own"}, "own"), ({"bits": 4}, "a method that its config")])
def test_a_method_that_transformers_does_not_know_is_not_taken_for_plain_numbers(
    plain: Path, tmp_path: Path, settings: dict[str, Any], method: str
) -> None:
    with pytest.raises(ModelError, match=rf"are quantised \({method}.*\), which transformers does not know: choose"):
        LLM(states(plain, tmp_path, settings))
