"""A stored run of the engine's benchmark is loaded, saved, shown and drawn."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.aims import aims
from benchmarks.documents import balanced_document
from benchmarks.engine_plot import draw
from benchmarks.record import Record
from benchmarks.report import show
from benchmarks.shape import byte_tokenizer
from multiverse.structure import encode, resolve

STORED = Path(__file__).parents[2] / "docs" / "figures" / "engine.json"


@pytest.fixture(scope="module")
def record() -> Record:
    return Record.load(STORED)


def test_a_record_is_the_same_after_save_and_load(record: Record, tmp_path: Path) -> None:
    record.save(tmp_path / "run.json")
    assert Record.load(tmp_path / "run.json") == record


def test_report_and_figure_show_every_side(record: Record, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    show(record)
    draw(record, tmp_path / "run.svg")
    shown, svg = capsys.readouterr().out, (tmp_path / "run.svg").read_text()
    for side in {case.side for case in record.speeds}:
        assert side in shown
        assert side in svg


def test_aims_of_the_stored_run(record: Record) -> None:
    met = {aim.text: aim.met for aim in aims(record)}
    assert met["batch 1 / llama.cpp, prefix 512"] is True
    assert met["batch 1 / weight-streaming limit, prefix 512"] is False
    assert met["join of 512-token branches / of 32-token ones"] is True


@pytest.mark.parametrize("width", [2, 3, 5, 7])
def test_a_balanced_document_has_half_of_width_plus_one_as_parallelism(width: int) -> None:
    tokens = resolve(byte_tokenizer())
    layout = encode(balanced_document(width, 96, tokens), tokens).layout
    assert layout.parallelism() == pytest.approx((width + 1) / 2, rel=0.01)
