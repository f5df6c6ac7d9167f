"""Group packing at a small size: equal gradients, fewer tokens, and a table and a figure of what was measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks.group_packing import TOLERANCE, Case, Shape, differences, draw, make_model, make_sides, table

SHAPE = Shape(width=64, layers=2, vocabulary=300, length=64)


@pytest.fixture(scope="module")
def model() -> Any:
    return make_model(SHAPE, "cpu")


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_the_gradients_are_the_same(model: Any, share: float) -> None:
    sides = make_sides(SHAPE, Case(4, share), "cpu")
    prompt = round(share * 64)
    assert [len(sides[side]) for side in ("one", "rows", "shared")] == [4, 1, 1]
    assert [sum(batch.num_tokens for batch in sides[side]) for side in sides] == [256, 256, 256 - 3 * prompt]
    found = differences(model, sides)
    assert found.keys() == {"rows", "shared"}
    assert max(found.values()) < TOLERANCE


def test_a_wrong_mask_would_be_seen(model: Any) -> None:
    sides = make_sides(SHAPE, Case(4, 0.5), "cpu")
    sides["shared"][0].rows["visibility"].fill_(True)
    assert differences(model, sides)["shared"] > 10 * TOLERANCE


def test_table_and_figure(tmp_path: Path) -> None:
    row: dict[str, Any] = {
        "group": 4,
        "share": 0.5,
        "tokens": {"one": 256, "rows": 256, "shared": 160},
        "seconds": {"one": [2.0, 2.2], "rows": [1.5, 1.6], "shared": [1.0, 1.0]},
        "memory_mib": {"one": 10.0, "rows": 40.0, "shared": 20.0},
        "gradient": {"rows": 1e-7, "shared": 2e-7},
        "speed": {"one": 2.1, "rows": 1.55},
        "memory": 2.0,
    }
    record = {"machine": "a machine", "notes": [], "shape": SHAPE._asdict(), "rows": [row]}
    shown = table(record)
    assert "| 4 | 50% | 256 / 256 / 160 | 2.10 / 1.55 / 1.00 | 2.10 | 1.55 | 10 / 40 / 20 | 2.00 | 2e-07 |" in shown
    draw(record, tmp_path / "figure.svg")
    assert (tmp_path / "figure.svg").stat().st_size > 1000
