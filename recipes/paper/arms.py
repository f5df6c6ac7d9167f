"""The arms of the comparison: how each is trained and decoded. Everything else is the same for all."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, NamedTuple

from multiverse.prompting import Mode
from multiverse.structure import Joins
from multiverse.training.config import Config, load

HERE = Path(__file__).parent
RUNS = Path("runs/paper")
CELLS = HERE / "cells"
START = HERE / "start"
"""Initial weights of every cell (`recipes.paper.base`): a model trained on documents without blocks."""

Decoding = Literal["engine", "joined", "line"]
"""``engine`` forks and joins keys and values; ``joined`` prefills texts again on a plain engine; ``line`` never forks."""


class Arm(NamedTuple):
    """One way of forking and joining.

    Attributes:
        mode: the form that it is trained on and prompted for.
        training: settings of the training run that make the arm. `max_length` fits its longest document, and gives steps of
            about ten documents in every arm.
        decoding: how it is decoded.
        also: a second way of decoding, reported as well.
        what: description for tables.
    """

    mode: Mode
    training: dict[str, Any]
    decoding: Decoding
    what: str
    also: Decoding | None = None

    @property
    def share_every(self) -> int | None:
        """Number of positions after which paths attend to each other; `None` if they never do."""
        every: int | None = self.training.get("share_every")
        return every

    @property
    def join(self) -> Joins:
        """What a parent gets from its paths."""
        join: Joins = self.training.get("join", "kv")
        return join


ARMS: dict[str, Arm] = {
    "multiverse": Arm("parallel", {}, "engine", "KV join: nothing is read again"),
    "sequential": Arm("sequential", {"mixture": "sequential", "max_length": 864}, "engine", "the same reasoning in a line"),
    "text-join": Arm("parallel", {"join": "text", "max_length": 1984}, "joined", "paths are read again as text (ThreadWeaver)"),
    "causal": Arm(
        "parallel",
        {"attention": "causal", "positions": "linear"},
        "engine",
        "plain fine-tuning on structured text, decoded in parallel",
        also="line",
    ),
    "message-join": Arm(
        "parallel", {"join": "message", "max_length": 1216}, "joined", "only a path's last clause returns (APR)"
    ),
    "linear-positions": Arm("parallel", {"positions": "linear"}, "engine", "structured mask, positions counted through"),
    "share-8": Arm("parallel", {"share_every": 8}, "engine", "paths see each other every 8 tokens"),
    "share-1": Arm("parallel", {"share_every": 1}, "engine", "paths see each other every token"),
    "share-64": Arm("parallel", {"share_every": 64}, "engine", "paths see each other every 64 tokens"),
}
"""The arms by name, in the order in which they are run."""


def config_of(arm: str, seed: int, runs: Path = RUNS, start: Path = START) -> Config:
    """Training configuration of one cell."""
    own = {
        "model": str(start),
        "data": [str(runs / f"data-{seed}.jsonl")],
        "out": str(runs / f"{arm}-{seed}"),
        "seed": seed,
    }
    return load(HERE / "train.yaml", own | ARMS[arm].training)
