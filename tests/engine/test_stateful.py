"""Models that cannot be joined by keys and values: they fork, and read their paths again."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, GenerationConfig, PreTrainedTokenizerFast

from multiverse import LLM, SamplingParams
from multiverse.attention.joinable import check_runnable
from multiverse.backends.select import select_for
from multiverse.backends.stateful import StatefulBackend
from multiverse.engine.engine import Engine
from multiverse.engine.model import prepare
from multiverse.engine.scripted import Script, ScriptedSampler
from multiverse.errors import ModelError
from multiverse.structure import MULTIVERSE, Document, Joins, resolve
from tests.conftest import save_model
from tests.engine.steering import NESTED, PolicySampler, always_fork, two_paths
from tests.engine.test_oracle import PARAMS, Trouble
from tests.engine.test_text_join import check
from tests.strategies import documents

SIZES = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "head_dim": 8, "max_position_embeddings": 2048, "pad_token_id": None, "bos_token_id": None, "eos_token_id": None,
}  # fmt: skip
DELTA = {
    "layer_types": ["linear_attention", "full_attention"],
    **{"linear_num_value_heads": 4, "linear_num_key_heads": 2, "linear_key_head_dim": 8, "linear_value_head_dim": 8},
    **{"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "shared_expert_intermediate_size": 16},
}
MAMBA = {"mamba_n_heads": 8, "mamba_d_head": 8, "mamba_d_state": 8}
KINDS: dict[str, dict[str, Any]] = {
    "qwen3_next": DELTA,
    "qwen3_5_text": DELTA,
    "granitemoehybrid": MAMBA | {"layer_types": ["mamba", "attention"], "num_local_experts": 4, "shared_intermediate_size": 48},
    "falcon_h1": MAMBA | {"mamba_d_ssm": 64},
    "bamba": MAMBA | {"attn_layer_indices": [1]},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1, "num_experts": 2, "mamba_d_state": 8},
    "lfm2": {"layer_types": ["conv", "full_attention"]},
    "mamba2": {"num_heads": 8, "head_dim": 8, "state_size": 8, "n_groups": 1},
    "gemma2": {"query_pre_attn_scalar": 8, "sliding_window": 30, "attn_logit_softcapping": 2.0},
}
SOME = ["qwen3_next", "granitemoehybrid", "gemma2"]
MORE = [kind for kind in KINDS if kind not in SOME]


def random_model(kind: str, vocabulary: int) -> Any:
    """A tiny model of a family, with weights that are large enough for every layer to count."""
    made: Any = CONFIG_MAPPING[kind]
    known = {*getattr(made, "__dataclass_fields__", {}), *getattr(made, "attribute_map", {})}
    sizes = {name: value for name, value in SIZES.items() if name in known}
    torch.manual_seed(len(kind))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = AutoModelForCausalLM.from_config(made(**sizes | {"vocab_size": vocabulary} | KINDS[kind])).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1 and "A_log" not in name:
                parameter.normal_(0, 0.2)
    return model


@pytest.fixture(scope="module")
def built(tokenizer: PreTrainedTokenizerFast) -> Callable[[str, Joins], tuple[Engine, Any]]:
    """The engine of a random model, and the model as it was."""

    @cache
    def make(kind: str, join: Joins) -> tuple[Engine, Any]:
        model = random_model(kind, len(tokenizer))
        model.generation_config = GenerationConfig(eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id)
        check_runnable(model.config, kind)
        backend = select_for(model.config, torch.device("cpu"), torch.float32)
        loaded = prepare(deepcopy(model), tokenizer, kind, backend)
        tokens = resolve(tokenizer, replace(MULTIVERSE, join=join))
        return Engine(loaded, tokens, kv_memory=8 << 20, sampler=ScriptedSampler()), model

    return make


def run(
    engine: Engine, docs: list[Document], gaps: list[int], budget: int, disturb: Callable[[Any], None] | None = None
) -> list[Any]:
    """Write each document, submitting one more request every few steps."""
    tokens, sampler = engine.tokens, engine.sampler
    assert tokens is not None
    assert isinstance(sampler, ScriptedSampler)
    engine.scheduler.max_batch_tokens = budget
    requests = []

    def step() -> None:
        engine.step()
        if disturb is not None:
            disturb(engine)
        engine.check_integrity()

    for number, (document, gap) in enumerate(zip(docs, gaps, strict=True)):
        request = engine.submit(tokens.encode("Question" * (1 + number % 3)), PARAMS)
        sampler.scripts[request.id] = Script(document, tokens, int(engine.loaded.tokenizer.eos_token_id))
        requests.append(request)
        for _ in range(gap):
            step()
    while engine.busy:
        step()
    assert engine.slots.owned == 0
    return [engine.generation(request) for request in requests]


def agree(engine: Engine, model: Any, docs: list[Document], rng: random.Random, *, disturbed: bool) -> None:
    """Random trees share every batch, in chunks and waves, are preempted, and equal plain forwards of each context."""
    engine.scheduler.max_batch_branches = rng.choice([2, 256])
    trouble = Trouble(rng, evict=False)

    class As:  # what `Trouble` asks of an `LLM`
        def __init__(self, engine: Engine) -> None:
            self.engine = engine

    disturb = (lambda engine: trouble(As(engine))) if disturbed else None  # type: ignore[arg-type]
    assert engine.tokens is not None
    for document, generation in zip(
        docs, run(engine, docs, [rng.randrange(9) for _ in docs], rng.choice([13, 2048]), disturb), strict=True
    ):
        assert generation.tree == document
        assert check(model, generation, engine.tokens) > 0
    if isinstance(engine.backend, StatefulBackend):
        assert not engine.backend._states, "states of what is over are kept"


@pytest.mark.parametrize("kind", SOME)
@pytest.mark.parametrize("disturbed", [False, True], ids=["", "preempted"])
@settings(max_examples=1)
@given(data=st.data())
def test_a_family_agrees_with_plain_forwards(
    built: Callable[[str, Joins], tuple[Engine, Any]], kind: str, disturbed: bool, data: st.DataObject
) -> None:
    engine, model = built(kind, "text")
    docs = [NESTED, *data.draw(st.lists(documents(depth=2, forks=True, places="thinking"), min_size=2, max_size=2))]
    agree(engine, model, docs, random.Random(data.draw(st.integers(0, 1 << 30))), disturbed=disturbed)


@pytest.mark.parametrize("kind", [kind if kind == "jamba" else pytest.param(kind, marks=pytest.mark.slow) for kind in MORE])
def test_other_families_agree_on_a_nested_document(built: Callable[[str, Joins], tuple[Engine, Any]], kind: str) -> None:
    engine, model = built(kind, "text")
    agree(engine, model, [NESTED, two_paths()], random.Random(3), disturbed=False)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("join", ["text", "message"])
@settings(max_examples=10)
@given(data=st.data())
def test_every_family_agrees_at_length(
    built: Callable[[str, Joins], tuple[Engine, Any]], kind: str, join: Joins, data: st.DataObject
) -> None:
    engine, model = built(kind, join)
    docs = data.draw(st.lists(documents(depth=3, forks=True, places="thinking"), min_size=3, max_size=4))
    agree(engine, model, docs, random.Random(data.draw(st.integers(0, 1 << 30))), disturbed=data.draw(st.booleans()))


def test_messages_and_forced_ends(built: Callable[[str, Joins], tuple[Engine, Any]]) -> None:
    engine, model = built("qwen3_next", "message")
    agree(engine, model, [NESTED], random.Random(1), disturbed=False)
    tokens = engine.tokens
    assert tokens is not None
    scripted, engine.sampler = engine.sampler, PolicySampler(always_fork(tokens, 2, int(engine.loaded.tokenizer.eos_token_id)))
    try:
        request = engine.submit(tokens.encode("Q"), SamplingParams(temperature=0, max_tokens=150, logprobs=True))
        engine.run([request])
    finally:
        engine.sampler = scripted
    generation = engine.generation(request)
    assert generation.usage.total_tokens <= 150
    assert check(model, generation, tokens) > 0


@pytest.mark.parametrize(("kind", "chunked"), [("jamba", False), ("qwen3_next", True)])
def test_what_a_model_can_do_is_found_out(built: Callable[[str, Joins], tuple[Engine, Any]], kind: str, chunked: bool) -> None:
    """Jamba's scan begins anew with every chunk, so it goes on token by token."""
    engine, _ = built(kind, "text")
    assert isinstance(engine.backend, StatefulBackend)
    assert engine.backend.chunked is chunked


def test_a_folder_is_loaded_with_a_join_by_text(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    folder = save_model(tmp_path, random_model("qwen3_next", len(tokenizer)), tokenizer)
    with LLM(folder, kv_memory=1 << 20) as llm:
        assert llm.engine.tokens is not None
        assert llm.engine.tokens.dialect == replace(MULTIVERSE, join="text")
        assert isinstance(llm.engine.backend, StatefulBackend)
        assert llm.engine.backend.chunked
        assert llm.engine.backend.state_bytes > 0
        (score,) = llm.score(["<Think>\nHm.\n</Think>\n\nAnswer: 1"])
        assert score.total < 0
    with pytest.raises(ModelError, match=r"join='kv' cannot be had with .*: it has layers whose state cannot be joined; use"):
        LLM(folder, join="kv")
    with pytest.raises(ModelError, match="deterministic=True does not go with recurrent or linear-attention layers"):
        LLM(folder, deterministic=True)
    with pytest.raises(ModelError, match="tensor_parallel=2 does not go with recurrent layers"):
        LLM(folder, tensor_parallel=2)


def test_capped_scores_can_be_joined_either_way(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    """A cap of 2 changes scores much: numbers without it would not pass."""
    folder = save_model(tmp_path, random_model("gemma2", len(tokenizer)), tokenizer)
    with LLM(folder, kv_memory=1 << 20) as llm, LLM(folder, join="kv", kv_memory=1 << 20) as joined:
        assert llm.engine.tokens is not None
        assert joined.engine.tokens is not None
        assert (llm.engine.tokens.dialect.join, joined.engine.tokens.dialect.join) == ("text", "kv")
        (linear,), (same,) = (one.generate(["Q"], SamplingParams(temperature=0, max_tokens=20)) for one in (llm, joined))
        assert linear.token_ids == same.token_ids
