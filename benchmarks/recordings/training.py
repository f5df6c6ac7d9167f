"""Record a training curve: 20 steps in fp32 of a model like the embedded one with random weights, and the plan of the run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from .checkout import Checkout, Output
from .commands import keep

STEPS = 20
RENAMED = {
    "micro_batch_size": "rows",
    "global_batch_size": "batch",
    "max_length": "length",
    "epochs": "phases",
    "gradient_checkpointing": "checkpointing",
    "max_grad_norm": "clip",
    "on_error": "faults",
}
"""Earlier names of settings."""


def settings(model: str, earlier: bool) -> dict[str, Any]:
    """The run's settings, by their present or their earlier names."""
    optimizer = {"lr": 1e-4, "warmup": 0.1, "max_grad_norm": 1.0}
    values = {
        "model": model,
        "data": ["train.jsonl"],
        "out": "trained",
        "mixture": [0.0, 0.5, 1.0, 1.0],
        "max_length": 1024,
        "packing": True,
        "global_batch_size": 4,
        "micro_batch_size": 2,
        "max_steps": STEPS,
        "precision": "fp32",
        "gradient_checkpointing": False,
        "on_error": "stop",
        "save_every": 1000,
        "seed": 5,
        "optimizer": optimizer,
    }
    if not earlier:
        return values
    found = {RENAMED.get(name, name): value for name, value in values.items()}
    return found | {"optimizer": {RENAMED.get(name, name): value for name, value in optimizer.items()}}


def record(checkout: Checkout, out: Path) -> None:
    """Plan, train, and keep the losses, one line a step."""
    out.mkdir(parents=True, exist_ok=True)
    rows = "".join(checkout.run("tasks", name, "{limit}", "30", "--split", "train").out for name in ("worksheet", "cases"))
    (checkout.scratch / "train.jsonl").write_text(rows)
    write_model(checkout.source / "src" / "multiverse" / "models" / "mini", checkout.scratch / "start")
    plan = _train(checkout, earlier=False)
    earlier = plan.code != 0
    keep(checkout, out / "plan", _train(checkout, earlier=True) if earlier else plan)
    done = _train(checkout, earlier=earlier, dry=False)
    if done.code:
        keep(checkout, out / "run", done)
        return
    log = (checkout.scratch / "trained" / "log.jsonl").read_text()
    records = [json.loads(line) for line in log.splitlines()]
    kept = [
        {name: row[name] for name in ("step", "loss", "grad_norm", "lr") if name in row} for row in records if "loss" in row
    ]
    (out / "losses.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in kept))


def write_model(like: Path, folder: Path) -> None:
    """A model of the same shape and tokenizer with random weights, the same in every recording."""
    torch.manual_seed(0)
    model: Any = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(like), dtype=torch.float32)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(like).save_pretrained(folder)


def _train(checkout: Checkout, *, earlier: bool, dry: bool = True) -> Output:
    (checkout.scratch / "train.yaml").write_text(json.dumps(settings("start", earlier)))  # JSON is YAML
    return checkout.run("train", "train.yaml", "--json", *(["--dry-run"] if dry else []))
