"""The comparison's report, from made-up cells in a folder of their own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from multiverse.errors import DataError
from recipes.paper import report
from recipes.paper.data import FAMILIES

NAMES = (*FAMILIES, "worksheet-5", "worksheet-6")


def task(accuracy: float, path: float = 200, **more: float) -> dict[str, float]:
    return {
        "n": 100,
        "accuracy": accuracy,
        "stderr": 0.03,
        "malformed": 1,
        "critical_path_tokens": path,
        "total_tokens": 400,
        "parallelism": 2,
        "recomputed": 0,
        "stored": 500,
        "plain_steps": 300,
    } | more


def cell(arm: str, seed: int, accuracy: float, **more: Any) -> dict[str, Any]:
    return {
        "arm": arm,
        "seed": seed,
        "machine": "a machine, 2026-01-02",
        "date": "2026-01-02",
        "tasks": {name: task(accuracy) for name in NAMES},
        "alone": {"plain_tokens": 150 + seed},
    } | more


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    cells = [
        cell("multiverse", 0, 0.9, budgets={"128": {"nested": task(0.5)}, "96": {"nested": task(0.25)}}),
        cell("multiverse", 1, 0.8, budgets={"128": {"nested": task(0.7)}, "96": {"nested": task(0.25)}}),
        cell("sequential", 0, 0.95, budgets={"128": {"nested": task(0.1)}}),
        cell("causal", 0, 0.4, also={"decoding": "line", "tasks": {name: task(0.85) for name in NAMES}}),
    ]
    (tmp_path / "cells").mkdir()
    for one in cells:
        (tmp_path / "cells" / f"{one['arm']}-{one['seed']}.json").write_text(json.dumps(one))
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "paper.md").write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n")
    return tmp_path


def test_the_tables_say_what_the_cells_say(folder: Path) -> None:
    text = report.markdown(report.read(folder / "cells"), folder)
    lines = {line.split(" | ")[0].strip("| "): line for line in text.splitlines() if line.startswith("| ")}
    assert "| 2 | 85.0 ± 5.0 |" in next(line for line in text.splitlines() if line.startswith("| multiverse | 2"))
    one = next(line for line in text.splitlines() if line.startswith("| sequential | 1"))
    assert one.startswith("| sequential | 1 | 95.0 ± 1.7 | 95.0 ± 3.0 |"), "with one seed, the error of its questions"
    assert one.endswith("| 5 of 500 |")
    assert "causal, in a line" in lines
    assert "4 cells are there; missing: text-join-0, message-join-0," in text
    assert "sequential-0," not in text
    budgets = text[text.index("| arm | 96 | 128 |") :].splitlines()
    assert budgets[2] == "| multiverse | 25.0 ± 3.0 | 60.0 ± 10.0 |", (
        "seeds that agree by luck do not hide the questions' error"
    )
    assert budgets[3] == "| sequential |  | 10.0 ± 3.0 |"
    assert "a machine" in text


def test_building_twice_changes_nothing_and_keeps_the_page_around(folder: Path) -> None:
    first = report.build(folder / "cells", folder, folder / "docs")
    assert {path.name for path in first} == {
        "paper.md",
        "paper-arms.svg",
        "paper-arms.png",
        "paper-budget.svg",
        "paper-budget.png",
    }
    before = {path: path.read_bytes() for path in first}
    assert all(before.values())
    page = (folder / "docs" / "paper.md").read_text()
    assert page.startswith("before\n")
    assert page.endswith("\nafter\n")
    assert "old" not in page
    report.build(folder / "cells", folder, folder / "docs")
    assert {path: path.read_bytes() for path in first} == before


def test_cells_of_another_length_of_training_have_tables_and_a_plot_of_their_own(folder: Path) -> None:
    longer = folder / "cells" / "10000"
    longer.mkdir()
    (folder / "cells" / "notes").mkdir()
    (folder / "cells" / "20000").mkdir()
    one = cell("multiverse", 0, 0.97, budgets={"128": {"nested": task(0.5)}})
    (longer / "multiverse-0.json").write_text(json.dumps(one))
    written = report.build(folder / "cells", folder, folder / "docs")
    assert folder / "docs" / "figures" / "paper-budget-10000.svg" in written
    first, _, second = (folder / "docs" / "paper.md").read_text().partition("### After 10,000 documents")
    assert "| multiverse | 2 | 85.0 ± 5.0 |" in first
    assert "| multiverse | 1 | 97.0 ± 1.7 |" in second
    assert "20,000" not in second


def test_unreadable_cells_are_named(folder: Path) -> None:
    (folder / "cells" / "x.json").write_text("{")
    with pytest.raises(DataError, match=r"x\.json is no cell"):
        report.read(folder / "cells")
    (folder / "docs" / "paper.md").write_text("no marks")
    with pytest.raises(DataError, match="no place"):
        report.fill(folder / "docs" / "paper.md", "text")


def test_times_at_equal_content_get_a_table(folder: Path) -> None:
    way = {"ratio": 1.0, "ratio_low": 0.9, "ratio_high": 1.1, "recomputed": 0}
    timed = {
        "shape": "paper",
        "repeats": 5,
        "machine": "m",
        "rounds": {"one at a time": {"nested": {"multiverse": way, "text-join": way | {"ratio": 1.25, "recomputed": 90}}}},
    }
    (folder / "timing-paper.json").write_text(json.dumps(timed))
    (table,) = report.timing_tables(folder)
    assert report.build(folder / "nowhere", folder, folder / "docs") == [folder / "docs" / "paper.md"]
    page = (folder / "docs" / "paper.md").read_text()
    assert "No cell is finished yet." in page
    assert table in page
    assert "| nested | one at a time | 1.25 (0.90 to 1.10) | 0 / 90 |" in table
