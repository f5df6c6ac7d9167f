"""Train and measure the missing cells of the comparison, one by one.

    python -m recipes.paper.run                         # all missing cells; about ten minutes of one core for each
    python -m recipes.paper.run --arms multiverse sequential --seeds 0 --limit 1
    python -m recipes.paper.run --documents 10000 --arms multiverse sequential text-join --seeds 0 1

Every finished cell is a file in recipes/paper/cells; cells with another number of training documents are in a subfolder named
by that number. Several processes may run at once; each takes cells of its own. A stopped or killed run resumes when it is
started again.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console
from transformers.utils.logging import disable_progress_bar

from multiverse.errors import MultiverseError
from multiverse.training.callbacks import InterruptedRunError

from .arms import ARMS, CELLS, RUNS, START
from .cell import FULL, Scale, make
from .claims import claim

SEEDS = (0, 1, 2)


def cells(arms: Sequence[str], seeds: Sequence[int]) -> Iterator[tuple[str, int]]:
    """All cells in order: every arm with the first seed, then with the next."""
    for seed in seeds:
        for arm in ARMS:
            if arm in arms:
                yield arm, seed


def place(documents: int) -> tuple[Path, Path]:
    """Folders of the runs and the finished cells for this number of training documents."""
    return (RUNS, CELLS) if documents == FULL.documents else (RUNS / str(documents), CELLS / str(documents))


def write(path: Path, cell: dict[str, object]) -> None:
    """Write a cell's file atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(cell, indent=1) + "\n")
    part.replace(path)


def work(
    wanted: Sequence[tuple[str, int]],
    limit: int | None,
    console: Console,
    *,
    scale: Scale = FULL,
    runs: Path = RUNS,
    folder: Path = CELLS,
) -> int:
    """Make at most `limit` missing cells; returns the number of cells made by this process."""
    made = 0
    for arm, seed in wanted:
        path = folder / f"{arm}-{seed}.json"
        if made == limit:
            break
        if path.exists():
            continue
        with claim(runs / "claims" / f"{arm}-{seed}") as mine:
            if not mine:
                console.print(f"{arm}, seed {seed}: another process is working on it", highlight=False)
                continue
            if path.exists():  # finished by another process in the meantime
                continue
            console.print(f"{arm}, seed {seed}", highlight=False)
            write(path, make(arm, seed, scale, console, runs))
            made += 1
            console.print(f"{path}", highlight=False)
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS), metavar="ARM", help=", ".join(ARMS))
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    parser.add_argument("--documents", type=int, default=FULL.documents, help="training documents (%(default)s)")
    parser.add_argument("--limit", type=int, help="make at most this many cells")
    options = parser.parse_args()
    if options.documents < 1:
        parser.error(f"--documents {options.documents}: at least one is needed")
    disable_progress_bar()
    if not (START / "config.json").exists():
        sys.exit(f"{START} does not exist: python -m recipes.paper.base trains the model that every cell starts from")
    wanted = list(cells(options.arms, options.seeds))
    runs, folder = place(options.documents)
    scale = FULL._replace(documents=options.documents)
    try:
        made = work(wanted, options.limit, Console(stderr=True), scale=scale, runs=runs, folder=folder)
    except (InterruptedRunError, KeyboardInterrupt) as error:
        sys.exit(f"{error or 'stopped'}" if isinstance(error, InterruptedRunError) else "stopped; start again to continue")
    except MultiverseError as error:
        sys.exit(f"error: {error}")
    missing = [f"{arm}-{seed}" for arm, seed in wanted if not (folder / f"{arm}-{seed}.json").exists()]
    print(f"{made} made, {len(missing)} missing{': ' if missing else ''}{', '.join(missing)}")


if __name__ == "__main__":
    main()
