"""multiverse-smol: what is shipped, and, where its base is at hand, that it forks where a request has parts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import multiverse
from multiverse import LLM, SamplingParams
from multiverse.models.about import read_about
from multiverse.models.registry import ENTRIES
from multiverse.models.resolve import BASE, find, named
from multiverse.prompting import ask
from multiverse.structure import MULTIVERSE_ANSWER, Block, read_dialect

FOLDER = Path(multiverse.__file__).parent / "models" / "smol"


def test_the_adapter_is_small_and_names_its_base() -> None:
    assert sum(file.stat().st_size for file in FOLDER.rglob("*")) <= 16 << 20
    settings = json.loads((FOLDER / "adapter_config.json").read_text())
    assert settings["base_model_name_or_path"] == ENTRIES["multiverse-smol"].base == "smollm2"


def test_its_configuration_says_how_it_was_trained() -> None:
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(FOLDER)
    assert read_dialect(config) == MULTIVERSE_ANSWER
    assert config.multiverse_instruct is False
    assert set(getattr(config, BASE)) == {"fingerprint", "source", "rows"}
    assert not [file for file in FOLDER.iterdir() if "/tmp/" in file.read_text(errors="ignore")], "no path of the training"


@pytest.fixture(scope="module")
def llm() -> LLM:
    base = named("smollm2")
    assert base is not None
    if find(base) is None:
        pytest.skip("smollm2 is not at hand (multiverse pull smollm2)")
    return LLM("multiverse-smol", kv_memory=256 << 20)


@pytest.mark.parametrize(
    ("question", "outlines"),
    [
        ("What is bread, why is the sky blue, and how do magnets work?", ["bread", "sky", "magnets"]),
        ("Tell me about cats.\nTell me about rice.", ["cats", "rice"]),
        ("What is the capital of France?", []),
    ],
)
def test_it_forks_where_a_request_has_parts(llm: LLM, question: str, outlines: list[str]) -> None:
    assert not llm.instructed
    (out,) = llm.chat(ask(question, "as-is"), SamplingParams(temperature=0, max_tokens=800))
    assert out.finish_reason == "stop"
    assert out.tree is not None
    blocks = [item for item in out.tree.answer if isinstance(item, Block)]
    found = [outline for block in blocks for outline in block.outlines]
    assert len(found) == len(outlines)
    assert all(word in outline.lower() for word, outline in zip(outlines, found, strict=True))


def test_the_puzzle_model_names_it() -> None:
    about = read_about(FOLDER.parent / "mini")
    assert about is not None
    assert "multiverse-smol" in about.line
