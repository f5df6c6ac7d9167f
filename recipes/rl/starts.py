"""The models that the runs start from, each from weights that come with this project and a few thousand documents at most.

    python -m recipes.rl.starts careless      # minutes on one core; resumes when started again

``form`` comes from the base of `recipes.paper`, which thinks in a line and has never seen a block; the others come from
multiverse-mini, ``careless`` and ``sloppy`` after documents with slips (`recipes.rl.careless`). The documents depend on nothing
but the seeds here.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from rich.console import Console
from transformers.utils.logging import disable_progress_bar

from multiverse.tasks import Problem
from multiverse.training.config import load
from multiverse.training.run import train
from recipes.mini.data import WEIGHTS, drawn, record
from recipes.paper import data as paper

from .careless import stream

HERE = Path(__file__).parent
RUNS = Path("runs/rl")


@dataclass(frozen=True)
class Start:
    """A start model.

    Attributes:
        documents: number of training documents.
        problems: their problems, an endless or long enough stream.
    """

    documents: int
    problems: Callable[[int], Iterator[Problem]]

    def write(self, path: Path) -> None:
        """Write the documents, unless the file exists."""
        if path.exists():
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        records = (record(problem) for problem in islice(self.problems(self.documents), self.documents))
        part.write_text("".join(f"{json.dumps(one, ensure_ascii=False)}\n" for one in records))
        part.replace(path)


STARTS = {
    "form": Start(2_000, lambda count: paper.training(21, count)),
    "able": Start(1_000, lambda count: drawn(23, count, 0, WEIGHTS)),
    "careless": Start(600, lambda count: islice(stream(24, 0.6), count)),
    "sloppy": Start(600, lambda count: islice(stream(24, 0.75), count)),
}


def make(name: str, console: Console) -> Path:
    """The folder of a start model, which is trained unless it is there.

    Raises:
        InterruptedRunError: a signal stopped the training after it had written a checkpoint.
    """
    config = load(HERE / "starts" / f"{name}.yaml")
    done = Path(config.out) / "trained"  # written last: a model folder may be half written
    if not done.exists():
        STARTS[name].write(Path(config.data[0]))
        train(config, console=console)
        done.touch()
    return Path(config.out) / "model"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=STARTS)
    disable_progress_bar()
    print(make(parser.parse_args().name, Console(stderr=True)))


if __name__ == "__main__":
    main()
