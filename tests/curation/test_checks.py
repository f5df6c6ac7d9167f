"""What the checks detect, and what they do not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from multiverse.curation.checks import (
    body_texts,
    check_answer,
    check_apart,
    check_carried,
    check_connectives,
    check_distance,
    check_gives_nothing_away,
    check_grammar,
    check_independence,
    check_sentences,
    check_supported,
    distance,
    trace_texts,
)
from multiverse.curation.errors import ValidationError
from multiverse.curation.evidence import final_value, names, numbers, quotes, values
from multiverse.curation.outline import Filled, FilledBlock
from multiverse.curation.types import Trace
from multiverse.structure import MULTIVERSE, NPR, THREADWEAVER, Block, Document

PHRASE = "Let's think in parallel."
TRACE = Trace("r", "What are 2*3 and 4*5 together?", ("Two products. ", "2*3=6. ", "4*5=20. ", "It is \\boxed{26}."), "26")
BLOCK = Block(("one", "two"), (("2*3=6.",), ("4*5=20.",)), "They are 6 and 20.")
DOCUMENT = Document((f"Two products.\n{PHRASE}", BLOCK, "It is \\boxed{26}."), "26")

FILLED = Filled(((1,), (4,)), (FilledBlock("collective", "r", ("one", "two"), (Filled(((2,),), ()), Filled(((3,),), ()))),))


def reason(check: Callable[[], None]) -> str:
    """What a check complains of; empty if it passes."""
    try:
        check()
    except ValidationError as error:
        return error.reason
    return ""


# -- evidence --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("2*3=6", [("2", False), ("3", False), ("6", True)]),
        ("x = 1,234.50 and 007", [("1234.5", True), ("7", False)]),
        ("x = 12 + 5 = 17", [("12", False), ("5", False), ("17", True)]),
        ("the result is 42.", [("42", True)]),
        ("it equals $48$", [("48", True)]),
        ("a (15,16) b", [("15", False), ("16", False)]),
    ],
)
def test_numbers(text: str, found: list[tuple[str, bool]]) -> None:
    assert [(number.value, number.result) for number in numbers(text)] == found


def test_signs() -> None:
    assert [number.signed for number in numbers("256-384=-128, (-3), 5 - 4")] == ["256", "384", "-128", "-3", "5", "4"]


def test_values_read_commas_both_ways() -> None:
    assert values("1,234") == {"1234", "1", "234"}


def test_names_and_quotes() -> None:
    assert names("Let $S = 3$. Denote this by x_1. Let n be odd. We define J(t) = 2.") == {"S", "x_1", "J(t)"}
    assert quotes('It says "no more than three" and "never".') == {"no more than three"}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("so \\boxed{\\frac{1}{2}} of 3", "\\frac{1}{2}"),
        ("\\boxed{ 3 } or \\boxed{4", "4"),
        ("12, then 1,200.", "1200"),
        ("none", None),
    ],
)
def test_final_value(text: str, value: str | None) -> None:
    assert final_value(text) == value


# -- texts -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "Then x=2.",
        "x=2. Next, y=3.",
        "x=2.\nnext we see.",
        "First, x=2.",
        "**Second,** x.",
        "x. Moving on to y.",
        "On the other hand, x=3.",
        "Meanwhile x=3.",
        "As in the previous path, x=3.",
    ],
)
def test_connectives(text: str) -> None:
    assert reason(lambda: check_connectives(text)) == "forbidden connective"


@pytest.mark.parametrize(
    "text", ["Thenar eminence.", "First-order terms.", "The next term is 3.", "If x then y.", "Nextel is a name."]
)
def test_no_connectives(text: str) -> None:
    check_connectives(text)


def test_support() -> None:
    known = ["Differentiating both sides of the equation gives y' = 48t.", "What is y?"]
    check_supported("Differentiation of both sides yields y' = 48t.", known)
    check_supported("It is 3.", known)
    assert reason(lambda: check_supported("Both sides give 49t.", known)) == "invented text"
    assert reason(lambda: check_supported("Both sides are equal. Umbrellas cost money in Lisbon.", known)) == "invented text"
    assert reason(lambda: check_supported("Napoleon sells umbrellas.", known)) == "invented text"


def test_results_are_carried() -> None:
    check_carried("The result: 48.", "We get 40+8=48.")
    check_carried("Fine.", "That was case 2.")
    assert reason(lambda: check_carried("We add 40 and 8.", "We get 40+8=48.")) == "lost result"


def test_outlines_contain_no_results() -> None:
    check_gives_nothing_away("the value of 12*4", "12*4=48.", [])
    check_gives_nothing_away("whether it is 48", "12*4=48.", ["Is it 48?"])
    assert reason(lambda: check_gives_nothing_away("that it is 48", "12*4=48.", [])) == "outcome in an outline"


@pytest.mark.parametrize(
    ("path", "sibling", "known", "depends"),
    [
        ("234+1=235.", "2*117=234.", "", True),
        ("234+1=235.", "2*117=234.", "Take 234.", False),  # the question has it
        ("2*117=234. 234+1=235.", "2*117=234.", "", False),  # it arrives there itself
        ("24+1=25.", "2*12=24.", "", False),  # too short to tell
        ("100+1=101.", "2*50=100.", "", False),  # round
        ("128+1=129.", "256-384=-128.", "", False),  # another number
        ("234+1=235.", "234 is large.", "", False),  # the sibling does not arrive there either
        ("Then 2*S is even.", "Let S = 3.", "", True),
        ("Let S = 4. 2*S is even.", "Let S = 3.", "", False),
        ("S = 4, so 2*S is even.", "Let S = 3.", "", False),
        ("For every S in it.", "Let S = 3.", "", False),
        ("2*S is even.", "Let S = 3.", "S is a sum.", False),
        ("2*n is even.", "Let n = 3.", "", False),  # everybody calls something n
        ("J(t) is small.", "Define J(t) = 3t.", "", True),
        ("It is called “the rule of three sums”.", 'We name it "the rule of three sums".', "", True),
        ("It is the rule of three.", 'We name it "the rule of three sums".', "", False),
        ("This uses what was found beside it.", "2*117=234.", "", False),  # not seen: said in words
    ],
)
def test_independence_by_evidence(path: str, sibling: str, known: str, depends: bool) -> None:
    assert reason(lambda: check_apart(path, [sibling], [known])) == ("not independent" if depends else "")


def test_distance() -> None:
    assert distance("a b\n c", " a  b c ") == 0
    assert distance("", "") == 0
    assert distance("abcd", "abce") == 0.25
    check_distance("abcd", "abce", 0.25)
    assert reason(lambda: check_distance("abcd", "abce", 0.2)) == "too far from the original"


# -- documents -------------------------------------------------------------------------------------------------------


def test_body_texts_leave_out_what_curation_adds() -> None:
    assert body_texts(DOCUMENT.thinking or (), PHRASE) == ["Two products.", "2*3=6.", "4*5=20.", "It is \\boxed{26}."]
    assert body_texts((PHRASE, BLOCK), PHRASE, conclusions=True) == ["2*3=6.", "4*5=20.", "They are 6 and 20."]
    assert body_texts((PHRASE,), PHRASE) == [PHRASE]  # announces nothing: the trace's own


def test_trace_texts_include_the_conclusions_of_the_trace() -> None:
    assert trace_texts(FILLED, DOCUMENT.thinking or (), PHRASE) == body_texts(DOCUMENT.thinking or (), PHRASE)
    (block,) = FILLED.blocks
    summed = Filled(((1,), ()), (replace(block, conclusion=(4,)),))
    document = Document((f"Two products.\n{PHRASE}", replace(BLOCK, conclusion="It is \\boxed{26}.")), "26")
    assert trace_texts(summed, document.thinking or (), PHRASE)[-1] == "It is \\boxed{26}."
    check_sentences(summed, document, TRACE, PHRASE)
    lost = Document((f"Two products.\n{PHRASE}", replace(BLOCK, conclusion="It is 26.")), "26")
    assert reason(lambda: check_sentences(summed, lost, TRACE, PHRASE)) == "lost sentences"


def test_grammar() -> None:
    check_grammar(DOCUMENT, MULTIVERSE)
    assert reason(lambda: check_grammar(Document((f"a {MULTIVERSE.goal.open}",)), MULTIVERSE)) == "broken grammar"
    assert reason(lambda: check_grammar(Document(("a\n", BLOCK)), MULTIVERSE)) == ""
    assert reason(lambda: check_grammar(Document((" ", BLOCK)), NPR)) in ("", "broken grammar")
    assert reason(lambda: check_grammar(DOCUMENT, THREADWEAVER)) == "broken grammar"  # it has no conclusions


def changed(**paths: str) -> Document:
    texts = {"trunk": "Two products.", "one": "2*3=6.", "two": "4*5=20.", "end": "It is \\boxed{26}.", **paths}
    block = Block(("one", "two"), ((texts["one"],), (texts["two"],)), "They are 6 and 20.")
    return Document((f"{texts['trunk']}\n{PHRASE}", block, texts["end"]), "26")


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        (DOCUMENT, ""),
        (changed(one="2*3=6"), "lost sentences"),
        (changed(one="2*3=6. 4*5=20."), "lost sentences"),
        (changed(one="4*5=20.", two="2*3=6."), "lost sentences"),
        (changed(trunk="Two products. And more."), "lost sentences"),
        (changed(end="It is \\boxed{26}. Indeed."), "invented text"),
        (changed(two="4*5=20.\nIt is"), "lost sentences"),
    ],
)
def test_every_sentence_once_and_nothing_else(document: Document, expected: str) -> None:
    assert reason(lambda: check_sentences(FILLED, document, TRACE, PHRASE)) == expected


def test_answer() -> None:
    check_answer(FILLED, DOCUMENT, TRACE, PHRASE)
    assert (
        reason(lambda: check_answer(FILLED, Document(DOCUMENT.thinking, "27"), TRACE, PHRASE)) == ""
    )  # 26 is still in the text
    bare = Trace("r", "q", ("6+20=26.",), "It is 26 apples.")
    assert reason(lambda: check_answer(FILLED, Document(("6+20=26.",), "It is 26."), bare, PHRASE)) == "answer lost"
    assert reason(lambda: check_answer(FILLED, Document(("6+20 is it.",), "It is 26 apples."), bare, PHRASE)) == "answer lost"
    none = Trace("r", "q", ("6+20=26.",), "")
    assert reason(lambda: check_answer(FILLED, Document(("6+20=27.",)), none, PHRASE)) == "answer lost"
    boxed = Trace("r", "q", ("It is \\boxed{26}, not 3.",), "")
    assert reason(lambda: check_answer(FILLED, Document(("It is \\boxed{27}, not 3.",)), boxed, PHRASE)) == "answer lost"
    check_answer(FILLED, Document(("It is \\boxed{ 26 }.",)), boxed, PHRASE)


def test_independence_of_a_document() -> None:
    def filled(*paths: Filled) -> Filled:
        return Filled(((1,), (9,)), (FilledBlock("collective", "r", ("one", "two"), paths),))

    plain = Filled(((1,),), ())
    block = Block(("one", "two"), (("2*117=234.",), ("234+1=235.",)), "235")
    with pytest.raises(ValidationError, match=r"path 2 \(two\).*234.*path 1"):
        check_independence(filled(plain, plain), Document(("Begin.", block)), "q", PHRASE)
    check_independence(filled(plain, plain), Document(("Begin with 234.", block)), "q", PHRASE)
    check_independence(filled(plain, plain), Document(("Begin.", block)), "What has 234 to do with it?", PHRASE)
    # Inside a path, what the path has said before its block is there to be used.
    outer = Block(("one", "two"), (("117*2=234.", block), ("x",)), "c")
    nested = Filled(((1,), ()), (FilledBlock("collective", "r", ("one", "two"), (plain, plain)),))
    check_independence(filled(nested, plain), Document(("Begin.", outer)), "q", PHRASE)
    outer = Block(("one", "two"), (("x", block), ("x",)), "c")
    assert (
        reason(lambda: check_independence(filled(nested, plain), Document(("Begin.", outer)), "q", PHRASE)) == "not independent"
    )
