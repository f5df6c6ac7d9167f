"""Labels, positions and segments of single documents; packing as a function on lengths."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multiverse.prompting import INSTRUCTIONS, ask
from multiverse.structure import Block, Document, TokenDialect, encode, layout, render
from multiverse.training import IGNORED, Features, Featurizer, View, pack
from multiverse.training.features import end_of_turn

QUESTION = "What is 1+1 and 2+2?"
BLOCK = Block(outlines=("a", "b"), paths=(("1+1=2.",), ("2+2=4, yes.",)), conclusion="2, 4.")
SOLUTION = Document(("Let's think in parallel.", BLOCK), "Answer: 4")


@pytest.fixture(scope="module")
def prompt(tokenizer: Any) -> list[int]:
    text = tokenizer.apply_chat_template(ask(QUESTION, "parallel"), tokenize=False, add_generation_prompt=True)
    return list(tokenizer.encode(text, add_special_tokens=False))


def test_labels_leave_out_the_prompt_and_forced_tokens(tokenizer: Any, tokens: TokenDialect, prompt: list[int]) -> None:
    features = Featurizer(tokenizer, tokens)(QUESTION, SOLUTION, "parallel")
    encoded = encode(SOLUTION, tokens)
    start = len(prompt)
    assert list(features.token_ids) == [*prompt, *encoded.token_ids, tokenizer.eos_token_id]
    assert set(features.labels[:start]) == {IGNORED}
    expected = [IGNORED if forced else t for t, forced in zip(encoded.token_ids, encoded.layout.forced, strict=True)]
    assert list(features.labels[start:]) == [*expected, tokenizer.eos_token_id]
    assert any(encoded.layout.forced)


def test_learned_text_reads_as_the_document_without_what_the_engine_writes(tokenizer: Any, tokens: TokenDialect) -> None:
    features = Featurizer(tokenizer, tokens)(QUESTION, SOLUTION, "parallel")
    learned = tokenizer.decode([label for label in features.labels if label != IGNORED])
    dialect = tokens.dialect
    assert dialect.path.open not in learned
    assert dialect.resume not in learned
    assert f" 1+1=2.\n{dialect.path.close} 2+2=4, yes.\n{dialect.path.close}2, 4." in learned
    assert learned.endswith(f"Answer: 4{tokenizer.eos_token}")


def test_positions_and_segments_are_the_layout_of_the_solution_behind_the_prompt(
    tokenizer: Any, tokens: TokenDialect, prompt: list[int]
) -> None:
    features = Featurizer(tokenizer, tokens)(QUESTION, SOLUTION, "parallel")
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
    features = Featurizer(tokenizer, tokens)(QUESTION, Document(("1+1=2.",), "Answer: 2"), "sequential")
    assert features.positions == tuple(range(len(features)))
    assert features.visibility == ((True,),)


def test_messages_are_kept_and_the_instruction_ends_the_last(tokenizer: Any, tokens: TokenDialect) -> None:
    chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": QUESTION}]
    make = Featurizer(tokenizer, tokens)
    shown = tokenizer.decode(make(chat, SOLUTION, "parallel").token_ids)
    assert "Be brief." in shown
    assert f"{QUESTION} {INSTRUCTIONS['parallel']}" in shown
    assert INSTRUCTIONS["parallel"] not in tokenizer.decode(make(chat, SOLUTION, None).token_ids)


def test_an_earlier_turn_that_forks_has_its_own_layout(tokenizer: Any, tokens: TokenDialect) -> None:
    chat = [
        {"role": "user", "content": QUESTION},
        {"role": "assistant", "content": render(SOLUTION)},
        {"role": "user", "content": "And now?"},
    ]
    features = Featurizer(tokenizer, tokens)(chat, SOLUTION, None)
    replayed = layout(features.token_ids[:-1], tokens)
    assert len(replayed.table) == 5
    assert features.positions[:-1] == replayed.positions
    assert features.learned == Featurizer(tokenizer, tokens)(QUESTION, SOLUTION, None).learned


def test_views_that_are_baselines(tokenizer: Any, tokens: TokenDialect) -> None:
    whole = Featurizer(tokenizer, tokens)(QUESTION, SOLUTION, "parallel")
    linear = Featurizer(tokenizer, tokens, View(positions="linear"))(QUESTION, SOLUTION, "parallel")
    assert linear == replace(whole, positions=tuple(range(len(whole))))
    plain = Featurizer(tokenizer, tokens, View("causal", "linear"))(QUESTION, SOLUTION, "parallel")
    assert plain.token_ids == whole.token_ids
    assert plain.visibility == ((True,),)
    prompt = next(index for index, label in enumerate(whole.labels) if label != IGNORED)
    # Shown as any other text, all of it has to be learned: nobody else writes the heads.
    first = next(index for index, label in enumerate(plain.labels) if label != IGNORED)
    assert first <= prompt
    assert plain.labels[first:] == plain.token_ids[first:]
    shared = Featurizer(tokenizer, tokens, View(share_every=2))(QUESTION, SOLUTION, "parallel")
    assert shared.starts is not None
    assert {start for row in shared.starts for start in row} > {-1}
    with pytest.raises(ValueError, match="share_every=4 needs structured attention"):
        View(attention="causal", share_every=4)


def test_the_end_of_turn_is_what_the_template_writes_behind_an_answer(tokenizer: Any) -> None:
    assert end_of_turn(tokenizer) == tokenizer.eos_token_id
    other = copy.deepcopy(tokenizer)
    other.eos_token = "<|endoftext|>"
    assert other.eos_token_id != tokenizer.eos_token_id
    assert end_of_turn(other) == tokenizer.eos_token_id


@given(st.lists(st.integers(1, 120), max_size=200), st.integers(1, 100), st.integers(1, 8))
def test_packing_keeps_every_document_and_the_bound(lengths: list[int], row_length: int, ahead: int) -> None:
    rows = pack(lengths, row_length, ahead)
    assert sorted(index for row in rows for index in row) == list(range(len(lengths)))
    assert all(len(row) == 1 or sum(lengths[index] for index in row) <= row_length for row in rows)


def test_rows_come_nearly_in_the_order_of_the_documents() -> None:
    rows = pack([30] * 4000, 100)
    assert max(abs(index - 3 * number) for number, row in enumerate(rows) for index in row) <= 3 * 64
