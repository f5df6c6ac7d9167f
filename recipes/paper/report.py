"""Tables and plots of the comparison, from the finished cells.

    python -m recipes.paper.report

Writes the plots into docs/figures and the tables into docs/paper.md, between its two markers.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, NamedTuple

from multiverse.errors import DataError, ExtraError

from .arms import ARMS, CELLS, HERE
from .cell import BUDGET_TASKS
from .data import FAMILIES, WIDE
from .run import SEEDS

DOCS = Path("docs")
BEGIN, END = "<!-- from the cells: python -m recipes.paper.report -->", "<!-- end -->"
WIDES = tuple(f"worksheet-{width}" for width in WIDE)
Cell = dict[str, Any]
Task = dict[str, Any]

COLOURS = {
    "multiverse": "#0b62d6",
    "sequential": "#1f2328",
    "text-join": "#d1690e",
    "message-join": "#c4403c",
    "causal": "#8c959f",
    "causal, in a line": "#59636e",
    "linear-positions": "#1a8754",
    "share-1": "#8250a8",
    "share-8": "#a97bd0",
    "share-64": "#c9a9e6",
}

SOFT, GRID = "#59636e", "#e4e8ec"


class Mean(NamedTuple):
    """A mean over seeds and its standard error: over seeds or of the questions, whichever is larger; `None` if unknown."""

    value: float
    error: float | None

    def show(self, digits: int = 1, scale: float = 1) -> str:
        """``93.2 ± 0.8``, or without the error if there is none."""
        error = "" if not self.error else f" ± {scale * self.error:.{digits}f}"
        return f"{scale * self.value:.{digits}f}{error}"


class Side(NamedTuple):
    """An arm with one way of decoding: the tasks of each of its seeds."""

    name: str
    tasks: list[dict[str, Task]]
    alone: list[Task]

    def mean(self, names: Sequence[str], key: str) -> Mean:
        """Mean over these tasks, then over seeds."""
        return over_seeds([fmean(cell[name][key] for name in names) for cell in self.tasks], self._own_error(names, key))

    def _own_error(self, names: Sequence[str], key: str) -> float | None:
        if key != "accuracy":
            return None
        return math.sqrt(sum(self.tasks[0][name]["stderr"] ** 2 for name in names)) / len(names)


def over_seeds(values: Sequence[float], questions: float | None = None) -> Mean:
    """Mean and standard error over seeds.

    Args:
        questions: the standard error due to the choice of questions. All seeds have the same questions, so it does not shrink
            with more seeds.
    """
    errors = [stdev(values) / math.sqrt(len(values))] if len(values) > 1 else []
    if questions is not None:
        errors.append(questions)
    return Mean(fmean(values), max(errors, default=None))


def read(folder: Path) -> list[Cell]:
    """All finished cells in the order of arms and seeds.

    Raises:
        DataError: one cannot be read.
    """
    cells = []
    for path in sorted(folder.glob("*.json")):
        try:
            cell = json.loads(path.read_text())
            cells.append((list(ARMS).index(cell["arm"]), cell["seed"], cell))
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path} is no cell of the comparison: {error}; delete it, and run its cell again") from None
    return [cell for _, _, cell in sorted(cells, key=lambda entry: entry[:2])]


def read_longer(folder: Path) -> dict[int, list[Cell]]:
    """Finished cells of other numbers of training documents, by that number."""
    numbers = sorted(int(path.name) for path in folder.glob("*/") if path.name.isdigit())
    return {number: cells for number in numbers if (cells := read(folder / str(number)))}


def sides(cells: Iterable[Cell]) -> list[Side]:
    """Cells by arm and way of decoding."""
    found: dict[str, Side] = {}
    for cell in cells:
        side = found.setdefault(cell["arm"], Side(cell["arm"], [], []))
        side.tasks.append(cell["tasks"])
        side.alone.append(cell["alone"])
        if "also" in cell:
            name = f"{cell['arm']}, in a line"
            found.setdefault(name, Side(name, [], [])).tasks.append(cell["also"]["tasks"])
    return list(found.values())


def rows(header: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    return "\n".join(f"| {' | '.join(line)} |" for line in [header, ["---"] * len(header), *lines])


def accuracy_table(found: Sequence[Side]) -> str:
    """Percent right: each family, all three together, and wide worksheets."""
    names = [*FAMILIES, *WIDES]
    lines = []
    for side in found:
        each = [side.mean([name], "accuracy").show(1, 100) for name in names]
        malformed = sum(cell[name]["malformed"] for cell in side.tasks for name in names)
        asked = sum(cell[name]["n"] for cell in side.tasks for name in names)
        lines.append(
            [side.name, str(len(side.tasks)), side.mean(FAMILIES, "accuracy").show(1, 100), *each, f"{malformed} of {asked}"]
        )
    return rows(["arm", "seeds", "all three", *names, "malformed"], lines)


def cost_table(found: Sequence[Side]) -> str:
    """Tokens and times of the answers: the three families together, and the widest worksheets."""
    keys = ("critical_path_tokens", "total_tokens", "parallelism", "recomputed", "stored")
    lines = []
    for side in found:
        mean = {key: side.mean(FAMILIES, key) for key in keys}
        alone = over_seeds([cell["plain_tokens"] for cell in side.alone]).show(0) if side.alone else ""
        steps = [
            fmean(task["plain_steps"] for task in cell.values() if "plain_steps" in task) for cell in side.tasks if _timed(cell)
        ]
        lines.append(
            [
                side.name,
                mean["critical_path_tokens"].show(0),
                side.mean(WIDES[-1:], "critical_path_tokens").show(0),
                mean["total_tokens"].show(0),
                mean["parallelism"].show(2),
                mean["recomputed"].show(0),
                mean["stored"].show(0),
                alone,
                over_seeds(steps).show(0) if steps else "",
            ]
        )
    header = ["arm", "critical path", "the same, worksheet-6", "tokens", "parallelism", "read again", "stored"]
    return rows([*header, "time alone", "time together"], lines)


def _timed(cell: dict[str, Task]) -> bool:
    return any("plain_steps" in task for task in cell.values())


def budget_means(cells: Iterable[Cell]) -> dict[str, list[tuple[int, Mean]]]:
    """Accuracy within each budget, for the arms that have budgets."""
    found: dict[str, dict[int, list[float]]] = {}
    errors: dict[tuple[str, int], float] = {}
    for cell in cells:
        for budget, tasks in cell.get("budgets", {}).items():
            arm = found.setdefault(cell["arm"], {})
            arm.setdefault(int(budget), []).append(fmean(task["accuracy"] for task in tasks.values()))
            errors[cell["arm"], int(budget)] = math.sqrt(sum(task["stderr"] ** 2 for task in tasks.values())) / len(tasks)
    return {
        arm: [(budget, over_seeds(values, errors[arm, budget])) for budget, values in sorted(budgets.items())]
        for arm, budgets in found.items()
    }


def budget_table(cells: Sequence[Cell]) -> str:
    """Percent right within each budget; empty if no cell has budgets."""
    means = budget_means(cells)
    if not means:
        return ""
    budgets = sorted({budget for points in means.values() for budget, _ in points})
    lines = [
        [arm, *(dict(points)[b].show(1, 100) if b in dict(points) else "" for b in budgets)] for arm, points in means.items()
    ]
    return rows(["arm", *(str(budget) for budget in budgets)], lines)


def missing(cells: Iterable[Cell]) -> str:
    """Names of the missing cells."""
    there = {(cell["arm"], cell["seed"]) for cell in cells}
    absent = [f"{arm}-{seed}" for seed in SEEDS for arm in ARMS if (arm, seed) not in there]
    if not there:
        return "No cell is finished yet."
    return f"{len(there)} cells are there; missing: {', '.join(absent)}." if absent else f"All {len(there)} cells are there."


def timing_tables(folder: Path) -> Iterable[str]:
    """A table for each shape with timings at equal content."""
    for path in sorted(folder.glob("timing-*.json")):
        result = json.loads(path.read_text())
        lines = []
        for asked, cases in result["rounds"].items():
            for case, ways in cases.items():
                times = [f"{way['ratio']:.2f} ({way['ratio_low']:.2f} to {way['ratio_high']:.2f})" for way in ways.values()]
                again = [f"{way['recomputed']:.0f}" for way in ways.values()]
                lines.append([case, asked, *times[1:], " / ".join(again)])
        names = list(next(iter(next(iter(result["rounds"].values())).values())))
        head = ["case", "asked", *(f"{name} / {names[0]}" for name in names[1:]), f"read again ({' / '.join(names)})"]
        yield (
            f"Shape `{result['shape']}`, random weights, {result['repeats']} repeats (median, and range of the repeats). "
            f"{result['machine']}.\n\n{rows(head, lines)}"
        )


def markdown(cells: Sequence[Cell], timing: Path, longer: Mapping[int, Sequence[Cell]] | None = None) -> str:
    """All tables as Markdown."""
    parts = [missing(cells), *(_results(cells) if cells else ())]
    for documents, others in (longer or {}).items():
        parts += [f"### After {documents:,} documents", *_results(others)]
    timed = list(timing_tables(timing))
    parts += ["### Times at equal content", *timed] if timed else []
    return "\n\n".join(parts)


def _results(cells: Sequence[Cell]) -> list[str]:
    found = sides(cells)
    machines = sorted({f"{cell['machine'].rpartition(', ')[0]}" for cell in cells})
    dates = sorted({cell["date"] for cell in cells})
    asked = sorted({task["n"] for cell in cells for task in cell["tasks"].values()})
    parts = [
        f"Percent right (greedy, {' or '.join(map(str, asked))} held-out questions of each kind; mean over seeds ± the larger "
        "of its standard error over seeds and that of the questions):",
        accuracy_table(found),
        "What an answer took (means over the three families; times in plain decode steps of the same engine, as said above):",
        cost_table(found),
    ]
    if table := budget_table(cells):
        parts += [f"Percent right within a budget on the critical path ({', '.join(BUDGET_TASKS)}):", table]
    parts += [f"Cells of {dates[0]} to {dates[-1]}, on: {'; '.join(machines)}."]
    return parts


def fill(page: Path, text: str) -> None:
    """Replace the text between the markers of a page.

    Raises:
        DataError: the page has no markers.
    """
    before, found, rest = page.read_text().partition(BEGIN)
    _, closed, after = rest.partition(END)
    if not found or not closed:
        raise DataError(f"{page} has no place for the tables: it needs the lines {BEGIN} and {END}")
    page.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}")


def figure(width: float, height: float) -> Any:
    """An empty figure (`ExtraError` if matplotlib is not installed)."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ExtraError("matplotlib", "eval") from None
    return Figure(figsize=(width, height), layout="constrained")


def draw_arms(found: Sequence[Side]) -> Any:
    """Accuracy, critical path and recomputed tokens of each arm."""
    drawn = figure(11, 1.4 + 0.42 * len(found))
    panels = drawn.subplots(1, 3, sharey=True)
    kinds = {"worksheet, countdown and nested": FAMILIES, f"worksheets of {WIDE[-1]} calculations": WIDES[-1:]}
    whats = (
        ("accuracy", "right (%)", 100),
        ("critical_path_tokens", "critical path (tokens)", 1),
        ("recomputed", "read again (tokens)", 1),
    )
    for axes, (key, name, scale) in zip(panels, whats, strict=True):
        for offset, (kind, names) in enumerate(kinds.items()):
            for row, side in enumerate(found):
                mean = side.mean(names, key)
                axes.errorbar(
                    scale * mean.value,
                    row + 0.26 * offset - 0.13,
                    xerr=None if mean.error is None else scale * mean.error,
                    fmt="s" if offset else "o",
                    color=COLOURS[side.name],
                    markerfacecolor="white" if offset else COLOURS[side.name],
                    markersize=7,
                    elinewidth=1.4,
                )
            axes.plot([], [], "s" if offset else "o", color=SOFT, markerfacecolor="white" if offset else SOFT, label=kind)
        axes.set_xlabel(name)
        right = 102 if key == "accuracy" else max(10, axes.get_xlim()[1])
        axes.set_xlim(-0.03 * right, right)
        axes.grid(color=GRID, axis="x")
        axes.hlines([row + 0.5 for row in range(len(found) - 1)], 0, 1, transform=axes.get_yaxis_transform(), color=GRID)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_yticks(range(len(found)), [side.name for side in found])
    panels[0].invert_yaxis()
    drawn.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=2, frameon=False)
    return drawn


def draw_budgets(cells: Sequence[Cell]) -> Any:
    """Accuracy against the budget on the critical path, with bands of one standard error."""
    drawn = figure(7, 4.6)
    axes = drawn.subplots()
    for arm, points in budget_means(cells).items():
        x = [budget for budget, _ in points]
        y = [100 * mean.value for _, mean in points]
        spread = [100 * (mean.error if mean.error is not None else 0) for _, mean in points]
        axes.fill_between(
            x,
            [a - b for a, b in zip(y, spread, strict=True)],
            [a + b for a, b in zip(y, spread, strict=True)],
            color=COLOURS[arm],
            alpha=0.18,
            linewidth=0,
        )
        axes.plot(x, y, "o-", color=COLOURS[arm], markeredgecolor="white", markersize=7, linewidth=2, label=arm)
    axes.set_xlabel("budget on the critical path (tokens)")
    axes.set_ylabel("right (%)")
    axes.set_ylim(0, 102)
    axes.set_xlim(left=0)
    axes.set_title("answers that are right although they have to end in time", fontsize=11)
    axes.grid(color=GRID)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    return drawn


def save(make: Callable[[], Any], folder: Path, name: str) -> list[Path]:
    """Write a figure as SVG and PNG, reproducibly."""
    import matplotlib as mpl

    paths = [folder / f"{name}.svg", folder / f"{name}.png"]
    folder.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context({"svg.hashsalt": name}):
        drawn = make()
        for path in paths:
            drawn.savefig(path, dpi=150, metadata={"Date": None} if path.suffix == ".svg" else None)
    return paths


def build(cells: Path, timing: Path, docs: Path) -> list[Path]:
    """Write tables and plots; returns the files."""
    there, longer = read(cells), read_longer(cells)
    fill(docs / "paper.md", markdown(there, timing, longer))
    written = [docs / "paper.md"]
    if there:
        written += save(lambda: draw_arms(sides(there)), docs / "figures", "paper-arms")
    for ending, some in [("", there), *((f"-{documents}", others) for documents, others in longer.items())]:
        if budget_means(some):
            written += save(partial(draw_budgets, some), docs / "figures", f"paper-budget{ending}")
    return written


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=Path, default=CELLS)
    parser.add_argument("--docs", type=Path, default=DOCS, help="folder with paper.md, and figures/")
    options = parser.parse_args()
    try:
        for path in build(options.cells, HERE, options.docs):
            print(path)
    except (DataError, ExtraError) as error:
        parser.exit(1, f"error: {error}\n")


if __name__ == "__main__":
    main()
