"""Target ratios of the engine, each with the ratios that were measured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

from benchmarks.record import FORKED, LLAMA, PLAIN, VLLM, Case, Record

BLOCK_STEP, JOIN, SPEEDUP = 1.03, 1.2, 0.8
OVER_LLAMA, OVER_LIMIT, OVER_BOTH = 0.9, 0.85, 1.2
ROWS = (8, 16)


@dataclass(frozen=True)
class Aim:
    """A ratio and the limit of its median.

    Attributes:
        limit, at_least: least or greatest value of the median.
        ratios: one per repeat; empty if one of the two sides was not measured.
    """

    text: str
    limit: float
    at_least: bool
    ratios: list[float]

    @property
    def met(self) -> bool | None:
        """Whether the median is within the limit; `None` if nothing was measured."""
        if not self.ratios:
            return None
        return median(self.ratios) >= self.limit if self.at_least else median(self.ratios) <= self.limit


def aims(record: Record) -> list[Aim]:
    """All aims. A ratio pairs figures of one repeat, so that a slow minute affects both sides."""
    return [*_batch_one(record), *_wide(record), *_fork_join(record)]


def _batch_one(record: Record) -> list[Aim]:
    found = []
    for prefix in record.prefixes:
        ours = record.speeds.get(Case(PLAIN, 1, prefix), [])
        llama = record.speeds.get(Case(LLAMA, 1, prefix), [])
        found.append(Aim(f"batch 1 / llama.cpp, prefix {prefix}", OVER_LLAMA, True, ratios_of(ours, llama)))
        limit = [speed / record.limit for speed in ours]
        found.append(Aim(f"batch 1 / weight-streaming limit, prefix {prefix}", OVER_LIMIT, True, limit))
    return found


def _wide(record: Record) -> list[Aim]:
    found = []
    for prefix in record.prefixes:
        for rows in ROWS:
            ours = record.speeds.get(Case(FORKED, rows, prefix), [])
            others = {
                side: record.speeds[case] for side in (LLAMA, VLLM) if (case := Case(side, rows, prefix)) in record.speeds
            }
            better = [max(speeds) for speeds in zip(*others.values(), strict=False)] if others else []
            names = " and ".join(others) or f"{LLAMA} and {VLLM}"
            text = f"{rows} branches / {'better of ' if len(others) != 1 else ''}{names}, prefix {prefix}"
            found.append(Aim(text, OVER_BOTH, True, ratios_of(ours, better)))
    return found


def _fork_join(record: Record) -> list[Aim]:
    steps = {
        f"width {rows}, prefix {prefix}": ratios
        for prefix in record.prefixes
        for rows in record.rows
        if (ratios := overhead(record, rows, prefix))
    }
    speedups = {
        f"{whole[0].parallelism:.2f}": [w.speedup / w.parallelism for w in whole] for whole in record.documents.values()
    }
    place, slowest = _extreme(steps, max)
    parallelism, least = _extreme(speedups, min)
    found = [Aim(f"step in a block / plain step, worst ({place})", BLOCK_STEP, False, slowest)]
    lengths = sorted(record.joins)
    if len(lengths) > 1:
        short, long = record.joins[lengths[0]], record.joins[lengths[-1]]
        growth = ratios_of([join.relative for join in long], [join.relative for join in short])
        found.append(Aim(f"join of {lengths[-1]}-token branches / of {lengths[0]}-token ones", JOIN, False, growth))
    found.append(Aim(f"speed-up / parallelism, worst (parallelism {parallelism})", SPEEDUP, True, least))
    return found


def overhead(record: Record, rows: int, prefix: int) -> list[float]:
    """Step time inside a block over that of as many separate requests that see as many tokens, one per repeat."""
    forked, plain = (record.steps.get(Case(side, rows, prefix), []) for side in (FORKED, PLAIN))
    return ratios_of(forked, plain)


def ratios_of(above: list[float], below: list[float]) -> list[float]:
    """Ratios, one per repeat that both sides have."""
    return [a / b for a, b in zip(above, below, strict=False)]


def _extreme(table: dict[str, list[float]], pick: Callable[..., str]) -> tuple[str, list[float]]:
    if not table:
        return "none", []
    name = pick(table, key=lambda name: median(table[name]))
    return name, table[name]
