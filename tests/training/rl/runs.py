"""Whole runs of a tiny model: their settings, and what they leave."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from multiverse.training.config import Optimizer
from multiverse.training.rl.collapse import EarlyStopping
from multiverse.training.rl.config import RLConfig, Sampling, dump
from multiverse.training.rl.questions import QuestionSource, Stage
from multiverse.training.rl.rewards import Reward

REWARDS = [Reward(name="correct"), Reward(name="forked", weight=0.1)]
# A random model is never right and seldom forks: where gradients matter, it is paid for something else as well.
LETTERS = "tests.training.rl.paying:letters"
PAID = [*REWARDS, Reward(name=LETTERS, weight=0.5, workers=1)]
TIMES = ("seconds", "tokens_per_second")


def configured(start: Path, out: Path) -> RLConfig:
    return RLConfig(
        model=str(start),
        questions=[QuestionSource(family="worksheet", curriculum=[Stage(width=2, for_steps=1), Stage(width=3)])],
        out=str(out),
        rewards=REWARDS,
        questions_per_batch=2,
        group_size=3,
        max_steps=3,
        sampling=Sampling(max_tokens=40),
        optimizer=Optimizer(lr=3e-3, schedule="constant", warmup=0.0),
        kv_memory=8 / 1024,
        validation_questions=0,
        save_every=1,
        samples_every=None,
        early_stopping=EarlyStopping(forked=None, reward=None, malformed=None),
    )


def log(out: Path) -> list[dict[str, Any]]:
    """The records of a run, without times."""
    records = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return [{k: v for k, v in r.items() if not any(part in k for part in TIMES)} for r in records]


def weights(folder: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return load_file(folder / "model" / "model.safetensors")


def command(config: RLConfig, folder: Path) -> list[str]:
    path = folder / f"{Path(config.out).name}.yaml"
    path.write_text(dump(config))
    return ["multiverse", "rl", str(path)]
