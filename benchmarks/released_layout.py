"""What parallel decoding cannot reproduce of the layout ``released``, and how far the two layouts are apart.

In training a later path attends to the separators behind its elder siblings. Decoded in parallel it cannot: what they hold
depends on siblings that are still being written. Here one text is read by a dense forward in both forms, and in the layout
``engine``, and the distributions of the next token are compared: how far they are apart (Kullback-Leibler divergence, in
nats), and by how much the log-probability of the token that follows differs, on average and at most.

    python -m benchmarks.released_layout                       # models with random weights
    python -m benchmarks.released_layout --model multiverse-mini
    python -m benchmarks.released_layout --json out.json

Texts are blocks of random letters. Random weights are drawn with a deviation at which attention changes the output; the
distributions of trained models depend on what they were trained with.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from transformers import Qwen3Config, Qwen3ForCausalLM

from benchmarks.machine import describe
from benchmarks.shape import byte_tokenizer
from multiverse.attention import dense_inputs
from multiverse.engine.model import load
from multiverse.structure import Block, Document, Layout, Role, TokenDialect, bind, encode, layout, place

DEVIATION = 0.2
"""Of random weights."""
FORMS = ("decoded", "engine")
"""What is compared with the trained form of ``released``: the same as it is decoded, and the layout ``engine``."""
GROUPS = ("first path", "later paths", "after the join")


class Distance(NamedTuple):
    """How far predictions are from those in the form that is trained, over the tokens of a group.

    Attributes:
        tokens: how many there are.
        divergence, difference: mean Kullback-Leibler divergence of the next token's distribution in nats, and mean absolute
            difference of the log-probability of the one that follows.
        largest: the largest of these differences.
    """

    tokens: int
    divergence: float
    difference: float
    largest: float


def random_model(vocabulary: int, seed: int) -> Any:
    """A small model with random weights in fp32."""
    torch.manual_seed(seed)
    config = Qwen3Config(
        vocab_size=vocabulary,
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=4,
        num_attention_heads=8,
        num_key_value_heads=2,
        head_dim=16,
        max_position_embeddings=4096,
    )
    model = Qwen3ForCausalLM(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, DEVIATION)
    return model.eval()


def document(width: int, letters: int, rng: random.Random, tokens: TokenDialect) -> Document:
    """A trunk with one block of this many paths of about so many letters each, and text behind it."""

    def text(length: int) -> str:
        return "".join(rng.choice("abcdefghij ") for _ in range(length - 1)) + "k"

    paths = tuple((text(rng.randint(letters // 2, letters * 3 // 2)),) for _ in range(width))
    block = Block(tuple(text(6) for _ in paths), paths, text(letters))
    return place((text(letters), block, text(letters)), "done", tokens.dialect)


def groups(ids: Sequence[int], trained: Layout, tokens: TokenDialect) -> list[str | None]:
    """The group of each token whose successor is the model's to choose; `None` for the others."""
    found: list[str | None] = []
    joined = False
    for index, writer in enumerate(trained.writers):
        joined = joined or tokens.roles.get(ids[index]) in (Role.CONCLUSION_OPEN, Role.BLOCK_CLOSE)
        last = index + 1 == len(ids)
        if last or trained.writers[index + 1] != writer or trained.forced[index + 1] or not (writer or joined):
            found.append(None)
        else:
            found.append("after the join" if not writer else "first path" if writer == 1 else "later paths")
    return found


class Subject(NamedTuple):
    """A model, and its dialect bound to its tokenizer in both layouts."""

    model: Any
    released: TokenDialect
    engine: TokenDialect


def compare(subject: Subject, width: int, letters: int, seed: int) -> dict[str, dict[str, Distance]]:
    """Distances of each form, by group, over one text."""
    model, released, engine = subject
    ids, trained = encode(document(width, letters, random.Random(seed), released), released)
    own = _logprobs(model, ids, trained)
    where = groups(ids, trained, released)
    others = {"decoded": layout(ids, released, decoded=True), "engine": layout(ids, engine)}
    return {form: _distances(own, _logprobs(model, ids, others[form]), ids, where) for form in FORMS}


def _logprobs(model: Any, ids: Sequence[int], form: Layout) -> Tensor:
    with torch.inference_mode():
        logits_LV: Tensor = model(**dense_inputs(ids, form)).logits[0].double()
    return logits_LV.log_softmax(-1)


def _distances(own_LV: Tensor, other_LV: Tensor, ids: Sequence[int], where: list[str | None]) -> dict[str, Distance]:
    divergence_L = (own_LV.exp() * (own_LV - other_LV)).sum(-1)
    next_L = torch.tensor([*ids[1:], 0])[:, None]
    difference_L = (own_LV - other_LV).gather(1, next_L)[:, 0].abs()
    found = {}
    for group in GROUPS:
        rows = [index for index, name in enumerate(where) if name == group]
        values = difference_L[rows]
        found[group] = Distance(len(rows), float(divergence_L[rows].mean()), float(values.mean()), float(values.max()))
    return found


def summarise(found: list[dict[str, dict[str, Distance]]]) -> dict[str, dict[str, Distance]]:
    """Means over several texts and models, and the largest of all differences."""
    return {
        form: {
            group: Distance(
                sum(one[form][group].tokens for one in found),
                fmean(one[form][group].divergence for one in found),
                fmean(one[form][group].difference for one in found),
                max(one[form][group].largest for one in found),
            )
            for group in GROUPS
        }
        for form in FORMS
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", help="a name, folder or hub id; by default models with random weights")
    parser.add_argument("--widths", type=int, nargs="+", default=[2, 3, 8])
    parser.add_argument("--letters", type=int, default=60, help="letters of a path, on average")
    parser.add_argument("--seeds", type=int, default=5, help="texts for each width, and random models")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    loaded = _load(options.model) if options.model else None
    random_ones = {} if loaded else {seed: _random(seed) for seed in range(options.seeds)}
    figures: dict[int, dict[str, dict[str, Distance]]] = {}
    for width in options.widths:
        seeds = range(options.seeds)
        figures[width] = summarise([compare(loaded or random_ones[seed], width, options.letters, seed) for seed in seeds])
    _print(figures, options.model or f"random weights, deviation {DEVIATION}")
    if options.json:
        found = {str(width): _asdict(one) for width, one in figures.items()}
        options.json.write_text(json.dumps({"machine": describe(), "model": options.model, "by_width": found}, indent=1))


def _asdict(figures: dict[str, dict[str, Distance]]) -> dict[str, dict[str, dict[str, float]]]:
    return {form: {group: own._asdict() for group, own in by_group.items()} for form, by_group in figures.items()}


def _random(seed: int) -> Subject:
    tokenizer = byte_tokenizer()
    return _subject(random_model(len(tokenizer), seed), tokenizer)


def _load(name: str) -> Subject:
    found = load(None if name == "multiverse-mini" else name, dtype="float32", device="cpu", packed_linears=False)
    found.model.set_attn_implementation("sdpa")  # takes a bool mask
    return _subject(found.model, found.tokenizer)


def _subject(model: Any, tokenizer: Any) -> Subject:
    released = bind(tokenizer, model.config, layout="released")
    engine = bind(tokenizer, model.config, layout="engine")
    assert released is not None
    assert engine is not None
    return Subject(model, released, engine)


def _print(figures: dict[int, dict[str, dict[str, Distance]]], model: str) -> None:
    table = Table(title=f"distance from released as trained ({model})")
    for name in ("paths", "form", "tokens of", "tokens", "KL (nats)", "|d logprob|", "largest"):
        table.add_column(name, justify="left" if name in ("form", "tokens of") else "right")
    for width, forms in figures.items():
        for form, by_group in forms.items():
            for group, own in by_group.items():
                numbers = (f"{own.divergence:.2e}", f"{own.difference:.2e}", f"{own.largest:.2e}")
                table.add_row(str(width), form, group, str(own.tokens), *numbers)
    Console().print(table)


if __name__ == "__main__":
    main()
