"""Training a model of a family: its questions are put as the family does, and the finished model knows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("accelerate", reason="the extra [train] is not installed")

from multiverse import LLM
from multiverse.errors import ConfigError
from multiverse.families import FAMILIES
from multiverse.structure import NPR, Block, Document, render
from multiverse.training import IGNORED
from multiverse.training.config import Config
from multiverse.training.loading import RunInputs, load_inputs, load_model
from multiverse.training.mixture import Variant
from tests.standins import stand_in

QUESTION = "What is 2+2?"
TEXT = Document((Block(("Add.", "Check."), (("2+2=4.",), ("4-2=2.",)), "It is 4."), "So \\boxed{4}."))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = stand_in(tmp_path_factory.mktemp("base") / "tiny", "npr")
    (folder / "instruction.txt").write_text("Plan in <guideline>, then <step>.\n")
    return folder


def loaded(folder: Path, tmp_path: Path, **settings: object) -> RunInputs:
    data = tmp_path / "data.jsonl"
    rows = [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": render(TEXT, NPR)}]
    data.write_text(json.dumps({"messages": rows}) + "\n")
    given = {"dialect": "npr", "mixture": "parallel", "epochs": 1, "precision": "fp32", **settings}
    config = Config(model=str(folder), data=[str(data)], out=str(tmp_path / "run"), **given)  # type: ignore[arg-type]
    model, tokenizer, _ = load_model(config)
    return load_inputs(config, model, tokenizer, lambda *_: None)


def test_a_question_of_the_training_is_the_prompt_of_the_engine(folder: Path, tmp_path: Path) -> None:
    inputs = loaded(folder, tmp_path)
    assert inputs.family is FAMILIES["npr"]
    assert inputs.instruction == "Plan in <guideline>, then <step>."
    features = inputs.corpus.features(Variant(0, "parallel"))
    llm = LLM(folder, kv_memory=8 << 20)
    ((prompt, _),), _ = llm.encode_conversations([{"role": "user", "content": QUESTION}], "parallel")
    size = len(prompt)
    assert list(features.token_ids[:size]) == prompt
    assert features.positions[: size + 1] == tuple(range(size + 1)), "the tags of the instruction are no structure"
    assert set(features.labels[:size]) == {IGNORED}
    assert features.num_loss_tokens > 0
    assert max(features.segments) == 2


def test_without_a_preset_the_questions_have_our_sentence(folder: Path, tmp_path: Path) -> None:
    inputs = loaded(folder, tmp_path, preset="none", instruction_file=None)
    assert inputs.family is None
    with pytest.raises(ConfigError, match="preset='threadweaver' does not go with dialect='npr'"):
        loaded(folder, tmp_path, preset="threadweaver")
