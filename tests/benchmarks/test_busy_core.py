"""The benchmark of a machine with a busy core."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from benchmarks import busy_core


def test_the_table_compares_busy_with_idle_and_idle_with_before() -> None:
    sides = {"before": busy_core.SPINNING, "after": None}
    seconds = {"before idle": [1.0, 9.0, 1.0], "before busy": [30.0], "after idle": [1.02], "after busy": [1.53]}
    lines = busy_core.table({"chat": seconds}, sides).splitlines()
    assert lines[-1] == "| chat | 1.000 | 30.000 | 30.00 | 1.00 | 1.020 | 1.530 | 1.50 | 1.02 |"
    assert all(line.count("|") == lines[0].count("|") for line in lines)


def test_each_run_is_a_process_with_the_settings_of_its_side(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str | None, str | None]] = []

    @contextmanager
    def started(_command: list[str], env: dict[str, str], **options: Any) -> Iterator[subprocess.Popen[str]]:
        assert "OMP_WAIT_POLICY" not in env
        seen.append((env.get("GOMP_SPINCOUNT"), env.get("OMP_NUM_THREADS")))
        with subprocess.Popen([sys.executable, "-c", "print('noise'); print(0.5)"], **options) as process:
            yield process

    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")
    monkeypatch.setenv("OMP_NUM_THREADS", "99")
    monkeypatch.setattr(busy_core, "started", started)
    sides = {"before": {"GOMP_SPINCOUNT": "300000", "OMP_NUM_THREADS": "2"}, "after": {}}
    found = busy_core.run(["chat"], sides, 2, cores=0)
    assert seen == [("300000", "2"), ("300000", "2"), (None, None), (None, None)] * 2
    assert found == {"chat": {f"{side} {state}": [0.5, 0.5] for side in ("before", "after") for state in ("idle", "busy")}}
