"""Labels, positions and segments of single documents; packing as a function on lengths."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multiverse.prompting import ask
from multiverse.structure import Block, Document, TokenDialect, encode, layout
from multiverse.training import IGNORED, Features, featurize, micro_batches, pack

QUESTION = "What is 1+1 and 2+2?"
BLOCK = Block(outlines=("a", "b"), paths=(("1+1=2.",), ("2+2=4, yes.",)), conclusion="2, 4.")
SOLUTION = Document(("Let's think in parallel.", BLOCK), "Answer: 4")


@pytest.fixture(scope="module")
def prompt(tokenizer: Any) -> list[int]:
    text = tokenizer.apply_chat_template(ask(QUESTION, "parallel"), tokenize=False, add_generation_prompt=True)
    return list(tokenizer.encode(text, add_special_tokens=False))


def test_labels_leave_out_the_prompt_and_forced_tokens(tokenizer: Any, tokens: TokenDialect, prompt: list[int]) -> None:
    features = featurize(QUESTION, SOLUTION, "parallel", tokenizer, tokens)
    encoded = encode(SOLUTION, tokens)
    start = len(prompt)
    assert list(features.token_ids) == [*prompt, *encoded.token_ids, tokenizer.eos_token_id]
    assert set(features.labels[:start]) == {IGNORED}
    expected = [IGNORED if forced else t for t, forced in zip(encoded.token_ids, encoded.layout.forced, strict=True)]
    assert list(features.labels[start:]) == [*expected, tokenizer.eos_token_id]
    assert any(encoded.layout.forced)


def test_learned_text_reads_as_the_document_without_what_the_engine_writes(tokenizer: Any, tokens: TokenDialect) -> None:
    features = featurize(QUESTION, SOLUTION, "parallel", tokenizer, tokens)
    learned = tokenizer.decode([label for label in features.labels if label != IGNORED])
    dialect = tokens.dialect
    assert dialect.path.open not in learned
    assert dialect.resume not in learned
    assert f" 1+1=2.\n{dialect.path.close} 2+2=4, yes.\n{dialect.path.close}2, 4." in learned
    assert learned.endswith(f"Answer: 4{tokenizer.eos_token}")


def test_positions_and_segments_are_the_layout_of_the_solution_behind_the_prompt(
    tokenizer: Any, tokens: TokenDialect, prompt: list[int]
) -> None:
    features = featurize(QUESTION, SOLUTION, "parallel", tokenizer, tokens)
    start = len(prompt)
    replayed = layout(features.token_ids[start:], tokens)
    assert features.positions[:start] == tuple(range(start))
    assert features.positions[start:] == tuple(start + position for position in replayed.positions)
    assert features.segments == (*[0] * start, *replayed.branches)
    assert [list(row) for row in features.visibility] == replayed.visibility()


def test_every_learned_token_follows_a_token_of_its_own_branch(solved: list[Features]) -> None:
    """Trainers shift labels by one place in document order, which is right only if this holds."""
    for features in solved:
        for index, label in enumerate(features.labels):
            if label != IGNORED:
                assert features.segments[index] == features.segments[index - 1]
                assert features.positions[index] == features.positions[index - 1] + 1


def test_a_solution_that_never_forks_is_causal(tokenizer: Any, tokens: TokenDialect) -> None:
    features = featurize(QUESTION, Document(("1+1=2.",), "Answer: 2"), "sequential", tokenizer, tokens)
    assert features.positions == tuple(range(len(features)))
    assert features.visibility == ((True,),)


def _document(length: int) -> Features:
    return Features((0,) * length, (0,) * length, tuple(range(length)), (0,) * length, ((True,),))


@given(st.lists(st.integers(1, 120), max_size=30), st.integers(1, 100))
def test_packing_keeps_every_document_and_the_bound(lengths: list[int], row_length: int) -> None:
    rows = pack(map(_document, lengths), row_length)
    assert sorted(len(document) for row in rows for document in row) == sorted(lengths)
    assert all(len(row) == 1 or sum(map(len, row)) <= row_length for row in rows)


@given(st.lists(st.integers(1, 120), max_size=30), st.integers(1, 500))
def test_micro_batches_keep_every_row_and_the_bound(lengths: list[int], budget: int) -> None:
    groups = micro_batches([[_document(length)] for length in lengths], budget)
    assert sorted(len(row[0]) for group in groups for row in group) == sorted(lengths)
    assert all(len(group) == 1 or len(group) * max(len(row[0]) for row in group) <= budget for group in groups)
