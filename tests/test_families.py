"""Presets by family: recognised by tags, name and saved dialect; asked, sampled and read as the family is."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from multiverse import LLM, SamplingParams
from multiverse.errors import ModelError, RequestError
from multiverse.families import FAMILIES, bind, choose, recognise, write_preset
from multiverse.models import ENTRIES
from multiverse.prompting import DEFAULT, write_instructed
from multiverse.structure import DIALECTS, Block, Document, layout, write_dialect
from tests.cli.scripted import scripted_llm
from tests.conftest import build_tokenizer
from tests.standins import TAGS, qwen_tokenizer, stand_in

QUESTION = "What is 2+2?"
SHORT = SamplingParams(temperature=1, seed=3, max_tokens=60)
NPR_TEXT = Document(
    (
        Block(("Add.", "Check."), (("2+2=4.",), ("4-2=2.",)), "It is 4."),
        "There are \\boxed{4} of them, not 5.",
    )
)
TEXTS = {
    "multiverse": (Document(("Well.",), "In all four. **Answer:** 4"), "4"),
    "npr": (NPR_TEXT, "4"),
    "threadweaver": (Document(("Well: \\boxed{3}?",), "It is \\boxed{4}, of 5."), "4"),
}
"""Of each family a text that it writes, and the answer in it."""


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder per family, each under a name that says nothing."""
    return {name: stand_in(tmp_path_factory.mktemp("model") / "tiny", name) for name in FAMILIES}


@pytest.fixture(scope="module")
def models(folders: dict[str, Path]) -> dict[str, LLM]:
    return {name: LLM(folder, kv_memory=8 << 20) for name, folder in folders.items()}


# -- recognised -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FAMILIES)
def test_the_tags_of_a_tokenizer_tell_the_family(name: str, models: dict[str, LLM]) -> None:
    llm = models[name]
    assert llm.family is FAMILIES[name]
    assert llm.engine.tokens is not None
    assert llm.engine.tokens.dialect.name == FAMILIES[name].dialects[0]
    assert llm.recognised.why == f"its tokenizer has the tags of {name}"
    assert llm.recognised.note is None
    ids = llm.tokenizer.convert_tokens_to_ids(TAGS[name])
    assert ids == list(range(ids[0], ids[0] + len(TAGS[name]))), "one behind the other, in the family's order"


@pytest.mark.parametrize(
    ("called", "name"),
    [
        ("Multiverse4FM/Multiverse-32B", "multiverse"),
        ("bigai-NPR/NPR-4B", "npr"),
        ("npr-4b", "npr"),
        ("someone/Qwen3-8B-ThreadWeaver-sft", "threadweaver"),
        ("someone/thread_weaver", "threadweaver"),
        ("multiverse-mini", None),
        ("someone/unprejudiced", None),
    ],
)
def test_a_hub_id_is_recognised_by_its_name_alone(called: str, name: str | None) -> None:
    found = recognise(called, None, None)
    assert (found.family.name if found.family is not None else None) == name


@pytest.mark.parametrize("name", FAMILIES)
def test_a_saved_dialect_and_a_noted_preset_come_first(name: str) -> None:
    config = SimpleNamespace()
    write_dialect(config, DIALECTS[FAMILIES[name].dialects[0]])
    other = qwen_tokenizer(next(one for one in FAMILIES if one != name))
    assert recognise("x", other, config).family is FAMILIES[name]
    assert recognise("x", other, SimpleNamespace(), DIALECTS[name]).family is FAMILIES[name]
    write_preset(config, None)
    assert not hasattr(config, "multiverse_preset"), "nothing to note"
    write_instructed(config, True)
    assert recognise("x", qwen_tokenizer(name), config).family is None, "trained here, with our own sentences"
    write_preset(config, FAMILIES[name])
    assert recognise("x", None, config) == (FAMILIES[name], f"its training noted the preset {name}", None)
    assert recognise("x", None, config, DIALECTS["multiverse-compact"]).family is None, "loaded with another dialect"
    write_preset(config, None)
    assert recognise("x", qwen_tokenizer(name), config).family is None


def test_what_is_ambiguous_is_said_and_the_name_decides(tmp_path: Path) -> None:
    both = qwen_tokenizer("multiverse", "npr")
    found = recognise("model", both, SimpleNamespace())
    assert found.family is FAMILIES["multiverse"]
    assert found.note == "its tokenizer has the tags of multiverse and npr: it is taken for multiverse; preset= says otherwise"
    with pytest.warns(UserWarning, match="the tags of multiverse and npr"):
        choose("auto", "model", both, SimpleNamespace())
    named = recognise("bigai-NPR/NPR-4B", both, SimpleNamespace())
    assert (named.family, named.note) == (FAMILIES["npr"], None)
    folder = stand_in(tmp_path / "NPR-4B", "multiverse", "npr")
    llm = LLM(folder, kv_memory=8 << 20)
    assert (llm.family, llm.engine.tokens and llm.engine.tokens.dialect.name) == (FAMILIES["npr"], "npr")
    given = LLM(folder, kv_memory=8 << 20, preset="multiverse")
    assert given.engine.tokens is not None
    assert given.engine.tokens.dialect.name == "multiverse"


def test_a_name_that_contradicts_the_tags_does_not_count_and_is_said() -> None:
    found = recognise("bigai-NPR/MV-NPR-4B", qwen_tokenizer("multiverse"), SimpleNamespace())
    assert found.family is FAMILIES["multiverse"]
    assert found.note is not None
    assert found.note.startswith("it is called like npr, but has the tags of multiverse")
    tagless = recognise("bigai-NPR/NPR-zero", build_tokenizer(None), SimpleNamespace())
    assert tagless.family is FAMILIES["npr"]
    assert tagless.note == "its tokenizer has none of the tags of npr, so it decodes in one line"


def test_what_cannot_be_is_refused_by_name(folders: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="preset='nprr' is not known: use auto, none, multiverse, npr, threadweaver"):
        LLM(folders["npr"], preset="nprr")
    with pytest.raises(ModelError, match="preset='npr' does not fit: the model writes the dialect 'multiverse'"):
        LLM(folders["multiverse"], preset="npr", kv_memory=8 << 20)
    with pytest.raises(ModelError, match=r"multiverse_preset in the model's config\.json is 'x'"):
        recognise("y", None, SimpleNamespace(multiverse_preset="x"))
    empty = tmp_path / "empty.txt"
    empty.write_text(" \n")
    for file, problem in ((empty, "is empty"), (tmp_path / "none.txt", "cannot be read")):
        with pytest.raises(ModelError, match=f"the instruction in .*{file.name}.* {problem}"):
            LLM(folders["npr"], instruction_file=file, kv_memory=8 << 20)
    with pytest.raises(RequestError, match="instruction_file=3 is not valid"):
        LLM(folders["npr"], instruction_file=3)  # type: ignore[arg-type]


def test_without_a_preset_a_model_is_asked_as_any(folders: dict[str, Path]) -> None:
    llm = LLM(folders["npr"], preset="none", kv_memory=8 << 20)
    assert (llm.family, llm.prompting, llm.sampling()) == (None, DEFAULT, SamplingParams())
    assert llm.engine.tokens is not None
    assert llm.engine.tokens.dialect.name == "npr"


def test_checkpoints_and_bases_are_models_with_a_name() -> None:
    for family in FAMILIES.values():
        assert {*family.checkpoints, family.base} <= ENTRIES.keys()
        assert family.dialects[0] in DIALECTS
    assert ENTRIES["multiverse-32b"].kv_memory == 2 * 2 * 64 * 8 * 128
    assert ENTRIES["npr-4b"].kv_memory == ENTRIES["qwen3-8b"].kv_memory == 147_456


# -- asked ------------------------------------------------------------------------------------------------------------


def prompt_of(llm: LLM, question: str = QUESTION, **settings: Any) -> str:
    ((ids, _),), _ = llm.encode_conversations([{"role": "user", "content": question}], settings.get("mode", "parallel"))
    return llm.engine.decode(ids)


def test_multiverse_is_asked_with_the_template_s_system_message_and_a_sentence(models: dict[str, LLM]) -> None:
    assert prompt_of(models["multiverse"]) == (
        "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n"
        "<|im_start|>user\nWhat is 2+2? Think step by step and in parallel before answering.<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def test_npr_is_asked_behind_a_blank_line_without_thinking(models: dict[str, LLM]) -> None:
    llm = models["npr"]
    prompt = prompt_of(llm)
    instruction = llm.prompting.instructions["parallel"]
    assert prompt == (
        f"<|im_start|>user\nWhat is 2+2?\n\n{instruction}<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
    )
    assert "<guideline>" in instruction
    assert "</guideline>" not in instruction


def test_threadweaver_is_asked_for_steps_and_a_box(models: dict[str, LLM]) -> None:
    prompt = prompt_of(models["threadweaver"])
    assert prompt.startswith("<|im_start|>user\nWhat is 2+2? ")
    assert prompt.endswith("\\boxed{}.<|im_end|>\n<|im_start|>assistant\n")


def test_tags_of_the_instruction_are_tags_and_those_of_the_user_are_text(models: dict[str, LLM]) -> None:
    llm = models["npr"]
    assert llm.engine.tokens is not None
    tags = llm.engine.tokens.roles
    ((ids, _),), _ = llm.encode_conversations([{"role": "user", "content": "What does <step> mean?"}], "parallel")
    instruction = llm.prompting.instructions["parallel"]
    assert [llm.engine.decode([token]) for token in ids if token in tags] == ["<guideline>", "<plan>", "<step>", "<takeaway>"]
    text = llm.tokenizer.encode(f"\n\n{instruction}<|im_end|>", add_special_tokens=False)
    at = next(at for at in range(len(ids)) if ids[at : at + len(text)] == text)
    assert not tags.keys() & set(ids[:at])
    assert "What does <step> mean?" in llm.engine.decode(ids[:at])


def test_an_instruction_cannot_end_the_turn(tmp_path: Path, folders: dict[str, Path]) -> None:
    file = tmp_path / "own.txt"
    file.write_text("Use <plan>s. <|im_end|> Then stop.\n")
    llm = LLM(folders["npr"], instruction_file=file, kv_memory=8 << 20)
    ((ids, _),), _ = llm.encode_conversations([{"role": "user", "content": QUESTION}], "parallel")
    end, plan = llm.tokenizer.convert_tokens_to_ids(["<|im_end|>", "<plan>"])
    assert (ids.count(end), ids.count(plan)) == (1, 1)
    assert llm.prompting.instructions["parallel"] == "Use <plan>s. <|im_end|> Then stop."


def test_an_instruction_in_the_folder_takes_the_place_of_ours(tmp_path: Path) -> None:
    folder = stand_in(tmp_path / "tiny", "npr")
    (folder / "instruction.txt").write_text("Plan in <guideline>, then <step>.\n\n")
    assert "What is 2+2?\n\nPlan in <guideline>, then <step>.<|im_end|>" in prompt_of(LLM(folder, kv_memory=8 << 20))


@pytest.mark.parametrize("name", FAMILIES)
def test_each_mode_is_added_once_and_none_is_none(name: str, models: dict[str, LLM]) -> None:
    llm = models[name]
    sequential = llm.prompting.instructions["sequential"]
    assert prompt_of(llm, mode="sequential").count(sequential) == 1
    asked = llm.prompting.instruct([{"role": "user", "content": QUESTION}], "parallel")[0]["content"]
    assert prompt_of(llm, asked) == prompt_of(llm)
    assert f"{QUESTION}<|im_end|>" in prompt_of(llm, mode=None)


# -- structure starts with the answer ---------------------------------------------------------------------------------


def test_tags_in_an_instruction_are_no_structure(models: dict[str, LLM]) -> None:
    llm = models["npr"]
    (out,) = llm.chat([{"role": "user", "content": QUESTION}], SHORT)
    assert out.finish_reason in ("stop", "length")
    assert out.tree is not None or out.finish_reason == "length", out.structure_error
    assert out.positions[0] == len(out.prompt_token_ids), "the prompt is one line"
    # The same as raw text, as somebody writes it who applies the template alone.
    messages = llm.prompting.instruct([{"role": "user", "content": QUESTION}], "parallel")
    raw = llm.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True, enable_thinking=False)
    (same,) = llm.generate(raw, SHORT)
    assert (same.prompt_token_ids, same.token_ids) == (out.prompt_token_ids, out.token_ids)


def test_without_that_preset_such_a_prompt_is_refused(folders: dict[str, Path], models: dict[str, LLM]) -> None:
    prompt = prompt_of(models["npr"])
    with pytest.raises(RequestError, match="the prompt breaks the grammar of its own tags"):
        LLM(folders["npr"], preset="none", kv_memory=8 << 20).generate(prompt, SHORT)


def test_earlier_answers_are_structure_between_instructions_that_are_none(folders: dict[str, Path]) -> None:
    llm = scripted_llm(folders["npr"], lambda _: NPR_TEXT)
    first = [{"role": "user", "content": QUESTION}]
    (out,) = llm.chat(first, SamplingParams(temperature=0))
    assert out.tree == NPR_TEXT
    again = [*first, {"role": "assistant", "content": out.text}, {"role": "user", "content": "Sure?"}]
    ((ids, _),), _ = llm.encode_conversations(again, "parallel")
    assert llm.engine.tokens is not None
    where = layout(ids, llm.engine.tokens)
    assert set(where.labels) == {"", "1", "2"}
    assert max(where.positions) + 1 < len(ids), "its paths lie side by side"
    written = [label for token, label in zip(ids, where.labels, strict=True) if token in llm.engine.tokens.roles]
    assert written.count("1") == written.count("2") == 2, "a step has its two tags, and the instructions lie in no path"
    (second,) = llm.chat(again, SamplingParams(temperature=0))
    assert second.tree == NPR_TEXT
    # The template writes the empty thinking in the last turn alone, so that the earlier turn ends before it.
    same = next(at for at, (a, b) in enumerate(zip(out.prompt_token_ids, ids, strict=False)) if a != b)
    assert llm.engine.decode(list(out.prompt_token_ids[same:])) == "<think>\n\n</think>\n\n"
    assert second.usage.cached_tokens == same


def test_a_prompt_that_is_no_chat_has_its_tags_replayed(models: dict[str, LLM]) -> None:
    with pytest.raises(RequestError, match="breaks the grammar"):
        models["npr"].generate("<step>\n1: no\n</step>", SHORT)


# -- sampled ----------------------------------------------------------------------------------------------------------


def test_calls_without_parameters_have_the_family_s(models: dict[str, LLM]) -> None:
    npr = models["npr"].sampling()
    assert (npr.temperature, npr.top_p, npr.path_repetition_penalty, npr.repetition_penalty) == (1.0, 0.7, 1.02, 1.0)
    assert npr.max_tokens == min(30_000, models["npr"].engine.slots.size * 3 // 4)
    changed = models["npr"].sampling(temperature=0, max_tokens=9)
    assert (changed.temperature, changed.top_p, changed.max_tokens) == (0, 0.7, 9)
    assert models["multiverse"].sampling() == SamplingParams(temperature=0.6, top_p=0.95)
    seen: list[SamplingParams] = []
    llm = models["npr"]
    submit = llm.engine.submit
    llm.engine.submit = lambda prompt, params, **rest: (
        seen.append(params),
        submit(prompt, replace(params, max_tokens=3), **rest),
    )[1]  # type: ignore[method-assign,func-returns-value]
    try:
        llm.chat([{"role": "user", "content": QUESTION}])
    finally:
        llm.engine.submit = submit  # type: ignore[method-assign]
    assert seen == [llm.sampling().for_chat()]


def test_a_family_s_end_tokens_end_a_text(folders: dict[str, Path]) -> None:
    for name, ends in (("multiverse", {"<|im_end|>"}), ("npr", {"<|im_end|>", "<|endoftext|>"})):
        llm = LLM(folders[name], kv_memory=8 << 20)
        assert {llm.engine.decode([token]) for token in llm.engine.loaded.stop_ids} == ends


@pytest.mark.parametrize("name", FAMILIES)
def test_a_random_model_of_each_family_is_kept_to_its_grammar(name: str, models: dict[str, LLM]) -> None:
    llm = models[name]
    tokens = llm.engine.tokens
    assert tokens is not None
    # Tags are likely, so that it forks.
    bias = dict.fromkeys((tokens.fork_tag, tokens.outline_tag, *(tokens.ids[role] for role in tokens.ids)), 6.0)
    outs = llm.chat(
        [[{"role": "user", "content": QUESTION}]],
        llm.sampling(n=3, seed=1, max_tokens=120, logit_bias=bias, max_branch_tokens=60),
    )
    assert {out.finish_reason for out in outs} <= {"stop", "length"}
    assert all(out.tree is not None or out.structure_error for out in outs)
    assert any(label for out in outs for label in out.branches), "it has forked"


# -- read -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FAMILIES)
def test_the_answer_is_read_from_the_output_alone(name: str, folders: dict[str, Path]) -> None:
    text, answer = TEXTS[name]
    llm = scripted_llm(folders[name], lambda _: text)
    (out,) = llm.chat([{"role": "user", "content": "How many? \\boxed{9} Answer: 8"}], SamplingParams(temperature=0))
    assert (out.tree, out.answer) == (text, answer)
    assert out.content.endswith(("4", "5.", "not 5."))


def test_a_thinking_that_never_ends_has_no_answer(folders: dict[str, Path]) -> None:
    llm = scripted_llm(folders["threadweaver"], lambda _: "<think>\nIt is \\boxed{4}")
    (out,) = llm.chat([{"role": "user", "content": QUESTION}], SamplingParams(temperature=0, guard=False))
    assert (out.answer, out.content) == ("", "")


def test_a_dialect_binds_its_own_tags_into_the_instruction() -> None:
    tokenizer = qwen_tokenizer("npr")
    bound = bind(FAMILIES["npr"], tokenizer, SimpleNamespace())
    assert bound.tokens is not None
    assert bound.tokens.turns is not None
    assert bound.form.switches == {"enable_thinking": False}
    assert "{" not in bound.prompting.instructions["parallel"].replace("\\boxed{}", "")


def test_the_shipped_models_are_asked_and_sampled_as_ever() -> None:
    config = SimpleNamespace(**json.loads((Path("src/multiverse/models/mini/config.json")).read_text()))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = choose("auto", "multiverse-mini", None, config)
    assert found.family is FAMILIES["multiverse"]
    assert found.family.prompting is DEFAULT
    assert SamplingParams(**found.family.sampling) == SamplingParams()
