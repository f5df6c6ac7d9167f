"""Does curated data teach as much as data written directly? A proof by training, too long for the tests.

    python -m tests.curation.compare runs/from-sequential/sequential/model --out runs/curated

Problems with a known structure are told in a line, curated with the scripted annotator, and written once as curated and once
as they were planted. If the two files are the same to the byte, so is whatever is trained on them. Otherwise the same model is
fine-tuned on either, by the same recipe, and both are measured on the same held-out problems.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Iterable
from pathlib import Path

from rich.console import Console

from multiverse.curation.config import CurationConfig
from multiverse.curation.curator import curate
from multiverse.curation.types import Completion, Curated, Request
from multiverse.structure import Document, render, sequential_baseline
from multiverse.training.config import load
from multiverse.training.run import train
from recipes.from_sequential.run import HERE, measure, table
from recipes.mini.data import drawn
from tests.curation.annotator import Planted, answer, plant_problems


def planted(count: int, seed: int) -> list[Planted]:
    """Problems that fork, told in a line."""
    problems = (problem for problem in drawn(seed, 2 * count, narrow=0) if problem.structured.branches)
    return [plant_problems(f"planted:{number}", [problem]) for number, problem in zip(range(count), problems, strict=False)]


async def curated(row: Planted) -> Document | None:
    """The document that curation makes of a row."""

    async def ask(request: Request) -> Completion:
        return Completion(answer(request.stage, request.messages, row))

    outcome = await curate(row.trace, ask, CurationConfig())
    return outcome.document if isinstance(outcome, Curated) else None


def write(path: Path, rows: Iterable[tuple[Planted, Document]]) -> None:
    """Documents as training reads them; the sequential solution is the trace's own in either case."""
    with path.open("w", encoding="utf-8") as file:
        for row, document in rows:
            messages = [{"role": "user", "content": row.trace.question}, {"role": "assistant", "content": render(document)}]
            sequential = render(sequential_baseline(row.document, conclusions=True))
            file.write(json.dumps({"messages": messages, "sequential": sequential}, ensure_ascii=False) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--out", type=Path, default=Path("runs/curated"))
    parser.add_argument("--documents", type=int, default=1000)
    parser.add_argument("--n", type=int, default=100, help="held-out problems of each family")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    rows = planted(options.documents, seed=8)
    documents = [asyncio.run(curated(row)) for row in rows]
    kept = [(row, document) for row, document in zip(rows, documents, strict=True) if document is not None]
    same = sum(document == row.document for row, document in kept)
    print(f"{len(kept)} of {len(rows)} curated, {same} of them exactly as planted")
    write(options.out / "curated.jsonl", kept)
    write(options.out / "planted.jsonl", ((row, row.document) for row, _ in kept))
    if (options.out / "curated.jsonl").read_bytes() == (options.out / "planted.jsonl").read_bytes():
        print("the two data sets are the same, byte for byte: they train the same model")
        return
    figures = {"machine": "", "n": options.n}
    for name, column in (("planted", "before"), ("curated", "after")):
        settings = {
            "model": str(options.model),
            "data": [str(options.out / f"{name}.jsonl")],
            "out": str(options.out / name),
            "mixture": [0.5, 1.0, 1.0, 1.0],
            "optimizer.lr": 1e-3,
        }
        figures[column] = measure(train(load(HERE / "finetune.yaml", settings), console=Console(stderr=True)), options.n)
    (options.out / "figures.json").write_text(json.dumps(figures, indent=1) + "\n")
    print("before: planted, after: curated\n")
    print(table(figures))


if __name__ == "__main__":
    main()
