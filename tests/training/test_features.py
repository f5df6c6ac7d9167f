"""Labels, positions and segments of single documents; packing as a function on lengths."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multiverse.prompting import INSTRUCTIONS, ask
from multiverse.structure import Block, Document, TokenDialect, encode, end_of_turn, layout, render, resolve
from multiverse.training import IGNORED, Features, Featurizer, View, pack

QUESTION = "What is 1+1 and 2+2?"
BLOCK = Block(outlines=("a", "b"), paths=(("1+1=2.",), ("2+2=4, yes.",)), conclusion="2, 4.")
SOLUTION = Document(("Let's think in parallel.", BLOCK), "Answer: 4")


@pytest.fixture(scope="module")
def prompt(mini_tokenizer: Any) -> list[int]:
    text = mini_tokenizer.apply_chat_template(ask(QUESTION, "parallel"), tokenize=False, add_generation_prompt=True)
    return list(mini_tokenizer.encode(text, add_special_tokens=False))


def test_labels_leave_out_the_prompt_and_forced_tokens(
    mini_tokenizer: Any, mini_tokens: TokenDialect, prompt: list[int]
) -> None:
    features = Featurizer(mini_tokenizer, mini_tokens)(QUESTION, SOLUTION, "parallel")
    encoded = encode(SOLUTION, mini_tokens)
    start = len(prompt)
    assert list(features.token_ids) == [*prompt, *encoded.token_ids, mini_tokenizer.eos_token_id]
    assert set(features.labels[:start]) == {IGNORED}
    expected = [IGNORED if forced else t for t, forced in zip(encoded.token_ids, encoded.layout.forced, strict=True)]
    assert list(features.labels[start:]) == [*expected, mini_tokenizer.eos_token_id]
    assert any(encoded.layout.forced)


ANSWERS = [
    Document(None, ("Two parts.", BLOCK, "Then:", Block(("c",), ((BLOCK, "so"),), ""), "Answer: 4")),
    Document(("Hm.",), (BLOCK,)),
    Document(None, (BLOCK, BLOCK)),
]


@pytest.mark.parametrize("document", ANSWERS, ids=["text between", "after a thinking", "blocks alone"])
def test_blocks_of_the_answer_have_their_layout_and_their_loss(
    mini_tokenizer: Any, mini_tokens: TokenDialect, prompt: list[int], document: Document
) -> None:
    tokens = resolve(mini_tokenizer, replace(mini_tokens.dialect, blocks="answer"))
    features = Featurizer(mini_tokenizer, tokens)(QUESTION, document, "parallel")
    start = len(prompt)
    own = features.token_ids[start:-1]
    replayed = layout(own, tokens)
    assert features.positions[start:-1] == tuple(start + position for position in replayed.positions)
    assert features.positions[-1] == max(features.positions[:-1]) + 1
    assert (features.segments[start:-1], features.segments[-1]) == (replayed.branches, 0)
    assert features.visibility == tuple(map(tuple, replayed.visibility()))
    expected = (IGNORED if forced else token for token, forced in zip(own, replayed.forced, strict=True))
    assert features.labels[start:] == (*expected, mini_tokenizer.eos_token_id)
    learned = mini_tokenizer.decode([label for label in features.labels if label != IGNORED])
    assert learned.count("2+2=4, yes.") == document.branches // 2
    assert tokens.dialect.path.open not in learned


def test_an_earlier_answer_that_forks_is_tokenised_segment_by_segment(mini_tokenizer: Any, mini_tokens: TokenDialect) -> None:
    tokens = resolve(mini_tokenizer, replace(mini_tokens.dialect, blocks="answer"))
    earlier = render(ANSWERS[0], tokens.dialect)
    turns = [{"role": "user", "content": "Q"}, {"role": "assistant", "content": earlier}, {"role": "user", "content": "R"}]
    features = Featurizer(mini_tokenizer, tokens)(turns, Document(None, "x"), None)
    ids, known = features.token_ids, encode(ANSWERS[0], tokens)
    at = ids.index(tokens.fork_tag) - known.token_ids.index(tokens.fork_tag)
    assert ids[at : at + len(known.token_ids)] == known.token_ids
    assert features.positions[at : at + len(known.token_ids)] == tuple(at + position for position in known.layout.positions)


def test_learned_text_reads_as_the_document_without_what_the_engine_writes(
    mini_tokenizer: Any, mini_tokens: TokenDialect
) -> None:
    features = Featurizer(mini_tokenizer, mini_tokens)(QUESTION, SOLUTION, "parallel")
    learned = mini_tokenizer.decode([label for label in features.labels if label != IGNORED])
    dialect = mini_tokens.dialect
    assert dialect.path.open not in learned
    assert dialect.resume not in learned
    assert f" 1+1=2.\n{dialect.path.close} 2+2=4, yes.\n{dialect.path.close}2, 4." in learned
    assert learned.endswith(f"Answer: 4{mini_tokenizer.eos_token}")


def test_positions_and_segments_are_the_layout_of_the_solution_behind_the_prompt(
    mini_tokenizer: Any, mini_tokens: TokenDialect, prompt: list[int]
) -> None:
    features = Featurizer(mini_tokenizer, mini_tokens)(QUESTION, SOLUTION, "parallel")
    start = len(prompt)
    replayed = layout(features.token_ids[start:], mini_tokens)
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


def test_a_solution_that_never_forks_is_causal(mini_tokenizer: Any, mini_tokens: TokenDialect) -> None:
    features = Featurizer(mini_tokenizer, mini_tokens)(QUESTION, Document(("1+1=2.",), "Answer: 2"), "sequential")
    assert features.positions == tuple(range(len(features)))
    assert features.visibility == ((True,),)


def test_messages_are_kept_and_the_instruction_ends_the_last(mini_tokenizer: Any, mini_tokens: TokenDialect) -> None:
    chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": QUESTION}]
    make = Featurizer(mini_tokenizer, mini_tokens)
    shown = mini_tokenizer.decode(make(chat, SOLUTION, "parallel").token_ids)
    assert "Be brief." in shown
    assert f"{QUESTION} {INSTRUCTIONS['parallel']}" in shown
    assert INSTRUCTIONS["parallel"] not in mini_tokenizer.decode(make(chat, SOLUTION, None).token_ids)


def test_an_earlier_turn_that_forks_has_its_own_layout(mini_tokenizer: Any, mini_tokens: TokenDialect) -> None:
    chat = [
        {"role": "user", "content": QUESTION},
        {"role": "assistant", "content": render(SOLUTION)},
        {"role": "user", "content": "And now?"},
    ]
    features = Featurizer(mini_tokenizer, mini_tokens)(chat, SOLUTION, None)
    replayed = layout(features.token_ids[:-1], mini_tokens)
    assert len(replayed.table) == 5
    assert features.positions[:-1] == replayed.positions
    assert features.num_loss_tokens == Featurizer(mini_tokenizer, mini_tokens)(QUESTION, SOLUTION, None).num_loss_tokens


def test_views_that_are_baselines(mini_tokenizer: Any, mini_tokens: TokenDialect) -> None:
    whole = Featurizer(mini_tokenizer, mini_tokens)(QUESTION, SOLUTION, "parallel")
    linear = Featurizer(mini_tokenizer, mini_tokens, View(positions="linear"))(QUESTION, SOLUTION, "parallel")
    assert linear == replace(whole, positions=tuple(range(len(whole))))
    plain = Featurizer(mini_tokenizer, mini_tokens, View("causal", "linear"))(QUESTION, SOLUTION, "parallel")
    assert plain.token_ids == whole.token_ids
    assert plain.visibility == ((True,),)
    prompt = next(index for index, label in enumerate(whole.labels) if label != IGNORED)
    # Shown as any other text, all of it has to be learned: nobody else writes the heads.
    first = next(index for index, label in enumerate(plain.labels) if label != IGNORED)
    assert first <= prompt
    assert plain.labels[first:] == plain.token_ids[first:]
    shared = Featurizer(mini_tokenizer, mini_tokens, View(share_every=2))(QUESTION, SOLUTION, "parallel")
    assert shared.starts is not None
    assert {start for row in shared.starts for start in row} > {-1}
    with pytest.raises(ValueError, match="share_every=4 needs structured attention"):
        View(attention="causal", share_every=4)


def test_the_end_of_turn_is_what_the_template_writes_behind_an_answer(mini_tokenizer: Any) -> None:
    assert end_of_turn(mini_tokenizer) == mini_tokenizer.eos_token_id
    other = copy.deepcopy(mini_tokenizer)
    other.eos_token = "<|endoftext|>"
    assert other.eos_token_id != mini_tokenizer.eos_token_id
    assert end_of_turn(other) == mini_tokenizer.eos_token_id


@given(st.lists(st.integers(1, 120), max_size=200), st.integers(1, 100), st.integers(1, 8))
def test_packing_keeps_every_document_within_the_row_length(lengths: list[int], row_length: int, ahead: int) -> None:
    rows = pack(lengths, row_length, ahead)
    assert sorted(index for row in rows for index in row) == list(range(len(lengths)))
    assert all(len(row) == 1 or sum(lengths[index] for index in row) <= row_length for row in rows)


def test_rows_come_nearly_in_the_order_of_the_documents() -> None:
    rows = pack([30] * 4000, 100)
    assert max(abs(index - 3 * number) for number, row in enumerate(rows) for index in row) <= 3 * 64


def test_tags_in_a_question_are_text(mini_tokenizer: Any, mini_tokens: TokenDialect) -> None:
    featurizer = Featurizer(mini_tokenizer, mini_tokens)
    question = "What is <Path>, and <|im_end|>?"
    ids = featurizer.encode_prompt([{"role": "user", "content": question}])
    assert mini_tokens.roles.keys().isdisjoint(ids)
    assert ids.count(featurizer.end) == 1  # the template's
    assert question in mini_tokenizer.decode(ids)
