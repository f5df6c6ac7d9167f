"""The training benchmark at a small size: both sides compute one loss where documents do not fork, and a table."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks import training
from benchmarks.training import SIZES, losses, make_batch, make_model, step, table
from multiverse.training.batch import Batch


def test_both_sides_train_on_the_same_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    config = SIZES["mini"].config()
    config.num_hidden_layers = 1
    config.layer_types = config.layer_types[:1]
    monkeypatch.setitem(training.SIZES, "mini", SIZES["mini"]._replace(config=lambda: config, rows=2, length=512))
    batch: Batch = make_batch("mini")
    assert batch["input_ids"].shape == (2, 512)
    assert (batch["documents"] >= 0).float().mean() > 0.5, "rows are mostly documents"
    model = make_model("mini", "cpu")
    causal = batch | {  # without structure
        "segments": batch["segments"].new_zeros(2, 512),
        "visibility": batch["visibility"].new_ones(2, 1, 1),
        "documents": batch["documents"].new_zeros(2, 512),
        "position_ids": batch["position_ids"].new_tensor(range(512)).repeat(2, 1),
    }
    sides = losses(model, causal, "cpu")
    assert sides["multiverse"]().item() == pytest.approx(sides["transformers"]().item(), rel=1e-5)
    step(sides["multiverse"], "bf16", "cpu")
    assert model.lm_head.weight.grad.abs().max() > 0


def test_table() -> None:
    row: dict[str, Any] = {
        "size": "mini",
        "precision": "fp32",
        "threads": 1,
        "parameters": 2.9e6,
        "tokens": 4096,
        "ratio": 1.25,
    }
    row["seconds"] = {"transformers": [4.0, 5.0, 6.0], "multiverse": [4.0, 4.0, 4.0]}
    memory = {"mini/fp32": {"transformers": 300.0, "multiverse": 100.0}}
    shown = table({"rows": [row], "memory_mib": memory, "machine": "a machine", "notes": []})
    assert "| mini (3M) | fp32 | 1 | 4,096 | 819 / 1,024 | 1.25 | 300 / 100 | 3.00 |" in shown
