"""Each stage: its request, valid completions, and errors."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multiverse.curation.config import CurationConfig
from multiverse.curation.errors import ValidationError
from multiverse.curation.outline import Filled, Group, OutlineBlock, SentenceSpan, Step, Substep
from multiverse.curation.prompting import PROMPTS, fill, prompt_hashes, quoted
from multiverse.curation.stages import Conclude, Failure, Groups, Judge, Outline, Refill, Rewrite, Stage, Summary, units_of
from multiverse.curation.stages.rewrite import parts
from multiverse.curation.types import Completion, Trace
from multiverse.structure import DIALECTS, MULTIVERSE

TRACE = Trace(
    "a.jsonl:1",
    "What are 2*3 and 4*5 together?",
    ("We need two products. ", "The first one: 2*3=6. ", "The second: 4*5=20. ", "It ends in zero. ", "6+20=26."),
    "26",
)
STEPS = (
    Step("what is needed", (Substep("what is needed", SentenceSpan(1, 1)),)),
    Step("2*3", (Substep("2*3", SentenceSpan(2, 2)),)),
    Step("4*5", (Substep("the product", SentenceSpan(3, 3)), Substep("its end", SentenceSpan(4, 4)))),
    Step("the sum", (Substep("the sum", SentenceSpan(5, 5)),)),
)
GROUP = Group("collective", "each has its own factors", (("2",), ("3",)), (SentenceSpan(2, 2), SentenceSpan(3, 4)))
INNER = Group("collective", "each from the product", (("3.1",), ("3.2",)), (SentenceSpan(3, 3), SentenceSpan(4, 4)))
CONFIG = CurationConfig()
SUMMARY = Summary(TRACE, CONFIG)
GROUPS = Groups(TRACE, CONFIG, STEPS)
OUTLINE = Outline(TRACE, CONFIG, STEPS, (GROUP, INNER))
REFILL = Refill(TRACE, CONFIG, (OutlineBlock(GROUP, ("2*3", "4*5"), ((), ())),))
REWRITE = Rewrite(TRACE, CONFIG, "1/2", "4*5", "We need two products.", "The second: 4*5=20. It ends in zero.",
                  ("The second: 4*5=20. It ends in zero.",), ("The first one: 2*3=6.",))  # fmt: skip
PATHS = ("The first one: 2*3=6.", "The second: 4*5=20.")
CONCLUDE = Conclude(TRACE, CONFIG, "1", "collective", "We need two products.", ("2*3", "4*5"), PATHS, "(the block)")
JUDGE = Judge(TRACE, CONFIG, "1", "We need two products.", PATHS, "(the block)")
STAGES: list[Stage[Any]] = [SUMMARY, GROUPS, OUTLINE, REFILL, REWRITE, CONCLUDE, JUDGE]


def reason(stage: Stage[Any], value: Any) -> str:
    """What a stage complains of; empty if it takes the answer."""
    try:
        stage.parse(Completion(value if isinstance(value, str) else json.dumps({stage.field: value})))
    except ValidationError as error:
        return error.reason if error.detail else "an error without a detail"
    return ""


# -- requests --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
def test_requests_say_stage_and_row(stage: Stage[Any]) -> None:
    request = stage.request()
    (system, rules), (user, asked) = request.messages
    assert (system, user, request.stage, request.row, request.attempt) == ("system", "user", stage.name, "a.jsonl:1", 0)
    assert {f"stage: {stage.name}", "row: a.jsonl:1"} <= set(asked.split("\n"))
    assert f'"{stage.field}"' in rules
    assert stage.request() == request


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
def test_retries_quote_the_error(stage: Stage[Any]) -> None:
    failure = Failure("x" * 1_000_000, ValidationError("lost sentences", "sentence 3 went nowhere"))
    request = stage.request(1, failure)
    assert [role for role, _ in request.messages] == ["system", "user", "assistant", "user"]
    assert request.messages[:2] == stage.request().messages
    assert len(request.messages[2][1]) < 2 * CONFIG.quoted
    assert "sentence 3 went nowhere" in request.messages[3][1]
    assert f"stage: {stage.name}" in request.messages[3][1]


def test_quoted_completions_can_be_sent() -> None:
    assert quoted("a\ud83db\0c\x1b", 100) == "a?b?c?"
    assert quoted(" ", 100) == "(an empty answer)"
    assert quoted("abc", 2).startswith("ab\n(cut here; 3 characters")


@pytest.mark.parametrize("dialect", DIALECTS)
def test_the_format_is_shown_by_the_renderer(dialect: str) -> None:
    asked = Outline(TRACE, CurationConfig(dialect=dialect), STEPS, (GROUP,)).request().messages[0][1]
    assert all(
        asked.count(tag) == asked.count(DIALECTS[dialect].goal.open) * n for tag, n in [(DIALECTS[dialect].path.open, 2)]
    )
    assert DIALECTS[dialect].goal.open in asked


def test_prompts_spell_no_tag() -> None:
    assert len(prompt_hashes()) == len(list(PROMPTS.glob("*.md"))) >= 8
    for path in PROMPTS.glob("*.md"):
        text = path.read_text()
        assert not [tag for dialect in DIALECTS.values() for tag in dialect.tags if tag in text]


def test_traces_are_not_templates() -> None:
    trace = Trace("r", "{{ 1+1 }} {% for %}", ("{{ sentences }} {# a #}.",), "")
    asked = Summary(trace, CONFIG).request().messages[1][1]
    assert "{{ 1+1 }} {% for %}" in asked
    assert "[1] {{ sentences }} {# a #}." in asked


def test_a_prompt_without_its_inputs_is_refused() -> None:
    with pytest.raises(Exception, match="undefined"):
        fill("summary", stage="summary")


# -- reading answers -------------------------------------------------------------------------------------------------

RIGHT = {"P1": [1, 1], "P2": [2, 2], "P3": [3, 4], "P4": None, "P5": [5, 5]}
RIGHT_TEXT = json.dumps({"places": RIGHT})


@pytest.mark.parametrize(
    "text",
    [
        RIGHT_TEXT,
        f"```json\n{RIGHT_TEXT}\n```",
        f"Here it is:\n\n```\n{RIGHT_TEXT}\n```\nDone.",
        f"I think {{so}}. {RIGHT_TEXT} That is all.",
        f'{{"thought": "well"}} {RIGHT_TEXT}',
        f"\ufeff{RIGHT_TEXT}",
        json.dumps({"thought": "x", "places": RIGHT}, indent="\t"),
    ],
)
def test_json_with_text_around_it(text: str) -> None:
    filled = REFILL.parse(Completion(text))
    assert list(filled.sentences()) == [1, 2, 3, 4, 5]
    assert filled.blocks[0].paths[1].stretches == ((3, 4),)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "no answer"),
        (" \n", "no answer"),
        ("I cannot do that.", "not JSON"),
        ("null", "not JSON"),
        ("[]", "not JSON"),
        ("{}", "not JSON"),
        ("{" * 100_000, "not JSON"),
        ("[" * 99_000, "not JSON"),
        ('{"a":' * 20_000, "not JSON"),
        ("9" * 5000, "not JSON"),
        (RIGHT_TEXT[:-1], "not JSON"),
        (RIGHT_TEXT[:30], "not JSON"),
        ('{"places": {"P1": [1, 1], "P1": [2, 2]}}', "not JSON"),
        ("x" * 1_000_000, "answer too long"),
        (RIGHT_TEXT + "\ud83d", "half a character"),
        (RIGHT_TEXT.replace("P4", "\\ud83d"), "half a character"),
        (RIGHT_TEXT + "\x00", "control character"),
        (RIGHT_TEXT.replace("P4", "\\u0007"), "control character"),
        (RIGHT_TEXT + MULTIVERSE.path.open, "tag in the answer"),
        (RIGHT_TEXT.replace("P4", MULTIVERSE.goal.close.replace("<", "\\u003c")), "tag in the answer"),
        (RIGHT_TEXT.replace("[1, 1]", "1"), "wrong shape"),
        (RIGHT_TEXT.replace("[1, 1]", "[1]"), "wrong shape"),
        (RIGHT_TEXT.replace("[1, 1]", "[1, true]"), "wrong shape"),
        (RIGHT_TEXT.replace("[1, 1]", "[1.0, 1]"), "wrong shape"),
        (RIGHT_TEXT.replace("[1, 1]", '["We need two products.", 1]'), "wrong shape"),
        (RIGHT_TEXT.replace("[5, 5]", "[5, 6]"), "unknown sentences"),
        (RIGHT_TEXT.replace("[1, 1]", "[0, 1]"), "unknown sentences"),
        (RIGHT_TEXT.replace("[1, 1]", "[1, NaN]"), "wrong shape"),
    ],
)
def test_invalid_completions(text: str, expected: str) -> None:
    assert reason(REFILL, text) == expected


def test_an_answer_that_was_cut_short() -> None:
    with pytest.raises(ValidationError, match="cut short"):
        REFILL.parse(Completion(RIGHT_TEXT, finish_reason="length"))


def test_nested_objects_are_not_mistaken_for_the_result() -> None:
    paths = [
        {"outline": "2*3"},
        {"outline": "4*5", "inside": [{"group": 2, "paths": [{"outline": "the product"}, {"outline": "zero"}]}]},
    ]
    text = json.dumps({"blocks": [{"group": 1, "paths": paths}]})
    assert reason(OUTLINE, text) == ""
    assert {reason(OUTLINE, text[:end]) for end in range(len(text))} <= {"not JSON", "no answer"}


def test_forgotten_backslashes_are_put_back() -> None:
    text = '{"pieces": ["The second: \\( 4 \\times 5 = 20 \\), \\text{so} it ends in \\theta zero: 4*5=20.\\nYes, zero."]}'
    (piece,) = REWRITE.parse(Completion(text))
    assert piece == "The second: \\( 4 \\times 5 = 20 \\), \\text{so} it ends in \\theta zero: 4*5=20.\nYes, zero."
    assert REWRITE.parse(Completion(json.dumps({"pieces": [piece]}))) == (piece,)


LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-2, 7)
    | st.floats()
    | st.sampled_from(["", "2", "3.1", "collective", "4*5=20.", "P2"])
)
FIELDS = ["summary", "substeps", "sentences", "kind", "reason", "paths", "group", "outline", "inside", "outlines", "conclusion"]
NAMES = st.sampled_from([*FIELDS, "path", "on", "because", "P1", "P2", "P3", "P4"])
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4), max_leaves=12
)


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
@given(value=VALUES)
def test_any_value_raises_only_validation_errors(stage: Stage[Any], value: Any) -> None:
    reason(stage, value)


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
@given(text=st.text(alphabet='{}[]",:\\ntu0123dplacestgr', max_size=60))
def test_any_text_raises_only_validation_errors(stage: Stage[Any], text: str) -> None:
    reason(stage, text)


# -- (i) -------------------------------------------------------------------------------------------------------------


def tree(*spans: list[int]) -> list[Any]:
    return [{"summary": "s", "substeps": [{"summary": "t", "sentences": span}]} for span in spans]


def test_summary() -> None:
    steps = SUMMARY.parse(Completion(json.dumps({"steps": tree([1, 1], [2, 4], [5, 5])})))
    assert [step.span for step in steps] == [(1, 1), (2, 4), (5, 5)]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ([], "lost sentences"),
        ({}, "wrong shape"),
        (tree([1, 4]), "lost sentences"),
        (tree([2, 5]), "lost sentences"),
        (tree([1, 2], [4, 5]), "lost sentences"),
        (tree([1, 3], [3, 5]), "doubled sentences"),
        (tree([3, 5], [1, 2]), "lost sentences"),
        (tree([1, 5], [1, 5]), "doubled sentences"),
        (tree([1, 9]), "unknown sentences"),
        (tree([5, 1]), "wrong numbering"),
        ([{"summary": "s", "substeps": []}], "lost sentences"),
        ([{"summary": "", "substeps": [{"summary": "t", "sentences": [1, 5]}]}], "wrong shape"),
        ([{"substeps": [{"summary": "t", "sentences": [1, 5]}]}], "wrong shape"),
        ([{"summary": "s" * 2000, "substeps": [{"summary": "t", "sentences": [1, 5]}]}], "text too long"),
    ],
)
def test_summary_errors(value: Any, expected: str) -> None:
    assert reason(SUMMARY, value) == expected


# -- (ii) ------------------------------------------------------------------------------------------------------------


def group(*paths: list[Any], kind: str = "collective", why: str = "own factors") -> dict[str, Any]:
    return {"kind": kind, "reason": why, "paths": list(paths)}


def test_groups() -> None:
    value = {"groups": [group(["3.1"], ["3.2"]), group(["2"], [3], kind="selective")]}
    outer, inner = GROUPS.parse(Completion(json.dumps(value)))
    assert (outer.kind, outer.paths, outer.spans) == ("selective", (("2",), ("3",)), ((2, 2), (3, 4)))
    assert inner.spans == ((3, 3), (4, 4))
    assert GROUPS.parse(Completion('{"groups": []}')) == ()


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ([group(["2"])], "too few paths"),
        ([group()], "too few paths"),
        ([group(["2"], [])], "empty path"),
        ([group(["2"], ["4"])], "not adjacent"),
        ([group(["3"], ["2"])], "not adjacent"),
        ([group(["2"], ["2"])], "not adjacent"),
        ([group(["2"], ["3.1"])], "wrong numbering"),
        ([group(["2"], ["7"])], "wrong numbering"),
        ([group(["2"], ["0"])], "wrong numbering"),
        ([group(["2"], [["3"]])], "wrong numbering"),
        ([group(["2"], [2.5])], "wrong numbering"),
        ([group(["2"], "3")], "wrong shape"),
        ([group(["2"], ["3"], kind="other")], "wrong shape"),
        ([group(["2"], ["3"], why=" ")], "wrong shape"),
        ([{"paths": [["2"], ["3"]]}], "wrong shape"),
        ([group(["1"], ["2"]), group(["2"], ["3"])], "crossing groups"),
        ([group(["2"], ["3"]), group(["2"], ["3"])], "crossing groups"),
        (["2", "3"], "wrong shape"),
    ],
)
def test_groups_errors(value: Any, expected: str) -> None:
    assert reason(GROUPS, value) == expected


# -- (iii) -----------------------------------------------------------------------------------------------------------


def block(number: Any, *paths: Any) -> dict[str, Any]:
    return {"group": number, "paths": list(paths)}


A, B = {"outline": "the product 2*3"}, {"outline": "the product 4*5"}
NESTED = {**B, "inside": [block(2, A, B)]}


def test_outline() -> None:
    (outer,) = OUTLINE.parse(Completion(json.dumps({"blocks": [block(1, A, NESTED)]})))
    assert outer.group is GROUP
    assert outer.paths[1][0].group is INNER
    assert OUTLINE.parse(Completion('{"blocks": []}')) == ()
    (alone,) = OUTLINE.parse(Completion(json.dumps({"blocks": [block(2, A, B)]})))
    assert alone.group is INNER


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ([block(3, A, B)], "wrong numbering"),
        ([block(0, A, B)], "wrong numbering"),
        ([block("1", A, B)], "wrong numbering"),
        ([block(1, A)], "wrong numbering"),
        ([block(1, A, B, B)], "wrong numbering"),
        ([block(1, A, B), block(1, A, B)], "wrong numbering"),
        ([block(1, A, B), block(2, A, B)], "wrong nesting"),
        ([block(1, {**A, "inside": [block(2, A, B)]}, B)], "wrong nesting"),
        ([block(1, A, {"outline": ""})], "wrong shape"),
        ([block(1, A, {})], "wrong shape"),
        ([block(1, A, {"outline": "2: the product"})], "wrong numbering"),
        ([block(1, A, {"outline": "product\nproduct"})], "outline too long"),
        ([block(1, A, {"outline": "product " * 50})], "outline too long"),
        ([block(1, A, {"outline": "the product 777*5"})], "invented text"),
        ([block(1, A, {"outline": "that the product is 20"})], "outcome in an outline"),
    ],
)
def test_outline_errors(value: Any, expected: str) -> None:
    assert reason(OUTLINE, value) == expected


def test_outline_depth_is_limited() -> None:
    flat = Outline(TRACE, CurationConfig(max_nesting=1), STEPS, (GROUP, INNER))
    assert reason(flat, [block(1, A, B)]) == ""
    assert reason(flat, [block(1, A, NESTED)]) == "too deep"


# -- (iv) ------------------------------------------------------------------------------------------------------------


def test_refill_asks_for_every_place() -> None:
    nested = Refill(TRACE, CONFIG, OUTLINE.parse(Completion(json.dumps({"blocks": [block(1, A, NESTED)]}))))
    product, other = "the product 2*3; planned for sentences", "the product 4*5; planned for sentences"
    assert [place.what for place in nested.places()] == [
        "the trunk, before block 1",
        f"path 1/1 ({product} 2 to 2)",
        f"path 1/2 ({other} 3 to 4), before block 1/2/1",
        f"path 1/2/1/1 ({product} 3 to 3)",
        f"path 1/2/1/2 ({other} 4 to 4)",
        "the conclusion of block 1/2/1",
        f"path 1/2 ({other} 3 to 4), behind its last block",
        "the conclusion of block 1",
        "the trunk, behind its last block",
    ]
    value = {"P1": [1, 1], "P2": [2, 2], "P4": [3, 3], "P5": [4, 4], "P6": None, "P7": None, "P9": [5, 5]}
    filled = nested.parse(Completion(json.dumps({"places": value})))
    assert filled.stretches == ((1,), (5,))
    assert filled.blocks[0].paths[1].stretches == ((), ())
    assert list(filled.sentences()) == [1, 2, 3, 4, 5]


def test_sentences_after_the_paths_become_the_conclusion() -> None:
    filled = REFILL.parse(Completion(json.dumps({"places": {**RIGHT, "P4": [5, 5], "P5": None}})))
    assert filled.blocks[0].conclusion == (5,)
    assert filled.stretches == ((1,), ())
    assert list(filled.sentences()) == [1, 2, 3, 4, 5]


def test_where_the_dialect_has_no_conclusion_nothing_can_go_there() -> None:
    refill = Refill(TRACE, CurationConfig(dialect="threadweaver"), REFILL.blocks)
    assert [place.what.partition(" (")[0] for place in refill.places()] == [
        "the trunk, before block 1",
        "path 1/1",
        "path 1/2",
        "the trunk, behind its last block",
    ]
    assert "conclusion" not in refill.request().messages[0][1]
    filled = refill.parse(Completion(json.dumps({"places": {"P1": [1, 1], "P2": [2, 2], "P3": [3, 4], "P4": [5, 5]}})))
    assert filled.blocks[0].conclusion == ()


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({**RIGHT, "P3": [3, 3]}, "lost sentences"),
        ({**RIGHT, "P5": None}, "lost sentences"),
        ({**RIGHT, "P3": [3, 5]}, "doubled sentences"),
        ({**RIGHT, "P2": [3, 4], "P3": [2, 2]}, "lost sentences"),
        ({"P1": [1, 2], "P3": [3, 4], "P5": [5, 5]}, "empty path"),
        ({"P1": [1, 1], "P2": [2, 2], "P4": [3, 5]}, "empty path"),
        ({**RIGHT, "P6": [5, 5]}, "wrong numbering"),
        ({}, "lost sentences"),
        ([], "wrong shape"),
        ({**RIGHT, "P1": "We need two products."}, "wrong shape"),
    ],
)
def test_refill_errors(value: Any, expected: str) -> None:
    assert reason(REFILL, value) == expected


# -- (v) -------------------------------------------------------------------------------------------------------------


def filled(*stretches: tuple[int, ...]) -> Filled:
    return Filled(stretches, ())


def test_first_five_together_and_the_rest_one_by_one() -> None:
    assert [unit.sentences for unit in units_of(filled((1, 2, 3)))] == [(1, 2, 3)]
    assert [unit.sentences for unit in units_of(filled((1, 2, 3, 4, 5)))] == [(1, 2, 3, 4, 5)]
    assert [unit.sentences for unit in units_of(filled((1, 2, 3, 4, 5, 6, 7)))] == [(1, 2, 3, 4, 5), (6,), (7,)]
    around = units_of(filled((1, 2, 3), (), (7, 8, 9)))
    assert [(unit.stretch, unit.sentences) for unit in around] == [(0, (1, 2, 3)), (2, (7, 8)), (2, (9,))]
    assert units_of(filled(())) == []
    assert [len(part) for part in parts(units_of(filled(tuple(range(1, 61)))))] == [16, 16, 16, 8]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (["The product 4*5 is 20, which ends in zero."], ""),
        ([], "wrong numbering"),
        (["4*5=20.", "It ends in zero."], "wrong numbering"),
        ([""], "wrong shape"),
        ([{"text": "4*5=20"}], "wrong shape"),
        (["Then the second: 4*5=20. It ends in zero."], "forbidden connective"),
        (["The second: 4*5=20. On the other hand, it ends in zero."], "forbidden connective"),
        (["First, the second: 4*5=20. It ends in zero."], "forbidden connective"),
        (["Unlike the other path, the second: 4*5=20 ends in zero."], "forbidden connective"),
        (["The second: 4*5=20. It ends in zero. Napoleon sold green umbrellas."], "invented text"),
        (["The second: 4*5=20, and 31 is not. It ends in zero."], "invented text"),
        (["The second ends in zero."], "lost result"),
        (["The second: 4*5=20. It ends in zero. " * 20], "too far from the original"),
    ],
)
def test_rewrite(value: Any, expected: str) -> None:
    assert reason(REWRITE, value) == expected


def test_first_is_no_connective_where_it_counts_something() -> None:
    whole = "First-order terms vanish. Second derivative is 20. Now we know that next to it stands zero."
    stage = Rewrite(TRACE, CONFIG, "1/1", "terms", "", whole, (whole,), ())
    assert reason(stage, ["First-order terms vanish. Second derivative is 20. Zero stands next to it."]) == ""


@pytest.mark.parametrize(
    ("outlines", "conclusion", "expected"),
    [
        (["the product 2*3", "the product 4*5"], "The products are 6 and 20.", ""),
        (["the product 2*3", "the product 4*5"], "The products are 6 and 20, together 26.", ""),
        (["the product 2*3"], "The products are 6 and 20.", "wrong numbering"),
        (["1: the product 2*3", "2: the product 4*5"], "The products are 6 and 20.", "wrong numbering"),
        (["the product 2*3", "the product 4*5"], "", "wrong shape"),
        (["the product 2*3", "the product 4*5"], "The products are 6 and 21.", "invented text"),
        (["the product 2*3", "the umbrellas of Napoleon in Lisbon"], "The products are 6 and 20.", "invented text"),
        (["the product 2*3", "the product 20"], "The products are 6 and 20.", "outcome in an outline"),
        (["the product 2*3", "the product 4*5"], "The products are 6 and 20. " * 40, "conclusion too long"),
        (["the product 2*3", "the product 4*5"], "Next, the products are 6 and 20.", "forbidden connective"),
    ],
)
def test_conclude(outlines: list[str], conclusion: str, expected: str) -> None:
    assert reason(CONCLUDE, {"outlines": outlines, "conclusion": conclusion}) == expected


def test_a_conclusion_keeps_the_result_of_the_trace() -> None:
    given = replace(CONCLUDE, given="Together 6+20=26.")
    assert "Together 6+20=26." in given.request().messages[1][1]
    outlines = ["2*3", "4*5"]
    assert reason(given, {"outlines": outlines, "conclusion": "6+20=26."}) == ""
    assert reason(given, {"outlines": outlines, "conclusion": "They are 6 and 20."}) == "lost result"
    assert reason(CONCLUDE, {"outlines": outlines, "conclusion": "They are 6 and 20."}) == ""


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ([], ""),
        ([{"path": 2, "on": 1, "because": "it uses 6"}], ""),
        ([{"path": 2, "on": 2, "because": "it uses 6"}], "wrong numbering"),
        ([{"path": 3, "on": 1, "because": "it uses 6"}], "wrong numbering"),
        ([{"path": 2, "on": 1}], "wrong shape"),
        ({}, "wrong shape"),
    ],
)
def test_judge(value: Any, expected: str) -> None:
    assert reason(JUDGE, value) == expected
