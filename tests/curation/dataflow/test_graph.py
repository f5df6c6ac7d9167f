"""The graph of a solution is never less than the truth: generated programs, whose numbers collide by accident."""

from __future__ import annotations

from fractions import Fraction

from hypothesis import assume, event, given, settings
from hypothesis import strategies as st

from multiverse.curation.config import DataflowConfig
from multiverse.curation.dataflow.blocks import Fork, Series, members
from multiverse.curation.dataflow.curate import Ordered
from multiverse.curation.dataflow.graph import build, same
from multiverse.curation.dataflow.solution import Solution, solution_of, statements
from multiverse.curation.errors import ValidationError

THINGS = ["alder", "birch", "cedar", "fir"]
STEPS = ["north", "south", "east", "west", "upper"]


@st.composite
def programs(draw: st.DrawFn) -> tuple[Solution, list[set[int]]]:
    """A solution, and which step truly needs which: sums, differences and products of small numbers of any origin."""
    given_numbers = draw(st.lists(st.integers(2, 12), min_size=2, max_size=4))
    question = "; ".join(f"{number} {THINGS[index]}s" for index, number in enumerate(given_numbers))
    values: list[int] = []
    needs: list[set[int]] = []
    lines: list[str] = []
    for step in range(draw(st.integers(1, 5))):
        operands, needed = [], set()
        for _ in range(2):
            source = draw(st.integers(-len(given_numbers), step - 1))
            operands.append(values[source] if source >= 0 else given_numbers[source])
            needed |= {source} if source >= 0 else set()
        sign = draw(st.sampled_from("+*-"))
        a, b = sorted(operands, reverse=True)
        value = {"+": a + b, "*": a * b, "-": a - b}[sign]
        assume(value < 10**6)
        values.append(value)
        needs.append(needed)
        lines.append(f"The {STEPS[step]} one has {a} {sign} {b} = <<{a}{sign}{b}={value}>>{value}.")
    unused = [step for step in range(len(values)) if all(step not in needed for needed in needs)]
    total = sum(values[step] for step in unused)
    terms = "+".join(str(values[step]) for step in unused)
    lines.append(f"All in all it has {terms} = <<{terms}={total}>>{total}.")
    needs.append(set(unused))
    record = {"question": f"There are {question}.", "answer": "\n".join([*lines, f"#### {total}"])}
    solution = solution_of(record, "programs.jsonl", 1)
    assert isinstance(solution, Solution)
    return solution, needs


def check_truth(series: Series, needs: list[set[int]], seen: frozenset[int] = frozenset()) -> frozenset[int]:
    """Every step stands where its branch has all that it truly needs."""
    for part in series:
        if isinstance(part, Fork):
            seen = seen.union(*(check_truth(path, needs, seen) for path in part.paths))
        else:
            assert needs[part] <= seen, f"step {part} needs {needs[part]}, and sees {sorted(seen)}"
            seen |= {part}
    return seen


def ordered(solution: Solution) -> Ordered | ValidationError:
    try:
        return Ordered(solution, DataflowConfig())
    except ValidationError as error:
        return error


@settings(max_examples=300, deadline=None)
@given(programs())
def test_no_path_needs_a_sibling(program: tuple[Solution, list[set[int]]]) -> None:
    solution, needs = program
    found = ordered(solution)
    if isinstance(found, ValidationError):
        event("rejected")
        assert found.reason in ("ambiguous number", "unused result")
        return
    event("forked" if found.forked else "in a line")
    assert sorted(members(found.series)) == list(range(len(needs)))
    check_truth(found.series, needs)


def test_distinct_numbers_give_the_true_graph() -> None:
    record = {
        "question": "There are 101 alders, 103 birches, 107 cedars and 109 firs.",
        "answer": "North has 101+103 = <<101+103=204>>204.\nSouth has 107+109 = <<107+109=216>>216.\n"
        "East has 204-101 = <<204-101=103>>103.\nAll have 216+103 = <<216+103=319>>319.\n#### 319",
    }
    solution = solution_of(record, "x", 1)
    assert isinstance(solution, Solution)
    graph = build(solution.question, statements(solution))
    assert graph.plausible_needs == {0: frozenset(), 1: frozenset(), 2: frozenset({0}), 3: frozenset({1, 2})}


def test_forms_of_a_result() -> None:
    def fits(value: str, result: str, unit: str = "") -> bool:
        return same(Fraction(value), Fraction(result), unit)

    assert fits("2/5", "40", "%")
    assert fits("60", "40", "%")
    assert fits("40", "2/5")
    assert fits("3/5", "2/5")
    assert fits("8", "15/2")
    assert fits("1/2", "50", "cent")
    assert not fits("2/5", "40", "apple")
    assert not fits("9", "15/2")
