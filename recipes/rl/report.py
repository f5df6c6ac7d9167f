"""Tables and plots of the finished runs.

    python -m recipes.rl.report

Writes the plots into docs/figures and the tables into docs/rl.md, between its two markers.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from statistics import fmean
from typing import Any

from multiverse.errors import DataError
from recipes.paper.report import figure, rows

from .figures import difference, mean, ratio
from .measure import Asked
from .runs import RESULTS, RUNS

PAGE, FIGURES = Path("docs/rl.md"), Path("docs/figures")
BEGIN, END = "<!-- from the runs: python -m recipes.rl.report -->", "<!-- end of the runs -->"
COLOURS = ("#0b62d6", "#d1690e", "#1a8754", "#8250a8", "#c4403c", "#59636e")
GRID = "#e4e8ec"
SMOOTHED = 5
"""Steps whose mean is a point of a curve."""


@dataclass(frozen=True)
class Result:
    """A finished run."""

    run: str
    seed: int
    what: str
    start: str
    machine: str
    date: str
    settings: Mapping[str, Any]
    before: list[Asked]
    after: list[Asked]
    curve: list[Mapping[str, float]]

    @property
    def sampled(self) -> float:
        """Tokens that the model chose in all rollouts."""
        return sum(step["sampled_tokens"] for step in self.curve)

    @property
    def ways(self) -> list[tuple[str, float]]:
        """Modes and temperatures in which it was measured."""
        return list(dict.fromkeys((one.mode, one.temperature) for one in self.before))


def read(folder: Path = RESULTS) -> list[Result]:
    """All finished runs in the order of `RUNS` and seeds.

    Raises:
        DataError: a file is none of a run.
    """
    found = []
    for path in sorted(folder.glob("*.json")):
        try:
            values: dict[str, Any] = json.loads(path.read_text())
            values |= {side: [Asked(**one) for one in values[side]] for side in ("before", "after")}
            found.append(Result(**values))
            list(RUNS).index(found[-1].run)
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path} is no result of a run: {error}; delete it, and run it again") from None
    return sorted(found, key=lambda result: (list(RUNS).index(result.run), result.seed))


def parallelism(asked: Iterable[Asked]) -> list[float]:
    """Total over critical path of every problem."""
    return [t / c for one in asked for t, c in zip(one.total, one.critical, strict=True)]


def pooled(asked: Iterable[Asked], name: str) -> list[float]:
    """A figure of every problem of all families."""
    return [float(value) for one in asked for value in getattr(one, name)]


def families_table(results: Sequence[Result]) -> str:
    """Each family and mode before and after."""
    header = [
        "run",
        "seed",
        "family",
        "T",
        "right before",
        "right after",
        "points",
        "parallelism",
        "critical path",
        "malformed",
    ]
    lines = []
    for result in results:
        for old, new in zip(result.before, result.after, strict=True):
            lines.append(
                [
                    result.run,
                    str(result.seed),
                    old.family,
                    f"{old.temperature:g}",
                    mean(old.right).show(1, 100),
                    mean(new.right).show(1, 100),
                    difference(old.right, new.right).show(1, 100, sign=True),
                    f"{fmean(parallelism([old])):.2f} → {fmean(parallelism([new])):.2f}",
                    f"{fmean(old.critical):.0f} → {fmean(new.critical):.0f}",
                    f"{sum(old.malformed)} → {sum(new.malformed)} of {len(new.malformed)}",
                ]
            )
    return rows(header, lines)


def runs_table(results: Sequence[Result]) -> str:
    """Each run, all its families together: differences and ratios in pairs with standard errors."""
    header = ["run", "seed", "prompt", "T", "right before", "right after", "points", "parallelism, after / before"]
    lines = []
    for result in results:
        for way in result.ways:
            old, new = ([one for one in side if (one.mode, one.temperature) == way] for side in (result.before, result.after))
            right = pooled(old, "right"), pooled(new, "right")
            forked = [fmean(count > 0 for count in pooled(side, "forks")) for side in (old, new)]
            lines.append(
                [
                    result.run,
                    str(result.seed),
                    way[0],
                    f"{way[1]:g}",
                    mean(right[0]).show(1, 100),
                    mean(right[1]).show(1, 100),
                    difference(*right).show(1, 100, sign=True),
                    ratio(parallelism(old), parallelism(new)).show(3),
                    ratio(pooled(old, "critical"), pooled(new, "critical")).show(3),
                    f"{forked[0]:.0%} → {forked[1]:.0%}",
                ]
            )
    return rows([*header, "critical path, after / before", "forked"], lines)


def rollouts_table(results: Sequence[Result]) -> str:
    """The rollouts of each run, batch by batch: the questions are new in each batch, and the same in runs of the same seed."""
    longest = max(len(result.curve) for result in results)
    lines = []
    for result in results:
        for label, key, scale in (
            ("right, %", "right", 100.0),
            ("forked, %", "forked", 100.0),
            ("critical path", "critical_path_tokens", 1.0),
        ):
            values = [f"{scale * step[key]:.0f}" for step in result.curve if key in step]
            lines.append([result.run, str(result.seed), label, *values, *[""] * (longest - len(values))])
    return rows(["run", "seed", "rollouts", *map(str, range(1, longest + 1))], lines)


def cost_table(results: Sequence[Result]) -> str:
    """What each run took, and how far the trainer was from the engine at the first update of each batch of rollouts."""
    header = ["run", "seed", "what is rewarded", "batches", "rollouts", "sampled tokens", "updates", "minutes"]
    lines = []
    for result in results:
        size = result.settings["questions_per_batch"] * result.settings["group_size"]
        means = [step["first_ratio_mean"] for step in result.curve]
        lines.append(
            [
                result.run,
                str(result.seed),
                result.what,
                str(len(result.curve)),
                f"{len(result.curve) * size:,}",
                f"{result.sampled / 1e6:.2f} M",
                str(len(result.curve) * result.settings["updates"]),
                f"{result.curve[-1]['seconds'] / 60:.0f}",
                f"{min(means):.6f} to {max(means):.6f}",
                f"{max(step['first_ratio_deviation'] for step in result.curve):.1e}",
            ]
        )
    return rows([*header, "mean ratio", "largest \\|ratio - 1\\| of a token"], lines)


def retokenized(results: Sequence[Result]) -> str:
    """How many of the measured answers would be trained as other tokens by trainers that pass on text."""
    found = [value for result in results for one in (*result.before, *result.after) for value in one.retokenized]
    return f"Tokenized again, the texts of {sum(found)} of {len(found):,} measured answers give other tokens."


def missing(results: Sequence[Result]) -> str:
    """Which runs have no result."""
    absent = [name for name in RUNS if name not in {result.run for result in results}]
    return f"Not run: {', '.join(absent)}." if absent else "All runs are there."


def smoothed(values: Sequence[float]) -> list[float]:
    """Each value with those before it, `SMOOTHED` at most, as their mean."""
    return [fmean(values[max(0, at - SMOOTHED + 1) : at + 1]) for at in range(len(values))]


def tokens_of(result: Result) -> list[float]:
    """Millions of sampled tokens up to each step."""
    return [value / 1e6 for value in accumulate(step["sampled_tokens"] for step in result.curve)]


def steps_of(result: Result) -> list[float]:
    """Numbers of the batches of rollouts."""
    return [float(at + 1) for at in range(len(result.curve))]


def draw(results: Sequence[Result], keys: Mapping[str, tuple[str, float]], across: str) -> Any:
    """A panel for each figure of the log, a line for each run."""
    drawn = figure(4.2 * len(keys), 3.6)
    panels = drawn.subplots(1, len(keys), squeeze=False)[0]
    place = tokens_of if across == "sampled tokens (millions)" else steps_of
    names = list(dict.fromkeys(result.run for result in results))
    for axes, (key, (label, scale)) in zip(panels, keys.items(), strict=True):
        for result in results:
            values = smoothed([scale * step[key] for step in result.curve])
            first = result.seed == min(other.seed for other in results if other.run == result.run)
            colour = COLOURS[names.index(result.run) % len(COLOURS)]
            axes.plot(place(result), values, color=colour, label=result.run if first else None, linewidth=1.6)
        axes.set_xlabel(across)
        axes.set_ylabel(label)
        axes.grid(color=GRID)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].legend(frameon=False)
    return drawn


RIGHT, FORKED = ("right (%), of rollouts", 100.0), ("rollouts that fork (%)", 100.0)
CRITICAL, PARALLELISM = ("critical path (tokens)", 1.0), ("parallelism", 1.0)
PLOTS: dict[str, tuple[Sequence[str], dict[str, tuple[str, float]], str]] = {
    "rl-correctness": (
        ("correctness", "sequential"),
        {"right": RIGHT, "parallelism": PARALLELISM, "critical_path_tokens": CRITICAL},
        "sampled tokens (millions)",
    ),
    "rl-acceleration": (
        ("acceleration", "no-acceleration"),
        {"right": RIGHT, "forked": FORKED, "critical_path_tokens": CRITICAL},
        "step",
    ),
    "rl-mismatch": (
        ("correctness", *(name for name in RUNS if name.startswith("mismatch"))),
        {"right": RIGHT, "first_ratio_deviation": ("largest |ratio - 1|", 1.0)},
        "step",
    ),
}
"""Plots by file name: the runs, what is drawn of their logs, and against what."""


def markdown(results: Sequence[Result], plots: Iterable[str]) -> str:
    """Tables and plots as Markdown."""
    if not results:
        return missing(results)
    machines = sorted({result.machine for result in results})
    parts = [
        missing(results),
        "All families of a run together (± one standard error; differences and ratios in pairs, on the same problems):",
        runs_table(results),
        "Family by family:",
        families_table(results),
        "The rollouts of each batch (temperature 1). No question comes twice in a run; runs with the same sources of questions "
        "have the same ones in the same batch:",
        rollouts_table(results),
        *(f"![Curves of the rollouts](figures/{name}.svg)" for name in plots),
        "What the runs took, and the trainer's probabilities over the engine's, of all tokens at the first update of each "
        "batch of rollouts (fp32):",
        cost_table(results),
        retokenized(results),
        f"Measured on: {'; '.join(machines)}.",
    ]
    return "\n\n".join(parts)


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


def main() -> None:
    results = read()
    done = []
    for name, (runs, keys, across) in PLOTS.items():
        chosen = [result for result in results if result.run in runs and result.curve]
        chosen = [result for result in chosen if all(key in step for step in result.curve for key in keys)]
        if chosen:
            FIGURES.mkdir(exist_ok=True)
            draw(chosen, keys, across).savefig(FIGURES / f"{name}.svg", metadata={"Date": None})
            done.append(name)
    fill(PAGE, markdown(results, done))
    print(PAGE)


if __name__ == "__main__":
    main()
