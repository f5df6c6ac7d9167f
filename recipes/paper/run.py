"""Train and measure the cells of the comparison that are still missing, one after the other.

    python -m recipes.paper.run                         # all that are missing; about ten minutes of one core for each
    python -m recipes.paper.run --arms multiverse sequential --seeds 0 --limit 1
    python -m recipes.paper.run --documents 10000 --arms multiverse sequential text-join --seeds 0 1

Every finished cell is a file in recipes/paper/cells; those of another number of training documents are in a folder of it, named
by the number. Several processes may run side by side, each on cells of its own. One that is stopped, by Ctrl-C or the hard
way, goes on where it was when it is started again.
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
    """All cells in the order in which they are wanted: every arm once before any arm twice."""
    for seed in seeds:
        for arm in ARMS:
            if arm in arms:
                yield arm, seed


def place(documents: int) -> tuple[Path, Path]:
    """Where runs and finished cells of so many training documents are kept."""
    return (RUNS, CELLS) if documents == FULL.documents else (RUNS / str(documents), CELLS / str(documents))


def write(path: Path, cell: dict[str, object]) -> None:
    """The file is there whole, or not at all."""
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
    """Make missing cells, at most `limit`; returns how many were made here."""
    made = 0
    for arm, seed in wanted:
        path = folder / f"{arm}-{seed}.json"
        if made == limit:
            break
        if path.exists():
            continue
        with claim(runs / "claims" / f"{arm}-{seed}") as mine:
            if not mine:
                console.print(f"{arm}, seed {seed}: another process works on it", highlight=False)
                continue
            if path.exists():  # finished by another process since we looked
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
        parser.error(f"--documents {options.documents}: it takes at least one")
    disable_progress_bar()
    if not (START / "config.json").exists():
        sys.exit(f"{START} is not there: python -m recipes.paper.base makes the model that every cell starts from")
    wanted = list(cells(options.arms, options.seeds))
    runs, folder = place(options.documents)
    scale = FULL._replace(documents=options.documents)
    try:
        made = work(wanted, options.limit, Console(stderr=True), scale=scale, runs=runs, folder=folder)
    except (InterruptedRunError, KeyboardInterrupt) as error:
        sys.exit(f"{error or 'stopped'}" if isinstance(error, InterruptedRunError) else "stopped; start again to go on")
    except MultiverseError as error:
        sys.exit(f"error: {error}")
    missing = [f"{arm}-{seed}" for arm, seed in wanted if not (folder / f"{arm}-{seed}.json").exists()]
    print(f"{made} made, {len(missing)} missing{': ' if missing else ''}{', '.join(missing)}")


if __name__ == "__main__":
    main()
