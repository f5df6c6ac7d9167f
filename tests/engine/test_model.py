"""Loading, packing, refusing; and agreement with transformers where there is nothing to fork."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Llama4TextConfig,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3NextConfig,
    T5Config,
)

from multiverse import LLM, Generation, SamplingParams
from multiverse.attention import dense_inputs
from multiverse.attention.joinable import check_joinable
from multiverse.backends.cpu.packed_linears import PackedLinear
from multiverse.engine.model import load
from multiverse.engine.scripted import ScriptedSampler
from multiverse.errors import ModelError
from multiverse.structure import layout
from tests.conftest import FAMILIES, SHAPE, build_tokenizer, save_model
from tests.engine.steering import NESTED, LegalSampler, run_documents, two_paths
from tests.engine.test_oracle import TOLERANCE, predecessors


@pytest.fixture(scope="module")
def plain_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose tokenizer knows no tag at all."""
    torch.manual_seed(5)
    tokenizer = build_tokenizer(None)
    return save_model(tmp_path_factory.mktemp("plain"), FAMILIES["llama"](len(tokenizer)), tokenizer)


@pytest.mark.parametrize("packed_linears", [True, False])
def test_a_model_without_a_dialect_runs_as_any_other(plain_folder: Path, packed_linears: bool) -> None:
    llm = LLM(plain_folder, kv_memory=1 << 20, packed_linears=packed_linears)
    assert llm.engine.tokens is None
    prompts = ["hello", "a longer prompt, with more words in it", "x"]
    found = llm.generate(prompts, SamplingParams(temperature=0, max_tokens=20, logprobs=True))
    model: Any = AutoModelForCausalLM.from_pretrained(plain_folder)
    for prompt, generation in zip(prompts, found, strict=True):
        ids = llm.tokenizer.encode(prompt, return_tensors="pt")
        expected = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=20, do_sample=False)[0]
        assert list(generation.token_ids) == expected[ids.shape[1] :].tolist()
        assert generation.positions == tuple(range(ids.shape[1], ids.shape[1] + len(generation.token_ids)))
        assert set(generation.branches) == {""}
        assert not any(generation.forced)
        assert generation.usage.parallelism == 1.0
        if generation.finish_reason == "stop":
            assert generation.tree is not None
            assert generation.tree.plain_answer == generation.text == generation.answer


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_plain_text_of_every_family_agrees_with_transformers(model_folders: dict[str, Path], family: str) -> None:
    llm = LLM(model_folders[family], kv_memory=1 << 20)
    (generation,) = llm.generate("hello there", SamplingParams(temperature=0, max_tokens=12, max_depth=0, logprobs=True))
    model: Any = AutoModelForCausalLM.from_pretrained(model_folders[family]).eval()
    ids = [*generation.prompt_token_ids, *generation.token_ids]
    with torch.inference_mode():
        logprobs = model(torch.tensor([ids])).logits[0].log_softmax(-1)
    assert generation.logprobs is not None
    for i, (token, value) in enumerate(zip(generation.token_ids, generation.logprobs, strict=True)):
        row = logprobs[len(generation.prompt_token_ids) + i - 1]
        assert value == pytest.approx(float(row[token]), abs=TOLERANCE)


def test_many_at_once_are_the_same_as_one_at_a_time(llm: LLM) -> None:
    # The random model forks and joins as it likes, within the grammar.
    llm.engine.sampler = LegalSampler()
    prompts = [f"question {i}" + "!" * (i % 7) + "<Think>\n" * (i % 2) for i in range(64)]
    params = SamplingParams(temperature=0, max_tokens=64, max_depth=2)
    together = llm.generate(prompts, params)
    assert sum(len(set(generation.branches)) > 1 for generation in together) > 5
    for i in range(0, 64, 5):
        (alone,) = llm.generate(prompts[i], params)
        assert (alone.token_ids, alone.branches, alone.positions) == (
            together[i].token_ids, together[i].branches, together[i].positions,
        )  # fmt: skip


def test_a_small_budget_changes_nothing(llm: LLM) -> None:
    prompts = ["q" * n for n in (1, 30, 7)]
    params = SamplingParams(temperature=0, max_tokens=16, logprobs=True)
    whole = llm.generate(prompts, params)
    llm.engine.scheduler.max_batch_tokens = 4
    chunked = llm.generate(prompts, params)
    for a, b in zip(whole, chunked, strict=True):
        assert a.token_ids == b.token_ids
        assert a.logprobs == pytest.approx(b.logprobs, abs=TOLERANCE)


@pytest.mark.parametrize("window", [3, 16])
def test_sliding_windows_reach_back_by_position(tmp_path: Path, tokenizer: PreTrainedTokenizerFast, window: int) -> None:
    torch.manual_seed(window)
    config = MistralConfig(vocab_size=len(tokenizer), sliding_window=window, **SHAPE)
    folder = save_model(tmp_path, MistralForCausalLM(config), tokenizer)
    llm = LLM(folder, kv_memory=4 << 20)
    tokens = llm.engine.tokens
    assert tokens is not None
    model: Any = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="sdpa").eval()
    for generation in run_documents(llm, [NESTED, two_paths()]):
        ids = [*generation.prompt_token_ids, *generation.token_ids[:-1]]
        whole = layout(ids, tokens)
        inputs = dense_inputs(ids, whole)
        position_L = inputs["position_ids"][0]
        inputs["attention_mask"] &= position_L[:, None] - position_L[None, :] < window
        with torch.inference_mode():
            logprobs_LV = model(**inputs).logits[0].log_softmax(-1)
        before = predecessors(whole)
        offset = len(generation.prompt_token_ids)
        assert generation.logprobs is not None
        compared = 0
        for i, value in enumerate(generation.logprobs[:-1]):
            if value is not None:
                assert value == pytest.approx(float(logprobs_LV[before[offset + i], ids[offset + i]]), abs=TOLERANCE)
                compared += 1
        assert compared > 50


def test_a_tied_output_layer_leaves_the_embedding_as_it_was(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    torch.manual_seed(0)
    config = Qwen2Config(vocab_size=len(tokenizer), tie_word_embeddings=True, **SHAPE)
    folder = save_model(tmp_path, Qwen2ForCausalLM(config), tokenizer)
    embedding = AutoModelForCausalLM.from_pretrained(folder).get_input_embeddings().weight
    packed, plain = LLM(folder, kv_memory=1 << 20), LLM(folder, kv_memory=1 << 20, packed_linears=False)
    assert isinstance(packed.engine.loaded.model.lm_head, PackedLinear)
    assert type(plain.engine.loaded.model.lm_head) is nn.Linear
    assert torch.equal(packed.engine.loaded.model.get_input_embeddings().weight, embedding)
    results: list[Generation] = []
    for llm in (packed, plain):
        llm.engine.sampler = ScriptedSampler()
        results += run_documents(llm, [two_paths()])
    assert results[0].token_ids == results[1].token_ids
    for a, b in zip(results[0].logprobs or (), results[1].logprobs or (), strict=True):
        assert (a is None) == (b is None)
        assert a is None or a == pytest.approx(b, abs=TOLERANCE)


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda: T5Config(), r"model type 't5'\) is an encoder-decoder"),
        (lambda: Qwen3NextConfig(num_hidden_layers=4), r"model type 'qwen3_next'\) has layers of type linear_attention"),
        (lambda: Gemma2Config(), r"model type 'gemma2'\) caps its attention logits"),
    ],
)
def test_what_cannot_be_joined_is_refused_by_name(make: Callable[[], Any], problem: str) -> None:
    with pytest.raises(ModelError, match=f"^'the-model' .*{problem}.*: choose a"):
        check_joinable(make(), "the-model")


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_what_can_be_joined_is_accepted(model_folders: dict[str, Path], family: str) -> None:
    check_joinable(AutoModelForCausalLM.from_pretrained(model_folders[family]).config, family)


def test_a_refusal_comes_before_the_weights(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    # There are no weights in this folder; that does not matter, since the model is refused on its configuration.
    Llama4TextConfig(num_hidden_layers=4).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="layers of type chunked_attention, which can neither be joined nor be run branch by"):
        LLM(tmp_path)


def test_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"the model folder '.*nowhere' does not exist: give a folder"):
        load(tmp_path / "nowhere")
    with pytest.raises(ModelError, match=r"the model folder '\./nowhere' does not exist"):
        load("./nowhere")


def test_a_folder_without_a_configuration(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"holds no config\.json: give the folder that save_pretrained\(\) wrote"):
        load(tmp_path)
    file = tmp_path / "file.txt"
    file.write_text("x")
    with pytest.raises(ModelError, match="does not exist"):
        load(file)


def test_a_folder_with_a_broken_configuration(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ModelError, match="could not be read"):
        load(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "no-such-kind"}))
    with pytest.raises(ModelError, match="could not be read"):
        load(tmp_path)


def test_a_folder_without_weights(tmp_path: Path, model_folders: dict[str, Path]) -> None:
    for file in model_folders["qwen2"].iterdir():
        if "safetensors" not in file.name:
            (tmp_path / file.name).write_bytes(file.read_bytes())
    with pytest.raises(ModelError, match=r"the weights of '.*' could not be loaded"):
        load(tmp_path)


def test_a_hub_id_without_a_network() -> None:
    with pytest.raises(
        ModelError,
        match=r"'nobody/no-such-model' could not be read \(it is not a local .*the network, or see  multiverse models\)",
    ):
        load("nobody/no-such-model")


@pytest.mark.parametrize("wrong", [{"device": "abacus"}, {"dtype": "float33"}, {"dtype": "nn"}])
def test_an_unknown_device_or_type(model_folders: dict[str, Path], wrong: dict[str, str]) -> None:
    ((name, value),) = wrong.items()
    with pytest.raises(ModelError, match=f"^{name}='{value}' is not .*: use 'auto'"):
        load(model_folders["qwen2"], **wrong)


def test_too_little_memory(model_folders: dict[str, Path]) -> None:
    with pytest.raises(ModelError, match=r"kv_memory=1000 bytes hold only \d+ tokens .* give at least \d+"):
        LLM(model_folders["qwen2"], kv_memory=1000)


def test_what_a_loaded_model_knows(model_folders: dict[str, Path], tokenizer: PreTrainedTokenizerFast) -> None:
    loaded = load(model_folders["qwen3"], device="cpu", dtype="float32")
    assert loaded.path == str(model_folders["qwen3"])
    assert loaded.max_positions == SHAPE["max_position_embeddings"]
    assert loaded.stop_ids == {tokenizer.eos_token_id}
    assert loaded.backend.device == torch.device("cpu")
    assert not any(parameter.requires_grad for parameter in loaded.model.parameters())
