"""Write the documents of the recipe that calculate: problems of our own families, and solutions of GSM8K.

    python -m recipes.smol.calculations runs/smol/dataflow/data runs/smol/calculations.jsonl

The problems are in natural wording, from the two thirds of names, phrasings and numbers that may be trained on. What is
thinking in them is the answer here, since this model does not think first. The solutions are drawn from those that
`multiverse curate dataflow --dialect multiverse-answer` has written.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from random import Random

from multiverse.data import Message, Row, read, write_jsonl
from multiverse.structure import MULTIVERSE_ANSWER, Document
from multiverse.tasks import Wording, generate
from multiverse.tasks.problem import IN_A_LINE, IN_PARALLEL

PROBLEMS = {
    **{"worksheet": 28, "cases": 26, "nested": 22, "chain": 22},
    **{"lookup": 18, "listing": 18, "sorting": 16, "countdown": 10},
}
SOLUTIONS = 330
SEED = 1000


def as_answer(document: Document) -> Document:
    """A document whose thinking is written as the answer, without the sentence that begins it."""
    *body, last = (*(item for item in document.thinking or () if item not in (IN_PARALLEL, IN_A_LINE)), *document.answer)
    if body and isinstance(body[-1], str):
        last = f"{body.pop()}\n{last}"
    first = body[0] if body else last
    if isinstance(first, str):  # in a line, the sentence stands before the first step
        first = first.removeprefix(IN_A_LINE).lstrip("\n")
        body, last = ([first, *body[1:]], last) if body else (body, first)
    return Document(None, (*body, last))


def problems() -> list[Row]:
    """Problems of every family, none twice."""
    rows = []
    for family, count in PROBLEMS.items():
        drawn = generate(family, 3 * count, seed=SEED, split="train", wording=Wording("natural"))
        distinct = list({problem.question: problem for problem in drawn}.values())[:count]
        assert len(distinct) == count, f"{family} has only {len(distinct)} different problems among {3 * count}"
        rows += [
            Row(
                (Message("user", problem.question),),
                as_answer(problem.structured),
                family,
                number,
                as_answer(problem.sequential),
            )
            for number, problem in enumerate(distinct, 1)
        ]
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("solutions", help="data set of solved problems in dialect multiverse-answer")
    parser.add_argument("out", type=Path, help="JSON lines file to write")
    options = parser.parse_args()
    solved = read(options.solutions, MULTIVERSE_ANSWER, split="train").rows
    rows = problems() + Random(SEED).sample(solved, min(SOLUTIONS, len(solved)))
    Random(SEED).shuffle(rows)
    write_jsonl(rows, options.out, MULTIVERSE_ANSWER)
    print(f"{options.out}: {len(rows)} documents")


if __name__ == "__main__":
    main()
