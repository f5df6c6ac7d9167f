"""What a parent reads of its paths after a join, as token ids and as text."""

from __future__ import annotations

from dataclasses import replace

import pytest

from multiverse.structure import DIALECTS, MULTIVERSE, Dialect, Joins, Role, merge, merge_text, message, message_text, resolve
from tests.conftest import build_tokenizer

PATHS = {
    "two paths": ["<Path>\n1: so 3, thus 4.\n</Path>\n", "<Path>\n2: 7\n</Path>\n"],
    "a nested block, read as its path has merged it": [
        "<Path>\n1:\n<Parallel>\n<Goal>\n<Outline>\n1.1: a\n</Outline>\n</Goal>\n<Path>\n1.1: b\n</Path>\n<Conclusion>\nc, d."
        "\n</Conclusion>\n</Parallel>\n</Path>\n",
        "<Path>\n2:\n</Path>\n",
    ],
}
MESSAGES = {
    "two paths": "<Path>\n1: thus 4.\n</Path>\n<Path>\n2: 7\n</Path>\n",
    "a nested block, read as its path has merged it": "<Path>\n1: d.\n</Path>\n<Path>\n2:\n</Path>\n",
}


@pytest.mark.parametrize("name", PATHS)
@pytest.mark.parametrize("join", ["kv", "text", "message"])
def test_ids_and_text_say_the_same(name: str, join: Joins) -> None:
    tokens = resolve(build_tokenizer(), replace(MULTIVERSE, join=join))
    expected = {"kv": "", "text": "".join(PATHS[name]), "message": MESSAGES[name]}[join]
    assert merge_text(PATHS[name], tokens.dialect) == expected
    assert tokens.decode(merge([tokens.encode(path) for path in PATHS[name]], tokens)) == expected


def test_a_text_join_reads_the_very_tokens_of_the_paths() -> None:
    """Not their text tokenised again: the first path comes first, so that its keys and values are there already."""
    tokens = resolve(build_tokenizer(), replace(MULTIVERSE, join="text"))
    paths = [[tokens.ids[role], 7, 7] for role in list(tokens.ids)[:3]]
    assert merge(paths, tokens) == [*paths[0], *paths[1], *paths[2]]


@pytest.mark.parametrize("dialect", DIALECTS.values(), ids=list(DIALECTS))
def test_a_message_keeps_the_head_of_its_path(dialect: Dialect) -> None:
    tokens = resolve(build_tokenizer(dialect), dialect)
    for label in ("1", "2.13"):
        behind = dialect.after[Role.PATH_CLOSE]
        path = f"{dialect.path_head(label)} one, two{dialect.sep}{dialect.path.close}{behind}"
        sent = f"{dialect.path_head(label)} two{dialect.sep}{dialect.path.close}{behind}"
        assert message_text(path, dialect) == sent
        assert tokens.decode(message(tokens.encode(path), tokens)) == sent


def test_an_unknown_join_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"join='words': use one of kv, text, message"):
        replace(MULTIVERSE, join="words")  # type: ignore[arg-type]
