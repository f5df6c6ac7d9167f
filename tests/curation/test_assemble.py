"""Documents assembled from numbers of sentences."""

from __future__ import annotations

from dataclasses import replace

import pytest

from multiverse.curation.assemble import Rewritten, assemble, original_text
from multiverse.curation.checks import check_grammar, check_sentences, placed_blocks
from multiverse.curation.config import CurationConfig
from multiverse.curation.outline import Filled, FilledBlock
from multiverse.curation.stages import Concluded
from multiverse.curation.types import Trace
from multiverse.structure import DIALECTS, Block, render

TRACE = Trace("r", "q", tuple(f"Sentence {number}.{end}" for number, end in enumerate("\n  \n\n \n", 1)), "Done.")
INNER = FilledBlock("selective", "because", ("c", "d"), (Filled(((3,),), ()), Filled(((4,),), ())))
OUTER = FilledBlock("collective", "because", ("a", "b"), (Filled(((2,),), ()), Filled(((), (5,)), (INNER,))))
FILLED = Filled(((1,), (6, 7)), (OUTER,))
PHRASE = "Let's think in parallel."


def test_refilled() -> None:
    document = assemble(FILLED, TRACE, CurationConfig())
    inner = Block(("c", "d"), (("Sentence 3.",), ("Sentence 4.",)), "Sentence 3. Sentence 4.")
    outer = Block(("a", "b"), (("Sentence 2.",), (PHRASE, inner, "Sentence 5.")), "Sentence 2. Sentence 5.")
    assert document.thinking == (f"Sentence 1.\n{PHRASE}", outer, "Sentence 6. Sentence 7.")
    assert document.plain_answer == "Done."
    check_sentences(FILLED, document, TRACE, PHRASE)


def test_sentences_that_sum_up_are_the_conclusion() -> None:
    filled = Filled(((1,), (7,)), (replace(OUTER, conclusion=(6,)),))
    assert list(filled.sentences()) == [1, 2, 3, 4, 5, 6, 7]
    document = assemble(filled, TRACE, CurationConfig())
    assert [block.conclusion for _, block in document.blocks()] == ["Sentence 6.", "Sentence 3. Sentence 4."]
    check_sentences(filled, document, TRACE, PHRASE)


def test_sentences_keep_the_white_space_between_them() -> None:
    assert original_text((1, 2, 3, 4), TRACE) == "Sentence 1.\nSentence 2. Sentence 3. Sentence 4."
    assert original_text((), TRACE) == ""


@pytest.mark.parametrize("dialect", DIALECTS)
def test_every_dialect(dialect: str) -> None:
    config = CurationConfig(dialect=dialect)
    document = assemble(FILLED, TRACE, config)
    check_grammar(document, config.tags)
    text = render(document, config.tags)
    tags = config.tags
    if not tags.nests:  # the block in a path becomes its texts
        assert document.depth == 1
        assert all(f"Sentence {number}." in text for number in range(1, 8))
        return
    check_sentences(FILLED, document, TRACE, PHRASE)
    labels = ("1", "2", "2.1", "2.2") if tags.labels == "path" else ("1", "2")
    assert all(f"{tags.path.open}{tags.sep}{label}{tags.label_end}" in text for label in labels)
    assert text.index("Sentence 7.") < text.index("Done.")


def test_the_answer_ends_the_thinking_without_a_think_tag() -> None:
    npr = CurationConfig(dialect="npr")
    assert (assemble(FILLED, TRACE, npr).thinking or ())[-1] == "Sentence 6. Sentence 7.\n\nDone."
    ends = Filled(
        ((1,), ()), (FilledBlock("collective", "r", ("a", "b"), (Filled(((2, 3, 4),), ()), Filled(((5, 6, 7),), ()))),)
    )
    assert (assemble(ends, TRACE, npr).thinking or ())[-1] == "Done."


def test_no_phrase() -> None:
    document = assemble(Filled(((), ()), (OUTER,)), TRACE, CurationConfig(phrase=""))
    assert isinstance((document.thinking or ())[0], Block)


def test_rewritten_parts_take_their_places() -> None:
    rewritten = Rewritten(
        {"1/1": ("Two.",), "1/2": ("", "Five."), "1/2/1/2": ("Four.",)}, {"1/2/1": Concluded(("C", "D"), "Both.")}
    )
    document = assemble(FILLED, TRACE, CurationConfig(), rewritten)
    inner = Block(("C", "D"), (("Sentence 3.",), ("Four.",)), "Both.")
    outer = Block(("a", "b"), (("Two.",), (PHRASE, inner, "Five.")), "Sentence 2. Sentence 5.")
    assert document.thinking == (f"Sentence 1.\n{PHRASE}", outer, "Sentence 6. Sentence 7.")
    rewritten.forget("1/2/1")
    assert rewritten == Rewritten({"1/1": ("Two.",), "1/2": ("", "Five.")}, {})
    rewritten.paths["10/1"] = ("Ten.",)
    rewritten.forget("1")
    assert rewritten == Rewritten({"10/1": ("Ten.",)}, {})


def test_blocks_are_named_by_their_position() -> None:
    found = placed_blocks(FILLED, assemble(FILLED, TRACE, CurationConfig()), PHRASE)
    assert [block.name for block in found] == ["1/2/1", "1"]
    assert [block.filled for block in found] == [INNER, OUTER]
    assert "Sentence 1." in found[0].before
    assert "Sentence 2." not in found[0].before
