"""Joins head to head: of keys and values, and of text, on this project's engine and on engines that people already run.

One run on one machine, the same questions for all: accuracy, wall-clock time, tokens that are read again; then the time from
the end of a block's last path to the first token of its conclusion, against the length of the paths. That is constant where
keys and values are joined, and grows with the paths' tokens where their text is read again.

Models are multiverse-mini (keys and values) and the same model fine-tuned for a text join (`make mini-text`). For the second
part paths are kept from closing, so that each is exactly as long as `max_branch_tokens` says; what they say does not matter. No
question is asked twice, so that no prefix cache holds the text of an earlier measurement.

    python -m benchmarks.joins --json runs/joins.json        # after make mini-text bench-envs
    python -m benchmarks.joins --quick
    python -m benchmarks.joins --load runs/joins.json
"""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple, cast

import numpy as np
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks.machine import describe, load_notes
from benchmarks.options import add_settings, make_parser, settings_from
from benchmarks.others.servers import ENGINES, missing, serve
from benchmarks.others.worker import WorkerError
from benchmarks.puzzles import ask, figures, questions
from multiverse import LLM, SamplingParams, StockLLM
from multiverse.engine import JoinEvent, TokenEvent
from multiverse.engine.model import embedded_model
from multiverse.options import Options, option
from multiverse.prompting import Mode
from multiverse.structure import Role
from multiverse.tasks import Problem, generate

MODEL = Path("runs/mini-text/run/model")
SEED = 2029
FAMILIES = ("worksheet", "cases", "countdown", "nested")
WIDTH = 4
POSITIONS = 16_384
"""Positions that the models may use here: four texts of 2,048 tokens. Both were trained on far shorter ones."""


@dataclass(frozen=True)
class Settings(Options):
    """What is measured."""

    questions: int = option(50, "Questions of each family.", ge=1, metavar="N")
    alone: int = option(5, "Questions of each family that are also asked one at a time.", ge=0, metavar="N")
    lengths: tuple[int, ...] = option((32, 128, 512, 1024, 2048), "Tokens of each path whose join is timed.", ge=8, metavar="N")
    repeats: int = option(3, "Joins of every length.", ge=1, metavar="N")


QUICK = Settings(questions=2, alone=1, lengths=(16, 32), repeats=1)


class Way(NamedTuple):
    """One way of answering.

    Attributes:
        engine: name and version.
        join: what a parent gets of its paths.
    """

    engine: str
    join: str


@dataclass
class Measured:
    """Figures of one way.

    Attributes:
        families: by mode and family, as `puzzles.figures` gives them, with the mean seconds of questions that were asked alone.
        joins: seconds from the last path's end to the conclusion's first token, by tokens of each path.
    """

    engine: str
    join: str
    families: dict[str, dict[str, Any]] = field(default_factory=dict)
    joins: dict[int, list[float]] = field(default_factory=dict)

    def slope(self) -> tuple[float, float]:
        """Milliseconds per 1,000 tokens of all paths together, and milliseconds without any; least squares over the medians."""
        tokens = np.array([WIDTH * length for length in self.joins])
        times = np.array([median(own) for own in self.joins.values()])
        grows, constant = np.polyfit(tokens, times, 1)
        return float(grows) * 1e6, float(constant) * 1e3


def main() -> None:
    parser = make_parser(__doc__, load=True, quick=True)
    parser.add_argument("--model", type=Path, default=MODEL, help="the model with a text join (default: %(default)s)")
    parser.add_argument(
        "--base-url", nargs="*", default=[], metavar="URL", help="also servers that run already, with that model"
    )
    add_settings(parser, Settings)
    options = parser.parse_args()
    if options.load is not None:
        show(json.loads(options.load.read_text()))
        return
    settings = settings_from(parser, options, QUICK if options.quick else Settings())
    record = measure(options.model, settings, options.base_url)
    show(record)
    if options.json is not None:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(record, indent=1) + "\n")


def measure(model: Path, settings: Settings, urls: Sequence[str] = ()) -> dict[str, Any]:
    """Measure every engine that is installed, one after the other, so that none computes while another is timed."""
    record: dict[str, Any] = {"machine": describe(), "notes": load_notes(), "settings": asdict(settings), "ways": []}
    sets = questions(FAMILIES, settings.questions, SEED)
    with tempfile.TemporaryDirectory() as scratch, Progress(console=Console(stderr=True), transient=True) as bars:
        kv, text = _longer(embedded_model(), Path(scratch) / "mini"), _longer(model, Path(scratch) / "mini-text")
        for name in ("kv", "text", *ENGINES, *urls):
            try:
                with _opened(name, kv, text) as (way, llm):
                    record["ways"].append(asdict(_measure(way, llm, sets, settings, bars)))
            except WorkerError as error:
                record["notes"].append(str(error))
    return record


@contextmanager
def _opened(name: str, kv: Path, text: Path) -> Iterator[tuple[Way, LLM]]:
    with ExitStack() as stack:
        if name in ("kv", "text"):
            folder = kv if name == "kv" else text
            yield Way("multiverse", name), stack.enter_context(LLM(folder))
            return
        if "://" in name:
            stock = stack.enter_context(StockLLM(name, tokenizer=text))
            yield Way(f"{stock.server} at {name}", "text"), stock
            return
        engine = next(own for own in ENGINES if own == name)
        if (reason := missing(engine)) is not None:
            raise WorkerError(reason)
        server = stack.enter_context(serve(engine, text, positions=POSITIONS))
        yield Way(server.version, "text"), stack.enter_context(StockLLM(server.url, tokenizer=text))


def _longer(model: Path, folder: Path) -> Path:
    """A copy of a model that may use `POSITIONS` positions."""
    shutil.copytree(model, folder)
    config = json.loads((folder / "config.json").read_text())
    config["max_position_embeddings"] = POSITIONS
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def _measure(way: Way, llm: LLM, sets: dict[str, list[Problem]], settings: Settings, bars: Progress) -> Measured:
    found = Measured(way.engine, way.join)
    modes: tuple[Mode, ...] = ("parallel", "sequential")
    each = settings.questions + settings.alone
    total = len(modes) * len(sets) * each + settings.repeats * len(settings.lengths)
    bar = bars.add_task(f"{way.engine}, {way.join} join", total=total)

    def advance() -> None:
        bars.advance(bar)

    ask(llm, sets["cases"][:1])  # warms up
    for mode in modes:
        found.families[mode] = {}
        for family, problems in sets.items():
            row = figures(*ask(llm, problems, mode, advance))
            alone = generate(family, settings.questions + settings.alone, seed=SEED)[settings.questions :]
            seconds = [ask(llm, [problem], mode, advance)[1] for problem in alone]
            found.families[mode][family] = {**row, "alone": round(sum(seconds) / len(seconds), 4) if seconds else None}
    fresh = iter(generate("worksheet", settings.repeats * len(settings.lengths), seed=SEED + 1, width=WIDTH))
    found.joins = {length: [] for length in settings.lengths}
    for _ in range(settings.repeats):
        for length in settings.lengths:
            found.joins[length].append(join_seconds(llm, next(fresh), length))
            advance()
    bars.remove_task(bar)
    return found


def join_seconds(llm: LLM, problem: Problem, length: int) -> float:
    """Seconds from the last token of the last path to the first token of the conclusion, with paths of `length` tokens.

    Both are tokens that were sampled: what is forced between them costs no time of its own. The engine of this process closes
    paths and samples the conclusion in one step, and gives its events after it, so their end has no time of its own either.
    """
    tokens = llm.tokens
    assert tokens is not None
    # Whatever would end a path, and is not needed to open one.
    ends = (Role.PATH_CLOSE, Role.CONCLUSION_OPEN, Role.CONCLUSION_CLOSE, Role.BLOCK_CLOSE, Role.THINK_CLOSE)
    banned = [*(tokens.ids[role] for role in ends if role in tokens.ids), *llm.stop_ids]
    params = SamplingParams(
        temperature=0,
        max_tokens=2 * WIDTH * length + 2048,
        max_branch_tokens=length,
        max_depth=1,
        logit_bias=dict.fromkeys(banned, -100.0),
    )
    ended = 0.0
    joined = False
    for event in llm.stream([{"role": "user", "content": problem.question}], params):
        if isinstance(event, JoinEvent):
            joined = True
        elif isinstance(event, TokenEvent) and not event.forced:
            if joined:
                return time.perf_counter() - ended
            ended = time.perf_counter()
    raise AssertionError(f"no conclusion for {problem.question!r}")


def show(record: dict[str, Any]) -> None:
    """Print a record as tables."""
    console = Console()
    ways = [Measured(**{**own, "joins": {int(n): times for n, times in own["joins"].items()}}) for own in record["ways"]]
    console.print(_answers(ways))
    console.print(_joins(ways))
    for line in (*record["notes"], record["machine"]):
        console.print(line, highlight=False)


def _answers(ways: list[Measured]) -> Table:
    table = Table(title="All questions together, and (alone) one at a time; means over the families", title_justify="left")
    for column in ("engine", "mode"):
        table.add_column(column)
    for column in ("accuracy", "forks", "parallelism", "tokens", "read again", "seconds", "alone, s"):
        table.add_column(column, justify="right")
    for way in ways:
        for mode, families in way.families.items():
            rows = list(families.values())

            def mean(name: str, rows: list[dict[str, Any]] = rows) -> float:
                values = [row[name] for row in rows if row[name] is not None]
                return cast(float, sum(values) / len(values)) if values else float("nan")

            table.add_row(
                way.engine,
                f"{way.join} join" if mode == "parallel" else mode,
                f"{mean('accuracy'):.1%}",
                str(sum(row["forks"] for row in rows)),
                f"{mean('parallelism'):.2f}",
                f"{mean('tokens'):.0f}",
                f"{mean('reread'):.0f}",
                f"{sum(row['seconds'] for row in rows):.1f}",
                f"{mean('alone'):.3f}",
            )
    return table


def _joins(ways: list[Measured]) -> Table:
    title = f"From the end of the last of {WIDTH} paths to the conclusion's first token, ms (median)"
    table = Table(title=title, title_justify="left")
    table.add_column("tokens of a path")
    for way in ways:
        table.add_column(f"{way.engine}, {way.join}", justify="right")
    for length in ways[0].joins if ways else ():
        table.add_row(str(length), *(f"{median(way.joins[length]) * 1e3:.1f}" for way in ways))
    if ways and len(ways[0].joins) > 1:
        slopes = [way.slope() for way in ways]
        table.add_row("ms per 1,000 tokens", *(f"{grows:.2f}" for grows, _ in slopes))
        table.add_row("ms at 0 tokens", *(f"{constant:.1f}" for _, constant in slopes))
    return table


if __name__ == "__main__":
    main()
