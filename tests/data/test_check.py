"""What training would stumble over is a fault that names the row."""

from __future__ import annotations

from dataclasses import replace

import pytest

from multiverse.data import Fault, Message, Row, check, distinct, duplicates
from multiverse.structure import Block, Document, TokenDialect, encode, render

FORK = Document((Block(("a", "b"), (("x",), ("y",)), "z"),), "Answer: 1")
GOOD = Row((Message("user", "Q"),), FORK, "rows.jsonl", 3)


def problem(row: Row, tokens: TokenDialect, **options: int) -> str:
    checked = check([GOOD, row], tokens, **options)  # type: ignore[arg-type]
    assert checked.rows == [GOOD]
    (fault,) = checked.faults
    assert (fault.source, fault.line) == (row.source, row.line)
    return fault.problem


def test_good_rows_pass(tokens: TokenDialect) -> None:
    earlier = replace(GOOD, prompt=(Message("user", "Q"), Message("assistant", render(FORK)), Message("user", "R")))
    assert check([GOOD, earlier], tokens) == ([GOOD, earlier], [])


def test_the_limit_holds_prompt_document_and_end_of_turn(tokens: TokenDialect) -> None:
    length = len(encode(FORK, tokens).token_ids)
    assert check([GOOD], tokens, max_tokens=length + 1).rows
    assert check([GOOD], tokens, max_tokens=length + 8, encode_prompt=lambda _: 7).rows
    (fault,) = check([GOOD], tokens, max_tokens=length + 7, encode_prompt=lambda _: 7).faults
    told = f"it has {length + 8} tokens with its prompt, over the limit of {length + 7}: shorten it, or raise the limit"
    assert str(fault) == f"rows.jsonl:3: {told}"
    (fault,) = check([GOOD], tokens, max_tokens=1).faults
    assert fault.problem.startswith(f"it has {length + 1} tokens, over the limit of 1:")


@pytest.mark.parametrize("prompt", [(), (Message("user", " \n"),), (Message("system", "Be brief."),)])
def test_no_question(tokens: TokenDialect, prompt: tuple[Message, ...]) -> None:
    row = replace(GOOD, prompt=prompt, line=4)
    assert "it has no question: training needs one" in problem(row, tokens)
    assert check([row], tokens, need_prompt=False).rows == [row]


def test_a_tag_in_the_question_is_text(tokens: TokenDialect) -> None:
    row = replace(GOOD, prompt=(Message("system", "Be brief."), Message("user", "what is <Path>?")), line=5)
    assert check([row], tokens) == ([row], [])


def test_a_tag_in_a_text(tokens: TokenDialect) -> None:
    assert "text may not hold the tag <Goal>" in problem(replace(GOOD, document=Document(("a <Goal>",)), line=6), tokens)


def test_an_earlier_answer_that_breaks_the_grammar(tokens: TokenDialect) -> None:
    row = replace(GOOD, prompt=(Message("user", "Q"), Message("assistant", "<Think>\n"), Message("user", "R")), line=7)
    assert "message 2, an earlier answer, breaks the grammar: line 2" in problem(row, tokens)


def test_a_prompt_that_the_template_refuses(tokens: TokenDialect) -> None:
    def refuse(row: Row) -> int:
        raise ValueError(f"no {row.question}")

    assert check([GOOD], tokens, encode_prompt=refuse) == ([], [Fault("rows.jsonl", 3, "no Q")])


def test_every_problem_of_a_row_is_reported(tokens: TokenDialect) -> None:
    row = replace(
        GOOD, prompt=(Message("system", "Be brief."), Message("assistant", "<Think>\n"), Message("assistant", "<Goal>"))
    )
    assert len(check([row], tokens).faults) == 3


def test_duplicates_are_found_and_left_out() -> None:
    other = replace(GOOD, line=4, prompt=(Message("user", "R"),))
    again, once_more = replace(GOOD, line=5), replace(GOOD, source="b.jsonl", line=1)
    rows = [GOOD, other, again, once_more, replace(other, sequential=Document(None, "x"))]
    assert [str(one) for one in duplicates(rows)] == [
        "rows.jsonl:5: the same as rows.jsonl:3",
        "b.jsonl:1: the same as rows.jsonl:3",
    ]
    assert distinct(rows) == [GOOD, other, rows[-1]]
