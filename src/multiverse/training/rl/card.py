"""What a model that reinforcement learning has trained says of it. No torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from typing import Any

from ...structure import Dialect
from ..card import LOG, Base, Summary, versions
from ..curve import read_log
from .config import RLConfig

_LAST = 20  # steps over which the last figures are averaged
_FIGURES = ("reward", "right", "parallelism", "critical_path_tokens", "total_tokens", "forked", "malformed")


def summarize(config: RLConfig, base: Base, dialect: Dialect, out: Path) -> Summary:
    """The summary of a run of `multiverse rl`."""
    records = read_log(out / LOG) if (out / LOG).exists() else []
    steps = [record for record in records if "loss" in record]
    validations = [record for record in records if "eval_reward" in record]
    values: dict[str, Any] = {
        "base": base.summary(),
        "dialect": dialect.name,
        "layout": dialect.positions,
        "mode": config.mode,
        "questions": [_given(asdict(source)) for source in config.questions],
        "rewards": [_given(asdict(reward)) for reward in config.rewards],
        "algorithm": asdict(config.algorithm),
        "steps": config.max_steps,
        "questions_per_batch": config.questions_per_batch,
        "group_size": config.group_size,
        "sampled_tokens": round(sum(record.get("sampled_tokens", 0) for record in steps)),
        "rollouts_first": _means(steps[:_LAST]),
        "rollouts_last": _means(steps[-_LAST:]),
        "validation_first": _validated(validations[:1]),
        "validation_last": _validated(validations[-1:]),
        "largest_ratio_deviation": max((record.get("first_ratio_deviation", 0.0) for record in steps), default=None),
        "seconds": records[-1]["seconds"] if records else None,
        "versions": versions("multiverse-llm", "torch", "transformers"),
    }
    return Summary(values, "multiverse rl", _rows(config, values))


def _given(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value not in (None, {}, [], "")}


def _means(records: Sequence[Mapping[str, float]]) -> dict[str, float]:
    found = {name: [record[name] for record in records if name in record] for name in _FIGURES}
    return {name: round(fmean(values), 4) for name, values in found.items() if values}


def _validated(records: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {name: record[f"eval_{name}"] for record in records for name in _FIGURES if f"eval_{name}" in record}


def _rows(config: RLConfig, values: Mapping[str, Any]) -> dict[str, str]:
    """Lines of the card's table."""
    rows = {
        "questions": ", ".join(source.title for source in config.questions),
        "rewards": ", ".join(f"{reward.weight:g} × {reward.name}" for reward in config.rewards),
        "algorithm": config.algorithm.name,
        "run": (
            f"{values['steps']:,} updates, {config.questions_per_batch} questions × {config.group_size} rollouts a batch, "
            f"{values['sampled_tokens']:,} sampled tokens"
        ),
        "dialect": values["dialect"],
        "layout": values["layout"],
    }
    for name in _FIGURES:
        for kind, whose in (("validation", "held-out questions"), ("rollouts", "rollouts")):
            before, after = values[f"{kind}_first"].get(name), values[f"{kind}_last"].get(name)
            if before is not None and after is not None:
                rows[f"{name.replace('_', ' ')}, {whose}"] = f"{before:.4g} before, {after:.4g} after"
    return rows
