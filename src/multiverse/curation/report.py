"""The report of a run: one self-contained HTML file.

The page contains the figures of every row, and the texts of as many rows as fit in `TEXT_BUDGET`. A row's texts are rendered
when it is opened, so that ten thousand rows do not slow the browser down. Traces and completions are embedded as data, never
as markup.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from statistics import fmean, median
from typing import Any, NamedTuple

from ..data.write import whole
from ..errors import DataError, StructureError, require
from ..pages import embedded, script, style, tree_json
from ..structure import (
    DIALECTS,
    MULTIVERSE,
    Block,
    Dialect,
    Document,
    content_parallelism,
    measure,
    parse,
    word_tokens,
)
from .manifest import MANIFEST
from .outcomes import CURATED, OUTCOMES, records

REPORT = "report.html"

TEXT_BUDGET = 32_000_000
"""Most bytes of texts in a page; browsers open a page of this size without trouble."""

_EXCERPT = 160
_BARS = 24
_FRACTIONS = ("parallelism", "content", "refilled", "final")
_CHARTS = (
    ("parallelism", "Parallelism", "documents, counted in words"),
    ("content", "Content parallelism", "documents, in words, without tags and goals"),
    ("blocks", "Blocks", "documents"),
    ("paths", "Paths", "documents"),
    ("width", "Paths a block", "blocks"),
    ("depth", "Depth", "documents"),
    ("length", "Words a path", "paths that do not fork"),
    ("refilled", "Edit distance after refilling", "documents"),
    ("final", "Edit distance, final", "documents"),
)


class Bar(NamedTuple):
    """One bar of a chart: `share` is its height relative to the highest."""

    label: str
    size: int
    share: float


class Chart(NamedTuple):
    """A histogram; `summary` gives its figures, `low` and `high` label its ends."""

    title: str
    of: str
    summary: str
    low: str
    high: str
    bars: list[Bar]


class Stage(NamedTuple):
    """Requests of one stage: total, mean and maximum a row."""

    name: str
    requests: int
    mean: float
    most: int


@dataclass
class Survey:
    """Data of the page, collected row by row.

    Attributes:
        rows: figures of every row, for the table.
        texts: details of each row, as JSON; `None` beyond `TEXT_BUDGET`.
        values: of each measure, one number a curated row.
        reasons: rejected rows, by stage and reason.
        attempts: requests of each row, by stage.
        parts, kept: blocks and paths of all curated rows, and how many of them kept their refilled text.
    """

    rows: list[dict[str, Any]] = field(default_factory=list)
    texts: list[str | None] = field(default_factory=list)
    values: dict[str, list[float]] = field(default_factory=dict)
    reasons: Counter[tuple[str, str]] = field(default_factory=Counter)
    attempts: dict[str, list[int]] = field(default_factory=dict)
    parts: int = 0
    kept: int = 0

    @property
    def curated(self) -> int:
        """Rows that became documents."""
        return sum(row["status"] == CURATED for row in self.rows)

    @property
    def shown(self) -> int:
        """Rows whose texts are in the page."""
        return sum(text is not None for text in self.texts)


def write_report(out: Path) -> Path:
    """Write `report.html` beside the outcomes and the manifest of a run, and return its path.

    Raises:
        DataError: a file of the run is missing or damaged, or the report cannot be written.
        ExtraError: jinja2 is not installed.
    """
    manifest = _manifest(out / MANIFEST)
    dialect = DIALECTS.get(str(manifest.get("settings", {}).get("dialect")), MULTIVERSE)
    try:
        survey = _survey(records(out / OUTCOMES), dialect)
    except OSError as error:
        raise DataError(f"{str(out / OUTCOMES)!r} cannot be read ({error.strerror}): give the folder of a run") from error
    page = out / REPORT
    with whole(page) as part, part.open("w", encoding="utf-8", errors="replace") as stream:
        for chunk in _template().stream(_context(survey, manifest, out)):
            stream.write(chunk)
    return page


def _template() -> Any:
    jinja2 = require("jinja2", "curate")
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined)
    return environment.from_string((files(__package__) / "report.html.j2").read_text(encoding="utf-8"))


def _context(survey: Survey, manifest: Mapping[str, Any], out: Path) -> dict[str, Any]:
    return {
        "name": out.resolve().name,
        "survey": survey,
        "headlines": list(_headlines(survey, manifest)),
        "charts": list(_charts(survey)),
        "reasons": [(stage, reason, count) for (stage, reason), count in survey.reasons.most_common()],
        "stages": [Stage(name, sum(counts), fmean(counts), max(counts)) for name, counts in survey.attempts.items()],
        "facts": list(_facts(manifest)),
        "rows": embedded(survey.rows),
        "texts": [(number, text) for number, text in enumerate(survey.texts) if text is not None],
        "outcomes": OUTCOMES,
        "style": style(),
        "script": script(),
    }


def _manifest(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{str(path)!r} cannot be read ({error}): run the command again, it rewrites the file") from error
    return value if isinstance(value, dict) else {}


def _survey(found: Iterable[dict[str, Any]], dialect: Dialect) -> Survey:
    survey, tokens, room = Survey(), word_tokens(dialect), TEXT_BUDGET
    for record in found:
        document = _parse(record.get("document"), dialect)
        row = _row(record)
        if row["status"] == CURATED and document is not None:
            shape = measure(document, tokens)
            row |= {"parallelism": round(shape.parallelism, 4), "blocks": shape.blocks, "paths": shape.branches}
            row |= {"depth": shape.depth, "content": round(content_parallelism(document), 4)}
            for name in ("parallelism", "content", "blocks", "paths", "depth"):
                survey.values.setdefault(name, []).append(row[name])
            survey.values.setdefault("width", []).extend(shape.widths)
            survey.values.setdefault("length", []).extend(_lengths(document))
            survey.parts += shape.blocks + shape.branches
            survey.kept += row["fallbacks"] or 0
        if row["status"] == CURATED:
            for name in ("refilled", "final"):
                if row[name] is not None:
                    survey.values.setdefault(name, []).append(row[name])
        else:
            survey.reasons[row["stage"], row["reason"]] += 1
        for stage, count in (record.get("attempts") or {}).items():
            survey.attempts.setdefault(stage, []).append(count)
        text = embedded(_details(record, document, dialect)) if room else ""
        # After the first row that does not fit none is embedded, so that the page can say which are.
        room = max(0, room - len(text.encode())) if text else 0
        survey.rows.append(row)
        survey.texts.append(text if room else None)
    return survey


def _lengths(document: Document) -> list[int]:
    """Words of each path that holds no block."""
    paths = (path for _, block in document.blocks() for path in block.paths)
    return [sum(len(str(item).split()) for item in path) for path in paths if not any(isinstance(item, Block) for item in path)]


def _row(record: Mapping[str, Any]) -> dict[str, Any]:
    """Figures of a row that do not depend on its document."""
    distances = record.get("distances") or {}
    question = " ".join(str(record.get("question") or "").split())
    return {
        "id": str(record.get("id", "")),
        "status": str(record.get("status", "")),
        "question": question if len(question) <= _EXCERPT else f"{question[:_EXCERPT]}…",
        "refilled": distances.get("refilled"),
        "final": distances.get("final"),
        "fallbacks": len(record.get("fallbacks") or ()) if record.get("status") == CURATED else None,
        "requests": sum((record.get("attempts") or {}).values()),
        "stage": str(record.get("stage") or ""),
        "reason": str(record.get("reason") or ""),
    }


def _details(record: Mapping[str, Any], document: Document | None, dialect: Dialect) -> dict[str, Any]:
    """Details of a row, shown when it is opened."""
    refilled = _parse(record.get("refilled"), dialect) if record.get("refilled") != record.get("document") else None
    plain = {name: str(record.get(name) or "") for name in ("question", "reasoning", "answer", "detail")}
    return {
        **plain,
        "notes": [str(note) for note in record.get("notes") or ()],
        "attempts": dict(record.get("attempts") or {}),
        "tree": tree_json(document, frozenset(record.get("fallbacks") or ())) if document is not None else None,
        "refilled": tree_json(refilled) if refilled is not None else None,
        # A document that does not parse is shown as text.
        "text": str(record.get("document") or "") if document is None else "",
    }


def _parse(text: Any, dialect: Dialect) -> Document | None:
    try:
        return parse(text, dialect) if isinstance(text, str) and text else None
    except StructureError:
        return None


def _headlines(survey: Survey, manifest: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Title, figure and explanation of each."""
    rows, curated = len(survey.rows), survey.curated
    yield "curated", f"{curated:,}", f"of {rows:,} rows ({curated / rows:.1%})" if rows else "no rows"
    if curated:
        forked = sum(blocks > 0 for blocks in survey.values.get("blocks", ()))
        yield "forked", f"{forked / curated:.1%}", f"{forked:,} of the documents hold a block"
    yield "set aside", f"{rows - curated:,}", "each with its reason, below"
    for name, title, note in (
        ("parallelism", "parallelism", "mean over curated rows, counted in words"),
        ("content", "content parallelism", "mean, without tags and goals"),
        ("blocks", "blocks", "mean a document"),
        ("width", "paths a block", "mean"),
        ("final", "edit distance", "mean, final document to original"),
    ):
        if survey.values.get(name):
            yield title, f"{fmean(survey.values[name]):.2f}", note
    if survey.kept:
        yield "kept", f"{survey.kept / survey.parts:.1%}", f"{survey.kept:,} of {survey.parts:,} paths and blocks, as refilled"
    totals = manifest.get("totals") or {}
    for name in ("questions", "answered", "calls", "tokens", "cost"):
        value = totals.get(name)
        if isinstance(value, int | float):
            yield name, f"{value:,.2f}" if name == "cost" else f"{value:,}", ""


def _facts(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """The manifest as dotted names and values."""
    if isinstance(value, dict):
        for key, below in value.items():
            yield from _facts(below, f"{name}.{key}" if name else str(key))
    else:
        yield name, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _charts(survey: Survey) -> Iterator[Chart]:
    for name, title, of in _CHARTS:
        if values := survey.values.get(name):
            fractions = name in _FRACTIONS
            low, high = (_formatted(value, fractions) for value in (min(values), max(values)))
            middle = f"{median(values):,.{2 if fractions else 1}f}"
            summary = f"mean {fmean(values):,.2f} · median {middle} · {low} to {high}"
            yield Chart(title, of, summary, low, high if high != low else "", bars(values, fractions=fractions))


def bars(values: Sequence[float], *, fractions: bool) -> list[Bar]:
    """A histogram of at least one value: equal steps for fractions; for whole ones a bar each, or for a few of them."""
    low, high = min(values), max(values)
    if low == high:
        return [Bar(_formatted(low, fractions), len(values), 1.0)]
    step = (high - low) / min(_BARS, 6 + math.isqrt(len(values))) if fractions else 1 + (high - low) // _BARS
    number = round((high - low) / step) if fractions else int((high - low) // step) + 1
    filled = Counter(min(number - 1, int((value - low) / step)) for value in values)
    most = max(filled.values())
    found = []
    for index in range(number):
        first, last = (_formatted(end, fractions) for end in (low + step * index, low + step * (index + 1) - (not fractions)))
        found.append(Bar(first if first == last else f"{first} to {last}", filled[index], filled[index] / most))
    return found


def _formatted(value: float, fractions: bool) -> str:
    return f"{value:,.2f}" if fractions else f"{value:,.0f}"
