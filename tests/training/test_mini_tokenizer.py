"""Properties of the mini model's tokenizer."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multiverse.prompting import INSTRUCTIONS
from multiverse.structure import MULTIVERSE, render
from multiverse.tasks import CALCULATIONS, problems


def pieces(mini_tokenizer: Any, text: str) -> list[str]:
    return [mini_tokenizer.decode([token]) for token in mini_tokenizer.encode(text, add_special_tokens=False)]


def test_every_tag_is_one_token_and_survives_decoding(mini_tokenizer: Any) -> None:
    for tag in MULTIVERSE.tags:
        ids = mini_tokenizer.encode(f"1{tag}\n", add_special_tokens=False)
        assert len(ids) == 3
        assert mini_tokenizer.decode(ids, skip_special_tokens=True) == f"1{tag}\n"


def test_chat_tokens_are_special(mini_tokenizer: Any) -> None:
    for text in ("<|im_start|>", "<|im_end|>", "<|endoftext|>"):
        ids = mini_tokenizer.encode(text, add_special_tokens=False)
        assert len(ids) == 1
        assert mini_tokenizer.decode(ids, skip_special_tokens=True) == ""
    assert mini_tokenizer.eos_token == "<|im_end|>"
    assert mini_tokenizer.pad_token == "<|endoftext|>"


def test_chat_template_is_chatml(mini_tokenizer: Any) -> None:
    messages = [{"role": "user", "content": "Hi 1+1?"}]
    text = mini_tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert text == "<|im_start|>user\nHi 1+1?<|im_end|>\n<|im_start|>assistant\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("7+5=12, 3", ["7", "+", "5", "=", "1", "2", ",", " ", "3"]),
        (" Mia has 40.\n\nTom", [" Mia", " has", " ", "4", "0", ".", "\n", "\n", "Tom"]),
        ("2.1: (3-1)*5!", ["2", ".", "1", ":", " ", "(", "3", "-", "1", ")", "*", "5", "!"]),
    ],
)
def test_digits_operators_and_line_ends_stand_alone(mini_tokenizer: Any, text: str, expected: list[str]) -> None:
    assert pieces(mini_tokenizer, text) == expected


def test_words_of_the_tasks_are_single_tokens(mini_tokenizer: Any) -> None:
    texts = list(INSTRUCTIONS.values())
    for family in CALCULATIONS:
        problem = next(problems(family, seed=11))
        texts += [problem.question, render(problem.structured)]
    for text in texts:
        words = [" " + word for word in text.split(" ")[1:] if word.isalpha()]
        assert [word for word in words if len(mini_tokenizer.encode(word, add_special_tokens=False)) != 1] == []


@given(st.text())
def test_any_text_comes_back(mini_tokenizer: Any, text: str) -> None:
    ids = mini_tokenizer.encode(text, add_special_tokens=False)
    assert mini_tokenizer.decode(ids, skip_special_tokens=False) == text


@given(st.text(alphabet="0123456789", min_size=1, max_size=12))
def test_every_digit_is_a_token(mini_tokenizer: Any, digits: str) -> None:
    assert pieces(mini_tokenizer, digits) == list(digits)
