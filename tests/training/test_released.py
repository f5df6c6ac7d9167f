"""Training in the layout ``released``: features and masks are those of the released code; the engine can score likewise."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from transformers import AutoModelForCausalLM

from multiverse import LLM
from multiverse.attention import dense_inputs, dense_mask
from multiverse.attention.packed import register
from multiverse.errors import ConfigError
from multiverse.structure import Document, TokenDialect, layout, resolve
from multiverse.tasks import problems
from multiverse.training import IGNORED, Featurizer
from multiverse.training.batch import collate, visibility_of
from multiverse.training.config import Config
from multiverse.training.prepare import prepare
from tests.conftest import FAMILIES, build_tokenizer
from tests.engine.steering import NESTED
from tests.strategies import documents
from tests.structure.test_released import released_mask, released_positions
from tests.training.logits import answer_logits
from tests.training.test_exact import TOLERANCE, features_of, learned_logprobs


@pytest.fixture(scope="module")
def released(mini_tokenizer: Any) -> TokenDialect:
    return resolve(mini_tokenizer, replace(resolve(mini_tokenizer).dialect, positions="released"))


def test_packed_rows_are_masked_as_by_the_released_code(mini_tokenizer: Any, released: TokenDialect) -> None:
    make = Featurizer(mini_tokenizer, released)
    found = [make(p.question, p.structured, "parallel") for p in islice(problems("nested", seed=1), 2)]
    batch = collate([found], pad_id=0, multiple_of=64, segment_multiple=16)
    mask_LL, start = visibility_of(batch).mask()[0, 0], 0
    for document in found:
        here = slice(start, start + len(document))
        ids = document.token_ids
        assert document.positions == tuple(released_positions(ids, released))
        assert mask_LL[here, here].tolist() == released_mask(ids, released)
        assert torch.equal(mask_LL[here, here], dense_mask(layout(ids, released)))
        assert not mask_LL[here, :start].any()
        assert not mask_LL[here, here.stop :].any()
        start = here.stop


@pytest.fixture(scope="module")
def pair(model_folders: dict[str, Path]) -> tuple[LLM, Any]:
    """The engine, and the same weights with the attention that trains."""
    model = AutoModelForCausalLM.from_pretrained(model_folders["qwen3"])
    model.set_attn_implementation(register())
    return LLM(model_folders["qwen3"], layout="released", kv_memory=8 << 20), model


@settings(max_examples=5)
@given(document=documents(depth=2, forks=True))
def test_the_training_forward_is_the_score_as_trained(pair: tuple[LLM, Any], document: Document) -> None:
    llm, model = pair
    features = features_of(llm, document, "Why?")
    found = llm.score([list(features.token_ids)], as_trained=True)[0]
    expected = [value for value, label in zip(found.logprobs, features.labels, strict=True) if label != IGNORED]
    with torch.no_grad():
        (learned,) = learned_logprobs(model, [[features]])
    assert learned == pytest.approx(expected, abs=TOLERANCE)


def test_scores_as_decoded_and_as_trained_differ_from_the_second_path_on(pair: tuple[LLM, Any]) -> None:
    llm, _ = pair
    tokens = llm.engine.tokens
    assert tokens is not None
    ids = list(features_of(llm, NESTED, "Why?").token_ids)
    (decoded,), (trained,) = llm.score([ids]), llm.score([ids], as_trained=True)
    where = layout(ids, tokens)
    first = next(
        i
        for i in range(len(ids))
        if any(where.visible(i, j) != layout(ids, tokens, decoded=True).visible(i, j) for j in range(i))
    )
    pairs = [(a, b) for a, b in zip(decoded.logprobs, trained.logprobs, strict=True) if a is not None and b is not None]
    before = sum(value is not None for value in decoded.logprobs[: first + 1])
    assert pairs[0][0] == pytest.approx(pairs[0][1], abs=1e-6)
    assert [a for a, _ in pairs[:before]] == pytest.approx([b for _, b in pairs[:before]], abs=1e-5)
    assert max(abs(a - b) for a, b in pairs[before:]) > 1e-3
    # The second has left nothing in the prefix cache that the first would read.
    assert llm.score([ids])[0].logprobs == pytest.approx(decoded.logprobs, abs=1e-5)


def test_a_tiny_model_learns_in_it(mini_tokenizer: Any, released: TokenDialect) -> None:
    from recipes.mini.model import SHAPES, build_model

    torch.manual_seed(0)
    model = build_model(SHAPES["test"], mini_tokenizer)
    document = Featurizer(mini_tokenizer, released)("What is 1+1 and 2+2?", NESTED, "parallel")
    ids = document.token_ids[:-1]
    with torch.no_grad():
        whole = model(**dense_inputs(ids, layout(ids, released))).logits[0]
    model.set_attn_implementation(register())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    losses = []
    for step in range(3):
        logits_1NV, targets_1N = answer_logits(model, collate([[document]], pad_id=0))
        if not step:
            wanted = [index for index, label in enumerate(document.labels) if label != IGNORED]
            torch.testing.assert_close(logits_1NV[0].detach(), whole[[index - 1 for index in wanted]])
        loss = torch.nn.functional.cross_entropy(logits_1NV.flatten(0, 1), targets_1N.flatten(), ignore_index=IGNORED)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[2] < losses[1] < losses[0]


def test_a_run_notes_the_layout_in_its_model() -> None:
    config = Config(model="m", data=["d"], out="o", layout="released")
    assert config.notation.positions == "released"
    assert Config(model="m", data=["d"], out="o").notation.positions == "engine"
    tokenizer = build_tokenizer(None)
    model = FAMILIES["qwen2"](len(tokenizer))
    assert prepare(model, tokenizer, config.notation).tokens.dialect.positions == "released"
    assert model.config.multiverse_dialect["positions"] == "released"
    with pytest.raises(ConfigError, match="share_every=2 has no meaning in the layout 'released'"):
        Config(model="m", data=["d"], out="o", layout="released", share_every=2)
