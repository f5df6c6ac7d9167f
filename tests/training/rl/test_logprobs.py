"""Log-probabilities under the policy that was drawn from: temperature, supports, pieces, precision, wrappers, the reference."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, GraniteConfig, GraniteForCausalLM

from multiverse.attention.packed import Visibility, register
from multiverse.training.batch import visibility_of
from multiverse.training.config import Config, Lora
from multiverse.training.lora import enable_training
from multiverse.training.prepare import Prepared
from multiverse.training.rl.advantages import advantages
from multiverse.training.rl.algorithms import Algorithm
from multiverse.training.rl.batch import Packing, RolloutBatch, make_batches
from multiverse.training.rl.logprobs import Reference, disable_dropout, policy_logprobs
from multiverse.training.rl.loss import policy_loss
from multiverse.training.rl.rollout import Group, Rollout, Support
from tests.conftest import SHAPE
from tests.training.rl.made import make_group, make_rollout

PACKING = Packing(pad_id=0, packed_length=4096)


@pytest.fixture(scope="module")
def model(model_folders: dict[str, Path]) -> Any:
    model = AutoModelForCausalLM.from_pretrained(model_folders["qwen3"])
    model.set_attn_implementation(register())
    return model


def batch_of(groups: list[Group], packing: Packing = PACKING) -> RolloutBatch:
    return make_batches(advantages(groups, Algorithm()).groups, Algorithm(), packing)[0]


def logits_of(model: Any, rollout: Rollout) -> torch.Tensor:
    """Logits of a rollout in one line where its tokens were sampled."""
    count = len(rollout.token_ids)
    seen = Visibility(torch.zeros(1, count, dtype=torch.long), torch.ones(1, 1, 1, dtype=torch.bool), torch.arange(count)[None])
    with torch.no_grad():
        logits_LV = model(input_ids=torch.tensor([rollout.token_ids]), visibility=seen, use_cache=False).logits[0]
    return logits_LV[[source for source in rollout.sources if source >= 0]]


def test_temperature_and_supports_are_replayed(model: Any) -> None:
    # Tokens 3 to 7 by turns: 5, 6, 7 are drawn at temperature 0.5; among two, among all but two, among all.
    rollout = make_rollout(3, seed=2)
    assert rollout.generation.token_ids == (5, 6, 7)
    supports = (Support((5, 9), allowed=True), Support((4, 8), allowed=False), None)
    rollout = replace(rollout, supports=supports, temperature=0.5)
    scaled = logits_of(model, rollout) / 0.5
    scaled[0, [token for token in range(scaled.shape[1]) if token not in (5, 9)]] = -torch.inf
    scaled[1, [4, 8]] = -torch.inf
    batch = batch_of([make_group([1.0, 0.0], [rollout, make_rollout(2)])])
    expected = torch.distributions.Categorical(logits=scaled)
    for logits in (1, 2 * scaled.shape[1], 1 << 20):  # stretches of one token, of two, of all
        with torch.no_grad():
            logprob_T, entropy_T = policy_logprobs(model, batch, logits=logits)
        assert logprob_T[:3].tolist() == pytest.approx(expected.log_prob(torch.tensor([5, 6, 7])).tolist(), abs=1e-5)
        assert entropy_T[:3].tolist() == pytest.approx(expected.entropy().tolist(), abs=1e-5)


def test_logits_are_computed_in_pieces(model: Any, groups: list[Group], monkeypatch: pytest.MonkeyPatch) -> None:
    batch = batch_of(groups)
    vocabulary = model.config.vocab_size
    whole = policy_logprobs(model, batch, entropy_gradient=True)
    (whole.logprob_T.sum() + whole.entropy_T.sum()).backward()
    expected = [weight.grad for weight in model.parameters()]
    model.zero_grad()
    computed: list[int] = []
    forward = model.lm_head.forward

    def spy(hidden: torch.Tensor) -> torch.Tensor:
        computed.append(hidden.shape[0] * hidden.shape[1])
        return forward(hidden)

    monkeypatch.setattr(model.lm_head, "forward", spy)
    pieces = policy_logprobs(model, batch, entropy_gradient=True, logits=10 * vocabulary)
    (pieces.logprob_T.sum() + pieces.entropy_T.sum()).backward()
    assert len(batch) > 100
    assert max(computed) == 10
    # In the forward and again in the backward, and only where something was drawn.
    assert sum(computed) == 2 * len(batch)
    assert torch.equal(pieces.logprob_T, whole.logprob_T)
    for weight, wanted in zip(model.parameters(), expected, strict=True):
        assert torch.allclose(weight.grad, wanted, rtol=1e-4, atol=1e-6)
    assert model.lm_head.forward is spy


def test_the_entropy_has_a_gradient_only_on_demand(model: Any, groups: list[Group]) -> None:
    batch = batch_of(groups[:1])
    for wanted in (False, True):
        model.zero_grad()
        policy_logprobs(model, batch, entropy_gradient=wanted).entropy_T.sum().backward()
        assert bool(model.lm_head.weight.grad.abs().max() > 0) == wanted


def test_a_model_that_scales_its_logits(tokenizer: Any, groups: list[Group]) -> None:
    torch.manual_seed(0)
    scaled = GraniteForCausalLM(GraniteConfig(vocab_size=len(tokenizer), logits_scaling=4.0, **SHAPE))
    scaled.set_attn_implementation(register())
    batch = batch_of(groups)
    for _ in range(2):  # it is found out once
        found = policy_logprobs(scaled, batch, logits=10 * len(tokenizer)).logprob_T
    logits_BLV = scaled(
        input_ids=batch.rows["input_ids"],
        position_ids=batch.rows["position_ids"],
        visibility=visibility_of(batch.rows),
        use_cache=False,
    ).logits
    expected = logits_BLV.log_softmax(-1)[batch.row_T, batch.column_T, batch.target_T]
    assert torch.allclose(found, expected, atol=1e-5)
    found.sum().backward()
    assert scaled.model.embed_tokens.weight.grad is not None


def test_training_in_bfloat16(model: Any, groups: list[Group]) -> None:
    small = copy.deepcopy(model).to(torch.bfloat16)
    batch = batch_of(groups)
    with torch.no_grad():
        exact = policy_logprobs(model, batch).logprob_T
    found = policy_logprobs(small, batch)
    assert found.logprob_T.dtype == torch.float32
    assert (found.logprob_T - exact).abs().mean() < 0.1
    policy_loss(*found, batch.tokens, Algorithm())[0].backward()  # type: ignore[no-untyped-call]
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in small.parameters())
    with torch.autocast("cpu", torch.bfloat16):
        mixed = policy_logprobs(model, batch).logprob_T
    assert mixed.dtype == torch.float32
    assert 0 < (mixed - exact).abs().mean() < 0.1


def test_the_reference_is_the_model_at_the_start(model: Any, groups: list[Group]) -> None:
    trained = copy.deepcopy(model)
    batch = batch_of(groups)
    reference = Reference(trained)
    with torch.no_grad():
        before = policy_logprobs(trained, batch).logprob_T
        for weight in trained.parameters():
            weight.add_(0.05 * torch.randn_like(weight))
        after = policy_logprobs(trained, batch).logprob_T
    reference.fill([batch])
    assert batch.tokens.reference_T is not None
    assert torch.equal(batch.tokens.reference_T, before)
    assert (after - before).abs().max() > 0.01
    assert reference.memory() == sum(weight.nbytes for weight in model.parameters())


def test_with_adapters_the_reference_is_the_model_without_them(
    model_folders: dict[str, Path], groups: list[Group], tokens: Any
) -> None:
    base = AutoModelForCausalLM.from_pretrained(model_folders["qwen2"])
    base.set_attn_implementation(register())
    batch = batch_of(groups)
    with torch.no_grad():
        before = policy_logprobs(base, batch).logprob_T
    config = Config(model="-", data=["-"], out="-", lora=Lora(rank=4))
    tags = tuple(sorted(tokens.roles))
    adapted = enable_training(base, config, Prepared(tokens, (), tags, 0, None))  # type: ignore[arg-type]
    for name, weight in adapted.named_parameters():
        if weight.requires_grad and "lora_B" in name:
            weight.data.normal_(0, 0.5)
    reference = Reference(adapted)
    reference.fill([batch])
    found = policy_logprobs(adapted, batch)
    assert batch.tokens.reference_T is not None
    assert torch.allclose(batch.tokens.reference_T, before, atol=1e-5)
    assert (found.logprob_T - before).abs().max() > 0.01
    assert reference.memory() == 0
    algorithm = Algorithm(kl_coef=0.1)
    loss, statistics = policy_loss(*found, batch.tokens, algorithm)
    assert statistics.metrics(algorithm)["kl"] > 0
    loss.backward()  # type: ignore[no-untyped-call]
    assert any(weight.grad is not None for weight in adapted.parameters())


def test_dropout_is_turned_off(model_folders: dict[str, Path], groups: list[Group]) -> None:
    noisy = AutoModelForCausalLM.from_pretrained(model_folders["qwen3"], attention_dropout=0.5)
    noisy.set_attn_implementation(register())
    noisy.train()
    batch = batch_of(groups)
    with torch.no_grad():
        assert not torch.equal(policy_logprobs(noisy, batch).logprob_T, policy_logprobs(noisy, batch).logprob_T)
        disable_dropout(noisy)
        assert torch.equal(policy_logprobs(noisy, batch).logprob_T, policy_logprobs(noisy, batch).logprob_T)
