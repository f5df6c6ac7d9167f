"""Train and measure one of the runs; what is there already is kept, and a training that was stopped resumes.

    python -m recipes.rl.run correctness --seed 0

The start model is made and measured if need be. The result is a file in recipes/rl/results; `recipes.rl.report` makes tables
and plots of all of them.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import date
from itertools import product
from pathlib import Path
from typing import Any

from rich.console import Console
from transformers.utils.logging import disable_progress_bar

from benchmarks.machine import describe
from multiverse import LLM
from multiverse.errors import MultiverseError
from multiverse.training.callbacks import InterruptedRunError
from multiverse.training.rl.config import RLConfig, load
from multiverse.training.rl.run import train

from . import starts
from .measure import Asked, measure
from .mismatch import patched
from .runs import HERE, RESULTS, RUNS, Run

KEPT = (
    "step",
    "seconds",
    "reward",
    "right",
    "forked",
    "parallelism",
    "critical_path_tokens",
    "total_tokens",
    "sampled_tokens",
    "malformed",
    "entropy",
)
"""What is kept of each step's log, and everything about ratios."""


def config_of(name: str, seed: int, runs: Path = starts.RUNS) -> RLConfig:
    """The settings of a run."""
    run = RUNS[name]
    own = {"model": str(runs / "starts" / run.start / "model"), "out": str(runs / f"{name}-{seed}"), "seed": seed}
    return load(HERE / run.config, {**own, **run.settings})


def measured(model: Path, run: Run, folder: Path) -> list[Asked]:
    """What a model can do on the run's held-out problems; what has been measured before is read."""
    llm: LLM | None = None
    found: list[Asked] = []
    for mode, temperature in product(run.modes, run.temperatures):
        for family, widths in run.families.items():
            wide = "".join(map(str, widths)) or "any"
            store = folder / f"measured-{family}-{wide}-{mode}-{temperature:g}-{run.n}.json"
            if not store.exists():
                llm = llm or LLM(model, dtype="float32")
                (one,) = measure(llm, {family: widths}, [mode], run.n, temperature=temperature)
                part = store.with_suffix(".part")
                part.write_text(json.dumps(asdict(one)))
                part.replace(store)
            found.append(Asked(**json.loads(store.read_text())))
    return found


def curve(log: Path) -> list[dict[str, float]]:
    """The figures of each batch of rollouts."""
    records = map(json.loads, log.read_text().splitlines())
    return [
        {name: value for name, value in record.items() if name in KEPT or "ratio" in name or name.startswith("right/")}
        for record in records
        if "reward" in record
    ]


def make(name: str, seed: int, console: Console) -> dict[str, Any]:
    """Train, or go on, and measure.

    Raises:
        InterruptedRunError: a signal stopped the training after it had written a checkpoint.
    """
    run, config = RUNS[name], config_of(name, seed)
    start, out = starts.make(run.start, console), Path(config.out)
    with patched(run.mismatch):
        model = train(config, console=console)
    before, after = measured(start, run, start.parent), measured(model, run, out)
    return {
        "run": name,
        "seed": seed,
        "what": run.what,
        "start": run.start,
        "machine": describe(),
        "date": date.today().isoformat(),
        "settings": settings(config),
        "before": [asdict(one) for one in before],
        "after": [asdict(one) for one in after],
        "curve": curve(out / "log.jsonl"),
    }


def settings(config: RLConfig) -> dict[str, Any]:
    """What the tables say of a run's settings."""
    return {
        "questions_per_batch": config.questions_per_batch,
        "group_size": config.group_size,
        "max_steps": config.max_steps,
        "updates": config.updates,
        "mode": config.mode,
        "rewards": [reward.name for reward in config.rewards],
        "optimizer": {name: getattr(config.optimizer, name) for name in ("name", "lr", "muon_lr")},
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=RUNS, metavar="NAME", help=", ".join(RUNS))
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    disable_progress_bar()
    try:
        result = make(options.name, options.seed, Console(stderr=True))
    except (InterruptedRunError, KeyboardInterrupt) as error:
        sys.exit(f"{error or 'stopped; start again to continue'}")
    except MultiverseError as error:
        sys.exit(f"error: {error}")
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{options.name}-{options.seed}.json"
    part = path.with_suffix(".part")
    part.write_text(json.dumps(result) + "\n")
    part.replace(path)
    print(path)


if __name__ == "__main__":
    main()
