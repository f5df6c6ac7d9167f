"""A model with a text join on engines that people already run, against the same model on this project's engine.

Greedy, on held-out puzzles of every family. An engine passes if its accuracy is within one point of ours in every family, and
if it forks as often and with the same parallelism. Each engine runs as a server on the loopback and is stopped afterwards.

    python -m benchmarks.stock_engines              # after make mini-text bench-envs: 200 questions of each family
    python -m benchmarks.stock_engines --only llama --limit 20
    python -m benchmarks.stock_engines --only --base-url http://10.0.0.7:8000/v1
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.machine import describe, load_notes
from benchmarks.options import make_parser
from benchmarks.others.servers import ENGINES, missing, serve
from benchmarks.others.worker import WorkerError
from benchmarks.puzzles import Answer, ask, figures, questions
from multiverse import LLM, StockLLM
from multiverse.tasks import CALCULATIONS, Problem

MODEL = Path("runs/mini-text/run/model")
SEED = 2028
POINT = 0.01
"""Most by which accuracy may differ."""
ALIKE = 0.005
"""Most by which forks (as a share) and mean parallelism may differ: a near-tie of two logits may fall either way."""


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--model", type=Path, default=MODEL, help="a folder of a model with a text join (default: %(default)s)")
    parser.add_argument("--only", nargs="*", choices=ENGINES, default=list(ENGINES), help="engines to start (default: all)")
    parser.add_argument("--base-url", nargs="*", default=[], metavar="URL", help="servers that run already, with this model")
    parser.add_argument("--limit", type=int, default=200, metavar="N", help="questions of each family (default: %(default)s)")
    parser.add_argument("--families", nargs="+", choices=CALCULATIONS, default=list(CALCULATIONS))
    options = parser.parse_args()
    console = Console(stderr=True)
    sets = questions(options.families, options.limit, SEED)
    record: dict[str, Any] = {"machine": describe(), "notes": load_notes(), "seed": SEED, "engines": {}, "skipped": []}
    with LLM(options.model) as llm:
        ours = _measure(llm, sets, "multiverse", console)
    record["engines"]["multiverse"] = _record(sets, ours, ours)
    for engine in options.only:
        try:
            if (reason := missing(engine)) is not None:
                raise WorkerError(reason)
            with serve(engine, options.model) as server, StockLLM(server.url, tokenizer=options.model) as stock:
                theirs = _measure(stock, sets, server.version, console)
            record["engines"][server.version] = _record(sets, theirs, ours)
        except WorkerError as error:
            record["skipped"].append(str(error))
    for url in options.base_url:
        with StockLLM(url, tokenizer=options.model) as stock:
            record["engines"][f"{stock.server} at {url}"] = _record(sets, _measure(stock, sets, url, console), ours)
    _print(record)
    if options.json is not None:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(record, indent=1) + "\n")
    problems = [problem for own in record["engines"].values() for problem in own["problems"]]
    if problems or len(record["engines"]) == 1:
        sys.exit("\n".join([*problems, *record["skipped"]]))


Measured = dict[str, tuple[list[Answer], float]]


def _measure(llm: LLM, sets: dict[str, list[Problem]], name: str, console: Console) -> Measured:
    return {family: ask(llm, own) for family, own in track(sets.items(), description=name, console=console, transient=True)}


def _record(sets: dict[str, list[Problem]], found: Measured, ours: Measured) -> dict[str, Any]:
    """Figures by family, how many answers are the same text as ours, and what does not pass."""
    families: dict[str, Any] = {}
    problems: list[str] = []
    for family in sets:
        own, reference = figures(*found[family]), figures(*ours[family])
        pairs = zip(found[family][0], ours[family][0], strict=True)
        own["same_text"] = sum(mine.text == other.text for mine, other in pairs)
        families[family] = own
        if abs(own["accuracy"] - reference["accuracy"]) > POINT + 1e-9:
            problems.append(f"{family}: accuracy {own['accuracy']:.1%}, ours {reference['accuracy']:.1%}")
        for what in ("forks", "parallelism"):
            if abs(own[what] - reference[what]) > ALIKE * max(reference[what], 1):
                problems.append(f"{family}: {what} {own[what]:g}, ours {reference[what]:g}")
    return {"families": families, "problems": problems}


def _print(record: dict[str, Any]) -> None:
    console = Console()
    columns = ("accuracy", "same text", "forks", "parallelism", "tokens", "read again", "malformed", "seconds")
    for engine, own in record["engines"].items():
        table = Table(title=engine, title_justify="left")
        table.add_column("family")
        for column in columns:
            table.add_column(column, justify="right")
        for family, row in own["families"].items():
            cells = (row["same_text"], row["forks"], f"{row['parallelism']:.3f}", row["tokens"], row["reread"])
            table.add_row(family, f"{row['accuracy']:.1%}", *map(str, cells), str(row["malformed"]), f"{row['seconds']:.1f}")
        console.print(table)
        for problem in own["problems"]:
            console.print(f"[red]differs[/red] {problem}")
    for line in (*record["skipped"], *record["notes"], record["machine"]):
        console.print(line, highlight=False)


if __name__ == "__main__":
    main()
