"""What a model's folder says of it, and which tokens of a prompt are a question's own."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from multiverse import LLM
from multiverse.engine.model import embedded_model
from multiverse.errors import ModelError
from multiverse.models.about import UNLIKE, About, asked, read_about


def test_a_folder_without_the_file_says_nothing(tmp_path: Path) -> None:
    assert read_about(tmp_path) is None
    assert read_about("someone/a-hub-id") is None


def test_the_line_holds_what_there_is(tmp_path: Path) -> None:
    (tmp_path / "about.json").write_text(json.dumps({"text": " A model of squares. "}))
    assert read_about(tmp_path) == About("A model of squares.")
    whole = {"text": "A model of squares.", "example": "7*7?", "otherwise": "Else: big.", "least_logprob": -3}
    (tmp_path / "about.json").write_text(json.dumps(whole))
    about = read_about(tmp_path)
    assert about == About("A model of squares.", "7*7?", "Else: big.", -3.0)
    assert about.line == 'A model of squares. For example: "7*7?" Else: big.'
    assert (about.notice, About("x").notice) == (f"{UNLIKE} Else: big.", UNLIKE)
    assert (about.is_unlike(-3.1), about.is_unlike(-3.0), About("x").is_unlike(-99)) == (True, False, False)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("{", "cannot be read"),
        ("[]", "has no text"),
        ('{"text": "  "}', "has no text"),
        ('{"text": "x", "threshold": 3}', "has threshold, which is not known"),
        ('{"text": "x", "example": 3}', "has the example 3"),
        ('{"text": "x", "least_logprob": "low"}', "has the least_logprob 'low'"),
        ('{"text": "x", "least_logprob": true}', "has the least_logprob True"),
    ],
)
def test_what_is_not_valid_is_named(tmp_path: Path, content: str, told: str) -> None:
    (tmp_path / "about.json").write_text(content)
    with pytest.raises(ModelError, match=told):
        read_about(tmp_path)


class Tokenizer:
    """One token a character, and a template with a system message before and an opening after."""

    def apply_chat_template(self, messages: list[dict[str, str]], **_: Any) -> str:
        return f"<be kind><{messages[0]['content']}><"

    def encode(self, text: str, **_: Any) -> list[int]:
        return [ord(letter) for letter in text]


@pytest.mark.parametrize("question", ["How many?", "0", "z", "012", "<be kind>", ">", "a><", " wide "])
def test_the_template_is_not_the_question_s_own(question: str) -> None:
    own = asked(Tokenizer(), question)
    text = "".join(map(chr, own.token_ids))
    # What the question shares with the template at its edges cannot be told from it.
    assert text[: own.first].startswith("<be kind><")
    assert f"<be kind><{question.strip()}><".startswith(text)
    if question.strip()[-1] not in "><":
        assert text[own.first :] == question.strip()


def test_the_mean_is_of_the_question_s_own_tokens() -> None:
    own = asked(Tokenizer(), "ab")
    assert own.mean([None, *[-9.0] * 9, -1.0, -2.0]) == -1.5
    assert asked(Tokenizer(), "ab")._replace(first=99).mean([None]) == 0.0


def test_the_engine_reads_the_folder_s_own(tmp_path: Path) -> None:
    for file in embedded_model().iterdir():
        if file.name != "about.json":
            shutil.copy(file, tmp_path)
    llm = LLM(tmp_path)
    assert llm.about is None
    assert not llm.is_unlike("What is the capital of France?")


def test_a_model_that_is_loaded_by_its_name_says_what_it_is() -> None:
    assert LLM("multiverse-mini").about == LLM().about is not None
