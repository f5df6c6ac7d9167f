"""Measure a model that was taught to fork, on held-out requests, and beside the model it was made from.

    python -m recipes.smol.measure runs/smol/run/adapter --base smollm2 --json runs/smol/figures.json

`heldout.jsonl` holds 280 requests of two to eight parts and 300 single ones, made of topics and wordings that no training
document has. Everything is decoded greedily. Reported are the requests with exactly as many paths as parts, the parts whose
path names what was asked for, single requests that forked all the same, answers that broke the grammar or did not end; and
for requests of four parts, decoded one at a time, the seconds of the forked answer against the seconds that the base takes for
as many tokens as the paths hold, in a line. Last, what the model has lost of its base: the base answers single requests, and
the answers are scored under both.
"""

from __future__ import annotations

import argparse
import json
import re
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median
from typing import Any

from rich.console import Console
from rich.progress import Progress, track
from rich.table import Table

from benchmarks.machine import describe
from multiverse import LLM, SamplingParams
from multiverse.engine import Generation
from multiverse.structure import leaves

REQUESTS = Path(__file__).with_name("heldout.jsonl")
MOST_TOKENS = 1600
LINE_TOKENS = 256
"""Length of the base's answers in a line; its seconds for each token come from them."""
SCORED_TOKENS = 128
"""Most tokens of the base's answers that are scored."""

_COMMON_WORDS = frozenset(
    re.findall(
        "[a-z]+",
        """a about an and any are as at be by can could describe did do does explain for from give has have help how i in
        introduce is it its know let like look made make makes me mean meant more need needs of on one or purpose really say
        should so some tell than that the their there they this tip to understand us use used was way ways were what when
        where which who why with work works would you your""",
    )
)


@dataclass(frozen=True)
class Request:
    """A held-out request.

    Attributes:
        messages: the chat.
        parts: number of its parts; 0 for one that should not fork.
        questions: the question behind each part.
    """

    messages: list[dict[str, str]]
    parts: int
    questions: list[str]


def read_requests(path: Path, limit: int | None) -> list[Request]:
    """The requests of a file, at most `limit` of each number of parts."""
    found: dict[int, list[Request]] = defaultdict(list)
    for line in path.read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        found[record["parts"]].append(Request(record["messages"], record["parts"], record["questions"]))
    return [request for group in found.values() for request in group[:limit]]


def addressed(question: str, text: str) -> bool:
    """Whether a text holds a content word of the question, the first five letters compared."""
    words = [word for word in re.findall(r"[a-z]+", question.lower()) if word not in _COMMON_WORDS]
    return any(word[:5] in text.lower() for word in words) if words else bool(text.strip())


def judge(request: Request, out: Generation) -> dict[str, Any]:
    """Figures of one answer."""
    paths = leaves(out.tree.answer) if out.tree is not None else []
    pairs = zip(request.questions, paths, strict=False)
    return {
        "parts": request.parts,
        "paths": len(paths),
        "exact": len(paths) == request.parts,
        "addressed": sum(addressed(question, text) for question, text in pairs) if len(paths) == request.parts else 0,
        "malformed": out.finish_reason in ("malformed", "error"),
        "ended": out.finish_reason == "stop",
        "usage": out.usage.to_json("total_tokens", "critical_path_tokens", "critical_path_steps", "parallelism"),
    }


def measure(llm: LLM, requests: Sequence[Request], console: Console) -> list[dict[str, Any]]:
    """Figures of every answer."""
    params = SamplingParams(temperature=0, max_tokens=MOST_TOKENS)
    with Progress(console=console) as progress:
        bar = progress.add_task("held-out requests", total=len(requests))

        def advance(_index: int, _out: Generation) -> None:
            progress.advance(bar)

        outs = llm.chat([request.messages for request in requests], params, mode=None, on_finish=advance)
    return [judge(request, out) for request, out in zip(requests, outs, strict=True)]


def clock(llm: LLM, base: LLM, requests: Iterable[Request], console: Console) -> list[dict[str, float]]:
    """Seconds of forked answers, one at a time, and of the base for as many tokens as their paths hold."""
    rows = []
    for request in track(list(requests), description="wall-clock", console=console):
        began = time.perf_counter()
        out = llm.chat([request.messages], SamplingParams(temperature=0, max_tokens=MOST_TOKENS), mode=None)[0]
        forked = time.perf_counter() - began
        if out.tree is None or len(texts := leaves(out.tree.answer)) != request.parts:
            continue
        content = sum(len(base.tokenizer.encode(text, add_special_tokens=False)) for text in texts)
        began = time.perf_counter()
        line = base.chat([request.messages], SamplingParams(temperature=0, max_tokens=LINE_TOKENS), mode=None)[0]
        seconds_per_token = (time.perf_counter() - began) / line.usage.total_tokens
        rows.append({"tokens": content, "forked": forked, "in_line": content * seconds_per_token})
    return rows


def lost_likelihood(llm: LLM, base: LLM, requests: Sequence[Request]) -> dict[str, float]:
    """What the model gives the base's own answers, in nats a token, beside what the base gives them.

    The tokens of a prompt and of its answer are the same for both, since the model has all of the base's.
    """
    outs = base.chat(
        [request.messages for request in requests], SamplingParams(temperature=0, max_tokens=SCORED_TOKENS), mode=None
    )
    texts = [[*base.encode_chat(request.messages), *out.token_ids] for request, out in zip(requests, outs, strict=True)]
    totals, count = [], sum(len(out.token_ids) for out in outs)
    for scorer in (base, llm):
        scores = scorer.score(texts)
        answers = (score.logprobs[-len(out.token_ids) :] for score, out in zip(scores, outs, strict=True))
        totals.append(sum(value for answer in answers for value in answer if value is not None))
    return {"answers": len(outs), "tokens": count, "base": totals[0] / count, "model": totals[1] / count}


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Shares and means over the answers to requests with one number of parts."""
    parts = rows[0]["parts"]
    exact = [row for row in rows if row["exact"]]
    return {
        "parts": parts,
        "requests": len(rows),
        "exact": len(exact) / len(rows),
        "addressed": sum(row["addressed"] for row in exact) / (parts * len(exact)) if parts and exact else None,
        "malformed": sum(row["malformed"] for row in rows),
        "ended": mean(row["ended"] for row in rows),
        **{name: mean(row["usage"][name] for row in rows) for name in rows[0]["usage"]},
    }


def table(groups: list[dict[str, Any]]) -> Table:
    """The summaries as a table; in the first row of a single request, `exact` is the share that did not fork."""
    grid = Table(
        "parts", "requests", "exact", "addressed", "malformed", "ended", "tokens", "critical path", "steps", "parallelism"
    )
    for group in groups:
        addressed_share = "" if group["addressed"] is None else f"{group['addressed']:.1%}"
        grid.add_row(
            str(group["parts"]), str(group["requests"]), f"{group['exact']:.1%}", addressed_share, str(group["malformed"]),
            f"{group['ended']:.1%}", f"{group['total_tokens']:.0f}", f"{group['critical_path_tokens']:.0f}",
            f"{group['critical_path_steps']:.0f}", f"{group['parallelism']:.2f}",
        )  # fmt: skip
    return grid


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="folder or name of the model")
    parser.add_argument("--base", default="smollm2", help="the model that it was made from")
    parser.add_argument("--requests", type=Path, default=REQUESTS)
    parser.add_argument("--limit", type=int, help="most requests for each number of parts")
    parser.add_argument("--clock", type=int, default=12, help="requests of four parts that are timed")
    parser.add_argument("--scored", type=int, default=100, help="answers of the base that are scored")
    parser.add_argument("--json", type=Path, help="file for the figures")
    options = parser.parse_args()
    console = Console(stderr=True)
    llm, requests = LLM(options.model), read_requests(options.requests, options.limit)
    rows = measure(llm, requests, console)
    groups = [summary([row for row in rows if row["parts"] == parts]) for parts in sorted({row["parts"] for row in rows})]
    four = [request for request in requests if request.parts == 4][: options.clock]
    base = LLM(options.base)
    times = clock(llm, base, four, console)
    speedups = [row["in_line"] / row["forked"] for row in times]
    kept = lost_likelihood(llm, base, [request for request in requests if not request.parts][: options.scored])
    figures = {"machine": describe(), "model": str(options.model), "parts": groups, "clock": times, "likelihood": kept}
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")
    Console().print(table(groups))
    if speedups:
        print(f"four parts, alone: {median(speedups):.2f} times as fast as the base in a line (median of {len(speedups)})")
    print(
        f"the base's own answers ({kept['answers']}, {kept['tokens']:,} tokens): {kept['base']:.3f} nats a token under the "
        f"base, {kept['model']:.3f} under the model: {kept['base'] - kept['model']:.3f} lost"
    )
    print(figures["machine"])


if __name__ == "__main__":
    main()
