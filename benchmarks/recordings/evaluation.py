"""Record the figures of small evaluation runs, in a form that does not depend on how the report is laid out."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .checkout import Checkout, Output
from .commands import keep

MODES = {"multiverse": "parallel", "zero": "sequential"}
"""Earlier names of modes."""
FIGURES = ("accuracy", "parallelism", "critical_path_tokens", "total_tokens", "forked", "malformed")
SAMPLE = ("answer", "right", "finish_reason", "total_tokens", "critical_path_tokens", "text")
GREEDY = ("--temperature", "0", "--seed", "7", "--json")


def record(checkout: Checkout, out: Path) -> None:
    """One family in detail, two benchmarks in both modes with report and comparison, and a budget."""
    out.mkdir(parents=True, exist_ok=True)
    family = ("tasks", "--family", "worksheet") if checkout.has("eval", "tasks") else ("worksheet", "--out", "one")
    one = checkout.run("eval", *family, "{limit}", "8", "--max-tokens", "2048", *GREEDY)
    _keep(checkout, out / "family", one, list(accuracies(_json(one))))

    names = ("worksheet", "countdown", "{limit}", "3", "{both}", "--max-tokens", "1024", "--out", "both")
    both = checkout.run("eval", "run", *names, *GREEDY)
    _keep(checkout, out / "both", both, list(accuracies(_json(both))))
    folders = sorted(path.parent for path in (checkout.scratch / "both").rglob("run.json"))
    store(out / "samples.json", [row for folder in folders for row in samples(folder / "samples.jsonl")])
    named = [str(folder.relative_to(checkout.scratch)) for folder in folders]
    keep(checkout, out / "report", checkout.run("eval", "report", *named, "--json"))
    keep(checkout, out / "compare", checkout.run("eval", "compare", *named, "--json"))

    asked = ("--family", "worksheet") if "--family" in checkout.options(("eval", "budget")) else ("worksheet",)
    budget = checkout.run("eval", "budget", *asked, "{limit}", "3", "--budgets", "96,192", "--out", "budget", *GREEDY)
    _keep(checkout, out / "budget", budget, list(points(_json(budget))))


def _keep(checkout: Checkout, path: Path, done: Output, figures: list[dict[str, Any]]) -> None:
    """The figures, and in ``raw``, which is not compared, what was printed."""
    (path.parent / "raw").mkdir(exist_ok=True)
    keep(checkout, path.parent / "raw" / path.name, done)
    store(path.with_suffix(".json"), figures)


def store(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write rows in an order of their own."""
    lines = sorted(json.dumps(row, sort_keys=True, ensure_ascii=False) for row in rows)
    path.write_text("".join(f"{line}\n" for line in lines))


def _json(done: Output) -> Any:
    return json.loads(done.out) if done.code == 0 else {"failed": done.error}


def accuracies(value: Any, where: tuple[str, str] = ("", "")) -> Iterator[dict[str, Any]]:
    """Every report of an accuracy: task, mode and figures."""
    if isinstance(value, list):
        for item in value:
            yield from accuracies(item, where)
    if not isinstance(value, dict):
        return
    task = next((value[key] for key in ("benchmark", "task", "family") if isinstance(value.get(key), str)), where[0])
    mode = next((value[key] for key in ("mode", "prompt") if isinstance(value.get(key), str)), where[1])
    where = task, MODES.get(mode, mode)
    if isinstance(value.get("accuracy"), int | float):
        yield {"task": where[0], "mode": where[1], **{name: value[name] for name in FIGURES if name in value}}
        return
    for item in value.values():
        yield from accuracies(item, where)


def points(value: Any, system: str = "") -> Iterator[dict[str, Any]]:
    """Every point of a sweep over budgets: system, budget, and the mean of each figure."""
    if isinstance(value, list):
        for item in value:
            yield from points(item, system)
    if not isinstance(value, dict):
        return
    if isinstance(value.get("budget"), int):
        means = {name: item["mean"] for name, item in value.items() if isinstance(item, dict) and "mean" in item}
        yield {"system": system, "budget": value["budget"], **means}
        return
    for name, item in value.items():
        yield from points(item, name if name in ("parallel", "sequential") else system)


def samples(path: Path) -> Iterator[dict[str, Any]]:
    """Every answer of a run: which question, what was said, and what it took."""
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        mode = row.get("mode", "")
        key = {"task": row.get("task"), "id": row.get("id"), "epoch": row.get("epoch"), "mode": MODES.get(mode, mode)}
        yield key | {name: row[name] for name in SAMPLE if name in row}
