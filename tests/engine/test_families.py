"""The oracle over the families that transformers has: each agrees with one dense forward, forks included, or is refused."""

from __future__ import annotations

import inspect
import warnings
from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest
import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, GenerationConfig, PreTrainedTokenizerFast
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from multiverse import SamplingParams
from multiverse.attention import dense_inputs
from multiverse.attention.joinable import check_joinable
from multiverse.backends import select
from multiverse.engine.engine import Engine
from multiverse.engine.model import prepare
from multiverse.engine.scripted import Script, ScriptedSampler
from multiverse.errors import ModelError
from multiverse.structure import MULTIVERSE, Block, Document, Positions, layout, resolve
from tests.engine.test_oracle import TOLERANCE, predecessors

FULL = ["full_attention"] * 2
WINDOWED = ["sliding_attention", "full_attention"]
WINDOW = 9

# Given to a configuration as far as it knows the names.
SIZES: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "head_dim": 8, "max_position_embeddings": 256, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256, "n_inner": 48,
    "d_model": 32, "n_layers": 2, "n_heads": 4, "num_layers": 2, "rotary_dim": 8, "ffn_dim": 48, "dim_ff": 48,
    "max_seq_len": 256,
    "kv_lora_rank": 16, "q_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 8,
    "moe_intermediate_size": 16, "num_experts": 4, "num_local_experts": 4, "n_routed_experts": 4, "num_experts_per_tok": 2,
    "n_group": 1, "topk_group": 1, "n_shared_experts": 1, "first_k_dense_replace": 1, "shared_expert_intermediate_size": 16,
    "expert_ffn_hidden_size": 16, "ffn_hidden_size": 48, "word_embed_proj_dim": 32, "shared_intermediate_size": 48,
    "num_shared_experts": 1, "moe_topk": 2, "dropout": 0.0, "is_decoder": True, "hidden_size_per_layer_input": 8,
    "mamba_n_heads": 8, "mamba_d_head": 8, "embedding_size": 32, "sliding_window": 200,
    "pad_token_id": None, "bos_token_id": None, "eos_token_id": None,
}  # fmt: skip
_ALL_HEADS = {"num_key_value_heads": 4}  # latent attention, which has as many keys as queries
_TOKENS = {"pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 0}
_DECODER = {"decoder_layers": 2, "decoder_attention_heads": 4, "decoder_ffn_dim": 48, "encoder_layers": 2}
_DECODER |= {"encoder_attention_heads": 4, "encoder_ffn_dim": 48, "is_encoder_decoder": False}
MORE: dict[str, dict[str, Any]] = {
    **dict.fromkeys(("axk1", "deepseek_v2", "deepseek_v3", "glm4_moe_lite", "longcat_flash", "minicpm3", "youtu"), _ALL_HEADS),
    **dict.fromkeys(("bart", "blenderbot-small", "marian", "mbart", "plbart"), _DECODER),
    "bamba": {"attn_layer_indices": [0, 1]},
    "bert": {"is_decoder": False},
    "cwm": _TOKENS | {"eos_token_id": [1]},
    "dbrx": {
        "attn_config": {"kv_n_heads": 2, "rope_theta": 1e4, "clip_qkv": 8},
        "ffn_config": {"ffn_hidden_size": 48, "moe_num_experts": 4, "moe_top_k": 2},
    },
    "gemma3n_text": {
        "num_hidden_layers": 4, "num_kv_shared_layers": 2, "laurel_rank": 4, "layer_types": WINDOWED * 2,
        "activation_sparsity_pattern": [0.0] * 4, "intermediate_size": [48] * 4, "altup_num_inputs": 2,
    },
    "gemma4_text": {"num_kv_shared_layers": 0, "global_head_dim": 8, "num_global_key_value_heads": 2},
    "gemma4_unified_text": {"global_head_dim": 8, "num_global_key_value_heads": 2},
    "granitemoehybrid": {"layer_types": ["attention"] * 2},
    "lfm2": {"layer_types": FULL},
    "lfm2_moe": {"layer_types": FULL, "num_dense_layers": 1},
    "modernbert-decoder": _TOKENS | {"cls_token_id": 0, "sep_token_id": 0},
    **{kind: {"layer_types": WINDOWED, "sliding_window": WINDOW} for kind in ("cohere2", "gemma3_text", "olmo3", "exaone4")},
    "ministral": {"layer_types": WINDOWED, "sliding_window": WINDOW},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "xmod": {"default_language": "en_XX"},
}  # fmt: skip

_NAMES = """
    afmoe apertus arcee aria_text axk1 bamba beam bert-generation biogpt bitnet camembert cohere cohere2 cohere2_moe ctrl cwm
    data2vec-text dbrx deepseek_v2 deepseek_v3 doge dots1 electra ernie ernie4_5 ernie4_5_moe exaone4 exaone_moe flex_olmo gemma
    gemma3_text gemma3n_text gemma4_text gemma4_unified_text glm glm4 glm4_moe glm4_moe_lite gpt2 gpt_bigcode gpt_neox granite
    granitemoe granitemoehybrid granitemoeshared helium hunyuan_v1_dense hunyuan_v1_moe hy_v3 hyperclovax jais2 jetmoe kolibri1
    laguna lfm2 lfm2_moe llama longcat_flash mellum minicpm3 minimax_m2 minimax_m3_vl_text ministral ministral3 mistral mixtral
    modernbert-decoder moshi nanochat nemotron olmo olmo2 olmo3 olmoe opt persimmon phi phi3 phimoe qwen2 qwen2_moe qwen3
    qwen3_moe roberta roberta-prelayernorm seed_oss smollm3 solar_open stablelm starcoder2 xlm-roberta xlm-roberta-xl xmod youtu
"""
JOINED = _NAMES.split()

REFUSED = {
    **dict.fromkeys(
        ("bart", "blenderbot-small", "marian", "mbart", "plbart"), "counts positions by itself, or has a state beside"
    ),
    **dict.fromkeys(
        ("bloom", "codegen", "falcon", "gpt_neo", "gptj", "mpt", "xglm"), "none of the 2 layers of .* can be joined"
    ),
    **dict.fromkeys(("flint", "gpt_oss", "granite_swa"), "uses 's_aux', which tree attention cannot compute"),
    **dict.fromkeys(("mamba", "qwen3_next", "jamba", "minimax"), "has layers of type linear_attention, whose state cannot"),
    **dict.fromkeys(("deepseek_v32", "glm_moe_dsa"), "has layers of type indexed_attention"),
    **dict.fromkeys(("gemma2", "vaultgemma"), "caps its attention logits"),
    **dict.fromkeys(("pegasus", "prophetnet"), "is an encoder-decoder"),
    **dict.fromkeys(("diffllama", "hrm_text"), "computes attention more than once in a layer"),
    "bert": "attends to later tokens, too",
    "llama4_text": "has layers of type chunked_attention",
    "lfm3": "has layers of type conv",
}

INNER = Block(("p", "q"), (("in",), ("in q",)), "s")
DOCUMENT = Document(("t", Block(("a", "b"), (("short",), ("b", INNER, "c")), "sum"), "u"), "A")
"""A block in a path, ragged paths, and text behind both joins."""


def tiny(kind: str, vocabulary: int) -> Any:
    """The configuration of a small model of a family."""
    made: Any = CONFIG_MAPPING[kind]
    known = {*inspect.signature(made.__init__).parameters, *getattr(made, "__dataclass_fields__", {})}
    known |= set(getattr(made, "attribute_map", {}))
    sizes = SIZES | {"vocab_size": vocabulary, "vocab_size_per_layer_input": vocabulary}
    return made(**{**{name: value for name, value in sizes.items() if name in known}, **MORE.get(kind, {})})


def build(kind: str, tokenizer: PreTrainedTokenizerFast, positions: Positions = "engine") -> tuple[Engine, Any]:
    """The engine of a random model, and the model as it was."""
    config = tiny(kind, len(tokenizer))
    check_joinable(config, kind)
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, 0.2)
    model.generation_config = GenerationConfig(eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id)
    backend = select(torch.device("cpu"), torch.float32, packed_linears=False)
    loaded = prepare(deepcopy(model), tokenizer, kind, backend)
    tokens = resolve(tokenizer, replace(MULTIVERSE, positions=positions))
    return Engine(loaded, tokens, kv_memory=4 << 20, sampler=ScriptedSampler()), model


def reference(model: Any, ids: list[int], whole: Any) -> torch.Tensor:
    """Log-probabilities of one dense forward; layers with a window see only so many positions back."""
    inputs: dict[str, Any] = dict(dense_inputs(ids, whole))
    if "sliding_attention" in (getattr(model.config, "layer_types", None) or ()):
        position_L = inputs["position_ids"][0]
        near_LL = position_L[:, None] - position_L[None, :] < model.config.sliding_window
        mask = inputs["attention_mask"]
        inputs["attention_mask"] = {"full_attention": mask, "sliding_attention": mask & near_LL}
    with torch.inference_mode():
        logits_LV: torch.Tensor = model(**inputs).logits[0].float()
    return logits_LV.log_softmax(-1)


@pytest.mark.parametrize("kind", ["gemma3_text", "olmo3"])
def test_windows_and_paths_that_begin_beside_other_tokens(kind: str, tokenizer: PreTrainedTokenizerFast) -> None:
    agree(kind, tokenizer, "released")


@pytest.mark.parametrize("kind", JOINED)
def test_a_family_agrees_with_transformers(kind: str, tokenizer: PreTrainedTokenizerFast) -> None:
    agree(kind, tokenizer, "engine")


def agree(kind: str, tokenizer: PreTrainedTokenizerFast, positions: Positions) -> None:
    if kind not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        pytest.skip("this version of transformers does not have it")
    engine, model = build(kind, tokenizer, positions)
    tokens, sampler = engine.tokens, engine.sampler
    assert tokens is not None
    assert isinstance(sampler, ScriptedSampler)
    params = SamplingParams(temperature=0, logprobs=True, max_tokens=180)
    requests = [engine.submit(tokens.encode(prompt), params) for prompt in ("Q", "other")]
    sampler.scripts[requests[0].id] = Script(DOCUMENT, tokens, int(tokenizer.eos_token_id))
    sampler.scripts[requests[1].id] = Script(Document(("x" * WINDOW * 2,), "A"), tokens, int(tokenizer.eos_token_id))
    engine.run(requests)
    compared = 0
    for generation in map(engine.generation, requests):
        assert generation.finish_reason == "stop"
        prompt, ids = len(generation.prompt_token_ids), [*generation.prompt_token_ids, *generation.token_ids[:-1]]
        whole = layout(ids, tokens, decoded=True)
        logprobs_LV, before = reference(model, ids, whole), predecessors(whole)
        for i, value in enumerate(generation.logprobs[:-1], prompt):  # type: ignore[index]
            if value is not None:
                assert value == pytest.approx(float(logprobs_LV[before[i], ids[i]]), abs=TOLERANCE)
                compared += 1
    assert compared > 50
    assert engine.generation(requests[0]).tree == DOCUMENT


@pytest.mark.parametrize("kind", sorted(REFUSED))
def test_a_family_is_refused_with_the_reason(kind: str, tokenizer: PreTrainedTokenizerFast) -> None:
    if kind not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        pytest.skip("this version of transformers does not have it")
    with pytest.raises(ModelError, match=REFUSED[kind]) as refusal:
        build(kind, tokenizer)
    message = str(refusal.value)
    assert f"'{kind}' (model type '{kind}')" in message
    assert "choose a" in message
    assert "multiverse.LLM" not in message
