"""Prepare a model for a dialect: each tag becomes one token with an initialized embedding row, and the vocabulary is padded.

The result can be saved as a plain Hugging Face folder, in whose configuration the engine finds the dialect.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from tokenizers import AddedToken
from torch import Tensor

from ..attention.joinable import check_joinable
from ..models.rows import Rows, fill_unused, tables
from ..structure import Dialect, TokenDialect, end_of_turn, resolve, write_dialect

VOCABULARY_MULTIPLE = 64
"""The vocabulary is padded to a multiple of this, for which matrix products are fastest."""

CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""Chat template for a model without one."""


class Prepared(NamedTuple):
    """Result of `prepare`.

    Attributes:
        tokens: the dialect resolved against the tokenizer.
        new_ids: token ids that the tokenizer did not have before.
        trained_ids: token ids whose embedding rows are trained even when LoRA freezes the others.
        vocabulary: rows of the embedding.
        rows: how they are divided.
    """

    tokens: TokenDialect
    new_ids: tuple[int, ...]
    trained_ids: tuple[int, ...]
    vocabulary: int
    rows: Rows


def prepare(model: Any, tokenizer: Any, dialect: Dialect) -> Prepared:
    """Add the dialect's tags to tokenizer and model, in place; idempotent.

    Each new row of the embedding, and of an untied head, is initialized with the mean of the rows of its word's sub-tokens, as
    in the paper (arXiv 2506.09991); a closing tag with the mean over its slash and its word. A tag that is already a token
    keeps its row. A tokenizer without a chat template gets ChatML and its tokens.

    Raises:
        DialectError: a tag is still not one token.
        ModelError: the model does not support fork and join.
    """
    check_joinable(model.config, getattr(model.config, "name_or_path", "") or model.config.model_type)
    words = {tag: _word_ids(tokenizer, tag) for tag in dialect.tags}
    before = len(tokenizer)
    # Not special, so that decoding with `skip_special_tokens` keeps the tags.
    tokenizer.add_tokens([AddedToken(tag, special=False, normalized=False) for tag in dialect.tags])
    if tokenizer.chat_template is None:
        markers = ("<|im_start|>", "<|im_end|>")
        words |= {marker: _word_ids(tokenizer, marker) for marker in markers}
        tokenizer.add_tokens([AddedToken(marker, special=True, normalized=False) for marker in markers], special_tokens=True)
        tokenizer.chat_template = CHATML
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    tokens = resolve(tokenizer, dialect)
    rows_before = model.get_input_embeddings().weight.shape[0]
    size = -(-max(len(tokenizer), rows_before) // VOCABULARY_MULTIPLE) * VOCABULARY_MULTIPLE
    if size != rows_before:
        model.resize_token_embeddings(size, mean_resizing=False)
    new_ids = tuple(range(before, len(tokenizer)))
    with torch.no_grad():
        for weight_VD in tables(model):
            _init_rows(weight_VD, {tokenizer.convert_tokens_to_ids(word): ids for word, ids in words.items()}, new_ids)
    rows = Rows(before, len(tokenizer)) if new_ids else Rows(rows_before, rows_before)
    fill_unused(model, rows)
    write_dialect(model.config, dialect)
    _add_stop_token(model, end_of_turn(tokenizer))
    trained_ids = tuple(sorted(tokenizer.convert_tokens_to_ids(list(words))))
    return Prepared(tokens, new_ids, trained_ids, size, rows)


def _add_stop_token(model: Any, end: int) -> None:
    """Add the end-of-turn token to the generation configuration, so that every engine stops there."""
    stops = model.generation_config.eos_token_id
    known = [] if stops is None else [stops] if isinstance(stops, int) else list(stops)
    if end not in known:
        model.generation_config.eos_token_id = [*known, end]


def _word_ids(tokenizer: Any, tag: str) -> list[int]:
    """Sub-tokens of a tag's word, such as ``/Goal``."""
    return list(tokenizer.encode(re.sub(r"[<>|]", "", tag).replace("_", " "), add_special_tokens=False))


def _init_rows(weight_VD: Tensor, words: dict[int, list[int]], new_ids: Sequence[int]) -> None:
    for token, mean in {token: weight_VD[ids].mean(0) for token, ids in words.items() if token in new_ids and ids}.items():
        weight_VD[token] = mean
