"""Documents from answered questions: every form, the shares, and what is kept apart."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from multiverse.curation.compose.composer import WEIGHTS, Composed, Composer
from multiverse.curation.compose.config import ComposeConfig
from multiverse.curation.compose.plan import compose, composed_documents, pool_of, together
from multiverse.curation.compose.pool import Deck, Pool
from multiverse.curation.compose.questions import Answered, Question
from multiverse.curation.compose.wordings import read_wordings
from multiverse.curation.compose.writing import as_document
from multiverse.errors import DataError
from multiverse.structure import DIALECTS, Block, markdown, parse, render

ITEMS = ("cats", "dogs", "cows", "owls", "bees", "pigs", "hens", "bats")
FORMS = {
    "What do {x} eat?": "what they eat",
    "Where do {x} live?": "where they live",
    "Tell me about {x}.": "",
    "Give me a fact about {x}.": "",
}
WORDINGS = read_wordings()


def answered(item: str, template: str, aspect: str = "", **more: bool) -> Answered:
    text = template.replace("{x}", item)
    question = Question(text, text, item, item, template, aspect, "animals", **more)
    return Answered(question, f"An answer to {text!r}", "Answer in a short paragraph.", 50)


PARTS = [answered(item, template, aspect) for item in ITEMS for template, aspect in FORMS.items()]
ALONE = Answered(Question("story", "Write a story.", "Write a story.", single=True), "Once upon a time.")


def only(form: str, count: int, *, held_out: bool = False, seed: int = 0) -> Composed:
    found = Composer(Pool(PARTS), WORDINGS, random.Random(seed), forms=(form,), held_out=held_out).forked(count)
    assert found is not None
    return found


def block_of(composed: Composed) -> Block:
    (block,) = composed.body
    assert isinstance(block, Block)
    return block


@pytest.mark.parametrize("form", WEIGHTS)
@pytest.mark.parametrize("held_out", [False, True])
def test_every_form_has_a_path_for_each_part(form: str, held_out: bool) -> None:
    for seed in range(5):
        count = 2 if form in ("nested", "aspects") else 3
        found = only(form, count, held_out=held_out, seed=seed)
        block = block_of(found)
        assert len(block.paths) == count
        assert block.conclusion
        assert "{" not in found.request + block.conclusion
        assert found.wording in WORDINGS.of(form, held_out=held_out)
        assert found.held_out == held_out
        if form != "nested":
            assert block.paths == tuple((part.text,) for part in found.parts)
            topics = {part.question.topic for part in found.parts}
            assert len(topics) == (1 if form == "aspects" else count)
        for name in ("multiverse-answer", "multiverse", "npr", "threadweaver"):
            document = as_document(found.body, markdown(found.body), DIALECTS[name])
            assert parse(render(document, DIALECTS[name]), DIALECTS[name]) == document


def test_requests_name_all_their_parts_and_outlines_say_which() -> None:
    running = only("running", 3)
    for part, outline in zip(running.parts, block_of(running).outlines, strict=True):
        assert part.question.item in running.request
        assert part.question.item in outline.lower()
    compared = only("compare_by", 3)
    assert compared.parts[0].question.aspect in compared.request
    assert block_of(compared).outlines == tuple(part.question.item.capitalize() for part in compared.parts)
    kinds = only("kinds", 3)
    assert "three facts" in kinds.request
    assert block_of(kinds).outlines == tuple(f"A fact about {part.question.item}" for part in kinds.parts)
    aspects = only("aspects", 3)
    assert len({part.question.template for part in aspects.parts}) == 3


def test_nested_documents_ask_the_same_of_each_item() -> None:
    block = block_of(only("nested", 3))
    inner = [path[0] for path in block.paths]
    assert all(isinstance(one, Block) and len(one.paths) == 2 for one in inner)
    asked = {
        one.outlines[0].lower().replace(item.lower(), "X")
        for one, item in zip(inner, block.outlines, strict=True)
        if isinstance(one, Block)
    }
    assert len(asked) == 1


def test_the_twin_holds_the_same_in_a_line() -> None:
    found = only("numbered", 2)
    first, second = found.parts
    outlines, conclusion = block_of(found).outlines, block_of(found).conclusion
    assert markdown(found.body) == f"### {outlines[0]}\n\n{first.text}\n\n### {outlines[1]}\n\n{second.text}\n\n{conclusion}"


def test_a_deck_gives_everything_before_it_repeats() -> None:
    deck = Deck(PARTS, random.Random(0))
    drawn = [card for _ in range(len(PARTS) // 2) for card in deck.draw(2, lambda *_: True)]
    assert Counter(card.question.id for card in drawn) == Counter(card.question.id for card in PARTS)
    assert len(deck.draw(99, lambda *_: True)) == len(PARTS)
    assert deck.draw(2, lambda *_: False) == []


def rows(count: int, *, held_out: bool = False, seed: str = "0", **options: float) -> list[Composed]:
    config = ComposeConfig(**options)  # type: ignore[arg-type]
    sizes = {2: 1.0, 3: 1.0}
    pool = Pool(PARTS, [ALONE])
    return list(compose(pool, WORDINGS, config, count=count, seed=seed, sizes=sizes, held_out=held_out))


def test_shares_and_seeds() -> None:
    found = rows(200, unforked=0.1, follow_ups=0.5)
    single = [one for one in found if one.form == "single"]
    later = [one for one in found if one.form != "single" and one.history]
    assert 5 <= len(single) <= 35
    assert 60 <= len(later) <= 120
    assert all(one.history[-2][1] not in {part.question.text for part in one.parts} for one in later)
    assert sum(one.request == "Write a story." for one in single) == 1, "no request comes twice"
    assert rows(200, unforked=0.1, follow_ups=0.5) == found
    assert rows(200, unforked=0.1, follow_ups=0.5, seed="1") != found
    assert len(rows(5000, unforked=1.0)) == len(PARTS) * 2 + 1, "every question as it is, and with its hint"


def test_splits_share_neither_topics_nor_wordings() -> None:
    new = {"Where do {x} live?", "Give me a fact about {x}."}
    answers = [
        replace(
            one,
            question=replace(one.question, new_topic=one.question.topic in ITEMS[:4], new_wording=one.question.template in new),
        )
        for one in PARTS
    ]
    pools = {held_out: pool_of(answers, held_out=held_out, least=2) for held_out in (False, True)}
    config = ComposeConfig(num_documents=100, validation=0.3, unforked=0.0)
    found = list(composed_documents(pools, WORDINGS, config, 0))
    train, kept = ([one for one in found if one.held_out == side] for side in (False, True))
    assert (len(train), len(kept)) == (70, 30)
    for name in ("topic", "template"):
        used = [{getattr(part.question, name) for one in side for part in one.parts} for side in (train, kept)]
        assert not used[0] & used[1]
    assert not {one.wording for one in train} & {one.wording for one in kept}
    topics_only = pool_of(
        [replace(one, question=replace(one.question, new_wording=False)) for one in answers], held_out=True, least=2
    )
    assert {one.question.topic for one in topics_only.parts} == set(ITEMS[:4]), "without held-out templates, by topic alone"


def test_questions_about_two_things() -> None:
    questions = [part.question for part in PARTS]
    found = together(questions, WORDINGS, ComposeConfig(num_documents=100, unforked=0.5, unsplit=0.4), 0)
    assert 10 <= len(found) <= 20
    assert all(one.single and sum(item in one.text for item in ITEMS) == 2 for one in found)
    given = [*questions, *(replace(ALONE.question, id=str(number)) for number in range(20))]
    assert together(given, WORDINGS, ComposeConfig(num_documents=100, unforked=0.5, unsplit=0.4), 0) == []


def test_wordings_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "de.txt"
    path.write_text("[numbered train]\nBitte:\\n{parts}\n[conclusion any]\nDas war es.\n", encoding="utf-8")
    own = read_wordings(path)
    found = Composer(Pool(PARTS), own, random.Random(0)).forked(2)
    assert found is not None
    assert found.request.startswith("Bitte:\n1")
    assert block_of(found).conclusion == "Das war es."
    neutral = Composer(Pool(PARTS), WORDINGS.neutral(), random.Random(0)).forked(2)
    assert neutral is not None
    assert neutral.wording == "{parts}"
    assert block_of(neutral).conclusion == ""


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[runing train]\n{parts}\n", "no form 'runing'"),
        ("{parts}\n", "before the first section"),
        ("[running train]\n{part}\n", "no {part}"),
        ("[compare train]\nCompare {items}.\n", "joins questions"),
    ],
)
def test_bad_wordings_are_refused(tmp_path: Path, text: str, problem: str) -> None:
    path = tmp_path / "w.txt"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=problem):
        read_wordings(path)
