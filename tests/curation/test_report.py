"""The report: its figures, its data, and that texts of traces are never markup."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from multiverse.curation import report
from multiverse.curation.outcomes import OUTCOMES, line, record
from multiverse.curation.report import Bar, bars, write_report
from multiverse.curation.types import Curated, Outcome, Rejected, Trace, Usage
from multiverse.errors import DataError
from multiverse.pages import embedded, within
from multiverse.structure import DIALECTS, MULTIVERSE, THREADWEAVER, Block, Dialect, Document
from multiverse.tasks import generate

EVIL = "</script><script>alert('x')</script><!--<img src=http://evil.example/x onerror=alert(1)>&amp;\u2028\ud83d"
NESTED = Block(("x", "y"), (("one",), ("two",)), "z")
FORK = Document(("Begin.", Block(("a", "b"), (("long path " * 9,), ("inner", NESTED)), "c"), "Go on.", NESTED), "Answer: 1")


def trace(name: str, text: str = "Some reasoning.") -> Trace:
    return Trace(name, f"What is {name}?", (text,), "Answer: 1", "in.jsonl", 1)


def curated(name: str, document: Document = FORK, **parts: Any) -> Curated:
    return Curated(
        trace(name), document, document, {"refilled": 0.05, "final": 0.25}, attempts={"summary": 2, "groups": 1}, **parts
    )


def aside(name: str, reason: str = "lost sentences", detail: str = "sentence 3 went nowhere") -> Rejected:
    return Rejected(trace(name), "summary", reason, detail, {"summary": 3})


def made(out: Path, *outcomes: Outcome, dialect: Dialect = MULTIVERSE, **manifest: Any) -> str:
    """The report of a run with these outcomes."""
    out.mkdir(exist_ok=True)
    lines = [line(record(number, outcome, Usage(), dialect)) for number, outcome in enumerate(outcomes)]
    (out / OUTCOMES).write_bytes(b"".join(lines))
    (out / "manifest.json").write_text(json.dumps({"settings": {"dialect": dialect.name}, **manifest}))
    path = write_report(out)
    assert path == out / "report.html"
    return path.read_text(encoding="utf-8")


class Reader(HTMLParser):
    """What a browser makes of the page: its elements, its text, its data."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.data: dict[str, Any] = {}
        self.inside: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self.inside = [tag, dict(attrs).get("id") or ""]

    def handle_endtag(self, tag: str) -> None:  # noqa: ARG002
        self.inside = []

    def handle_data(self, data: str) -> None:
        if self.inside and self.inside[0] == "script" and self.inside[1]:
            self.data[self.inside[1]] = json.loads(data)
        elif not self.inside or self.inside[0] not in ("script", "style"):
            self.text.append(" ".join(data.split()))

    @property
    def words(self) -> str:
        return " ".join(text for text in self.text if text)


def test_the_figures(tmp_path: Path) -> None:
    kept = (within(within("", 0), 1),)
    outcomes = [
        curated("r1", fallbacks=kept),
        curated("r2"),
        curated("r3", Document(("In a line.",), "1")),
        aside("r4"),
        aside("r5"),
    ]
    totals = {"calls": 12345, "tokens": 67890, "cost": 1.5}
    page = Reader(made(tmp_path, *outcomes, totals=totals, prompts={"summary": "abc"}))
    for words in (
        "curated 3 of 5 rows (60.0%)",
        "set aside 2",
        "calls 12,345",
        "tokens 67,890",
        "cost 1.50",
        "summary lost sentences 2",
        "summary 12 2.40 3",
        "groups 3 1.00 1",
        "kept 5.6% 1 of 18 paths and blocks, as refilled",
        "every word and every tag counts as one token",
        "Edit distance after refilling mean 0.05 · median 0.05 · 0.05 to 0.05",
        "Blocks mean 2.00 · median 3.0 · 0 to 3",
        "settings.dialect multiverse",
        "prompts.summary abc",
    ):
        assert words in page.words, words
    rows = page.data["data"]
    assert [row["id"] for row in rows] == ["r1", "r2", "r3", "r4", "r5"]
    assert rows[0]["parallelism"] > 1
    assert rows[2]["parallelism"] == 1
    assert (rows[0]["blocks"], rows[0]["paths"], rows[0]["depth"], rows[0]["fallbacks"]) == (3, 6, 2, 1)
    assert (rows[3]["stage"], rows[3]["reason"], rows[3]["requests"]) == ("summary", "lost sentences", 3)


def test_a_row_opens_with_its_tree_and_its_fallbacks(tmp_path: Path) -> None:
    inner = within(within(within(within("", 0), 1), 0), 1)  # the second path of the block in the second path of the first
    again = within(within("", 1), 0)  # the first path of the second block of the trunk
    whole = within("", 1)
    page = Reader(made(tmp_path, curated("r", fallbacks=(inner, again, whole), notes=("the judge doubts it",))))
    text = page.data["text-0"]
    assert text["reasoning"] == "Some reasoning."
    assert text["notes"] == ["the judge doubts it"]
    assert text["refilled"] is None, "it is the same"
    begin, first, middle, second = text["tree"]["thinking"]
    assert (begin, middle) == ("Begin.", "Go on.")
    assert [path["label"] for path in first["paths"]] == ["1", "2"]
    below = first["paths"][1]["body"][1]
    assert [(path["label"], path["kept"]) for path in below["paths"]] == [("2.1", False), ("2.2", True)]
    assert [(path["label"], path["kept"]) for path in second["paths"]] == [("1", True), ("2", False)]
    assert (first["kept"], below["kept"], second["kept"]) == (False, False, True)
    assert first["conclusion"] == "c"


def test_what_was_before_rewriting_can_be_seen(tmp_path: Path) -> None:
    rewritten = Document((Block(("a", "b"), (("A.",), ("B.",)), "c"),), "1")
    page = Reader(made(tmp_path, Curated(trace("r"), rewritten, FORK, {"refilled": 0.0, "final": 0.5})))
    assert len(page.data["text-0"]["tree"]["thinking"]) == 1
    assert len(page.data["text-0"]["refilled"]["thinking"]) == 4


def test_nothing_in_a_trace_is_markup(tmp_path: Path) -> None:
    evil = Trace(EVIL, EVIL, (EVIL,), EVIL)
    forked = Document((EVIL, Block((EVIL, "b"), ((EVIL,), ("y",)), EVIL)), EVIL)
    outcomes = (Curated(evil, forked, forked, {"final": 0.5}, notes=(EVIL,)), Rejected(evil, EVIL, EVIL, EVIL, {EVIL: 1}))
    plain = Reader(made(tmp_path / "plain", curated("a"), aside("b")))
    html = made(tmp_path / "evil", *outcomes, model=EVIL)
    page = Reader(html)
    assert "alert('x')" not in re.sub(r"&lt;[^<]*|\\u003c[^<]*", "", html)
    assert {tag for tag, _ in page.elements} <= {tag for tag, _ in plain.elements}
    assert sum(tag == "script" for tag, _ in page.elements) == 4, "the rows, two texts, the program"
    assert not [attributes for _, attributes in page.elements if "onerror" in attributes]
    # What the browser reads is what was there.
    assert page.data["data"][0]["id"] == EVIL
    assert page.data["text-0"]["reasoning"] == EVIL
    assert page.data["text-1"]["detail"] == EVIL
    assert page.data["text-0"]["tree"]["thinking"][1]["paths"][0]["outline"] == EVIL


def test_the_page_loads_nothing(tmp_path: Path) -> None:
    page = Reader(made(tmp_path, curated("r")))
    names = {name for _, attributes in page.elements for name in attributes}
    assert not names & {"src", "href", "srcset", "data", "action", "poster"}
    assert "link" not in {tag for tag, _ in page.elements}
    policy = [attributes["content"] for _, attributes in page.elements if attributes.get("http-equiv")]
    assert [one.partition(";")[0] for one in policy if one] == ["default-src 'none'"]
    style = re.search(r"<style>(.*?)</style>", (tmp_path / "report.html").read_text(), re.DOTALL)
    assert style is not None
    assert "url(" not in style[1]
    assert "@import" not in style[1]
    assert "prefers-color-scheme: dark" in style[1]


def test_texts_beyond_the_budget_are_left_out_and_the_page_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outcomes = [curated(f"r{number}") for number in range(30)]
    whole = made(tmp_path, *outcomes)
    assert "To keep this page small" not in whole
    size = len(embedded(Reader(whole).data["text-0"]).encode())
    monkeypatch.setattr(report, "TEXT_BUDGET", 10 * size + size // 2)
    page = Reader(made(tmp_path, *outcomes))
    assert "the texts of the first 10 rows, and the figures of all 30" in page.words
    assert sorted(name for name in page.data if name != "data") == sorted(f"text-{number}" for number in range(10))
    assert len(page.data["data"]) == 30


def test_the_same_outcomes_make_the_same_page(tmp_path: Path) -> None:
    outcomes = [curated(str(number), problem.structured) for number, problem in enumerate(generate("nested", 20, seed=1))]
    made(tmp_path / "run", *outcomes)
    first = (tmp_path / "run" / "report.html").read_bytes()
    made(tmp_path / "run", *outcomes)
    assert (tmp_path / "run" / "report.html").read_bytes() == first


def test_a_run_without_rows_and_one_without_documents(tmp_path: Path) -> None:
    assert "no rows" in Reader(made(tmp_path)).words
    page = Reader(made(tmp_path, aside("a")))
    assert "set aside 1" in page.words
    assert "How the documents fork" not in page.words


def test_another_dialect(tmp_path: Path) -> None:
    document = Document((Block(("a", "b"), (("x",), ("y",)), ""),), "1")
    page = Reader(made(tmp_path, curated("r", document), dialect=THREADWEAVER))
    assert THREADWEAVER in DIALECTS.values()
    assert page.data["data"][0]["blocks"] == 1


def test_a_document_that_does_not_parse_is_shown_as_it_is(tmp_path: Path) -> None:
    made(tmp_path, curated("r"))
    found = json.loads((tmp_path / OUTCOMES).read_text())
    found["document"] = f"broken {MULTIVERSE.path.open}"
    (tmp_path / OUTCOMES).write_text(json.dumps(found) + "\n")
    page = Reader(write_report(tmp_path).read_text())
    assert page.data["text-0"]["text"] == found["document"]
    assert page.data["text-0"]["tree"] is None


def test_a_damaged_run_is_refused(tmp_path: Path) -> None:
    made(tmp_path, curated("r"))
    (tmp_path / OUTCOMES).write_text("{}\n")
    with pytest.raises(DataError, match=r"outcomes\.jsonl:1"):
        write_report(tmp_path)
    (tmp_path / OUTCOMES).unlink()
    with pytest.raises(DataError, match="cannot be read"):
        write_report(tmp_path)
    (tmp_path / "manifest.json").write_text("[")
    with pytest.raises(DataError, match=r"manifest\.json"):
        write_report(tmp_path)


def test_bars() -> None:
    assert bars([2, 2, 4], fractions=False) == [Bar("2", 2, 1.0), Bar("3", 0, 0.0), Bar("4", 1, 0.5)]
    assert bars([1.5], fractions=True) == [Bar("1.50", 1, 1.0)]
    wide = bars(list(range(100)), fractions=False)
    assert len(wide) <= 24
    assert wide[0].label == "0 to 4"
    for values in ([0.0, 0.1, 0.3], [1.0] * 5 + [1.2], [0.1 * n for n in range(500)]):
        found = bars(values, fractions=True)
        assert sum(bar.size for bar in found) == len(values)
        assert max(bar.share for bar in found) == 1


def test_embedded_json_is_json() -> None:
    value = {"a": [EVIL, "plain", 1.5, None], "ü": "🙂"}
    text = embedded(value)
    assert json.loads(text) == value
    assert not set(text) & set("<>&\u2028\ud83d")
    assert "🙂" in text
