"""Planning a run without its weights: counts, memory and the tiny step."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from multiverse.errors import ModelError
from multiverse.training.config import load
from multiverse.training.dryrun import dry_run
from tests.training.test_run import write_data

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("recipe", "parameters", "least", "most"),
    [
        ("lora-0.5b", 494e6, 2, 24),
        ("7b", 7.6e9, 15, 80),
        ("32b", 32.8e9, 65, 180),
        ("32b-multinode", 32.8e9, 32, 180),
    ],
)
def test_the_big_recipes(tmp_path: Path, recipe: str, parameters: float, least: float, most: float) -> None:
    """Without weights, configuration or tokenizer at hand: only the shape."""
    config = load(ROOT / "recipes" / f"{recipe}.yaml", {"data": [str(write_data(tmp_path / "d.jsonl", 16))], "validation": 0.0})
    assert config.shape is not None
    config = replace(config, shape=str(ROOT / config.shape))
    devices = {"lora-0.5b": 1, "7b": 8, "32b": 8, "32b-multinode": 16}[recipe]
    report = dry_run(config, devices=devices)
    assert report.parameters == pytest.approx(parameters, rel=0.01)
    assert report.trained <= report.parameters
    assert (report.trained < 0.1 * report.parameters) == (config.lora is not None)
    assert report.documents == 16
    assert report.steps == math.ceil(report.rows / config.global_batch_size)
    assert report.steps == (8 if not config.packing else report.steps)
    assert least < report.memory.total / 2**30 < most
    assert report.loss[1] < report.loss[0]
    assert len(report.notes) == 2
    json.dumps(report.as_dict())


def test_without_a_shape_it_says_what_is_missing(tmp_path: Path) -> None:
    config = load(ROOT / "recipes" / "7b.yaml", {"data": [str(write_data(tmp_path / "d.jsonl", 2))], "shape": None})
    with pytest.raises(ModelError, match=r"Qwen/Qwen2\.5-7B-Instruct.*shape"):
        dry_run(config, devices=8)
