"""Where a fork could start, where one does, and that the text told in a line takes over the right labels."""

from __future__ import annotations

from dataclasses import replace

import pytest
from transformers import PreTrainedTokenizerFast

from multiverse.errors import DataError, RequestError
from multiverse.evaluation.analysis.cases import Case, from_tasks
from multiverse.evaluation.analysis.sentences import aligned, sentences
from multiverse.evaluation.analysis.sites import Marker
from multiverse.structure import MULTIVERSE, NPR, Block, Document, TokenDialect, encode, render, sequential_baseline
from multiverse.tasks import FAMILIES

DOCUMENT = Document(
    (
        "Two teams. Who has more? Let's see",
        Block(
            ("Red team", "Blue. All of it."),
            (
                ("Red team.", Block(("Mia", "Tom"), (("1+2=3.",), ("4.5 is it! Sure.",)), "3+4=7. Good."), "Red: 7."),
                (Block(("one",), (("Yes.",),), "So."), "Blue: 1."),
            ),
            "7 or 1: 7.",
        ),
        "Once more.",
        Block(("Check",), (("7-7=0.",),), "It fits."),
        Block(("Again",), (("0.",),), "It does."),
        "Done.",
    ),
    "Answer: 7. Really.",
)
OPEN = [
    ("Two teams.", False),
    ("Who has more?", False),
    ("Let's see", True),
    ("Red team.", True),
    ("1+2=3.", False),
    ("4.5 is it!", False),
    ("Sure.", False),
    ("Red: 7.", False),
    ("Yes.", False),
    ("Blue: 1.", False),
    ("Once more.", True),
    ("7-7=0.", False),
    ("0.", False),
    ("Done.", False),
]


def test_sentences_of_a_structured_text() -> None:
    found = sentences(DOCUMENT, MULTIVERSE)
    assert [(one.text, one.forks) for one in found if one.open] == OPEN
    assert [one.text for one in found if not one.open] == ["3+4=7.", "Good.", "So.", "7 or 1: 7.", "It fits.", "It does."]
    text = render(DOCUMENT)
    assert [text[one.start : one.end] for one in found] == [one.text for one in found]


def test_a_dialect_without_outer_tags() -> None:
    document = Document((*(DOCUMENT.thinking or ())[:-1], "Done. Answer: 7."))
    found = sentences(document, replace(NPR, nests=True))
    assert [(one.text, one.forks) for one in found if one.open] == [*OPEN[:-1], ("Done.", False), ("Answer: 7.", False)]


@pytest.mark.parametrize("conclusions", [True, False])
def test_the_line_takes_over_the_labels(conclusions: bool) -> None:
    line = sequential_baseline(DOCUMENT, conclusions=conclusions)
    found = aligned(DOCUMENT, line, MULTIVERSE)
    assert [(one.text, one.forks) for one in found if one.open] == OPEN
    assert len(found) == len(OPEN) + 6 * conclusions
    text = render(line)
    assert [text[one.start : one.end] for one in found] == [one.text for one in found]


@pytest.mark.parametrize("family", FAMILIES)
def test_solutions_of_every_family_are_aligned(family: str) -> None:
    for case in from_tasks([family], 5, seed=1):
        structured = [one for one in sentences(case.structured, MULTIVERSE) if one.open]
        line = [one for one in aligned(case.structured, case.sequential, MULTIVERSE) if one.open]
        assert [one.forks for one in structured] == [one.forks for one in line]
        assert sum(one.forks for one in line) == sum(1 for _ in case.structured.blocks()) if case.forks else True
        assert all(a.text == b.text for a, b in zip(structured, line, strict=True) if not a.forks)
    assert case.forks == (family != "chain")


def test_what_is_not_the_same_reasoning_is_refused() -> None:
    line = sequential_baseline(DOCUMENT, conclusions=True)
    text = str((line.thinking or ("",))[0])
    with pytest.raises(DataError, match=r"21 sentences .* structured one 20, or 14 without"):
        aligned(DOCUMENT, Document((f"{text} And more.",)), MULTIVERSE)
    with pytest.raises(DataError, match="'1\\+2=4\\.'"):
        aligned(DOCUMENT, Document((text.replace("1+2=3.", "1+2=4."),)), MULTIVERSE)


CASE = Case("here", "Who has more?", DOCUMENT, sequential_baseline(DOCUMENT, conclusions=True))


def read(marker: Marker, mode: str, case: Case = CASE) -> list[tuple[str, bool]]:
    marked = marker.mark(0, case, mode)  # type: ignore[arg-type]
    return [(marker.tokenizer.decode(marked.token_ids[: site.token + 1]), site.forks) for site in marked.sites]


@pytest.mark.parametrize("mode", ["parallel", "sequential"])
def test_sites_are_the_last_tokens_of_sentences(tokenizer: PreTrainedTokenizerFast, tokens: TokenDialect, mode: str) -> None:
    sites = read(Marker(tokenizer, tokens), mode)
    assert [forks for _, forks in sites] == [forks for _, forks in OPEN]
    assert all(text.endswith(sentence) for (text, _), (sentence, _) in zip(sites, OPEN, strict=True))


def test_tokens_before_a_fork(tokenizer: PreTrainedTokenizerFast, tokens: TokenDialect) -> None:
    sites = read(Marker(tokenizer, tokens, "token", within=3), "sequential")
    assert len(sites) == sum(len(text) for text, _ in OPEN)  # a token is a byte here
    assert [text[-3:] for text, forks in sites if forks] == ["s s", " se", "see", "tea", "eam", "am.", "mor", "ore", "re."]


def test_the_question_alone(tokenizer: PreTrainedTokenizerFast, tokens: TokenDialect) -> None:
    marker = Marker(tokenizer, tokens, "question")
    assert read(marker, "sequential") == [("user: Who has more? Think step by step before answering.\nassistant: ", True)]
    plain = replace_structured(Document(("One step.",), "Answer: 1"))
    assert [forks for _, forks in read(marker, "parallel", plain)] == [False]


def replace_structured(document: Document) -> Case:
    return CASE._replace(structured=document, sequential=sequential_baseline(document))


def test_tokens_and_places_are_those_of_training(tokenizer: PreTrainedTokenizerFast, tokens: TokenDialect) -> None:
    marked = Marker(tokenizer, tokens).mark(3, CASE, "parallel")
    encoded = encode(DOCUMENT, tokens)
    assert marked.token_ids[marked.prompt_tokens :] == encoded.token_ids
    assert marked.layout.positions[marked.prompt_tokens :] == tuple(p + marked.prompt_tokens for p in encoded.layout.positions)
    assert marked.position(marked.prompt_tokens - 1) == (marked.prompt_tokens - 1, -1)
    nested = next(site for site in marked.sites if marked.layout.labels[site.token] == "1.2")
    # The last tokens are those of its own path, whatever stands before it in the document.
    assert tokenizer.decode(marked.last_tokens(nested.token, 100)).startswith(MULTIVERSE.path_head("1.2"))
    assert len(marked.last_tokens(nested.token, 4)) == 4


def test_a_model_without_tags_reads_lines_only(tokenizer: PreTrainedTokenizerFast) -> None:
    tokenizer_without_template = tokenizer.__class__(tokenizer_object=tokenizer.backend_tokenizer)
    marker = Marker(tokenizer_without_template, None)
    marked = marker.mark(0, CASE, "sequential")
    assert len(marked.sites) == len(OPEN)
    assert marked.layout.positions == tuple(range(len(marked.token_ids)))
    with pytest.raises(RequestError, match="no tags"):
        marker.mark(0, CASE, "parallel")


def test_bad_places_are_refused(tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(RequestError, match="at='word'"):
        Marker(tokenizer, None, "word")  # type: ignore[arg-type]
    with pytest.raises(RequestError, match="within=0"):
        Marker(tokenizer, None, "token", 0)
    with pytest.raises(RequestError, match="fast tokenizer"):
        Marker(object(), None)
    assert replace(Marker(tokenizer, None), within=3).within == 3
