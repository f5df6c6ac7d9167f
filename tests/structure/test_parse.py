"""Canonical texts parse to documents that render to the same text; others raise with place and reason."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multiverse.errors import StructureError
from multiverse.structure import MULTIVERSE, Block, Dialect, Document, TokenDialect, encode, parse, render
from tests.structure.adapted import TOKENS, dialect_documents
from tests.structure.test_render import CANONICAL, DOCUMENT

SAMPLES = Path(__file__).parents[3] / "shared" / "samples"


def test_the_canonical_text_parses() -> None:
    assert parse(CANONICAL) == DOCUMENT


@given(pair=dialect_documents())
def test_parse_of_render_is_the_document(pair: tuple[TokenDialect, Document]) -> None:
    tokens, document = pair
    assert parse(render(document, tokens.dialect), tokens.dialect) == document


SPACE = st.text(alphabet="\n a1:", min_size=1, max_size=4)


@given(before=SPACE, outline=SPACE, path=SPACE, inner=SPACE, conclusion=SPACE, after=SPACE, answer=SPACE)
def test_white_space_in_every_place_is_kept(
    before: str, outline: str, path: str, inner: str, conclusion: str, after: str, answer: str
) -> None:
    nested = Block((outline,), ((inner,),), conclusion)
    block = Block((outline, ""), ((path, nested, after), (nested,)), conclusion)
    document = Document((before, block, block, after), answer)
    assert parse(render(document)) == document


@pytest.mark.parametrize(
    ("text", "document"),
    [
        ("", Document(None, "")),
        ("no tags at all\n\n", Document(None, "no tags at all\n\n")),
        ("<Think>\n</Think>", Document(())),
        ("<Think>\n</Think>\n\nx", Document((), "x")),
        ("<Think>\nx\n</Think>\n\n\n\nx", Document(("x",), "\n\nx")),
    ],
)
def test_texts_without_a_block_parse(text: str, document: Document) -> None:
    assert parse(text) == document


# `‸` marks where the error must be found; the texts are canonical ones with a fault.
OUTLINED = "<Think>\n<Parallel>\n<Goal>\n<Outline>\n1: x\n</Outline>\n"
MAPPED = OUTLINED + "</Goal>\n"
PROCESSED = MAPPED + "<Path>\n1: a\n</Path>\n"
REDUCED = PROCESSED + "<Conclusion>\nc\n</Conclusion>\n"
HALFWAY = OUTLINED + "<Outline>\n2: y\n</Outline>\n</Goal>\n<Path>\n1: a\n</Path>\n"
FAULTY = {
    "think not closed": ("<Think>\nstill at it‸", "text or <Parallel> or </Think>"),
    "path not closed": (
        MAPPED + "<Path>\n1: a\n‸<Conclusion>\n\n</Conclusion>\n</Parallel>\n</Think>",
        "text or <Parallel> or </Path>",
    ),
    "outline not closed": ("<Think>\n<Parallel>\n<Goal>\n<Outline>\n1: x\n‸</Goal>", "</Outline>"),
    "goal not closed": (OUTLINED + "‸<Path>\n1: a", "<Outline> or </Goal>"),
    "conclusion not closed": (PROCESSED + "<Conclusion>\nc\n‸</Parallel>", "</Conclusion>"),
    "block not closed": (REDUCED + "‸</Think>", "</Parallel>"),
    "path missing": (HALFWAY + "‸<Conclusion>\nc\n</Conclusion>\n</Parallel>\n</Think>", "<Path> number 2 of 2"),
    "path too many": (
        PROCESSED + "‸<Path>\n2: b\n</Path>\n<Conclusion>\nc\n</Conclusion>\n</Parallel>\n</Think>",
        "<Conclusion>",
    ),
    "wrong outline label": ("<Think>\n<Parallel>\n<Goal>\n<Outline>\n‸2: x\n</Outline>\n</Goal>", "the label 1:"),
    "wrong path label": (MAPPED + "<Path>\n‸1.1: a\n</Path>", "the label 1:"),
    "wrong nested label": (MAPPED + "<Path>\n1:\n<Parallel>\n<Goal>\n<Outline>\n‸1: y\n", "the label 1.1:"),
    "label missing": (MAPPED + "<Path>‸</Path>", "the label 1:"),
    "label without its end": ("<Think>\n<Parallel>\n<Goal>\n<Outline>\n‸1 x\n</Outline>", "the label 1:"),
    "text before the goal": ("<Think>\n<Parallel>\n‸hm\n<Goal>", "<Goal>"),
    "text between goal and outline": ("<Think>\n<Parallel>\n<Goal>\n‸hm\n<Outline>", "<Outline>"),
    "text between outlines": (OUTLINED + "‸and\n<Outline>\n2: y\n</Outline>", "<Outline> or </Goal>"),
    "text between goal and path": (MAPPED + "‸now\n<Path>\n1: a\n</Path>", "<Path> number 1 of 1"),
    "text between paths": (HALFWAY + "‸then\n<Path>\n2: b\n</Path>", "<Path> number 2 of 2"),
    "text between path and conclusion": (PROCESSED + "‸so\n<Conclusion>", "<Conclusion>"),
    "text after the conclusion": (REDUCED + "‸so\n</Parallel>", "</Parallel>"),
    "block before the thinking": ("‸<Parallel>\n<Goal>", "text"),
    "block after text, no thinking": ("hello\n‸<Parallel>\n<Goal>", "text"),
    "block in the answer": ("<Think>\nx\n</Think>\n\nso ‸<Parallel>\n<Goal>", "the end of the document"),
    "second thinking": ("<Think>\nx\n</Think>\n\n‸<Think>\ny\n</Think>", "the end of the document"),
    "thinking inside thinking": ("<Think>\nx\n‸<Think>\ny\n</Think>", "text or <Parallel> or </Think>"),
    "closing without opening": ("‸</Path>", "text"),
    "thinking closes inside a path": (MAPPED + "<Path>\n1: a\n‸</Think>", "text or <Parallel> or </Path>"),
    "block inside a conclusion": (PROCESSED + "<Conclusion>\n‸<Parallel>\n<Goal>", "</Conclusion>"),
    "block inside an outline": ("<Think>\n<Parallel>\n<Goal>\n<Outline>\n1: x\n‸<Parallel>", "</Outline>"),
    "goal without a block": ("<Think>\nx\n‸<Goal>\n<Outline>", "text or <Parallel> or </Think>"),
    "path without a goal": ("<Think>\n<Parallel>\n‸<Path>\n1: a", "<Goal>"),
    "no outline": ("<Think>\n<Parallel>\n<Goal>\n‸</Goal>\n<Path>", "<Outline>"),
    "no path": (MAPPED + "‸</Parallel>\n</Think>", "<Path> number 1 of 1"),
    "conclusion missing": (PROCESSED + "‸</Parallel>\n</Think>", "<Conclusion>"),
    "the text stops after the goal": (MAPPED + "‸", "<Path> number 1 of 1"),
}


@pytest.mark.parametrize(("faulty", "expected"), FAULTY.values(), ids=FAULTY)
def test_errors_have_line_offset_and_what_was_expected(faulty: str, expected: str) -> None:
    offset = faulty.index("‸")
    line = faulty[:offset].count("\n") + 1
    with pytest.raises(StructureError) as caught:
        parse(faulty.replace("‸", ""))
    error = caught.value
    assert (error.offset, error.line, error.expected) == (offset, line, expected)
    assert str(error) == f"line {line}, offset {offset}: {error.problem}, expected {expected}"
    assert isinstance(error, ValueError)


# Grammatical but not canonical: the error is at the first character that differs from the rendered text.
SPACED = {
    "no separator after an opening": ("<Think>‸x\n</Think>", "<Think>\nx\n</Think>"),
    "no separator before a closing": ("<Think>\nx‸</Think>", "<Think>\nx\n</Think>"),
    "separator twice in an empty thinking": ("<Think>\n‸\n</Think>", "<Think>\n</Think>"),
    "separator twice": (CANONICAL.replace("</Goal>\n", "</Goal>\n‸\n", 1), CANONICAL),
    "a space for a separator": (CANONICAL.replace("</Outline>\n", "</Outline>‸ ", 1), CANONICAL),
    "none between path and conclusion": (CANONICAL.replace("</Path>\n<Conclusion>", "</Path>‸<Conclusion>", 1), CANONICAL),
    "none between block and text": (CANONICAL.replace("</Parallel>\nand", "</Parallel>‸and"), CANONICAL),
    "no space after a path's label": (CANONICAL.replace("1: one", "1:‸one"), CANONICAL),
    "no space after an outline's label": (CANONICAL.replace("1: first", "1:‸first"), CANONICAL),
    "one line end before the answer": (CANONICAL.replace("</Think>\n\n", "</Think>\n‸"), CANONICAL),
    "separator after an empty answer": ("<Think>\nx\n</Think>‸\n\n", "<Think>\nx\n</Think>"),
}


@pytest.mark.parametrize(("faulty", "canonical"), SPACED.values(), ids=SPACED)
def test_other_separators_than_the_canonical_ones_are_refused(faulty: str, canonical: str) -> None:
    offset = faulty.index("‸")
    with pytest.raises(StructureError) as caught:
        parse(faulty.replace("‸", ""))
    assert caught.value.offset == offset
    assert caught.value.line == faulty[:offset].count("\n") + 1
    assert "tags stand apart by one '\\n'" in caught.value.expected
    assert canonical.startswith(faulty[:offset])


def mutate(text: str, dialect: Dialect, rng: random.Random) -> str:
    """Delete, double, move or swap slices or tags of the text, or insert a tag."""
    spans = [match.span() for match in re.finditer("|".join(map(re.escape, dialect.tags)), text)]

    def span() -> tuple[int, int]:
        if spans and rng.random() < 0.6:
            return rng.choice(spans)
        start = rng.randrange(len(text) + 1)
        return start, min(len(text), start + rng.randrange(1, 12))

    (a, b), (c, d) = sorted([span(), span()])
    kind = rng.choice(["delete", "double", "move", "swap", "insert"])
    if kind == "delete":
        return text[:a] + text[b:]
    if kind == "double":
        return text[:b] + text[a:b] + text[b:]
    if kind == "move":
        return text[:a] + text[b:d] + text[a:b] + text[d:] if b <= d else text[:a]
    if kind == "swap" and b <= c:
        return text[:a] + text[c:d] + text[b:c] + text[a:b] + text[d:]
    return text[:a] + rng.choice([*dialect.tags, "\n", " ", "1:", "2: "]) + text[a:]


@given(pair=dialect_documents(depth=2), rng=st.randoms(use_true_random=False), times=st.integers(1, 3))
def test_mutated_documents_raise_or_are_canonical(pair: tuple[TokenDialect, Document], rng: random.Random, times: int) -> None:
    tokens, document = pair
    text = render(document, tokens.dialect)
    for _ in range(times):
        text = mutate(text, tokens.dialect, rng)
    try:
        tree = parse(text, tokens.dialect)
    except StructureError as error:
        refusal = error
    else:
        again = render(tree, tokens.dialect)
        assert again == text if tokens.dialect.exact else parse(again, tokens.dialect) == tree
        return
    assert refusal.offset is not None
    assert 0 <= refusal.offset <= len(text)
    assert refusal.line == text.count("\n", 0, refusal.offset) + 1
    assert refusal.expected


@given(pieces=st.lists(st.sampled_from([*MULTIVERSE.tags, "\n", "1: ", "x"]), max_size=12))
def test_random_tags_raise_or_are_canonical(pieces: list[str]) -> None:
    text = "".join(pieces)
    try:
        tree = parse(text)
    except StructureError:
        return
    assert render(tree) == text


@pytest.mark.skipif(not SAMPLES.is_dir(), reason="needs shared/samples")
def test_sample_documents_parse_and_render_to_the_same_text() -> None:
    # Generated by a large model in this format.
    tokens = TOKENS["multiverse"]
    files = sorted(SAMPLES.glob("*.xml"))
    assert len(files) == 10
    for file in files:
        text = file.read_text()
        document = parse(text)
        assert render(document) == text
        assert document.branches >= 2
        encoded = encode(document, tokens)
        assert 1.0 < encoded.layout.parallelism() < 2.6
        assert any(encoded.layout.forced)
