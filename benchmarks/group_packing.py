"""An update on groups of rollouts in three layouts: one rollout at a time, rows with a prompt for each, shared prompts.

A group of rollouts of one question has one prompt. One at a time, each rollout is a row of its own; with a prompt each, all
rollouts of the group are in one row, each behind a copy of the prompt; with a shared prompt, it stands once in that row. Each
rollout has a block of four paths, which hold two thirds of its answer. Measured are a forward and a backward of the policy loss
over one group, on a random model: their time, all sides in turn, and their peak memory beyond weights and gradients, each side
in a process of its own. The gradients have to be the same.

    python -m benchmarks.group_packing --json docs/figures/group-packing.json --plot docs/figures/group-packing.svg
    python -m benchmarks.group_packing --groups 4 16 --shares 0.5 --repeats 2
"""

from __future__ import annotations

import json
import multiprocessing
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import torch
from matplotlib.figure import Figure
from rich.console import Console
from rich.progress import track
from torch import Tensor
from transformers import Qwen3Config, Qwen3ForCausalLM

from benchmarks.machine import describe, load_notes, peak_mib, synchronize
from benchmarks.options import make_parser
from multiverse.attention.packed import register
from multiverse.engine.generation import Generation, Usage
from multiverse.training.rl.advantages import advantages
from multiverse.training.rl.algorithms import Algorithm
from multiverse.training.rl.batch import Packing, RolloutBatch, make_batches
from multiverse.training.rl.logprobs import policy_logprobs
from multiverse.training.rl.loss import policy_loss
from multiverse.training.rl.rollout import Group, Question, Rollout, Scores

GROUPS, SHARES = (4, 8, 16, 32), (0.1, 0.5, 0.9)
SIDES = {"one": "one at a time", "rows": "a prompt each", "shared": "shared prompt"}
PATHS = 4
TOLERANCE = 1e-5
"""Most by which the gradients may differ, relative to their norm."""
COLOURS = ("#0b62d6", "#d1690e", "#1a8754", "#8250a8", "#8c959f")


class Shape(NamedTuple):
    """Of the random model and of a rollout.

    Attributes:
        length: tokens of a rollout, prompt included.
    """

    width: int = 256
    layers: int = 2
    vocabulary: int = 4096
    length: int = 192


class Case(NamedTuple):
    """A group size, and the share of the prompt in a rollout."""

    group: int
    share: float


def make_model(shape: Shape, device: str) -> Any:
    """A random model, in fp32 on a CPU, else in bf16."""
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=shape.vocabulary,
        hidden_size=shape.width,
        intermediate_size=3 * shape.width,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.width // 64,
        num_key_value_heads=max(1, shape.width // 128),
        head_dim=64,
        tie_word_embeddings=True,
    )
    model: Any = Qwen3ForCausalLM(config)
    model.to(device, torch.float32 if device == "cpu" else torch.bfloat16)
    model.set_attn_implementation(register())
    return model


def make_rollout(shape: Shape, share: float, seed: int) -> Rollout:
    """A trunk, a block of four paths in which two thirds of the answer stand, and a trunk."""
    generator = torch.Generator().manual_seed(seed)
    prompt = max(1, round(share * shape.length))
    answer = shape.length - prompt
    path = answer // 6
    head = (answer - PATHS * path) // 2
    segments, positions = [0] * (prompt + head), list(range(prompt + head))
    for number in range(PATHS):
        segments += [number + 1] * path
        positions += range(prompt + head, prompt + head + path)
    tail = shape.length - len(segments)
    segments += [0] * tail
    positions += range(prompt + head + path, prompt + head + path + tail)
    same = torch.randint(shape.vocabulary, (prompt,), generator=torch.Generator().manual_seed(7)).tolist()
    drawn = torch.randint(shape.vocabulary, (answer,), generator=generator).tolist()
    last = {0: prompt - 1}
    sources = []
    for at in range(prompt, shape.length):
        sources.append(last.get(segments[at], prompt + head - 1))
        last[segments[at]] = at
    size = range(PATHS + 1)
    return Rollout(
        generation=Generation(
            text="",
            answer="",
            tree=None,
            finish_reason="stop",
            usage=Usage(prompt, answer, answer - (PATHS - 1) * path, answer, 0.0),
            token_ids=tuple(drawn),
            positions=tuple(positions[prompt:]),
            branches=tuple(str(segment or "") for segment in segments[prompt:]),
            forced=(False,) * answer,
            logprobs=(-9.0,) * answer,
            prompt_token_ids=tuple(same),
        ),
        positions=tuple(positions),
        segments=tuple(segments),
        visibility=tuple(tuple(int(not (a and b and a != b)) for b in size) for a in size),
        sources=tuple(sources),
        supports=(None,) * answer,
        temperature=1.0,
        version=0,
        seed=seed,
    )


def make_sides(shape: Shape, case: Case, device: str, sides: Sequence[str] = tuple(SIDES)) -> dict[str, list[RolloutBatch]]:
    """One group in each layout."""
    rollouts = [make_rollout(shape, case.share, seed) for seed in range(case.group)]
    # Different rewards, and a ratio that is not clipped away: every token has a gradient.
    group = Group(Question("random", ()), rollouts, [Scores(float(number)) for number in range(case.group)])
    algorithm = Algorithm(clip_ratio_low=1.0, clip_ratio_high=1e6)
    groups = advantages([group], algorithm).groups
    whole = case.group * shape.length
    kind: Any = "dense" if device == "cpu" else "block"
    packings = {
        "one": Packing(0, 1, group_packing=False, kind=kind),
        "rows": Packing(0, whole, group_packing=False, kind=kind),
        "shared": Packing(0, whole, kind=kind),
    }
    return {side: [batch.to(device) for batch in make_batches(groups, algorithm, packings[side])] for side in sides}


def step(model: Any, batches: Sequence[RolloutBatch]) -> None:
    """A forward and a backward of each batch; gradients add up."""
    algorithm = Algorithm(clip_ratio_low=1.0, clip_ratio_high=1e6)
    for batch in batches:
        logprob_T, entropy_T = policy_logprobs(model, batch)
        policy_loss(logprob_T, entropy_T, batch.tokens, algorithm)[0].backward()


def gradient(model: Any, batches: Sequence[RolloutBatch]) -> Tensor:
    """Of all weights as one vector."""
    model.zero_grad(set_to_none=False)
    step(model, batches)
    return torch.cat([weight.grad.flatten().double() for weight in model.parameters()])


def differences(model: Any, sides: dict[str, list[RolloutBatch]]) -> dict[str, float]:
    """Distance of each side's gradient from that of one rollout at a time, relative to its norm."""
    expected = gradient(model, sides["one"])
    return {
        side: float((gradient(model, batches) - expected).norm() / expected.norm())
        for side, batches in sides.items()
        if side != "one"
    }


def peak_memory(shape: Shape, case: Case, side: str, device: str, threads: int) -> float:
    """MiB that a step takes at most beyond weights and gradients. Run it in a process of its own."""
    torch.set_num_threads(threads)
    model = make_model(shape, device)
    batches = make_sides(shape, case, device, [side])[side]
    small = make_sides(shape._replace(length=64), Case(1, 0.5), device, ["one"])["one"]
    gradient(model, small)
    return peak_mib(lambda: step(model, batches), device)


def measure(model: Any, shape: Shape, case: Case, repeats: int, device: str, pool: Any) -> dict[str, Any]:
    """One case: seconds and memory of each side, and how far the gradients are apart."""
    threads = torch.get_num_threads()
    memory = {side: pool.apply(peak_memory, (shape, case, side, device, threads)) for side in SIDES}
    sides = make_sides(shape, case, device)
    apart = differences(model, sides)  # the first step of each side is a warm-up
    took: dict[str, list[float]] = {side: [] for side in SIDES}
    for _ in range(repeats):
        for side, batches in sides.items():
            synchronize(device)
            began = time.perf_counter()
            step(model, batches)
            synchronize(device)
            took[side].append(time.perf_counter() - began)
    return {
        **case._asdict(),
        "tokens": {side: sum(batch.num_tokens for batch in batches) for side, batches in sides.items()},
        "seconds": took,
        "memory_mib": memory,
        "gradient": apart,
        "speed": {
            side: median(one / other for one, other in zip(took[side], took["shared"], strict=True)) for side in ("one", "rows")
        },
        "memory": memory["rows"] / memory["shared"],
    }


def table(record: dict[str, Any]) -> str:
    """The record as a Markdown table."""
    names = " / ".join(SIDES.values())
    lines = [
        f"| rollouts | prompt | tokens computed: {names} | seconds | faster than one at a time | than a prompt each "
        f"| peak memory, MiB | less than a prompt each | gradients differ by |",
        f"|{'---:|' * 9}",
    ]
    for row in record["rows"]:
        cells = (
            str(row["group"]),
            f"{row['share']:.0%}",
            " / ".join(f"{row['tokens'][side]:,}" for side in SIDES),
            " / ".join(f"{median(row['seconds'][side]):.2f}" for side in SIDES),
            f"{row['speed']['one']:.2f}",
            f"{row['speed']['rows']:.2f}",
            " / ".join(f"{row['memory_mib'][side]:,.0f}" for side in SIDES),
            f"{row['memory']:.2f}",
            f"{max(row['gradient'].values()):.0e}",
        )
        lines.append(f"| {' | '.join(cells)} |")
    shape = Shape(**record["shape"])
    model = f"{shape.layers} layers of {shape.width}, {shape.vocabulary:,} words, {shape.length} tokens a rollout"
    return "\n".join([*lines, "", f"{model}. {record['machine']}", *record["notes"]])


def draw(record: dict[str, Any], path: Path) -> None:
    """Write the figure: speed and memory against group size, a line for each share of the prompt."""
    figure = Figure(figsize=(10.5, 4.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    shares = sorted({row["share"] for row in record["rows"]})
    for colour, share in zip(COLOURS, shares, strict=False):
        rows = [row for row in record["rows"] if row["share"] == share]
        sizes = [row["group"] for row in rows]
        label = f"prompt {share:.0%} of a rollout"
        left.plot(sizes, [row["speed"]["one"] for row in rows], "o-", color=colour, label=label)
        left.plot(sizes, [row["speed"]["rows"] for row in rows], "s:", color=colour)
        right.plot(sizes, [row["memory"] for row in rows], "s:", color=colour, label=label)
    left.set_title("Speed of a shared prompt", loc="left")
    left.set_ylabel("times faster than one at a time (dots),\nthan a prompt each (squares)")
    right.set_title("Peak memory of a shared prompt", loc="left")
    right.set_ylabel("times less than a prompt each")
    for axis in (left, right):
        axis.set_xscale("log", base=2)
        axis.set_xticks(GROUPS, [str(size) for size in GROUPS])
        axis.set_xlabel("rollouts of a group")
        axis.axhline(1, color=COLOURS[-1], linewidth=1)
        axis.set_ylim(bottom=0)
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(axis="y", color="#e4e8ec")
    left.legend(frameon=False)
    figure.supxlabel(record["machine"], fontsize=8, color="#59636e")
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = make_parser(__doc__, json="after every case", plot="svg, png or pdf", load=True)
    parser.add_argument("--groups", type=int, nargs="+", default=GROUPS, metavar="N", help="group sizes")
    parser.add_argument(
        "--shares", type=float, nargs="+", default=SHARES, metavar="X", help="shares of the prompt in a rollout"
    )
    parser.add_argument("--repeats", type=int, default=3)
    for name, value in Shape()._asdict().items():
        parser.add_argument(f"--{name}", type=int, default=value)
    options = parser.parse_args()
    if options.load is not None:
        record = json.loads(options.load.read_text())
    else:
        device = "cuda" if torch.cuda.is_available() else "cpu"
        shape = Shape(*(getattr(options, name) for name in Shape._fields))
        record = {"machine": describe(device), "notes": load_notes(), "shape": shape._asdict(), "rows": []}
        context = multiprocessing.get_context("forkserver")  # a clean process for each measurement, imports done
        context.set_forkserver_preload(["transformers", "matplotlib.figure", "multiverse.training.rl.logprobs"])
        model = make_model(shape, device)
        cases = [Case(group, share) for group in options.groups for share in options.shares]
        with context.Pool(1, maxtasksperchild=1) as pool:
            for case in track(cases, "group packing", console=Console(stderr=True), transient=True):
                record["rows"].append(measure(model, shape, case, options.repeats, device, pool))
                if options.json is not None:
                    options.json.write_text(json.dumps(record, indent=1) + "\n")
    print(table(record))
    if options.plot is not None:
        draw(record, options.plot)
    worst = max(max(row["gradient"].values()) for row in record["rows"])
    if worst > TOLERANCE:
        raise SystemExit(f"the gradients differ by {worst:.1e}, more than {TOLERANCE:.0e}")


if __name__ == "__main__":
    main()
