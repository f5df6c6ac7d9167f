"""Measure the mini model and write its card.

    python -m recipes.mini.card                          # measures src/multiverse/models/mini, about ten minutes on two cores

The card's figures come from the same function as `multiverse eval`, on problems of the test split, which no training step
can have drawn. They are stored beside the card as `figures.json`.
"""

from __future__ import annotations

import argparse
import json
from itertools import product
from pathlib import Path
from typing import Any, get_args

from rich.console import Console
from rich.progress import track
from safetensors.torch import load_file

from benchmarks.machine import describe
from multiverse import LLM
from multiverse.prompting import Mode
from multiverse.tasks import CALCULATIONS
from recipes.measure import measure

ROOT = Path(__file__).parents[2]
MODES: tuple[Mode, ...] = get_args(Mode)
TOKENS_A_STEP = 5 * 1024
SEED = 2026
WIDE = (4, 5, 6)

CARD = Path(__file__).with_name("card.md").read_text()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=ROOT / "src/multiverse/models/mini")
    parser.add_argument("--run", type=Path, default=ROOT / "runs/mini/run", help="the run's folder, for its log")
    parser.add_argument("--n", type=int, default=200)
    options = parser.parse_args()
    llm = LLM(options.model)
    figures: dict[str, Any] = {"machine": describe(), "seed": SEED, "n": options.n, "tasks": [], "wide": []}
    console = Console(stderr=True)
    for family, mode in track([*product(CALCULATIONS, MODES)], description="measuring families", console=console):
        figures["tasks"] += measure(llm, (family,), options.n, SEED, mode)
    for width in track(WIDE, description="measuring widths", console=console):
        rows = measure(llm, ("worksheet",), options.n // 2, SEED, "parallel", width=width)
        figures["wide"] += [row | {"width": width} for row in rows]
    steps = [record for record in map(json.loads, (options.run / "log.jsonl").read_text().splitlines()) if "loss" in record]
    figures["training"] = {"steps": steps[-1]["step"], "minutes": round(steps[-1]["seconds"] / 60), "loss": steps[-1]["loss"]}
    # From the file: what the engine has repacked is no parameter any more.
    parameters = sum(tensor.numel() for tensor in load_file(options.model / "model.safetensors").values())
    (options.model / "figures.json").write_text(json.dumps(figures, indent=1) + "\n")
    (options.model / "README.md").write_text(card(figures, parameters))
    print((options.model / "README.md").read_text())


def card(figures: dict[str, Any], parameters: int) -> str:
    """The card's text."""
    training = figures["training"]
    everything = [*figures["tasks"], *figures["wide"]]
    generations, malformed = sum(f["n"] for f in everything), sum(f["malformed"] for f in everything)
    return CARD.format(
        parameters=parameters,
        steps=f"{training['steps']:,}",
        tokens=f"{training['steps'] * TOKENS_A_STEP / 1e6:.0f}M",
        wall=f"The shipped run took {training['minutes']} minutes on one core.",
        n=figures["n"],
        seed=figures["seed"],
        table=_table(figures["tasks"], "family", "mode"),
        wide=_table(figures["wide"], "width"),
        wide_n=figures["wide"][0]["n"],
        malformed=f"Malformed generations: {malformed} of {generations}.",
        machine=figures["machine"],
    )


def _table(rows: list[dict[str, Any]], *keys: str) -> str:
    head = [*keys, "accuracy", "forked", "parallelism", "critical path", "tokens", "malformed"]
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for row in rows:
        cells = [
            *(str(row[key]) for key in keys),
            f"{100 * row['accuracy']:.1f}% ± {100 * row['stderr']:.1f}",
            f"{100 * row['forked']:.0f}%",
            f"{row['parallelism']:.2f}",
            f"{row['critical_path_tokens']:.0f}",
            f"{row['total_tokens']:.0f}",
            str(row["malformed"]),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
