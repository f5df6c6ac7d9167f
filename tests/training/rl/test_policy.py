"""One model that decodes and trains: what is shared, what is copied, and what training notices of it (nothing)."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch

from multiverse import SamplingParams
from multiverse.backends.cpu.build import kernels
from multiverse.backends.cpu.packed_linears import PackedLinear, packing_works
from multiverse.errors import ModelError, RequestError
from multiverse.models.rows import Rows
from multiverse.structure import TokenDialect, resolve
from multiverse.training.config import Config, Lora
from multiverse.training.lora import enable_training
from multiverse.training.prepare import Prepared
from multiverse.training.rl.collect import Draw, collect
from multiverse.training.rl.policy import Policy, TrainedEmbedding, TrainedHead
from multiverse.training.rl.rollout import Rollout
from tests.training.rl.forking import BOTH, forking_model, largest_difference, questions, rollouts_of, trained_logprobs

PARAMS = SamplingParams(temperature=1.0, top_p=1.0, max_tokens=50, max_width=2)
GREEDY = SamplingParams(temperature=0, max_tokens=40, logprobs=True)
MESSAGES = [{"role": "user", "content": "Why?"}]


def rolled(policy: Policy, step: int = 0) -> list[Rollout]:
    draw = Draw(seed=1, step=step, version=step)
    return rollouts_of(collect(policy, questions(2), group_size=2, draw=draw, params=PARAMS))


def answer(policy: Policy) -> tuple[tuple[int, ...], list[float]]:
    with policy.decoding() as llm:
        generation = llm.chat(MESSAGES, GREEDY)[0]
    return generation.token_ids, [value for value in generation.logprobs or () if value is not None]


def nudge(model: Any, seed: int = 0) -> None:
    """Change all weights that are trained, as an optimizer does: in place."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=generator).to(parameter.dtype) * 0.02)


def test_training_notices_nothing() -> None:
    model, tokenizer, tokens = forking_model("llama")
    twin = copy.deepcopy(model)
    before = {name: (id(parameter), parameter.data_ptr()) for name, parameter in model.named_parameters()}
    calls = []
    model.register_forward_hook(lambda *_: calls.append("seen"))
    policy = Policy(model, tokenizer, tokens, kv_memory=1 << 20)
    rollouts = rolled(policy)
    assert calls == []
    assert before == {name: (id(parameter), parameter.data_ptr()) for name, parameter in model.named_parameters()}
    assert model.training
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert model.config._attn_implementation == twin.config._attn_implementation
    for found, expected in zip(trained_logprobs(model, rollouts), trained_logprobs(twin, rollouts), strict=True):
        assert torch.equal(found, expected)
    assert calls


def test_the_memory_is_free_between_two_phases() -> None:
    model, tokenizer, tokens = forking_model("llama")
    policy = Policy(model, tokenizer, tokens, kv_memory=1 << 20)
    with policy.decoding() as llm:
        llm.chat(MESSAGES, PARAMS)
        with policy.decoding() as same:
            assert same is llm
        assert not policy.sleeping
        assert llm.engine.cache.pool.cached > 0
    assert policy.sleeping
    assert not hasattr(llm.engine.backend, "pool")
    with pytest.raises(RequestError, match="the engine sleeps"):
        llm.chat(MESSAGES, PARAMS)
    with policy.decoding() as again:
        assert again is llm
        assert again.engine.cache.pool.cached == 0  # of other weights
        assert again.chat(MESSAGES, PARAMS)[0].usage.cached_tokens == 0


@pytest.mark.parametrize("deterministic", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_packed_layers_are_packed_again(deterministic: bool) -> None:
    if not packing_works(torch.float32):
        pytest.skip("oneDNN does not pack here")
    model, tokenizer, tokens = forking_model("qwen2")
    packed = Policy(model, tokenizer, tokens, kv_memory=1 << 20, packed_linears=True, deterministic=deterministic)
    plain = Policy(model, tokenizer, tokens, kv_memory=1 << 20)
    assert answer(packed)[1] == pytest.approx(answer(plain)[1], abs=1e-4)
    modules = [*packed.llm.engine.loaded.model.modules()]
    assert any(isinstance(module, PackedLinear) for module in modules)
    before = answer(packed)
    nudge(model)
    after = answer(packed)
    assert after[0] == answer(plain)[0]
    assert after[1] == pytest.approx(answer(plain)[1], abs=1e-4)
    assert after != before
    assert largest_difference(model, rolled(packed, 1)) <= 1e-4


def test_in_bfloat16_the_engine_reads_the_trained_weights(tmp_path: Any) -> None:
    """Fused layers hold all weights of a layer in one tensor: the trained parameters are views of it from then on."""
    if kernels() is None:
        pytest.skip("no native kernels here")
    model, tokenizer, tokens = forking_model("wide")
    model.bfloat16()
    parameters = list(model.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=3e-3)
    policy = Policy(model, tokenizer, tokens, kv_memory=1 << 20)
    before = answer(policy)
    own = policy.llm.engine.loaded.model
    layer, fused = model.model.layers[0], own.model.layers[0]
    assert fused.forward.__self__.linears.qkv.weight_FE.data_ptr() == layer.self_attn.q_proj.weight.data_ptr()
    assert [id(parameter) for parameter in model.parameters()] == [id(parameter) for parameter in parameters]
    storages = {parameter.untyped_storage().data_ptr() for parameter in parameters}
    assert {parameter.untyped_storage().data_ptr() for parameter in own.parameters()} <= storages
    trained_logprobs(model, rolled(policy))[0].sum().backward()
    optimizer.step()
    after = answer(policy)
    assert after != before
    model.save_pretrained(tmp_path)
    other, *_ = forking_model("wide", seed=3)
    other.bfloat16().load_state_dict(type(model).from_pretrained(tmp_path, dtype=torch.bfloat16).state_dict())
    assert answer(Policy(other, tokenizer, tokens, kv_memory=1 << 20)) == after


def adapted_model(tied: bool) -> tuple[Any, Any, TokenDialect]:
    model, tokenizer, tokens = forking_model("qwen3")
    if tied:
        model.config.tie_word_embeddings = True
        model.tie_weights()
    config = Config(model="-", data=["-"], out="-", lora=Lora(rank=4))
    tags = tuple(sorted(tokens.roles))
    return enable_training(model, config, Prepared(tokens, (), tags, 0, Rows(0, 0))), tokenizer, tokens


@pytest.mark.parametrize("tied", [False, True])
def test_adapters_and_the_rows_of_tags_beside_them(tied: bool) -> None:
    pytest.importorskip("peft")
    model, tokenizer, tokens = adapted_model(tied)
    policy = Policy(model.train(), tokenizer, tokens, kv_memory=1 << 20)
    assert largest_difference(model.eval(), rolled(policy)) <= 1e-4
    modules = [type(module) for module in policy.llm.engine.loaded.model.modules()]
    assert modules.count(TrainedEmbedding) == modules.count(TrainedHead) == 1
    before = answer(policy)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=3e-2)
    torch.cat(trained_logprobs(model, rolled(policy))).sum().backward()
    optimizer.step()
    assert largest_difference(model, rolled(policy, 1)) <= 1e-4
    assert answer(policy) != before
    frozen = [name for name, parameter in model.named_parameters() if not parameter.requires_grad]
    assert frozen
    merged = model.merge_and_unload()
    merged.set_attn_implementation("multiverse_packed")
    assert largest_difference(merged, rolled(Policy(merged, tokenizer, tokens, kv_memory=1 << 20), 3)) <= 1e-4


def test_a_copy_of_the_weights_lets_training_go_on() -> None:
    model, tokenizer, tokens = forking_model("llama")
    apart = Policy(model, tokenizer, tokens, kv_memory=1 << 20, share=False)
    before = answer(apart)
    with apart.decoding() as llm:
        nudge(model)
        generation = llm.chat(MESSAGES, GREEDY)[0]
    assert generation.token_ids == before[0]
    after = answer(apart)
    assert after != before
    assert after == answer(Policy(model, tokenizer, tokens, kv_memory=1 << 20))


def test_a_copy_may_be_of_another_type() -> None:
    model, tokenizer, tokens = forking_model("llama")
    policy = Policy(model, tokenizer, tokens, kv_memory=1 << 20, dtype=torch.bfloat16)
    with policy.decoding() as llm:
        assert llm.engine.loaded.model.dtype == torch.bfloat16
    assert model.dtype == torch.float32
    rollouts = rolled(policy)
    assert 1e-4 < largest_difference(model, rollouts) < 0.5


def test_parameters_that_were_replaced_are_found_again() -> None:
    model, tokenizer, tokens = forking_model("llama")
    policy = Policy(model, tokenizer, tokens, kv_memory=1 << 20)
    first = answer(policy)
    for parameter in model.parameters():  # as moving a model does
        parameter.data = parameter.data.clone()
    assert answer(policy) == first
    nudge(model)
    assert answer(policy) == answer(Policy(model, tokenizer, tokens, kv_memory=1 << 20)) != first


def test_a_join_that_reads_again_is_refused_by_name() -> None:
    model, tokenizer, _ = forking_model("llama")
    with pytest.raises(ModelError, match=r"'mine' joins by message.*use join='kv'"):
        Policy(model, tokenizer, resolve(tokenizer, replace(BOTH, join="message")), name="mine")
