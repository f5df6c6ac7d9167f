"""What is trained is what the engine computes: log-probabilities of the training forward against the engine's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from transformers import AutoModelForCausalLM

from multiverse import LLM
from multiverse.attention.packed import register
from multiverse.engine.scripted import ScriptedSampler
from multiverse.models.rows import Rows
from multiverse.structure import Document, TokenDialect
from multiverse.training import IGNORED, Features, Featurizer, View
from multiverse.training.batch import collate
from multiverse.training.config import Config, Lora
from multiverse.training.lora import enable_training
from multiverse.training.prepare import Prepared
from tests.engine.test_oracle import PARAMS, run_scripted
from tests.strategies import documents
from tests.training.logits import answer_logits

TOLERANCE = 1e-4
FAMILIES = ("qwen2", "qwen3", "llama")


def learned_logprobs(model: Any, rows: list[list[Features]], share_every: int | None = None) -> list[list[float]]:
    """Log-probability of every token that takes loss, a list a row."""
    logits_BNV, targets_BN = answer_logits(model, collate(rows, pad_id=0, multiple_of=16), share_every)
    logprobs_BNV = logits_BNV.log_softmax(-1)
    found = []
    for row in range(len(rows)):
        kept = (targets_BN[row] != IGNORED).nonzero().squeeze(1)
        found.append(logprobs_BNV[row, kept, targets_BN[row, kept]].tolist())
    return found


@pytest.fixture(scope="module")
def pairs(model_folders: dict[str, Path]) -> dict[str, tuple[LLM, Any]]:
    """The engine, and the same weights with the attention that trains."""
    found = {}
    for name in FAMILIES:
        llm = LLM(model_folders[name], kv_memory=8 << 20)
        llm.engine.sampler = ScriptedSampler()
        model = AutoModelForCausalLM.from_pretrained(model_folders[name])
        model.set_attn_implementation(register())
        found[name] = llm, model
    return found


def features_of(llm: LLM, document: Document, prompt: str, share_every: int | None = None) -> Features:
    assert llm.engine.tokens is not None
    make = Featurizer(llm.tokenizer, llm.engine.tokens, View(share_every=share_every))
    return make([{"role": "user", "content": prompt}], document, None)


def scored(llm: LLM, features: Features, share_every: int | None = None) -> list[float]:
    """The engine's own log-probabilities of what is learned."""
    found = llm.score([list(features.token_ids)], share_every=share_every)[0]
    values = [value for value, label in zip(found.logprobs, features.labels, strict=True) if label != IGNORED]
    assert None not in values
    return [value for value in values if value is not None]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("checkpointing", [False, True])
@settings(max_examples=6)
@given(document=documents(depth=3, forks=True), other=documents(depth=2))
def test_the_training_forward_is_the_engines_score(
    pairs: dict[str, tuple[LLM, Any]], family: str, checkpointing: bool, document: Document, other: Document
) -> None:
    llm, model = pairs[family]
    features = [features_of(llm, document, "Why?"), features_of(llm, other, "How come?")]
    expected = [scored(llm, one) for one in features]
    if checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": False})
    model.train(checkpointing)
    try:
        apart = [learned_logprobs(model, [[one]])[0] for one in features]
        packed = learned_logprobs(model, [features])[0]
    finally:
        model.activation_checkpointing_disable()
        model.eval()
    for found, wanted in zip(apart, expected, strict=True):
        assert found == pytest.approx(wanted, abs=TOLERANCE)
    assert packed == pytest.approx([*expected[0], *expected[1]], abs=TOLERANCE)


@pytest.mark.parametrize("share_every", [1, 8])
@settings(max_examples=6)
@given(document=documents(depth=2, forks=True))
def test_paths_that_share_are_trained_as_they_are_run(
    pairs: dict[str, tuple[LLM, Any]], share_every: int, document: Document
) -> None:
    llm, model = pairs["qwen3"]
    features = features_of(llm, document, "Why?", share_every)
    found = learned_logprobs(model, [[features, features]], share_every)[0]
    assert found == pytest.approx(2 * scored(llm, features, share_every), abs=TOLERANCE)


@pytest.mark.parametrize("family", FAMILIES)
@settings(max_examples=6)
@given(document=documents(depth=3, forks=True))
def test_the_training_forward_is_what_generation_had(
    pairs: dict[str, tuple[LLM, Any]], family: str, document: Document
) -> None:
    llm, model = pairs[family]
    features = features_of(llm, document, "Why?")
    prompt = llm.tokenizer.apply_chat_template(
        [{"role": "user", "content": "Why?"}], tokenize=False, add_generation_prompt=True
    )
    generation = run_scripted(llm, [document], [prompt], [0])[0]
    assert generation.logprobs is not None
    assert (*generation.prompt_token_ids, *generation.token_ids) == features.token_ids
    written = [value for value in generation.logprobs if value is not None]
    assert learned_logprobs(model, [[features]])[0] == pytest.approx(written, abs=TOLERANCE)
    assert PARAMS.logprobs


@pytest.mark.parametrize("family", FAMILIES)
def test_merged_adapters_are_what_was_trained(
    model_folders: dict[str, Path], tokens: TokenDialect, tmp_path: Path, family: str
) -> None:
    """Train adapters and tag rows a little, merge, and let the engine score: it has to find what training last saw."""
    from multiverse.structure import Block

    config = Config(model=str(model_folders[family]), data=["-"], out="-", lora=Lora(rank=4))
    model = AutoModelForCausalLM.from_pretrained(model_folders[family])
    model.set_attn_implementation(register())
    tags = tuple(sorted(tokens.roles))
    adapted = enable_training(model, config, Prepared(tokens, (), tags, 0, Rows(0, 0)))
    llm = LLM(model_folders[family], kv_memory=8 << 20)
    nested = Block(("x",), (("yes",),), "so")
    document = Document(("Well. ", Block(("a", "b"), (("one", nested), ("two",)), "both")), "Answer: 4")
    features = features_of(llm, document, "Why?")
    optimizer = torch.optim.AdamW([p for p in adapted.parameters() if p.requires_grad], lr=1e-2)
    before = learned_logprobs(adapted, [[features]])[0]
    adapted.train()
    for _ in range(3):
        logits_BNV, targets_BN = answer_logits(adapted, collate([[features]], pad_id=0))
        torch.nn.functional.cross_entropy(logits_BNV.flatten(0, 1), targets_BN.flatten(), ignore_index=IGNORED).backward()
        optimizer.step()
        optimizer.zero_grad()
    adapted.eval()
    with torch.no_grad():
        trained = learned_logprobs(adapted, [[features]])[0]
    assert sum(trained) > sum(before) + 1
    merged = adapted.merge_and_unload()
    merged.save_pretrained(tmp_path)
    llm.tokenizer.save_pretrained(tmp_path)
    assert scored(LLM(tmp_path, kv_memory=8 << 20), features) == pytest.approx(trained, abs=TOLERANCE)
