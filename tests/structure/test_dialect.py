"""Dialects, and their resolution with a tokenizer."""

from __future__ import annotations

import dataclasses
import json
from types import SimpleNamespace
from typing import Any

import pytest

from multiverse.errors import DialectError
from multiverse.structure import (
    DIALECTS,
    MULTIVERSE,
    MULTIVERSE_ANSWER,
    NPR,
    THREADWEAVER,
    THREADWEAVER_CONCLUSION,
    Dialect,
    Role,
    Tag,
    child_label,
    detect,
    read_dialect,
    resolve,
    write_dialect,
)
from tests.conftest import build_tokenizer
from tests.structure.adapted import EXACT_NPR, EXACT_THREADWEAVER


def test_the_default_dialect_has_twelve_tags_in_document_order() -> None:
    assert MULTIVERSE.tags == (
        "<Think>", "</Think>", "<Parallel>", "</Parallel>", "<Goal>", "</Goal>",
        "<Outline>", "</Outline>", "<Path>", "</Path>", "<Conclusion>", "</Conclusion>",
    )  # fmt: skip
    assert list(MULTIVERSE.roles) == list(MULTIVERSE.tags)
    assert len(set(MULTIVERSE.roles.values())) == len(Role) == 12


def test_path_headers_and_resuming_headers() -> None:
    assert MULTIVERSE.path_head("2.1") == "<Path>\n2.1:"
    assert MULTIVERSE.resume_head() == "<Conclusion>\n"
    assert NPR.path_head("1") == "<step>\n1:"
    assert NPR.resume_head() == "<takeaway>\n"
    assert THREADWEAVER.path_head("3") == "<Thread>\n3:"
    assert THREADWEAVER.resume_head() == "\n"  # the model closes the block
    assert THREADWEAVER_CONCLUSION.resume_head() == "\n<Conclusion>\n"
    assert EXACT_THREADWEAVER.resume_head() == "</Parallel>"


def test_labels_of_children() -> None:
    assert [child_label("", 0), child_label("", 9), child_label("2", 0), child_label("2.1", 2)] == ["1", "10", "2.1", "2.1.3"]


def test_a_dialect_without_block_and_conclusion_tags_is_refused() -> None:
    with pytest.raises(ValueError, match="'odd' needs a block tag or a conclusion tag"):
        dataclasses.replace(THREADWEAVER, name="odd", block=None)


def test_a_dialect_with_one_tag_for_two_roles_is_refused() -> None:
    with pytest.raises(ValueError, match="one tag for two roles"):
        dataclasses.replace(MULTIVERSE, path=Tag("<Goal>", "</Path>"))


def test_places_of_blocks_are_checked() -> None:
    assert (MULTIVERSE.blocks, MULTIVERSE_ANSWER.blocks, MULTIVERSE_ANSWER.tags) == ("thinking", "answer", MULTIVERSE.tags)
    with pytest.raises(ValueError, match=r"'odd' has blocks='path': use one of thinking, answer, both"):
        dataclasses.replace(MULTIVERSE, name="odd", blocks="path")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"'odd' has no think tag, so blocks must be 'thinking' or 'answer', not 'both'"):
        dataclasses.replace(NPR, name="odd", blocks="both")


def test_a_saved_dialect_keeps_its_places_and_an_older_one_has_blocks_in_the_thinking() -> None:
    config = SimpleNamespace()
    write_dialect(config, MULTIVERSE_ANSWER)
    assert read_dialect(SimpleNamespace(**json.loads(json.dumps(vars(config))))) == MULTIVERSE_ANSWER
    del config.multiverse_dialect["blocks"]
    assert read_dialect(config) == dataclasses.replace(MULTIVERSE, name="multiverse-answer")
    config.multiverse_dialect["blocks"] = "elsewhere"
    with pytest.raises(DialectError, match="blocks='elsewhere'"):
        read_dialect(config)


@pytest.mark.parametrize("dialect", DIALECTS.values(), ids=DIALECTS)
def test_a_dialect_is_saved_with_all_of_its_values(dialect: Dialect) -> None:
    config = SimpleNamespace()
    write_dialect(config, dialect)
    assert read_dialect(SimpleNamespace(**json.loads(json.dumps(vars(config))))) == dialect


@pytest.mark.parametrize("dialect", [EXACT_NPR, EXACT_THREADWEAVER], ids=lambda dialect: dialect.name)
def test_a_dialect_that_was_saved_without_the_newer_values_is_what_it_was(dialect: Dialect) -> None:
    config = SimpleNamespace()
    write_dialect(config, dialect)
    older = (
        "name",
        "think",
        "block",
        "goal",
        "outline",
        "path",
        "conclusion",
        "sep",
        "label_end",
        "labels",
        "answer_sep",
        "blocks",
    )
    config.multiverse_dialect = {name: config.multiverse_dialect[name] for name in older}
    found = read_dialect(config)
    assert found == dialect
    assert found is not None
    assert (found.outline_head("1"), found.after[Role.PATH_CLOSE], found.exact, found.nests) == ("\n1:", "\n", True, True)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"white_space": "loose"}, "white_space='loose': use one of exact, free"),
        ({"malformed": "ignore"}, "malformed='ignore': use one of refuse, as-released, sequential"),
        ({"after_path": "absent", "path_sep": "\n"}, r"nothing behind a path, but path_sep='\\n'"),
        ({"after_path": "free"}, "after_path='free': white space must be free, too"),
        ({"max_paths": 0}, "max_paths=0: it must be 1 or more"),
        ({"white_space": "free", "outline_sep": "-"}, "outline_sep='-': where white space is free"),
        ({"released": (("width", "ignored"),)}, r"released=\('width', 'ignored'\): pairs of a fault \(labels"),
    ],
)
def test_values_that_do_not_go_together_are_refused(changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=f"dialect 'odd' has {problem}"):
        dataclasses.replace(MULTIVERSE, name="odd", **changes)


@pytest.mark.parametrize("dialect", DIALECTS.values(), ids=DIALECTS)
def test_resolve_maps_every_tag_to_one_token(dialect: Dialect) -> None:
    tokenizer = build_tokenizer(dialect)
    tokens = resolve(tokenizer, dialect)
    assert tokens.dialect is dialect
    assert [tokens.encode(tag) for tag in dialect.tags] == [[tokens.ids[role]] for role in dialect.roles.values()]
    assert [tokens.name(tokens.ids[role]) for role in dialect.roles.values()] == list(dialect.tags)
    assert [tokens.tag(role) for role in dialect.roles.values()] == list(dialect.tags)
    assert {tokens.name(token) for token in tokens.sep} <= {"text"}
    assert tokenizer.decode(tokens.sep) == dialect.sep
    assert tokenizer.decode(tokens.path_head("1.2")) == dialect.path_head("1.2")
    assert tokenizer.decode(tokens.resume_head) == dialect.resume_head()


def test_a_tag_of_several_tokens_is_refused_and_the_message_names_add_tokens() -> None:
    with pytest.raises(DialectError, match=r"<Think> of dialect 'multiverse' is 7 tokens .*add_tokens") as caught:
        resolve(build_tokenizer(None))
    assert isinstance(caught.value, ValueError)


class _Fixed:
    """A tokenizer with one token per tag, whose id the test chooses."""

    def __init__(self, unk: int | None = None, **ids: int) -> None:
        self.unk_token_id, self.ids = unk, ids
        self.others: dict[str, int] = {}

    def encode(self, text: str, **_: Any) -> list[int]:
        return [self.ids.get(text.strip("</>"), self.others.setdefault(text, 100 + len(self.others)))]


def test_two_tags_that_share_a_token_are_refused() -> None:
    # The opening and the closing tag of a path are the same token here.
    with pytest.raises(DialectError, match=r"</Path> of dialect 'multiverse' has no token of its own .*\(it maps to id 5\)"):
        resolve(_Fixed(Path=5))


def test_a_tag_that_maps_to_the_unknown_token_is_refused() -> None:
    with pytest.raises(DialectError, match=r"<Goal> .*\(it maps to id 0\)"):
        resolve(_Fixed(unk=0, Goal=0))


def test_detect_returns_the_first_dialect_with_all_its_tags() -> None:
    known = tuple(DIALECTS.values())
    for dialect in known:
        found = detect(build_tokenizer(dialect), known)
        assert found is not None
        # Tags do not say where blocks stand, or whether a conclusion is forced: that is saved with the model.
        same_tags = {MULTIVERSE_ANSWER.name: MULTIVERSE, THREADWEAVER_CONCLUSION.name: THREADWEAVER}
        assert found.dialect is same_tags.get(dialect.name, dialect)
    both = build_tokenizer(MULTIVERSE)
    both.add_tokens(list(NPR.tags))
    first, second = detect(both, (NPR, MULTIVERSE)), detect(both, (MULTIVERSE, NPR))
    assert first is not None
    assert second is not None
    assert (first.dialect, second.dialect) == (NPR, MULTIVERSE)
    assert detect(build_tokenizer(None), known) is None
