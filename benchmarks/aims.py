"""The aims of the project, each with the ratio that was measured for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

from benchmarks.record import FORKED, LLAMA, PLAIN, VLLM, Case, Record

MACHINERY, JOIN, SHARE = 1.03, 1.2, 0.8
AGAINST_LLAMA, AGAINST_LIMIT, AGAINST_BOTH = 0.9, 0.85, 1.2
WIDE = (8, 16)


@dataclass(frozen=True)
class Aim:
    """A ratio, measured in every repeat, and the bound that its median is to keep.

    Attributes:
        least: whether the bound is the least that will do; else it is the most.
        ratios: empty where one of the two sides was not measured.
    """

    text: str
    bound: float
    least: bool
    ratios: list[float]

    @property
    def met(self) -> bool | None:
        """Whether the median keeps the bound; `None` when nothing was measured."""
        if not self.ratios:
            return None
        return median(self.ratios) >= self.bound if self.least else median(self.ratios) <= self.bound


def aims(record: Record) -> list[Aim]:
    """Every aim. Ratios pair what was measured in the same repeat, so that a slow minute weighs on both sides."""
    return [*_batch_one(record), *_wide(record), *_fork_join(record)]


def _batch_one(record: Record) -> list[Aim]:
    found = []
    for prefix in record.prefixes:
        ours = record.speeds.get(Case(PLAIN, 1, prefix), [])
        llama = record.speeds.get(Case(LLAMA, 1, prefix), [])
        found.append(Aim(f"batch 1 / llama.cpp, prefix {prefix}", AGAINST_LLAMA, True, divided(ours, llama)))
        limit = [speed / record.limit for speed in ours]
        found.append(Aim(f"batch 1 / weight-streaming limit, prefix {prefix}", AGAINST_LIMIT, True, limit))
    return found


def _wide(record: Record) -> list[Aim]:
    found = []
    for prefix in record.prefixes:
        for rows in WIDE:
            ours = record.speeds.get(Case(FORKED, rows, prefix), [])
            others = {
                side: record.speeds[case] for side in (LLAMA, VLLM) if (case := Case(side, rows, prefix)) in record.speeds
            }
            better = [max(speeds) for speeds in zip(*others.values(), strict=False)] if others else []
            names = " and ".join(others) or f"{LLAMA} and {VLLM}"
            text = f"{rows} branches / {'better of ' if len(others) != 1 else ''}{names}, prefix {prefix}"
            found.append(Aim(text, AGAINST_BOTH, True, divided(ours, better)))
    return found


def _fork_join(record: Record) -> list[Aim]:
    machinery = {
        f"width {rows}, prefix {prefix}": ratios
        for prefix in record.prefixes
        for rows in record.rows
        if (ratios := overhead(record, rows, prefix))
    }
    lengths = sorted(record.joins)
    shares = {f"{whole[0].parallelism:.2f}": [w.speedup / w.parallelism for w in whole] for whole in record.documents.values()}
    place, worst = _extreme(machinery, max)
    parallelism, least = _extreme(shares, min)
    found = [Aim(f"step in a block / plain step, worst ({place})", MACHINERY, False, worst)]
    if len(lengths) > 1:
        short, long = record.joins[lengths[0]], record.joins[lengths[-1]]
        growth = divided([join.relative for join in long], [join.relative for join in short])
        found.append(Aim(f"join of {lengths[-1]}-token branches / of {lengths[0]}-token ones", JOIN, False, growth))
    found.append(Aim(f"speed-up / parallelism, worst (parallelism {parallelism})", SHARE, True, least))
    return found


def overhead(record: Record, rows: int, prefix: int) -> list[float]:
    """Step time inside a block over that of as many unrelated requests that see as many tokens, repeat by repeat."""
    forked, plain = (record.steps.get(Case(side, rows, prefix), []) for side in (FORKED, PLAIN))
    return divided(forked, plain)


def divided(above: list[float], below: list[float]) -> list[float]:
    """Ratios repeat by repeat, as far as both sides went."""
    return [a / b for a, b in zip(above, below, strict=False)]


def _extreme(table: dict[str, list[float]], pick: Callable[..., str]) -> tuple[str, list[float]]:
    if not table:
        return "none", []
    name = pick(table, key=lambda name: median(table[name]))
    return name, table[name]
