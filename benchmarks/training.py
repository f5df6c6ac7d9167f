"""A training step, forward and backward, against transformers' own on the same tokens: speed and peak memory.

transformers reads the rows as causal text and computes all logits at once. Here the same rows are packed documents with paths,
whose mask is made from their structure, and logits are computed from stretches. Models have random weights in the shapes of
multiverse-mini, SmolLM2-135M and Qwen2.5-0.5B; rows are task documents. Sides take turns; peak memory is beyond weights and
gradients, each side in a process of its own.

    python -m benchmarks.training --json docs/figures/training.json
    python -m benchmarks.training --shapes mini --threads 1 --repeats 3
"""

from __future__ import annotations

import json
import multiprocessing
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, LlamaConfig

import multiverse
from benchmarks.machine import describe, load_notes, peak_mib, synchronize
from benchmarks.options import make_parser
from benchmarks.shape import shape_config
from multiverse.attention.packed import Kind, register
from multiverse.structure import resolve
from multiverse.tasks import problems
from multiverse.training import Featurizer, pack
from multiverse.training.batch import Batch, answer_loss, collate

MINI = Path(multiverse.__file__).parent / "models" / "mini"
PRECISIONS = ("fp32", "bf16")
SIDES = {"transformers": "transformers, causal", "multiverse": "multiverse, packed documents"}


class Shape(NamedTuple):
    """Of a model and of its batch.

    Attributes:
        rows, length: of the batch.
    """

    config: Callable[[], Any]
    rows: int
    length: int


def _smol() -> Any:
    return LlamaConfig(
        vocab_size=49152,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
        tie_word_embeddings=True,
    )


SIZES = {
    "mini": Shape(lambda: AutoConfig.from_pretrained(MINI), 4, 1024),
    "135m": Shape(_smol, 1, 1024),
    "0.5b": Shape(lambda: shape_config("qwen2.5-0.5b"), 1, 512),
}


def make_model(size: str, device: str) -> Any:
    """A random model; its weights are in fp32, as they are when they are trained."""
    torch.manual_seed(0)
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(SIZES[size].config(), dtype=torch.float32)
    return model.train()


def make_batch(size: str) -> Batch:
    """Packed rows of task documents."""
    shape = SIZES[size]
    tokenizer = AutoTokenizer.from_pretrained(MINI)
    make = Featurizer(tokenizer, resolve(tokenizer))
    made = (make(problem.question, problem.structured, "parallel") for problem in problems("nested", seed=1))
    documents = [own for own in islice(made, 8 * shape.rows) if len(own) <= shape.length]
    rows = pack(map(len, documents), shape.length)[: shape.rows]
    return collate([[documents[index] for index in row] for row in rows], pad_id=0, multiple_of=shape.length)


def losses(model: Any, batch: Batch, device: str) -> dict[str, Callable[[], Tensor]]:
    """The loss of a batch on each side."""
    moved = {name: tensor.to(device) for name, tensor in batch.items()}
    kind: Kind = "dense" if device == "cpu" else "block"

    def plain() -> Tensor:
        model.set_attn_implementation("sdpa")
        loss: Tensor = model(input_ids=moved["input_ids"], labels=moved["labels"], use_cache=False).loss
        return loss

    def packed() -> Tensor:
        model.set_attn_implementation(register())
        total, count = answer_loss(model, moved, kind=kind)
        return total / count

    return {"transformers": plain, "multiverse": packed}


def context(precision: str, device: str) -> AbstractContextManager[Any]:
    """Of the forward pass."""
    return torch.autocast(device, torch.bfloat16) if precision == "bf16" else nullcontext()


def step(loss: Callable[[], Tensor], precision: str, device: str) -> None:
    """A forward and a backward; gradients add up."""
    with context(precision, device):
        value = loss()
    value.backward()


def peak_memory(size: str, precision: str, side: str, device: str) -> float:
    """MiB that a step takes at most beyond weights and gradients. Run it in a process of its own."""
    torch.set_num_threads(1)
    model = make_model(size, device)
    loss = losses(model, make_batch(size), device)[side]
    step(loss, precision, device)
    return peak_mib(lambda: step(loss, precision, device), device)


def measure(size: str, precision: str, threads: int, repeats: int, device: str) -> dict[str, Any]:
    """Seconds of each side's steps, in turn."""
    torch.set_num_threads(threads)
    model = make_model(size, device)
    batch = make_batch(size)
    sides = losses(model, batch, device)
    took: dict[str, list[float]] = {side: [] for side in SIDES}
    for number in range(repeats + 1):
        for side, loss in sides.items():
            synchronize(device)
            began = time.perf_counter()
            step(loss, precision, device)
            synchronize(device)
            if number:  # the first is a warm-up
                took[side].append(time.perf_counter() - began)
    return {
        "size": size,
        "precision": precision,
        "threads": threads,
        "parameters": model.num_parameters(),
        "tokens": batch["input_ids"].numel(),
        "seconds": took,
        "ratio": median(plain / own for plain, own in zip(took["transformers"], took["multiverse"], strict=True)),
    }


def table(record: dict[str, Any]) -> str:
    """The record as a Markdown table."""
    names = " / ".join(SIDES.values())
    lines = [
        f"| model | precision | threads | tokens | tokens a second: {names} | ratio | peak memory, MiB | ratio |",
        f"|{'---|' * 3}{'---:|' * 5}",
    ]
    for row in record["rows"]:
        memory = record["memory_mib"][f"{row['size']}/{row['precision']}"]
        cells = (
            f"{row['size']} ({row['parameters'] / 1e6:,.0f}M)",
            row["precision"],
            str(row["threads"]),
            f"{row['tokens']:,}",
            " / ".join(f"{row['tokens'] / median(row['seconds'][side]):,.0f}" for side in SIDES),
            f"{row['ratio']:.2f}",
            " / ".join(f"{memory[side]:,.0f}" for side in SIDES),
            f"{memory['transformers'] / memory['multiverse']:.2f}",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", record["machine"], *record["notes"]])


def main() -> None:
    parser = make_parser(__doc__, json="after every case", load=True)
    parser.add_argument("--shapes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=PRECISIONS)
    parser.add_argument("--threads", type=int, nargs="+", default=(1, 2), metavar="N")
    parser.add_argument("--repeats", type=int, default=5, metavar="N")
    options = parser.parse_args()
    if options.load is not None:
        print(table(json.loads(options.load.read_text())))
        return
    device = "cuda" if torch.cuda.is_available() else "cpu"
    record: dict[str, Any] = {"machine": describe(device), "notes": load_notes(), "memory_mib": {}, "rows": []}
    forked = multiprocessing.get_context("forkserver")  # a clean process for each measurement, imports done
    forked.set_forkserver_preload(["transformers", "multiverse.training.batch"])
    cases = [(size, precision) for size in options.shapes for precision in options.precisions]
    with forked.Pool(1, maxtasksperchild=1) as pool:
        for size, precision in track(cases, "training", console=Console(stderr=True), transient=True):
            record["memory_mib"][f"{size}/{precision}"] = {
                side: pool.apply(peak_memory, (size, precision, side, device)) for side in SIDES
            }
            record["rows"] += [measure(size, precision, threads, options.repeats, device) for threads in options.threads]
            if options.json is not None:
                options.json.write_text(json.dumps(record, indent=1) + "\n")
    print(table(record))


if __name__ == "__main__":
    main()
