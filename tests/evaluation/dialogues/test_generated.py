"""Dialogues over our own tasks in process: judged by code, with structured history in the cache; images are refused there."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("inspect_ai", reason="the extra [eval] is not installed")
pytest.importorskip("PIL", reason="the extra [eval] is not installed")

from multiverse import LLM
from multiverse.evaluation.dialogues.config import DialogueConfig, Setting
from multiverse.evaluation.dialogues.generated import generated
from multiverse.evaluation.dialogues.images import ImageLimits
from multiverse.evaluation.dialogues.messages import request
from multiverse.evaluation.dialogues.reader import dialogue_of, read_dialogues
from multiverse.evaluation.dialogues.results import MAIN, MAIN_BY_TURN, TURN, Results
from multiverse.evaluation.dialogues.run import Judging, evaluate_dialogues, rule_judges
from multiverse.evaluation.dialogues.store import DialogueRun
from multiverse.evaluation.providers import as_asked, in_process
from multiverse.evaluation.run import EvaluationError
from multiverse.prompting import INSTRUCTIONS, Prompting
from multiverse.structure import Document
from multiverse.tasks import generate_dialogues
from tests.cli.scripted import scripted_llm

from . import made

pytestmark = pytest.mark.filterwarnings("ignore:The 'initial' parameter is deprecated:DeprecationWarning")

COUNT, SEED, TURNS = 3, 5, 3
EXCHANGES = [one for dialogue in generate_dialogues(COUNT, SEED, turns=TURNS) for one in dialogue]


def write_solution(prompt: str) -> Document | str:
    """The right solution of the last question in a prompt; of corrections a wrong one."""
    last = max(EXCHANGES, key=lambda one: prompt.rfind(one.problem.question)).problem
    kind = next(one.kind for one in EXCHANGES if one.problem is last)
    return Document(last.structured.thinking, "Answer: 100000") if kind == "correction" else last.structured


@pytest.fixture(scope="module")
def scripted(model_folders: dict[str, Path]) -> LLM:
    return scripted_llm(model_folders["qwen3"], write_solution)


def run(llm: LLM, out: Path, config: DialogueConfig) -> DialogueRun:
    return evaluate_dialogues(
        lambda: in_process("tiny", llm),
        "tiny",
        generated(COUNT, SEED, TURNS),
        Setting.of("tasks", config, own=True),
        out,
        judging=Judging(rule_judges()),
    )


def test_several_turns_in_process(scripted: LLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prompts: list[str] = []
    encode = scripted.encode_chat

    def note(chat: list[dict[str, str]]) -> list[int]:
        prompts.append("\n".join(f"{message['role']}: {message['content']}" for message in chat))
        return encode(chat)

    monkeypatch.setattr(scripted, "encode_chat", note)
    found = run(scripted, tmp_path, DialogueConfig())
    assert len(found.answers) == COUNT * TURNS
    # Each of the user's messages ends with the instruction, and earlier answers are whole.
    last = next(prompt for prompt in prompts if prompt.count("user: ") == TURNS)
    assert last.count(INSTRUCTIONS["parallel"]) == TURNS
    assert sum(f"assistant: {one.text}" in last for one in found.answers) == TURNS - 1
    results = Results(found)
    by_kind = {name: own.items.mean for name, own in results.groups(MAIN).items()}
    assert {name for name, mean in by_kind.items() if mean == 1} >= {"new"}
    assert by_kind["correction"] == 0
    assert set(results.groups(TURN)) == {"1", "2", "3"}
    assert "new · turn 1" in results.groups(MAIN_BY_TURN)
    answered = results.answered()
    assert answered["1"].parallelism.mean > 1
    # Of later prompts, all but the new question and what frames it comes from the cache.
    assert answered["2"].cached > 0.5
    assert answered["3"].cached > 0.5
    assert all(one.finish_reason == "stop" and not one.malformed for one in found.answers)


def test_references_are_written_as_the_model_writes() -> None:
    (dialogue, *_) = generated(COUNT, SEED, TURNS)
    for mode in ("parallel", "sequential"):
        setting = Setting.of("tasks", DialogueConfig(history="reference", mode=mode), own=True)
        sent = request(dialogue, 1, {}, setting)
        assert [message.role for message in sent] == ["user", "assistant", "user"]
        assert sent[1].text == dialogue.turns[0].solutions[mode]
        assert all(message.text.endswith(INSTRUCTIONS[mode]) for message in sent if message.role == "user")
    plain = request(dialogue, 1, {}, Setting.of("tasks", DialogueConfig(history="reference", mode="as-is"), own=True))
    assert plain[1].text == dialogue.turns[0].reference


def test_generated_sets_can_be_written_and_read(tmp_path: Path) -> None:
    rows = []
    for dialogue in generated(COUNT, SEED, TURNS):
        record = dialogue.record()
        conversation = []
        for turn in record.pop("turns"):
            conversation.append({"speaker": "user", "utterance": turn["utterance"], "checklist": []})
            conversation.append({"speaker": "assistant", "utterance": turn["reference"], "checklist": turn["checklist"]})
        rows.append(record | {"conversation": conversation})
    loaded = read_dialogues(str(made.write_jsonl(tmp_path / "rows.jsonl", rows)))
    assert loaded.faults == []
    assert all(one.judged_by_code and one.image is None for one in loaded.dialogues)
    assert [turn.checklist for turn in loaded.dialogues[0].turns] == [
        turn.checklist for turn in generated(1, SEED, TURNS)[0].turns
    ]


def test_a_model_in_this_process_refuses_images(scripted: LLM, tmp_path: Path) -> None:
    seeing = dialogue_of(made.row(0), None, ImageLimits())
    with pytest.raises(EvaluationError, match="models in this process read no images: ask a server that does"):
        evaluate_dialogues(
            lambda: in_process("tiny", scripted),
            "tiny",
            [seeing],
            Setting.of("made", DialogueConfig(), own=False),
            tmp_path,
            judging=Judging([]),
        )


def test_models_with_other_instructions_get_theirs_in_every_turn() -> None:
    own = Prompting({"parallel": "Fork!", "sequential": "Go on."}, "\n")
    chat = [
        {"role": "user", "content": f"One? {INSTRUCTIONS['parallel']}"},
        {"role": "assistant", "content": "1"},
        {"role": "user", "content": f"Two? {INSTRUCTIONS['parallel']}"},
    ]
    asked, _ = as_asked(chat, {}, own)
    assert [message["content"] for message in asked] == ["One?\nFork!", "1", "Two?\nFork!"]
    plain, _ = as_asked(chat, {}, None)
    assert [message["content"] for message in plain] == ["One?", "1", "Two?"]
