"""Reports of runs on dialogues, as JSON and as text."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ..markdown import format_value
from ..report import Measure, estimate_json
from ..statistics import LEVEL, Difference, Estimate
from .results import DIMENSIONS, MAIN_BY_TURN, TURN, Answered, Compared, Figures, Results, compare_dialogues
from .store import DialogueRun, cost_of

OURS = "Judge, yes/no scale and aggregation are this project's: MultiVerse published none."
"""Stands under every table."""
RULES = {
    "item": "the judge says yes",
    "turn": "all items of its checklist succeed",
    "dialogue": "all its turns with a checklist succeed",
    "score": "mean over a dialogue's turns of the share of items that succeed",
    "errors": f"clustered by dialogue; intervals at {LEVEL:.0%}",
}
TITLES = {
    "turn": "turn",
    "main_criteria": "criterion",
    "sub_criteria": "sub-criterion",
    "main_goal_category": "goal category",
    "sub_goal_category": "goal sub-category",
    "main_task_category": "task category",
    "sub_task_category": "task sub-category",
    "image_main_category": "image category",
    "image_sub_category": "image sub-category",
    MAIN_BY_TURN: "criterion and turn",
}
SHARE = Measure("share", "%", lambda _: 0.0, share=True, digits=1)
_FIGURES = ("items", "turns", "dialogues", "score")


@dataclass(frozen=True)
class DialogueReport:
    """One or more runs, and each later one compared with the first."""

    results: tuple[Results, ...]
    comparisons: tuple[Compared, ...]
    seed: int = 0

    def to_json(self) -> dict[str, Any]:
        """All figures, without texts."""
        return {
            "note": OURS,
            "rules": RULES,
            "runs": [run_json(results, self.seed) for results in self.results],
            "comparisons": [
                {
                    "first": one.first,
                    "second": one.second,
                    "differences": {name: difference._asdict() for name, difference in one.differences.items()},
                }
                for one in self.comparisons
            ],
        }


def report_dialogues(runs: Sequence[DialogueRun], *, judge: str | None = None, seed: int = 0) -> DialogueReport:
    """Make the report of runs; several are named apart.

    Args:
        judge: whose verdicts; each run's own if `None`.
        seed: of resampling.

    Raises:
        DataError: a run has no verdicts of this judge, or runs have nothing in common.
    """
    results = tuple(Results(run, judge) for run in runs)
    compared = tuple(compare_dialogues(results[0], one, seed=seed) for one in results[1:])
    return DialogueReport(results, compared, seed)


def run_json(results: Results, seed: int = 0) -> dict[str, Any]:
    """One run's figures."""
    run = results.run
    return {
        **run.head(),
        "judge": results.judge,
        "dialogues": len(run.dialogues),
        "answers": len(run.answers),
        "judged": len(results.judged),
        "overall": figures_json(results.overall) if results.overall is not None else None,
        "by": {name: {value: figures_json(own) for value, own in results.groups(name).items()} for name in DIMENSIONS},
        "answered": {turn: _answered_json(own) for turn, own in results.answered().items()},
        "agreement": [
            {"first": a._asdict(), "second": b._asdict(), **own.to_json()} for a, b, own in results.agreements(seed=seed)
        ],
        "cost": cost_json(run),
        "set_aside": [vars(one) for one in run.set_aside],
    }


def figures_json(figures: Figures) -> dict[str, Any]:
    """Estimates by name; those that are no measure of the part are left out."""
    found = ((name, getattr(figures, name)) for name in _FIGURES)
    return {name: estimate_json(own) for name, own in found if own is not None}


def _answered_json(own: Answered) -> dict[str, Any]:
    return own._asdict() | {"parallelism": estimate_json(own.parallelism)}


def cost_json(run: DialogueRun) -> dict[str, Any]:
    """Tokens of the model, and tokens and price of each judge."""
    judges = {}
    for name in dict.fromkeys(one.judge for one in run.judgements):
        own = [one for one in run.judgements if one.judge == name]
        judges[name] = {
            "calls": sum(bool(one.prompt_tokens) for one in own),
            "prompt_tokens": sum(one.prompt_tokens for one in own),
            "completion_tokens": sum(one.completion_tokens for one in own),
            "cost": cost_of(own, run.prices),
        }
    model = {
        "calls": len(run.answers),
        "prompt_tokens": sum(one.prompt_tokens for one in run.answers),
        "completion_tokens": sum(one.total_tokens for one in run.answers),
    }
    return {"model": model, "judges": judges}


@dataclass(frozen=True)
class Table:
    """A table of a report: a title, headings, and rows of texts."""

    title: str
    head: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]


def tables(results: Results, *, seed: int = 0, every: bool = True) -> Iterator[Table]:
    """The tables of a run.

    Args:
        every: also those of sub-categories, of which there are hundreds.
    """
    overall = results.overall
    if overall is not None:
        rows = [
            (name, *_cells(getattr(overall, name)), RULES[rule])
            for name, rule in zip(_FIGURES, ("item", "turn", "dialogue", "score"), strict=True)
            if getattr(overall, name) is not None
        ]
        yield Table("All", ("", "success, %", "interval", "n", "dialogues", "rule"), rows)
    yield _turns_table(results)
    for name in DIMENSIONS:
        groups = results.groups(name)
        # Where many turns share few criteria, as in our own set, the two say most together.
        crossed = name == MAIN_BY_TURN and results.run.settings.get("set") != "tasks"
        if groups and name != TURN and not crossed and (every or "sub_" not in name):
            yield _group_table(name, groups)
    if results.agreements(seed=seed):
        yield _agreement_table(results, seed)
    yield _cost_table(results.run)
    if results.run.set_aside:
        counted = Counter((one.what, one.reason) for one in results.run.set_aside)
        yield Table(
            "Set aside", ("what", "reason", "n"), [(what, reason, str(n)) for (what, reason), n in counted.most_common(20)]
        )


def _group_table(name: str, groups: dict[str, Figures]) -> Table:
    whole = any(own.dialogues is not None for own in groups.values())
    head = ("items, %", "interval", "n", "dialogues", *(("turns, %", "dialogues, %") if whole else ()))
    rows = [
        (value, *_cells(own.items), *((_mean(own.turns), _mean(own.dialogues)) if whole else ()))
        for value, own in groups.items()
    ]
    return Table(f"By {TITLES[name]}", (TITLES[name], *head), rows)


def _agreement_table(results: Results, seed: int) -> Table:
    many = any(rater.repeat for rater in results.raters)
    rows = [
        (
            a.title(many),
            b.title(many),
            _number(own.kappa),
            f"{_number(own.low)} to {_number(own.high)}",
            f"{100 * own.same:.1f}",
            str(own.items),
        )
        for a, b, own in results.agreements(seed=seed)
    ]
    return Table("Agreement of judges", ("first", "second", "kappa", "interval", "same, %", "items"), rows)


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.2f}"


def _turns_table(results: Results) -> Table:
    groups, rows = results.groups(TURN), []
    for turn, own in results.answered().items():
        figures = groups.get(turn)
        shares = (_mean(figures.items), _mean(figures.turns)) if figures is not None else ("-", "-")
        rows.append(
            (
                turn,
                *shares,
                str(own.answers),
                f"{own.prompt_tokens:,.0f}",
                f"{own.cached:.0%}",
                f"{own.total_tokens:,.0f}",
                f"{own.parallelism.mean:.2f}",
                str(own.cut_short),
            )
        )
    head = ("turn", "items, %", "turns, %", "answers", "prompt", "cached", "tokens", "paral-\nlelism", "cut\nshort")
    return Table("By turn", head, rows)


def _cost_table(run: DialogueRun) -> Table:
    cost = cost_json(run)
    rows = [("model", f"{cost['model']['calls']:,}", *_tokens(cost["model"]), "")]
    for name, own in cost["judges"].items():
        rows.append((name, f"{own['calls']:,}", *_tokens(own), f"{own['cost']:.4f}" if name in run.prices else ""))
    return Table("Cost", ("", "calls", "prompt tokens", "completion tokens", "cost"), rows)


def comparison_table(compared: Compared) -> Table:
    """A comparison of two runs."""
    rows = [(name, *_difference(own)) for name, own in compared.differences.items()]
    title = f"{compared.second} less {compared.first}"
    return Table(title, ("", "difference, points", "interval", "p", "dialogues"), rows)


def _difference(own: Difference) -> tuple[str, ...]:
    mean, low, high = (format_value(SHARE, value, signed=True) for value in own[:3])
    return mean, f"{low} to {high}", f"{own.p:.4f}", str(own.questions)


def _tokens(own: dict[str, Any]) -> tuple[str, str]:
    return f"{own['prompt_tokens']:,}", f"{own['completion_tokens']:,}"


def _cells(own: Estimate) -> tuple[str, ...]:
    return _mean(own), f"{100 * own.low:.1f} to {100 * own.high:.1f}", str(own.samples), str(own.questions)


def _mean(own: Estimate | None) -> str:
    if own is None:
        return "-"
    error = "" if own.questions < 2 else f" ± {100 * own.stderr:.1f}"
    return f"{100 * own.mean:.1f}{error}"
