"""The benchmark of quantised weights, on a tiny model without other engines."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.quantized import Settings, measure, ratio, show


def test_every_side_is_measured_and_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = Settings(repeats=1, steps=2, rows=(1, 2), prefixes=(64,), shape="tiny", others=())
    record = measure(settings, tmp_path / "out.json")
    assert (tmp_path / "out.json").exists()
    assert record.speeds.keys() == record.memory_mib.keys() == {"bf16", "int8", "int4"}
    assert all(speeds.keys() == {"1 rows, prefix 64", "2 rows, prefix 64"} for speeds in record.speeds.values())
    assert all(speed > 0 for speeds in record.speeds.values() for own in speeds.values() for speed in own)
    show(record)
    assert "of bf16" in capsys.readouterr().out


def test_ratios_are_taken_within_a_repeat() -> None:
    assert ratio([2, 30, 4], [1, 10, 4]) == 2
