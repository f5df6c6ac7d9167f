"""Tags as tokens: their rows, the padded vocabulary, and that the engine finds the dialect by itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from multiverse import LLM
from multiverse.errors import ModelError
from multiverse.structure import DIALECTS, Dialect, Tag, read_dialect
from multiverse.training.prepare import CHATML, prepare
from tests.conftest import SHAPE, build_tokenizer

MULTIVERSE = DIALECTS["multiverse"]


def base(tied: bool) -> tuple[Any, Any]:
    """A model that has never heard of tags."""
    tokenizer = build_tokenizer(None)
    torch.manual_seed(0)
    model = Qwen2ForCausalLM(Qwen2Config(vocab_size=len(tokenizer) + 5, tie_word_embeddings=tied, **SHAPE))
    return model, tokenizer


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("name", sorted(DIALECTS))
def test_new_rows_are_the_mean_of_their_words(tied: bool, name: str) -> None:
    model, tokenizer = base(tied)
    before_VD = model.get_input_embeddings().weight.detach().clone()
    head_VD = model.get_output_embeddings().weight.detach().clone()
    prepared = prepare(model, tokenizer, DIALECTS[name])
    assert prepared.vocabulary % 64 == 0
    assert model.get_input_embeddings().weight.shape[0] == model.config.vocab_size == prepared.vocabulary
    assert (model.get_output_embeddings().weight is model.get_input_embeddings().weight) == tied
    assert len(prepared.new_ids) == len(DIALECTS[name].tags)
    assert prepared.trained_ids == prepared.new_ids
    kept = len(tokenizer) - len(prepared.new_ids)
    assert torch.equal(model.get_input_embeddings().weight[:kept], before_VD[:kept])
    for tag in DIALECTS[name].tags:
        token = tokenizer.convert_tokens_to_ids(tag)
        word = tokenizer.encode(tag.strip("<>"), add_special_tokens=False)
        assert len(word) == len(tag) - 2
        assert torch.allclose(model.get_input_embeddings().weight[token], before_VD[word].mean(0))
        assert torch.allclose(model.get_output_embeddings().weight[token], head_VD[word].mean(0))
    assert torch.isfinite(model.get_output_embeddings().weight).all()


def test_preparing_twice_changes_nothing_more() -> None:
    model, tokenizer = base(tied=True)
    first = prepare(model, tokenizer, MULTIVERSE)
    weights = model.get_input_embeddings().weight.detach().clone()
    second = prepare(model, tokenizer, MULTIVERSE)
    assert second.new_ids == ()
    assert second.trained_ids == first.trained_ids
    assert torch.equal(model.get_input_embeddings().weight, weights)


def test_the_engine_finds_the_dialect_in_the_folder(tmp_path: Path) -> None:
    """One that no list knows."""
    own = Dialect(
        "own", None, Tag("[fork]", "[join]"), Tag("[todo]", "[/todo]"), Tag("[do]", "[/do]"), Tag("[on]", "[/on]"), None
    )
    model, tokenizer = base(tied=True)
    prepare(model, tokenizer, own)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    llm = LLM(tmp_path, kv_memory=1 << 20)
    assert llm.engine.tokens is not None
    assert llm.engine.tokens.dialect == own
    assert read_dialect(AutoModelForCausalLM.from_pretrained(tmp_path).config) == own
    assert AutoTokenizer.from_pretrained(tmp_path).tokenize("[fork]") == ["[fork]"]


def test_a_base_model_gets_a_chat_template_and_stops_at_its_end() -> None:
    model, tokenizer = base(tied=True)
    tokenizer.chat_template = None
    prepare(model, tokenizer, MULTIVERSE)
    assert tokenizer.chat_template == CHATML
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert end in model.generation_config.eos_token_id


def test_a_model_that_cannot_be_joined_is_refused_before_anything_is_changed() -> None:
    model, tokenizer = base(tied=True)
    model.config.layer_types = ["linear_attention", "full_attention"]
    size = len(tokenizer)
    with pytest.raises(ModelError, match="linear_attention"):
        prepare(model, tokenizer, MULTIVERSE)
    assert len(tokenizer) == size


def test_a_tokenizer_without_a_padding_token_gets_one() -> None:
    core = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<eos>")
    model = Qwen2ForCausalLM(Qwen2Config(vocab_size=len(tokenizer), **SHAPE))
    prepare(model, tokenizer, MULTIVERSE)
    assert tokenizer.pad_token_id is not None
