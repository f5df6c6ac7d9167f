"""Measure from where on a question is unlike those that the mini was trained on, for the threshold in its ``about.json``.

The mean log-probability of held-out task questions, by family, beside that of ordinary questions.

    python -m recipes.mini.familiarity
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from random import Random

from rich.console import Console
from rich.progress import track
from rich.table import Table

from multiverse import LLM
from multiverse.models.about import asked
from multiverse.tasks import CALCULATIONS, FAMILIES, Wording, generate

ROOT = Path(__file__).parents[2]


def logprobs(llm: LLM, questions: list[str], name: str) -> list[float]:
    """Mean log-probability of each question's own tokens, in order of size."""
    found = []
    for question in track(questions, name, console=Console(stderr=True), transient=True):
        own = asked(llm.tokenizer, question)
        found.append(own.mean(llm.score([own.token_ids])[0].logprobs))
    return sorted(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=ROOT / "src/multiverse/models/mini")
    parser.add_argument("--ordinary", type=Path, default=ROOT / "recipes/smol/questions/single.jsonl")
    parser.add_argument("--limit", type=int, default=200, help="questions of each kind")
    options = parser.parse_args()
    llm = LLM(options.model)
    lines = options.ordinary.read_text().splitlines()
    sets = {family: [one.question for one in generate(family, options.limit, seed=99)] for family in CALCULATIONS}
    for family in FAMILIES:
        drawn = generate(family, options.limit, seed=99, wording=Wording("natural"))
        sets[f"{family}, natural wording"] = [one.question for one in drawn]
    sets["ordinary"] = [json.loads(line)["question"] for line in Random(1).sample(lines, options.limit)]
    least = None if llm.about is None else llm.about.least_logprob
    table = Table("questions", "least", "median", "most", f"below {least}")
    for name, questions in sets.items():
        values = logprobs(llm, questions, name)
        below = "" if least is None else f"{sum(value < least for value in values)} of {len(values)}"
        table.add_row(name, f"{values[0]:.2f}", f"{values[len(values) // 2]:.2f}", f"{values[-1]:.2f}", below)
    Console().print(table)


if __name__ == "__main__":
    main()
