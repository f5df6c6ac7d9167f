"""Scripted models of three families go through the engine to the tokens that the family's own engine would have."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from multiverse import LLM, SamplingParams
from multiverse.engine.generation import Generation
from multiverse.engine.scripted import Script, ScriptedSampler
from multiverse.structure import MULTIVERSE, NPR, THREADWEAVER, THREADWEAVER_CONCLUSION, Contexts, Dialect, Layout, layout
from multiverse.structure.dialect import Malformed
from tests.conftest import FAMILIES, save_model

VECTORS: dict[str, dict[str, Any]] = json.loads((Path(__file__).parents[1] / "structure" / "vectors.json").read_text())
QWEN = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
"""How Qwen's tokenizers cut a text into pieces, across which nothing merges: line ends go with punctuation, digits alone."""
MERGES = [
    (".", "Ċ"),
    (":", "Ċ"),
    ("}", "Ċ"),
    ("Ċ", "Ċ"),
    (".", "ĊĊ"),
    ("Ġ", "a"),
    ("Ġ", "x"),
    ("Ġ", "C"),
    ("o", "u"),
    ("Ġ", "="),
]
TAGS = list(dict.fromkeys(tag for dialect in (MULTIVERSE, NPR, THREADWEAVER_CONCLUSION) for tag in dialect.tags))


def qwen_like() -> PreTrainedTokenizerFast:
    """A tokenizer of Qwen's type with the tags of all families."""
    pieces = [*sorted(pre_tokenizers.ByteLevel.alphabet()), *(first + second for first, second in MERGES)]
    core = Tokenizer(models.BPE(vocab={piece: index for index, piece in enumerate(pieces)}, merges=MERGES))
    cut = pre_tokenizers.Split(Regex(QWEN), "isolated")
    core.pre_tokenizer = pre_tokenizers.Sequence([cut, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens([AddedToken("<eos>", special=True, normalized=False)])
    core.add_tokens([AddedToken(tag, special=False, normalized=False) for tag in TAGS])
    return PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<eos>", pad_token="<eos>")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(3)
    tokenizer = qwen_like()
    return save_model(tmp_path_factory.mktemp("families"), FAMILIES["qwen3"](len(tokenizer)), tokenizer)


class Writes(Script):
    """The tokens of each branch, by its path of (block, child) steps."""

    def __init__(self, by_path: dict[tuple[int, ...], list[int]]) -> None:
        self.by_path = by_path


def script_of(ids: Sequence[int], found: Layout, end: int) -> Script:
    """What each branch writes of a text."""
    paths: dict[int, tuple[int, ...]] = {0: ()}
    blocks: dict[int, list[int]] = {}
    for index, branch in enumerate(found.table[1:], 1):
        own = blocks.setdefault(branch.parent, [])
        own += [] if branch.block in own else [branch.block]
        paths[index] = (*paths[branch.parent], own.index(branch.block), int(branch.label.rpartition(".")[2]) - 1)
    by_path: dict[tuple[int, ...], list[int]] = {}
    for token, branch in zip(ids, found.branches, strict=True):
        by_path.setdefault(paths[branch], []).append(token)
    by_path.setdefault((), []).append(end)
    return Writes(by_path)


def run(llm: LLM, scripts: list[Script], *, guard: bool) -> list[Generation]:
    """Generate what is scripted."""
    engine = llm.engine
    sampler = engine.sampler = ScriptedSampler()
    params = SamplingParams(max_tokens=900, temperature=0, guard=guard)
    requests = [engine.submit([5, 6], params) for _ in scripts]
    sampler.scripts = dict(zip((request.id for request in requests), scripts, strict=True))
    engine.run(requests)
    return [engine.generation(request) for request in requests]


WELL_FORMED = [name for name, vector in VECTORS.items() if "tree" in vector]
VALUES = {"V": MULTIVERSE, "N": NPR, "T": THREADWEAVER}


def dialect_of(name: str) -> Dialect:
    return THREADWEAVER_CONCLUSION if name == "T4" else VALUES[name[0]]


@pytest.mark.parametrize("guard", [True, False])
@pytest.mark.parametrize("family", ["V", "N", "T", "T4"])
def test_scripted_models_write_what_the_familys_own_engine_does(folder: Path, family: str, guard: bool) -> None:
    """The tokens of the whole text, forced ones among them; with loose white space (N5) as it was written."""
    dialect = dialect_of(family)
    llm = LLM(folder, dialect=dialect, kv_memory=4 << 20)
    tokens, end = llm.engine.tokens, int(llm.tokenizer.eos_token_id)
    assert tokens is not None
    names = [name for name in WELL_FORMED if dialect_of(name) is dialect]
    whole = [llm.tokenizer.encode(VECTORS[name]["text"], add_special_tokens=False) for name in names]
    layouts = [layout(ids, tokens) for ids in whole]
    generations = run(llm, [script_of(ids, found, end) for ids, found in zip(whole, layouts, strict=True)], guard=guard)
    heads = {dialect.path.open, dialect.resume} - {""}
    for name, ids, found, generation in zip(names, whole, layouts, generations, strict=True):
        assert (generation.finish_reason, generation.structure_error) == ("stop", None), name
        assert list(generation.token_ids[:-1]) == ids
        assert generation.text == VECTORS[name]["text"]
        own = [token.position for token in Contexts.of(ids, found, tokens) if token.own]  # of threads, which are read in a line
        positions = found.positions if dialect.join == "kv" else own
        assert generation.positions[:-1] == tuple(position + 2 for position in positions)
        tree = generation.tree
        assert tree is not None
        expected = VECTORS[name]["tree"]
        assert (tree.to_json() if dialect.think is not None else tree.to_json()["thinking"]) == expected
        written = [llm.tokenizer.convert_ids_to_tokens(token) for token in generation.token_ids]
        forced = [piece for piece, is_forced in zip(written, generation.forced, strict=True) if is_forced]
        assert [piece for piece in forced if piece in heads] == [piece for piece in written if piece in heads]
        if not dialect.exact:  # line end, tag, line end, number, colon; and what the trunk resumes with
            assert set(forced) <= {"Ċ", *"0123456789", ":", *heads}


# token, position behind the goal's closing, branch, forced
NPR_ROWS = [
    ("</guideline>", 0, "", False), ("Ċ", 1, "", True),
    ("<step>", 2, "1", True), ("Ċ", 3, "1", True), ("1", 4, "1", True), (":", 5, "1", True),
    ("Ġx", 6, "1", False), (".Ċ", 7, "1", False), ("</step>", 8, "1", False), ("Ċ", 9, "1", False),
    ("<step>", 2, "2", True), ("Ċ", 3, "2", True), ("2", 4, "2", True), (":", 5, "2", True),
    ("Ġx", 6, "2", False), ("Ġ=", 7, "2", False), ("Ġa", 8, "2", False), (".Ċ", 9, "2", False),
    ("</step>", 10, "2", False), ("Ċ", 11, "2", False),
    ("<takeaway>", 12, "", True), ("Ċ", 13, "", True), ("x", 14, "", False), (".Ċ", 15, "", False),
    ("</takeaway>", 16, "", False), ("ĊĊ", 17, "", False), ("x", 18, "", False),
]  # fmt: skip
THREAD_ROWS = [
    ("</Outlines>", 0, "", False), ("Ċ", 1, "", True),
    ("<Thread>", 2, "1", True), ("Ċ", 3, "1", True), ("1", 4, "1", True), (":", 5, "1", True),
    ("Ġx", 6, "1", False), (".Ċ", 7, "1", False), ("</Thread>", 8, "1", False),
    ("<Thread>", 2, "2", True), ("Ċ", 3, "2", True), ("2", 4, "2", True), (":", 5, "2", True),
    ("Ġx", 6, "2", False), ("Ġ=", 7, "2", False), ("Ġa", 8, "2", False), (".Ċ", 9, "2", False), ("</Thread>", 10, "2", False),
    ("Ċ", 11, "", True), ("</Parallel>", 12, "", False), ("Ċ", 13, "", False), ("x", 14, "", False), ("Ċ", 15, "", False),
    ("</think>", 16, "", False),
]  # fmt: skip
CONCLUDED_ROWS = [
    *THREAD_ROWS[:-6], ("Ċ", 11, "", True), ("<Conclusion>", 12, "", True), ("Ċ", 13, "", True),
    ("x", 14, "", False), (".Ċ", 15, "", False), ("</Conclusion>", 16, "", False), ("Ċ", 17, "", False),
    ("</Parallel>", 18, "", False), ("Ċ", 19, "", False), ("x", 20, "", False), ("Ċ", 21, "", False),
    ("</think>", 22, "", False),
]  # fmt: skip
WOVEN = "<think>\n<Parallel>\n<Outlines>\n<Outline>1: a</Outline>\n<Outline>2: x</Outline>\n</Outlines>\n"
THREADS = f"{WOVEN}<Thread>\n1: x.\n</Thread><Thread>\n2: x = a.\n</Thread>\n"


@pytest.mark.parametrize(
    ("dialect", "text", "rows"),
    [
        (
            NPR,
            "<guideline>\n<plan>1: a</plan>\n<plan>2: x</plan>\n</guideline>\n"
            "<step>\n1: x.\n</step>\n<step>\n2: x = a.\n</step>\n<takeaway>\nx.\n</takeaway>\n\nx",
            NPR_ROWS,
        ),
        (THREADWEAVER, f"{THREADS}</Parallel>\nx\n</think>", THREAD_ROWS),
        (THREADWEAVER_CONCLUSION, f"{THREADS}<Conclusion>\nx.\n</Conclusion>\n</Parallel>\nx\n</think>", CONCLUDED_ROWS),
    ],
    ids=["npr", "threadweaver", "threadweaver-conclusion"],
)
def test_forced_heads_positions_and_branches_token_by_token(
    folder: Path, dialect: Dialect, text: str, rows: list[tuple[str, int, str, bool]]
) -> None:
    llm = LLM(folder, dialect=replace(dialect, join="kv"), kv_memory=4 << 20)
    assert llm.engine.tokens is not None
    ids = llm.tokenizer.encode(text, add_special_tokens=False)
    script = script_of(ids, layout(ids, llm.engine.tokens), int(llm.tokenizer.eos_token_id))
    (found,) = run(llm, [script], guard=True)
    written = [llm.tokenizer.convert_ids_to_tokens(token) for token in found.token_ids]
    at = written.index(dialect.goal.close)
    start = found.positions[at]
    counted = [position - start for position in found.positions]
    assert list(zip(written, counted, found.branches, found.forced, strict=True))[at:-1] == rows
    assert not any(found.forced[:at])


# -- texts that break the rules, without the guard ------------------------------------------------------------------------


def outcome(folder: Path, dialect: Dialect, policy: Malformed, text: str, paths: Sequence[str] = ()) -> Generation:
    """Generate a text without the guard.

    Args:
        text: what the trunk writes itself; what the engine writes is left out.
        paths: the same of each path.
    """
    llm = LLM(folder, dialect=replace(dialect, malformed=policy, join="kv"), kv_memory=4 << 20)
    end = int(llm.tokenizer.eos_token_id)
    pieces = {
        (): [*llm.tokenizer.encode(text, add_special_tokens=False), end],
        **{(0, index): llm.tokenizer.encode(path, add_special_tokens=False) for index, path in enumerate(paths)},
    }

    class Chosen(Writes):
        def next(self, branch: Any) -> int:
            return self.by_path[branch.path][sum(not forced for forced in branch.forced)]

    (generation,) = run(llm, [Chosen(pieces)], guard=False)
    return generation


def forks_of(generation: Generation) -> list[str]:
    return [label for label, _ in groupby(generation.branches) if label]


def in_line(generation: Generation) -> bool:
    """Whether all of it was written in one line, at plain positions."""
    return set(generation.branches) == {""} and generation.positions == tuple(range(2, 2 + len(generation.positions)))


def test_six_plans(folder: Path) -> None:
    text = VECTORS["N9"]["text"].removesuffix("\n")
    refused = outcome(folder, NPR, "refuse", text)
    assert (refused.finish_reason, refused.tree) == ("malformed", None)
    assert "found <plan> in a goal, expected </guideline>" in str(refused.structure_error)
    # The family's engine ends the request here: a normal stop, without an answer.
    released = outcome(folder, NPR, "as-released", text)
    assert (released.finish_reason, released.text, released.answer) == ("stop", text, "")
    assert released.stop_reason == "6 outlines end the generation: from 1 to 5 fork"
    assert released.tree is not None
    assert (len(released.tree.trunk), released.tree.branches) == (1, 0)
    more = "\n<step>\n1: x\n</step>\n<takeaway>\ny\n</takeaway>\n\n\\boxed{1}"
    sequential = outcome(folder, NPR, "sequential", text + more)
    assert (sequential.finish_reason, sequential.text, sequential.answer) == ("stop", text + more, "1")
    assert in_line(sequential)


@pytest.mark.parametrize("name", ["V10", "T8"])
def test_labels_with_a_gap(folder: Path, name: str) -> None:
    dialect, text = dialect_of(name), VECTORS[name]["text"]
    closing, behind = f"{dialect.goal.close}\n", ("</Parallel>" if name == "T8" else "<Conclusion>\n")
    goal, rest = text[: text.index(closing) + len(closing) - 1], text[text.index(behind) :].removeprefix("<Conclusion>\n")
    paths = [f" x\n{dialect.path.close}", f" y\n{dialect.path.close}"]
    released = outcome(folder, dialect, "as-released", goal + rest, paths)
    assert (released.finish_reason, released.text) == ("stop", text)
    assert forks_of(released) == ["1", "2"]
    assert released.tree is not None
    (found,) = (block for _, block in released.tree.blocks())
    assert found.as_written is not None
    assert found.as_written.paths == ("1", "3")
    counted = outcome(folder, dialect, "refuse", goal + rest, paths)
    assert (counted.text, counted.tree) == (text.replace(f"{dialect.path.open}\n3:", f"{dialect.path.open}\n2:"), None)
    assert "expected the label 2:" in str(counted.structure_error)
    line = outcome(folder, dialect, "sequential", text)
    assert (line.finish_reason, line.text) == ("stop", text)
    assert in_line(line)


def test_a_block_in_a_path(folder: Path) -> None:
    goal = "<guideline>\n<plan>1: a.</plan>\n</guideline>"
    inner = f" outer\n{goal}\n<step>\n1: x\n</step>\n<takeaway>\ny\n</takeaway>\n</step>\n"
    for policy in ("refuse", "as-released"):
        refused = outcome(folder, NPR, policy, goal, [inner])  # type: ignore[arg-type]
        assert refused.finish_reason == "malformed"
        assert "found <guideline> in thinking" in str(refused.structure_error)
    sequential = outcome(folder, NPR, "sequential", f"{goal}z\n</takeaway>\n\n\\boxed{{1}}", [inner])
    assert (sequential.finish_reason, sequential.text) == ("stop", VECTORS["N8"]["text"].replace("inner.", "a."))
    assert forks_of(sequential) == ["1"]
    # The orchestrator of threads never forks inside of one, and the first closing tag ends it.
    text = VECTORS["T9"]["text"]
    goal, thread = text[: text.index("\n<Thread>")], text[text.index(" x\n<Parallel>") : text.index("</Thread>") + 9]
    released = outcome(
        folder, THREADWEAVER, "as-released", f"{goal}</Parallel>\n</think>\n\n\\boxed{{1}}", [thread, " y\n</Thread>"]
    )
    assert (released.finish_reason, released.answer) == ("stop", "1")
    assert forks_of(released) == ["1", "2"]
    assert released.tree is not None
    (found,) = (block for _, block in released.tree.blocks())
    assert found.paths == ((thread.removesuffix("\n</Thread>").strip(),), ("y",))


def test_paths_without_a_goal(folder: Path) -> None:
    text = VECTORS["V9"]["text"]
    assert outcome(folder, MULTIVERSE, "refuse", text).finish_reason == "malformed"
    for policy in ("as-released", "sequential"):
        found = outcome(folder, MULTIVERSE, policy, text)  # type: ignore[arg-type]
        assert (found.finish_reason, found.text) == ("stop", text)
        assert in_line(found)


@pytest.mark.parametrize("name", ["V7", "V8", "N7", "N10", "T7"])
def test_faults_that_the_engine_leaves_no_room_for(folder: Path, name: str) -> None:
    """It writes as many paths as outlines, then what the trunk resumes with; nothing stands between threads."""
    dialect, text = dialect_of(name), VECTORS[name]["text"]
    goal = text[: text.index(dialect.goal.close) + len(dialect.goal.close)]
    end = {"V": "y\n</Conclusion>\n</Parallel>\n</Think>\n\nAnswer: 0", "N": "y\n</takeaway>\n\n\\boxed{1}"}
    rest = end.get(name[0], "</Parallel>\n</think>\n\n\\boxed{1}")
    behind = "\n" if name[0] == "N" else ""
    paths = [f" x\n{dialect.path.close}{behind}", f" y\n{dialect.path.close}{behind}"]
    for policy in ("refuse", "as-released", "sequential"):
        found = outcome(folder, dialect, policy, goal + rest, paths)  # type: ignore[arg-type]
        assert (found.finish_reason, forks_of(found)) == ("stop", ["1", "2"])
        assert found.tree is not None
        assert found.tree.branches == 2
        assert all(block.as_written is None for _, block in found.tree.blocks())


def test_a_step_may_end_with_the_text_as_released(folder: Path) -> None:
    goal = "<guideline>\n<plan>1: a.</plan>\n<plan>2: a.</plan>\n</guideline>"
    paths = [" x\n</step>\n", " y<eos>"]
    for policy in ("refuse", "sequential"):
        found = outcome(folder, NPR, policy, goal, paths)  # type: ignore[arg-type]
        assert found.finish_reason == "malformed"
        assert "the end of text" in str(found.structure_error)
    released = outcome(folder, NPR, "as-released", f"{goal}y\n</takeaway>\n\n\\boxed{{1}}", paths)
    assert (released.finish_reason, released.answer, forks_of(released)) == ("stop", "1", ["1", "2"])
    assert released.tree is None


def test_any_token_may_follow_a_step_as_released(folder: Path) -> None:
    goal = "<guideline>\n<plan>1: a.</plan>\n</guideline>"
    refused = outcome(folder, NPR, "refuse", goal, [" x\n</step>a"])
    assert "found text in the end of a path, expected white space" in str(refused.structure_error)
    released = outcome(folder, NPR, "as-released", f"{goal}y\n</takeaway>", [" x\n</step>a"])
    assert released.finish_reason == "stop"
    assert released.text.endswith("</step>a<takeaway>\ny\n</takeaway>")
    assert released.tree is None  # the text between is kept, but no tree has a place for it
