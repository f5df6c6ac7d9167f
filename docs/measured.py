"""Write the tables of measured figures into README.md and docs/ from the JSON files that hold them.

``python docs/measured.py``. A table stands between ``<!-- figures: NAME -->`` and ``<!-- /figures -->``; NAME is a key of
TABLES. A test compares the pages with what this writes. (The tables of docs/paper.md, of the runs in docs/rl.md and of the card
of multiverse-mini are written by their recipes in the same way.)
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from statistics import mean, median
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.aims import BLOCK_STEP, Aim, aims  # noqa: E402
from benchmarks.gpu_report import PAPER  # noqa: E402
from benchmarks.record import FORKED, LLAMA, PACKED, PLAIN, STOCK, VLLM, Case, Record  # noqa: E402

FIGURES = ROOT / "docs" / "figures"
_PLACE = re.compile(r"(<!-- figures: ([\w-]+) -->\n).*?(\n<!-- /figures -->)", re.DOTALL)
_SIDES = {
    FORKED: "ours, branches of one request",
    PLAIN: "ours, separate requests",
    VLLM: "vLLM on CPU",
    LLAMA: "llama.cpp, bf16",
    PACKED: "transformers `generate`, packed linears",
    STOCK: "transformers `generate`, stock",
}


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |".replace("|  |", "| |").replace("|  |", "| |") for line in lines)


def load(name: str) -> Any:
    return json.loads((FIGURES / f"{name}.json").read_text())


def mini_figures() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((ROOT / "src/multiverse/models/mini/figures.json").read_text())
    return found


def by_family() -> dict[str, dict[str, dict[str, Any]]]:
    """Family -> mode -> figures, of multiverse-mini."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for row in mini_figures()["tasks"]:
        found.setdefault(row["family"], {})[row["mode"]] = row
    return found


def percent(value: float, digits: int = 0) -> str:
    return f"{100 * value:.{digits}f}%"


def speed(value: float) -> str:
    """Tokens per second to three digits."""
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}"


def spread(values: Sequence[float], digits: int) -> str:
    """Median, and lowest to highest."""
    return f"{median(values):.{digits}f} ({min(values):.{digits}f}-{max(values):.{digits}f})"


def why() -> str:
    """The table of the README: thinking in parallel beside thinking in a line."""
    families, budget = by_family(), load("budget")
    right = {mode: mean(modes[mode]["accuracy"] for modes in families.values()) for mode in ("parallel", "sequential")}
    chain = {mode: mean(modes[mode]["critical_path_tokens"] for modes in families.values()) for mode in right}
    at = budget["budgets"].index(256)
    within = {mode: budget["points"][mode][at]["right"]["mean"] for mode in right}
    record, gpu = Record.load(FIGURES / "engine.json"), load("gpu-h100")["shapes"]["32b"]["latency"]
    eight, one = (median(record.speeds[case]) for case in (Case(FORKED, 8, 512), Case(PLAIN, 1, 512)))
    rows = [
        (
            "right answers, multiverse-mini on five kinds of problems",
            *(percent(right[mode], 1) for mode in right),
            "results.md",
        ),
        ("longest chain of tokens for them", *(f"{chain[mode]:.0f}" for mode in right), "results.md"),
        ("right if that chain may have 256 tokens", *(percent(within[mode], 1) for mode in right), "evaluation.md#budget"),
        ("tokens a second, 0.5B on two CPU cores, 8 paths", speed(eight), speed(one), "speed.md"),
        ("milliseconds a token, 32B on one H100, 8 paths", f"{gpu['8192 8'] / 8:.1f}", f"{gpu['8192 1']:.1f}", "cuda.md"),
    ]
    head = ("", "in parallel", "in a line")
    return table(head, [(f"[{what}](docs/{page})", parallel, line) for what, parallel, line, page in rows])


def mini() -> str:
    head = ("family", "parallel", "sequential", "forked", "parallelism", "critical path, parallel / sequential")
    rows = []
    for family, modes in by_family().items():
        parallel, line = modes["parallel"], modes["sequential"]
        right = [f"{percent(one['accuracy'], 1)} ± {100 * one['stderr']:.1f}" for one in (parallel, line)]
        chains = f"{parallel['critical_path_tokens']:.0f} / {line['critical_path_tokens']:.0f}"
        rows.append((family, *right, percent(parallel["forked"]), f"{parallel['parallelism']:.2f}", chains))
    return table(head, rows)


def mini_malformed() -> str:
    figures = mini_figures()
    every = [*figures["tasks"], *figures["wide"]]
    wide = ", ".join(f"{row['width']}: {row['parallelism']:.2f}" for row in figures["wide"])
    malformed, asked = sum(row["malformed"] for row in every), sum(row["n"] for row in every)
    return (
        f"{malformed} of {asked:,} generations broke the grammar. Parallelism of worksheets by number of calculations: {wide}."
    )


def speeds(name: str) -> str:
    record = Record.load(FIGURES / f"{name}.json")
    rows: list[Sequence[str]] = []
    for prefix in record.prefixes:
        rows.append([f"**prefix {prefix:,}**", *[""] * len(record.rows)])
        for side, title in _SIDES.items():
            cells = [record.speeds.get(Case(side, count, prefix), []) for count in record.rows]
            if any(cells):
                rows.append([title, *(speed(median(cell)) if cell else "" for cell in cells)])
    rows.append(["limit: all weights read once a step", speed(record.limit), *[""] * (len(record.rows) - 1)])
    return table(["", *(f"{count} row{'s' if count > 1 else ''}" for count in record.rows)], rows)


def ratios(name: str) -> str:
    """The aims of the engine; one that is missed is bold."""

    def shown(aim: Aim) -> Sequence[str]:
        value = f"{median(aim.ratios):.3f}" if aim.limit == BLOCK_STEP else f"{median(aim.ratios):.2f}"
        return (aim.text, f"at {'least' if aim.at_least else 'most'} {aim.limit:g}", value if aim.met else f"**{value}**")

    record = Record.load(FIGURES / f"{name}.json")
    return table(("ratio", "aim", "measured"), [shown(aim) for aim in aims(record) if aim.ratios])


def latency_fit() -> str:
    found = load("latency")
    cases = [case for case in found["cases"] if case["part"] == "latency"]
    asked = sorted({case["asked"] for case in cases})
    rows = []
    for context, fit in found["fits"].items():
        own = {case["asked"]: case for case in cases if case["context"] == int(context)}
        each = [spread([1e3 * seconds / own[x]["tokens"] / own[x]["batch"] for seconds in own[x]["seconds"]], 1) for x in asked]
        law = f"({fit['a']:.1f} ± {fit['a_error']:.1f}) / x + ({fit['b']:.1f} ± {fit['b_error']:.1f}), R² {fit['r2']:.3f}"
        rows.append((f"{int(context):,}", *each, law))
    return table(("context", *(f"x = {x:g}" for x in asked), "fit, ms per token"), rows)


def latency_batches(name: str) -> str:
    found = load(name)
    cases = {(case["batch"], case["asked"]): case for case in found["cases"] if case["part"] == "batch"}
    asked = sorted({x for _, x in cases if x > 1})
    rows = []
    for batch in sorted({batch for batch, _ in cases}):
        line = cases[batch, 1.0]
        each = [1e3 * seconds / line["tokens"] for seconds in line["seconds"]]
        cells = []
        for x in asked:
            own = cases[batch, x]
            gains = [
                (before / line["tokens"]) / (after / own["tokens"])
                for before, after in zip(line["seconds"], own["seconds"], strict=True)
            ]
            cells.append(spread(gains, 2))
        rows.append((str(batch), spread(each, 1), *cells))
    context = found["settings"]["batch_context"]
    head = (f"batch (context {context})", "sequential, ms per token", *(f"speed-up at x = {x:g}" for x in asked))
    return table(head, rows)


def budget() -> str:
    found = load("budget")

    def right(point: dict[str, Any]) -> str:
        return f"{100 * point['right']['mean']:.1f} ± {100 * point['right']['stderr']:.1f}"

    rows = []
    for at, limit in enumerate(found["budgets"]):
        gain = found["gains"][at]
        p = "p < 0.001" if gain["p"] < 1e-3 else f"p = {gain['p']:.3f}"
        change = f"{100 * gain['mean']:+.1f} [{100 * gain['low']:+.1f}, {100 * gain['high']:+.1f}], {p}"
        rows.append((str(limit), *(right(found["points"][mode][at]) for mode in ("parallel", "sequential")), change))
    return table(("budget", "parallel, % right", "sequential, % right", "parallel less sequential"), rows)


def gpu() -> str:
    shapes = load("gpu-h100")["shapes"]
    big, small = shapes["32b"], shapes["7b"]

    def floor(found: dict[str, Any]) -> str:
        step, least = found["plain"]["1"], found["floor_ms"]
        return f"{100 * least / step:.1f}% ({step:.2f} ms, floor {least:.2f})"

    def rows_of(found: dict[str, Any]) -> str:
        return f"{found['plain']['8']:.1f}, {found['plain']['64']:.1f} ms"

    def forked(found: dict[str, Any]) -> str:
        return f"{100 * (found['forked']['8'] / found['plain']['8'] - 1):.1f}% over 8 unrelated rows"

    def faster(context: str) -> str:
        return f"{8 * big['latency'][f'{context} 1'] / big['latency'][f'{context} 8']:.1f}x"

    def whole(found: dict[str, Any], x: str) -> str:
        own = [found["speedup"].get(f"{batch} {x}") for batch in (1, 16, 64)]
        return ", ".join(f"{one['speedup'] / one['parallelism']:.2f}" for one in own if one is not None)

    contexts = ("8192", "16384", "32768")
    joins = ", ".join(f"{small['join'][length]['join'] / small['join'][length]['plain']:.2f}" for length in ("32", "256"))
    rows = [
        ("a step of one row", "90% of the floor (7B: 85%)", floor(big), floor(small)),
        ("a step of 8, 64 unrelated rows", "", rows_of(big), rows_of(small)),
        ("a step of 8 branches of one block", "", forked(big), forked(small)),
        ("eight branches for one request, at 8K, 16K, 32K tokens", "6x", ", ".join(map(faster, contexts)), ""),
    ]
    for context in contexts:
        fit = big["fits"][context]
        about = f"milliseconds a token at parallelism x, at {int(context) // 1024}K"
        rows.append((about, f"constant below the paper's {PAPER[context][1]:.2f}", f"{fit['a']:.2f}/x + {fit['b']:.2f}", ""))
    about = "speed-up over parallelism, whole documents of parallelism"
    rows += [
        (f"{about} 1.5, batch 1, 16, 64", "0.97", whole(big, "1.5"), whole(small, "1.5")),
        (f"{about} 1.1, batch 1, 16", "0.97", whole(big, "1.1"), whole(small, "1.1")),
        ("a join of four branches of 32, of 256 tokens, in steps", "1", "", joins),
    ]
    return table(("what", "aim", "32B", "7B"), rows)


def from_sequential() -> str:
    found = load("from-sequential")
    after = {(row["family"], row["mode"]): row for row in found["after"]}
    rows = []
    for one in found["before"]:
        other = after[one["family"], one["mode"]]
        shares = [percent(own[key]) for key in ("accuracy", "forked") for own in (one, other)]
        rows.append((one["family"], one["mode"], *shares, *(f"{own['parallelism']:.2f}" for own in (one, other))))
    changes = ("accuracy before", "after", "forked before", "after", "parallelism before", "after")
    return table(("family", "prompt", *changes), rows)


def group_packing() -> str:
    rows = []
    for one in load("group-packing")["rows"]:
        sides = ("one", "rows", "shared")
        tokens = " / ".join(f"{one['tokens'][side]:,}" for side in sides)
        memory = " / ".join(f"{one['memory_mib'][side]:.0f}" for side in sides)
        gains = [f"{one['speed'][side]:.2f}" for side in ("one", "rows")]
        differ = f"{max(one['gradient'].values()):.0e}"
        rows.append((str(one["group"]), percent(one["share"]), tokens, *gains, memory, differ))
    three = "one at a time / a prompt each / shared"
    head = ("rollouts", "prompt", f"tokens computed: {three}", "faster than one at a time", "than a prompt each")
    return table((*head, f"peak memory, MiB: {three}", "gradients differ by"), rows)


def masks() -> str:
    rows = []
    for one in load("masks")["rows"]:
        dense, block = one["bytes"]["dense"] / 2**20, one["bytes"]["block"] / 2**10
        times = [" / ".join(f"{1e3 * one[what][kind]:,.0f}" for kind in ("dense", "block")) for what in ("make_s", "step_s")]
        sizes = (f"{one['released_bytes'] / 2**20:,.0f}", f"{dense:,.0f}", f"{block:,.0f}")
        rows.append((f"{one['length']:,}", *sizes, percent(one["blocks_computed"]), *times, f"{one['ratio']:.2f}"))
    sizes = ("float, MiB", "dense, MiB", "block, KiB")
    head = ("tokens", *sizes, "blocks computed", "make dense / block, ms", "forward dense / block, ms", "ratio")
    return table(head, rows)


TABLES: dict[str, Callable[[], str]] = {
    "why": why,
    "mini": mini,
    "mini-malformed": mini_malformed,
    "engine": lambda: speeds("engine"),
    "engine-aims": lambda: ratios("engine"),
    "engine-epyc": lambda: speeds("engine-epyc"),
    "engine-epyc-aims": lambda: ratios("engine-epyc"),
    "latency": latency_fit,
    "latency-batches": lambda: latency_batches("latency"),
    "latency-wide": lambda: latency_batches("latency-wide"),
    "budget": budget,
    "gpu": gpu,
    "from-sequential": from_sequential,
    "group-packing": group_packing,
    "masks": masks,
}


def pages() -> list[Path]:
    """README and the pages of docs/."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def filled(text: str) -> str:
    """A page with its tables written anew."""
    return _PLACE.sub(lambda place: place[1] + "\n" + TABLES[place[2]]() + "\n" + place[3], text)


def names(text: str) -> list[str]:
    """The tables that a page has a place for."""
    return [place[2] for place in _PLACE.finditer(text)]


def main() -> None:
    for page in pages():
        text = page.read_text()
        if (new := filled(text)) != text:
            page.write_text(new)
            print(page.relative_to(ROOT))


if __name__ == "__main__":
    main()
