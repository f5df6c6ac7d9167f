"""Documents of three families as they are written: read, written and read again, whole and broken."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from multiverse.errors import StructureError
from multiverse.structure import (
    MULTIVERSE,
    MULTIVERSE_ANSWER,
    MULTIVERSE_COMPACT,
    NPR,
    THREADWEAVER,
    THREADWEAVER_CONCLUSION,
    Block,
    Dialect,
    Document,
    Fork,
    Machine,
    Role,
    State,
    Stop,
    TokenDialect,
    allowed_tokens,
    convert,
    encode,
    layout,
    markdown_text,
    parse,
    render,
    resolve,
)
from multiverse.structure.dialect import Malformed
from multiverse.structure.earlier import read_answer
from multiverse.structure.plain import PlainEncoder
from tests.structure.adapted import MERGING, TOKENIZERS, TOKENS, WordTokenizer

VECTORS: dict[str, dict[str, Any]] = json.loads((Path(__file__).parent / "vectors.json").read_text())
FAMILIES = {"V": MULTIVERSE, "N": NPR, "T": THREADWEAVER}
WELL_FORMED = [name for name, vector in VECTORS.items() if "tree" in vector]
BROKEN = [name for name in VECTORS if name not in WELL_FORMED]
LOOSE = ["N5"]
"""Written with other white space than the family's own."""


def dialect_of(name: str, malformed: Malformed = "refuse") -> Dialect:
    dialect = THREADWEAVER_CONCLUSION if name == "T4" else FAMILIES[name[0]]
    return replace(dialect, malformed=malformed)


def tree_of(document: Document, dialect: Dialect) -> Any:
    """As the vectors have it: without parts where the dialect has one trunk."""
    found = document.to_json()
    return found if dialect.think is not None else found["thinking"]


@pytest.mark.parametrize("policy", ["refuse", "as-released", "sequential"])
@pytest.mark.parametrize("name", WELL_FORMED)
def test_a_document_reads_writes_and_reads_again(name: str, policy: Malformed) -> None:
    text, dialect = VECTORS[name]["text"], dialect_of(name, policy)
    document = parse(text, dialect)
    assert tree_of(document, dialect) == VECTORS[name]["tree"]
    written = render(document, dialect)
    assert (written == text) == (name not in LOOSE)
    assert parse(written, dialect) == document


def test_loose_white_space_is_written_as_the_family_writes_it() -> None:
    text = VECTORS["N5"]["text"]
    written = text.replace("<plan>\n", "<plan>").replace("\n</plan>", "</plan>").replace("</takeaway>\n", "</takeaway>\n\n")
    assert render(parse(text, NPR), NPR) == written


REFUSALS = {
    "V7": (106, "<Path> number 2 of 2"),
    "V8": (126, "<Conclusion>"),
    "V9": (19, "<Goal>"),
    "V10": (62, "the label 2:"),
    "N7": (87, "<step> number 2 of 2"),
    "N8": (60, "text or </step> (blocks of dialect 'npr' do not nest)"),
    "N9": (107, "</guideline>, since a block has at most 5 paths"),
    "N10": (104, "<takeaway>"),
    "T7": (113, "<Thread>, with nothing between two paths"),
    "T8": (63, "the label 2:"),
    "T9": (104, "text or </Thread> (blocks of dialect 'threadweaver' do not nest)"),
    "T10": (153, "text or <Parallel> or </think>"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_breaks_the_rules_is_refused_with_place_and_rule(name: str) -> None:
    with pytest.raises(StructureError) as caught:
        parse(VECTORS[name]["text"], dialect_of(name))
    assert (caught.value.offset, caught.value.expected) == REFUSALS[name]


def block(
    outlines: list[str],
    paths: list[list[str]],
    conclusion: str,
    labels: list[str],
    numbers: list[str],
    *,
    concludes: bool = True,
) -> dict[str, Any]:
    written = {"outlines": labels, "paths": numbers, "conclusion": concludes}
    return {"outlines": outlines, "paths": paths, "conclusion": conclusion, "as_written": written}


# What each family's own code makes of them; `None` where it refuses them, too.
RELEASED: dict[str, Any] = {
    # Outlines and paths are never counted, and neither goal nor conclusion is asked for.
    "V7": {"thinking": [block(["a", "b"], [["x"]], "y", ["1", "2"], ["1"])], "answer": "Answer: 0"},
    "V8": {"thinking": [block(["a", "b"], [["x"], ["y"]], "", ["1", "2"], ["1", "2"], concludes=False)], "answer": "Answer: 0"},
    "V9": {"thinking": [block([], [["x"], ["y"]], "z", [], ["1", "2"])], "answer": "Answer: 0"},
    "V10": {"thinking": [block(["a", "b"], [["x"], ["y"]], "z", ["1", "3"], ["1", "3"])], "answer": "Answer: 0"},
    "N7": [block(["a.", "b."], [["done."]], "One of two.", ["1", "2"], ["1"]), "\\boxed{1}"],
    "N8": None,
    # The generation ends here, as a normal stop.
    "N9": [block(["a.", "b.", "c.", "d.", "e.", "f."], [], "", list("123456"), [], concludes=False)],
    "N10": None,
    "T7": {
        "thinking": [{"outlines": ["a", "b"], "paths": [["x"], ["y"]], "conclusion": ""}],
        "answer": "\\boxed{1}",
    },
    "T8": {"thinking": [block(["a", "b"], [["x"], ["y"]], "", ["1", "3"], ["1", "3"])], "answer": "\\boxed{1}"},
    # The first closing tag ends the outer thread, and what follows it is no thread.
    "T9": None,
    # Told from a real end by `cut`.
    "T10": {
        "thinking": [{"outlines": ["a", "b"], "paths": [["x"], ["cut of"]], "conclusion": ""}],
        "answer": "",
        "cut": True,
    },
}


@pytest.mark.parametrize("name", BROKEN)
def test_as_released_reads_what_the_familys_own_code_lets_pass(name: str) -> None:
    text, dialect = VECTORS[name]["text"], dialect_of(name, "as-released")
    if RELEASED[name] is None:
        with pytest.raises(StructureError):
            parse(text, dialect)
        return
    document = parse(text, dialect)
    assert tree_of(document, dialect) == RELEASED[name]
    written = render(document, dialect)
    assert written == (text if name != "T7" else text.replace("</Thread>\n<Thread>", "</Thread><Thread>"))
    assert parse(written, dialect) == document
    if name != "T7":  # nothing of it can be written without its fault
        with pytest.raises(ValueError, match=r"counted|within the thinking|at most 5 paths"):
            render(document, dialect_of(name))


@pytest.mark.parametrize("name", BROKEN)
def test_sequential_takes_a_broken_block_for_text(name: str) -> None:
    text, dialect = VECTORS[name]["text"], dialect_of(name, "sequential")
    document = parse(text, dialect)
    assert render(document, dialect).rstrip() == text.rstrip()
    assert parse(render(document, dialect), dialect) == document
    # A nested block is text in its path; the blocks around it stay.
    assert document.branches == {"N8": 1, "T9": 2}.get(name, 0)
    assert not any(tag in markdown_text("", dialect) for tag in dialect.tags)
    with pytest.raises(ValueError, match="text may not hold the tag"):
        render(document, dialect_of(name))


# -- tokens ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", WELL_FORMED)
def test_the_tokens_of_a_document_have_its_layout(name: str) -> None:
    dialect = dialect_of(name)
    document = parse(VECTORS[name]["text"], dialect)
    for known in (TOKENS, MERGING):
        tokens = known[dialect.name]
        encoded = encode(document, tokens)
        assert layout(encoded.token_ids, tokens) == encoded.layout
        assert tokens.decode(encoded.token_ids) == render(document, dialect)


@pytest.mark.parametrize(
    ("name", "forced"),
    [
        ("N1", ["\n", "<step>", "\n", "1:", "<step>", "\n", "2:", "<takeaway>", "\n"]),
        ("T1", ["\n", "<Thread>", "\n", "1:", "<Thread>", "\n", "2:", "\n"]),
        ("T4", ["\n", "<Thread>", "\n", "1:", "<Thread>", "\n", "2:", "\n", "<Conclusion>", "\n"]),
    ],
)
def test_only_heads_of_forks_and_joins_are_forced_where_white_space_is_free(name: str, forced: list[str]) -> None:
    dialect = dialect_of(name)
    tokenizer = WordTokenizer()
    ids, found = encode(parse(VECTORS[name]["text"], dialect), resolve(tokenizer, dialect))
    pieces = tokenizer.pieces(ids)
    assert [piece for piece, is_forced in zip(pieces, found.forced, strict=True) if is_forced] == forced


def test_positions_of_a_fork_and_a_join_are_those_of_the_engines() -> None:
    """The line end behind a goal, a path's head behind it, what stands behind a path, and the trunk behind the longest."""
    for name, behind, resumes in (("N1", ["\n"], ["<takeaway>", "\n"]), ("T1", [], ["\n", "</Parallel>"])):
        dialect = dialect_of(name)
        tokenizer = WordTokenizer()
        tokens = resolve(tokenizer, dialect)
        ids, found = encode(parse(VECTORS[name]["text"], dialect), tokens)
        goal = ids.index(tokens.ids[Role.GOAL_CLOSE])
        start = found.positions[goal]
        pieces = tokenizer.pieces(ids)
        assert (pieces[goal + 1], found.positions[goal + 1], found.branches[goal + 1]) == ("\n", start + 1, 0)
        ends = []
        for branch in (1, 2):
            own = [index for index, owner in enumerate(found.branches) if owner == branch]
            head = [dialect.path.open, "\n", f"{branch}:"]
            assert [pieces[index] for index in own[:3]] == head
            assert [found.positions[index] for index in own[:3]] == [start + 2, start + 3, start + 4]
            assert [pieces[index] for index in own[len(own) - len(behind) - 1 :]] == [dialect.path.close, *behind]
            ends.append(found.positions[own[-1]])
        after = [index for index in range(goal + 2, len(ids)) if not found.branches[index]][:2]
        assert [pieces[index] for index in after] == resumes
        assert [found.positions[index] for index in after] == [max(ends) + 1, max(ends) + 2]


# -- the machine ----------------------------------------------------------------------------------------------------------


def fed(dialect: Dialect, text: str, label: str = "") -> tuple[Machine, list[Any]]:
    """A branch that has written this text, and what came of its tokens."""
    tokens = resolve(TOKENIZERS[dialect.name], dialect)
    machine = Machine(tokens, label)
    events = [machine.feed(token) for token in (*machine.forced, *tokens.encode(text))]
    return machine, [event for event in events if event is not None]


def goal_of(name: str) -> str:
    text: str = VECTORS[name]["text"]
    close = dialect_of(name).goal.close
    return text[: text.index(close) + len(close)]


@pytest.mark.parametrize(("name", "numbers"), [("V10", ("1", "3")), ("N1", ("1", "2")), ("T8", ("1", "3"))])
def test_as_released_labels_are_those_that_are_written(name: str, numbers: tuple[str, ...]) -> None:
    machine, events = fed(dialect_of(name, "as-released"), goal_of(name))
    assert events == [Fork(("1", "2"))]
    assert machine.numbers == numbers
    children = [machine.child(index) for index in range(2)]
    heads = [machine.tokens.decode(child.forced) for child in children]
    assert heads == [machine.tokens.dialect.path_head(number) for number in numbers]
    assert fed(dialect_of(name), goal_of(name))[0].numbers == ("1", "2")  # otherwise they are counted


@pytest.mark.parametrize(("dialect", "numbers"), [(MULTIVERSE, ("1", "1")), (NPR, ("1", "1")), (THREADWEAVER, ("1",))])
def test_as_released_a_label_may_come_twice(dialect: Dialect, numbers: tuple[str, ...]) -> None:
    once = render(place_of(Block(("a", "b"), (("x",), ("y",)), ""), dialect), dialect)
    goal = once[: once.index(dialect.goal.close)].replace("2:", "1:") + dialect.goal.close
    machine, _ = fed(replace(dialect, malformed="as-released"), goal)
    assert machine.numbers == numbers


def place_of(found: Block, dialect: Dialect) -> Document:
    return convert(Document((found,)), MULTIVERSE, dialect)


def test_six_plans() -> None:
    text = VECTORS["N9"]["text"].removesuffix("\n")
    with pytest.raises(StructureError, match="found <plan> in a goal, expected </guideline>"):
        fed(NPR, text)
    machine, events = fed(replace(NPR, malformed="as-released"), text)
    assert events == [Stop("6 outlines end the generation: from 1 to 5 fork")]
    assert machine.complete
    with pytest.raises(StructureError, match="found text in a generation that has ended"):
        machine.feed(machine.tokens.encode("x")[0])
    machine, events = fed(replace(NPR, malformed="sequential"), text + "\n<step>\n1: x\n</step>\n<takeaway>\ny\n</takeaway>")
    assert (events, machine.state, machine.complete) == ([], State.BODY, True)
    # Another family goes on with as many as there are.
    many = "".join(f"<Outline>{number}: a</Outline>\n" for number in range(1, 52))
    goal = f"<think>\n<Parallel>\n<Outlines>\n{many}</Outlines>"
    machine, events = fed(replace(THREADWEAVER, malformed="as-released"), goal)
    assert len(events[0].labels) == 51
    with pytest.raises(StructureError, match="expected </Outlines>"):
        fed(THREADWEAVER, goal)


def test_a_goal_without_numbers() -> None:
    text = "<guideline>\n<plan>no number</plan>\n</guideline>"
    assert [type(event) for event in fed(replace(NPR, malformed="as-released"), text)[1]] == [Stop]
    woven = "<think>\n<Parallel>\n<Outlines>\n<Outline>no number</Outline>\n</Outlines>"
    machine, events = fed(replace(THREADWEAVER, malformed="as-released"), woven)
    assert (events, machine.state) == ([], State.LINE)  # another request in one line
    goal = "<Think>\n<Parallel>\n<Goal>\n<Outline>\nno number\n</Outline>\n</Goal>"
    with pytest.raises(StructureError, match="found </Goal>"):
        fed(replace(MULTIVERSE, malformed="as-released"), goal)


def test_a_block_in_a_path_of_a_dialect_that_does_not_nest() -> None:
    goal = "<guideline>\n<plan>1: inner.</plan>\n</guideline>"
    inner = f" outer\n{goal}\n<step>\n1: x\n</step>\n<takeaway>\ny\n</takeaway>\n</step>\n"
    for policy in ("refuse", "as-released"):
        with pytest.raises(StructureError, match="found <guideline> in thinking, expected text or </step>"):
            fed(replace(NPR, malformed=policy), inner, "1")  # type: ignore[arg-type]
    machine, _ = fed(replace(NPR, malformed="sequential"), inner, "1")
    assert machine.ended
    woven = " x\n<Parallel>\n<Outlines>\n<Outline>1: c</Outline>\n</Outlines>\n<Thread>\n1: z\n</Thread>"
    machine, _ = fed(replace(THREADWEAVER, malformed="as-released"), woven, "1")
    assert machine.ended  # the first closing tag ends the outer thread
    machine, _ = fed(replace(THREADWEAVER, malformed="sequential"), woven, "1")
    assert machine.state is State.LINE
    with pytest.raises(StructureError, match="found <Parallel> in thinking"):
        fed(THREADWEAVER, woven, "1")


def test_paths_without_a_goal_go_on_in_one_line() -> None:
    text = VECTORS["V9"]["text"]
    with pytest.raises(StructureError, match="found <Path> in the opening of a block, expected <Goal>"):
        fed(MULTIVERSE, text)
    for policy in ("as-released", "sequential"):
        machine, events = fed(replace(MULTIVERSE, malformed=policy), text)  # type: ignore[arg-type]
        assert (events, machine.state) == ([], State.TEXT)


def test_what_stands_behind_a_path() -> None:
    step, thread = fed(NPR, " x\n</step>", "1")[0], fed(THREADWEAVER, " x\n</Thread>", "1")[0]
    assert (step.ended, thread.ended) == (False, True)  # free: one token more; absent: none
    assert (step.forced, fed(MULTIVERSE, " x\n</Path>", "1")[0].forced) == ((), TOKENS["multiverse"].sep)
    white, word = step.tokens.encode(" ")[0], step.tokens.encode("x")[0]
    assert white in (allowed_tokens(step).only or ())
    assert word not in (allowed_tokens(step).only or ())
    with pytest.raises(StructureError, match="found text in the end of a path, expected white space"):
        step.feed(word)
    released = fed(replace(NPR, malformed="as-released"), " x\n</step>", "1")[0]
    released.feed(word)
    assert released.ended


def test_an_earlier_answer_that_breaks_the_rules_is_text_if_nothing_may_follow_it() -> None:
    for name, policy, kept in (
        ("V10", "as-released", True),
        ("V7", "as-released", False),  # no engine runs fewer paths than outlines
        ("N9", "as-released", False),
        ("T8", "as-released", True),
        ("T10", "as-released", False),
        ("V9", "sequential", True),
        ("N8", "sequential", True),
    ):
        tokens = resolve(TOKENIZERS[dialect_of(name).name], dialect_of(name, policy))  # type: ignore[arg-type]
        plain = PlainEncoder(TOKENIZERS[tokens.dialect.name], {tokens.tag(role): token for role, token in tokens.ids.items()})
        found = read_answer(VECTORS[name]["text"], None, tokens, plain, {})
        assert (found is not None) == kept, name
        assert found is None or tokens.decode(found.token_ids) == VECTORS[name]["text"]


# -- the guard ------------------------------------------------------------------------------------------------------------


def tags_and_text(tokens: TokenDialect, machine: Machine) -> set[str]:
    """What may come next: tags, ``x`` for a letter, and white space."""
    found = allowed_tokens(machine)
    candidates = [*tokens.ids.values(), *tokens.encode("x"), *tokens.encode("1"), *tokens.encode(":"), *tokens.encode("\n")]
    allowed = [token for token in candidates if (token not in found.banned if found.only is None else token in found.only)]
    return {tokens.decode([token]) for token in allowed}


def test_the_guard_leaves_white_space_free() -> None:
    tokens = TOKENS["npr"]
    machine = Machine(tokens)
    assert tags_and_text(tokens, machine) == {"x", "1", ":", "\n", "<guideline>"}
    for piece, then in (
        ("<guideline>", {"\n", "<plan>"}),
        ("<plan>", {"\n", "1"}),  # the label, behind any white space
        ("\n1", {":"}),
        (":", {"x", "1", ":", "\n", "</plan>"}),
        ("a</plan>", {"\n", "<plan>", "</guideline>"}),
        ("<plan>2:</plan>\n\n<plan>3: </plan><plan>4: </plan><plan>5: </plan>", {"\n", "</guideline>"}),  # at most five
    ):
        for token in tokens.encode(piece):
            machine.feed(token)
        assert tags_and_text(tokens, machine) == then, piece
    assert not machine.forced
    machine.feed(tokens.ids[Role.GOAL_CLOSE])
    assert tokens.decode(machine.forced) == "\n"
    step = Machine(tokens, "1")
    for token in step.forced:
        step.feed(token)
    assert tags_and_text(tokens, step) == {"x", "1", ":", "\n", "</step>"}  # it does not nest


def test_the_model_closes_the_block_behind_a_forced_line_end() -> None:
    tokens = TOKENS["threadweaver"]
    machine, _ = fed(THREADWEAVER, goal_of("T1") + "\n")
    machine.resume()
    assert tokens.decode(machine.forced) == "\n"
    machine.feed(machine.forced[0])
    assert not machine.forced
    assert tags_and_text(tokens, machine) == {"\n", "</Parallel>"}
    machine.feed(tokens.ids[Role.BLOCK_CLOSE])
    assert machine.state is State.BODY


# -- conversions ----------------------------------------------------------------------------------------------------------

ALL = (MULTIVERSE, MULTIVERSE_ANSWER, MULTIVERSE_COMPACT, NPR, THREADWEAVER, THREADWEAVER_CONCLUSION)
EXPRESSED = Document(("Two.", Block(("a", "b"), (("x",), ("y",)), ""), "So.", Block(("c",), (("z",),), "")), "Answer: 4")


@pytest.mark.parametrize("source", ALL, ids=lambda dialect: dialect.name)
@pytest.mark.parametrize("target", ALL, ids=lambda dialect: dialect.name)
def test_a_conversion_loses_nothing_that_both_can_express(source: Dialect, target: Dialect) -> None:
    document = convert(EXPRESSED, MULTIVERSE, source)
    assert parse(render(document, source), source) == document
    there = convert(document, source, target)
    assert parse(render(there, target), target) == there
    assert convert(there, target, source) == document
    assert convert(there, target, MULTIVERSE) == EXPRESSED


NESTED = Document((Block(("a",), ((Block(("b",), (("x",),), "y"),),), "z"),))
WIDE = Document((Block(tuple("abcdef"), (("x",),) * 6, "z"),))


@pytest.mark.parametrize(
    ("document", "target", "problem"),
    [
        (NESTED, NPR, "dialect 'npr' does not nest: a block stands in a path"),
        (NESTED, THREADWEAVER_CONCLUSION, "dialect 'threadweaver-conclusion' does not nest"),
        (WIDE, NPR, "dialect 'npr' has at most 5 paths in a block, and this one has 6"),
        (WIDE, THREADWEAVER, "dialect 'threadweaver' has no conclusion tag, but a block has a conclusion"),
        (Document(("a <plan> b",)), NPR, "text may not hold the tag <plan>"),
    ],
)
def test_what_a_dialect_cannot_express_is_refused_by_name(document: Document, target: Dialect, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        convert(document, MULTIVERSE, target)
    assert convert(document, MULTIVERSE, MULTIVERSE) == document
