"""From a model that thinks in a line to one that forks, on 1,000 documents; both measured on held-out problems.

    python -m recipes.from_sequential.run            # less than two hours on two cores; started again, it resumes

First a model of the mini's size is trained on sequential solutions only, so that it knows the tasks and not one tag of a
block. Then it is fine-tuned on 1,000 problems, by a mixture that leads from sequential to parallel solutions. What each can do
is measured in both modes and written beside the runs and, as Markdown, to standard output.
"""

from __future__ import annotations

import argparse
import json
from itertools import product
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track
from transformers.utils.logging import disable_progress_bar

from benchmarks.machine import describe
from multiverse import LLM
from multiverse.prompting import Mode
from multiverse.tasks import CALCULATIONS
from multiverse.training.config import load
from multiverse.training.run import train
from recipes.measure import measure as measure_families
from recipes.mini import data, start

HERE = Path(__file__).parent
RUNS = Path("runs/from-sequential")
PROBLEMS, EXAMPLES, SEED = 60_000, 1_000, 5
MODES: tuple[Mode, ...] = ("parallel", "sequential")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=100, help="held-out problems of each family")
    parser.add_argument("--json", type=Path, default=RUNS / "figures.json")
    options = parser.parse_args()
    disable_progress_bar()
    console = Console(stderr=True)
    if not (RUNS / "start" / "config.json").exists():
        start.write(RUNS / "start", seed=SEED)
    if not (RUNS / "data.jsonl").exists():
        data.write(RUNS / "data.jsonl", SEED, PROBLEMS)
    if not (RUNS / "thousand.jsonl").exists():
        data.write(RUNS / "thousand.jsonl", SEED + 1, EXAMPLES, narrow=0)
    before = train(load(HERE / "sequential.yaml"), console=console)
    after = train(load(HERE / "finetune.yaml"), console=console)
    figures = {"machine": describe(), "n": options.n, "before": measure(before, options.n), "after": measure(after, options.n)}
    options.json.write_text(json.dumps(figures, indent=1) + "\n")
    print(table(figures))


def measure(model: Path, n: int) -> list[dict[str, Any]]:
    """A summary for each family and mode."""
    llm = LLM(model)
    return [
        row
        for family, mode in track([*product(CALCULATIONS, MODES)], "measuring", console=Console(stderr=True), transient=True)
        for row in measure_families(llm, (family,), n, SEED, mode, max_tokens=1024)
    ]


def table(figures: dict[str, Any]) -> str:
    """Markdown: a line for each family and mode."""
    lines = [
        "| family | prompt | accuracy before | after | forked before | after | parallelism after | malformed after |",
        f"|{'---|' * 8}",
    ]
    for old, new in zip(figures["before"], figures["after"], strict=True):
        cells = [
            old["family"],
            old["mode"],
            f"{old['accuracy']:.1%}",
            f"{new['accuracy']:.1%}",
            f"{old['forked']:.0%}",
            f"{new['forked']:.0%}",
            f"{new['parallelism']:.2f}",
            f"{new['malformed']}",
        ]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join([*lines, "", f"n={figures['n']} each, greedy. {figures['machine']}"])


if __name__ == "__main__":
    main()
