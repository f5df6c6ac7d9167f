"""Statistics, counted by hand, and the figure that shows them."""

from __future__ import annotations

from pathlib import Path

import pytest

from multiverse.data import Row, Statistics, plot, survey
from multiverse.data.statistics import NAMES, Summary, cells, summarise
from multiverse.errors import DataError
from multiverse.structure import Block, Document, word_tokens
from tests.data.test_read import SAMPLES

PLAIN = Document(None, "one two three")
# The trunk: think, a, block, goal, (open, 1:, p, close), (open, 2:, q, close), goal close, conclusion, c, its close, block
# close, think close. Side by side: path, 1:, x, y, close; path, 2:, z, close.
WIDE = Document(("a", Block(("p", "q"), (("x y",), ("z",)), "c")))
DEEP = Document((Block(("p",), ((Block(("q", "r", "s"), (("x",),) * 3, "c"),),), "d"),))


def rows(*documents: Document) -> list[Row]:
    return [Row((), document, "x", number) for number, document in enumerate(documents, 1)]


def test_by_hand() -> None:
    statistics = survey(rows(PLAIN, WIDE, DEEP, PLAIN), word_tokens())
    assert statistics.forked == 0.5
    values = statistics.values
    assert values["blocks"] == [0, 1, 2, 0]
    assert values["branches"] == [0, 2, 4, 0]
    assert values["depth"] == [0, 1, 2, 0]
    assert values["paths_per_block"] == [2, 1, 3]
    assert values["total_tokens"][:2] == [3, 18 + 5 + 4]
    assert values["critical_path_tokens"][:2] == [3, 18 + 5]
    assert values["parallelism"][:2] == [1.0, 27 / 23]
    summary = statistics.summaries["paths_per_block"]
    assert summary == Summary(n=3, mean=2.0, median=2, min=1, max=3, p90=3)
    printed = statistics.as_json()
    assert (printed["documents"], printed["forked"]) == (4, 0.5)
    assert printed["blocks"] == {"n": 4, "mean": 0.75, "median": 0.5, "min": 0, "max": 2, "p90": 2}
    assert set(NAMES) == set(values)


def test_the_ninetieth_percentile_is_a_value() -> None:
    assert summarise([float(value) for value in range(10, 0, -1)]).p90 == 9
    assert summarise(list(range(1, 12))).p90 == 10
    assert summarise([5]) == (1, 5, 5, 5, 5, 5)


def test_nothing_to_count() -> None:
    statistics = survey(rows(PLAIN), word_tokens())
    assert "paths_per_block" not in statistics.summaries
    assert cells("blocks", statistics.summaries.get("paths_per_block")) == ["-"] * 5
    assert Statistics(()).as_json() == {"documents": 0, "forked": 0.0}


def test_cells() -> None:
    assert cells("parallelism", summarise([1.0, 1.25])) == ["1.12", "1.12", "1.00", "1.25", "1.25"]
    assert cells("total_tokens", summarise([1000, 2001])) == ["1,500", "1,500.5", "1,000", "2,001", "2,001"]
    assert cells("depth", summarise([1, 2, 2])) == ["1.67", "2", "1", "2", "2"]


@pytest.mark.skipif(not SAMPLES.is_dir(), reason="no sample documents beside the repository")
def test_samples() -> None:
    from multiverse.data import read

    statistics = survey(read(SAMPLES).rows, word_tokens())
    assert statistics.forked == 1.0
    assert statistics.summaries["parallelism"].min > 1
    assert statistics.summaries["depth"].max <= 2


@pytest.mark.parametrize(("suffix", "begins"), [(".svg", b"<?xml"), (".png", b"\x89PNG"), (".pdf", b"%PDF")])
@pytest.mark.parametrize("documents", [(PLAIN,), (PLAIN, WIDE, DEEP)])
def test_plot(tmp_path: Path, suffix: str, begins: bytes, documents: tuple[Document, ...]) -> None:
    file = tmp_path / f"shape{suffix}"
    plot(survey(rows(*documents), word_tokens()), file, title="some documents")
    assert file.read_bytes().startswith(begins)
    assert list(tmp_path.iterdir()) == [file]


def test_plot_of_an_unsupported_format(tmp_path: Path) -> None:
    statistics = survey(rows(PLAIN), word_tokens())
    with pytest.raises(DataError, match=r"is not a supported figure: use .svg, .png or .pdf"):
        plot(statistics, tmp_path / "shape.jpg", title="x")
    with pytest.raises(DataError, match="cannot be written"):
        plot(statistics, tmp_path / "no" / "shape.svg", title="x")
