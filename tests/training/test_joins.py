"""Documents for joins that read again: the packed sequence says what plain causal forwards of each context say."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from typing import Any

import pytest
import torch
from torch import Tensor

from multiverse.errors import ConfigError
from multiverse.structure import Block, Body, Document, Joins, TokenDialect, encode, message, render, resolve
from multiverse.tasks import problems
from multiverse.training import IGNORED, Features, Featurizer
from multiverse.training.batch import collate, visibility_of
from multiverse.training.config import Config

INNER = Block(("p", "q"), (("in p, so 3.",), ("in q, too",)), "inner sum")
BARE = Block(("r",), (("deep",),), "bare end")
DOCUMENT = Document(
    (
        "start",
        Block(("a", "b", "c"), (("one step, last step.",), ("b1", INNER, "b2: 7."), (BARE,)), "sum"),
        "between",
        Block(("d",), (("first.\nsecond",),), "end"),
    ),
    "Answer: 4",
)
MESSAGES = {"1": " last step.", "2": " b2: 7.", "2.1": " so 3.", "2.2": " too", "3": " bare end", "3.1": " deep"}
"""What each path of the first block sends, by hand."""


def contexts(document: Document, join: Joins) -> Iterator[tuple[str, list[str]]]:
    """Every context of a document as text, in pieces that are tokenised apart, written anew from the tree; innermost first.

    Pieces that begin with ``+`` take loss where they stand, others do not.
    """
    assert document.thinking is not None
    trunk = yield from _body(document.thinking, "", ["+<Think>\n"], join)
    yield "", [*trunk, "+\n</Think>", f"+\n\n{document.plain_answer}"]


def _body(body: Body, label: str, before: list[str], join: Joins) -> Iterator[tuple[str, list[str]]]:
    pieces = list(before)
    for index, item in enumerate(body):
        if index:
            pieces.append("+\n")
        if isinstance(item, str):
            pieces.append(f"+{' ' if label and not index else ''}{item}")
            continue
        if label and not index:
            pieces.append("+\n")
        names = [f"{label}.{number}" if label else f"{number}" for number in range(1, len(item.paths) + 1)]
        outlines = "".join(f"<Outline>\n{n}: {o}\n</Outline>\n" for n, o in zip(names, item.outlines, strict=True))
        pieces += [f"+<Parallel>\n<Goal>\n{outlines}</Goal>", "\n"]
        joined = []
        for name, path in zip(names, item.paths, strict=True):
            head = f"<Path>\n{name}:"
            inside = yield from _body(path, name, [*(p.removeprefix("+") for p in pieces), head], join)
            own = inside[len(pieces) :]
            yield name, [*inside, "+\n</Path>"]
            if join == "text":
                joined += [*(piece.removeprefix("+") for piece in own), "\n</Path>", "\n"]
            else:
                joined += [head, MESSAGES[name] if label or len(item.paths) > 1 else " second", "\n</Path>\n"]
        pieces = [*pieces, *joined, "<Conclusion>\n", f"+{item.conclusion}\n</Conclusion>\n</Parallel>"]
    return pieces


def plain(
    model: Any, tokens: TokenDialect, prompt: list[int], pieces: list[str], end: int | None
) -> Iterator[tuple[int, Tensor]]:
    """Each token that takes loss with the model's log-probabilities for its place, from one plain causal forward."""
    ids, learned = list(prompt), [False] * len(prompt)
    for piece in pieces:
        new = tokens.encode(piece.removeprefix("+"))
        ids += new
        learned += [piece.startswith("+")] * len(new)
    if end is not None:
        ids.append(end)
        learned.append(True)
    logits = model(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
    for at, (token, own) in enumerate(zip(ids, learned, strict=True)):
        if own:
            yield token, logits[at - 1]


@pytest.fixture(scope="module")
def models(mini_tokenizer: Any) -> tuple[Any, Any]:
    """The same weights twice: as transformers computes them, and with packed attention."""
    from multiverse.attention.packed import register
    from recipes.mini.model import SHAPES, build_model

    torch.manual_seed(3)
    stock, packed = (build_model(SHAPES["test"], mini_tokenizer).eval() for _ in range(2))
    packed.load_state_dict(stock.state_dict())
    packed.set_attn_implementation(register())
    return stock, packed


def joined(tokenizer: Any, tokens: TokenDialect, join: Joins) -> TokenDialect:
    """The same dialect with another join."""
    return resolve(tokenizer, replace(tokens.dialect, join=join))


def featurize(tokenizer: Any, tokens: TokenDialect, document: Document, join: Joins) -> Features:
    return Featurizer(tokenizer, joined(tokenizer, tokens, join))("What is it?", document, "parallel")


@torch.no_grad()
def learned_logits(model: Any, rows: list[list[Features]]) -> list[list[tuple[int, Tensor]]]:
    """Per row, each token that takes loss with the log-probabilities for its place."""
    batch = collate(rows, 0)
    output = model(
        input_ids=batch["input_ids"], position_ids=batch["position_ids"], visibility=visibility_of(batch), use_cache=False
    )
    logits = output.logits.log_softmax(-1)
    return [
        [(int(label), logits[row, at - 1]) for at, label in enumerate(labels) if label != IGNORED]
        for row, labels in enumerate(batch["labels"])
    ]


@pytest.mark.parametrize("join", ["text", "message"])
def test_the_packed_sequence_agrees_with_each_context_alone(
    mini_tokenizer: Any, mini_tokens: TokenDialect, models: tuple[Any, Any], join: Joins
) -> None:
    stock, packed = models
    features = featurize(mini_tokenizer, mini_tokens, DOCUMENT, join)
    neighbour = featurize(mini_tokenizer, mini_tokens, Document(("other",), "Answer: 1"), join)
    found = learned_logits(packed, [[neighbour, features]])[0][neighbour.num_loss_tokens :]
    prompt = Featurizer(mini_tokenizer, mini_tokens).encode_prompt(
        [{"role": "user", "content": "What is it? Think step by step and in parallel before answering."}]
    )
    end = Featurizer(mini_tokenizer, mini_tokens).end
    with torch.no_grad():
        lines = {name + str(i): list(plain(stock, mini_tokens, prompt, pieces, end if not name else None))
                 for i, (name, pieces) in enumerate(contexts(DOCUMENT, join))}  # fmt: skip
    wanted = [pair for line in lines.values() for pair in line]
    assert len(found) == len(wanted) > 100
    # Both list every learned token once; a line's tokens may stand elsewhere, so each is looked up by what is said of it.
    left = list(found)
    for token, expected in wanted:
        at = next(i for i, (other, got) in enumerate(left) if other == token and torch.allclose(got, expected, atol=1e-4))
        del left[at]
    assert not left


@pytest.mark.parametrize("join", ["text", "message"])
def test_every_token_of_the_model_takes_loss_once_whatever_the_join(
    mini_tokenizer: Any, mini_tokens: TokenDialect, join: Joins
) -> None:
    for problem in [p for family in ("worksheet", "countdown", "nested") for p in islice(problems(family, seed=1), 3)]:
        kv = Featurizer(mini_tokenizer, mini_tokens)(problem.question, problem.structured, "parallel")
        other = Featurizer(mini_tokenizer, joined(mini_tokenizer, mini_tokens, join))(
            problem.question, problem.structured, "parallel"
        )
        for one in (kv, other):
            assert one.labels.count(one.token_ids[-1]) >= 1
        # Decoded by a plain engine, the model has to write all but the heads of forks and joins; the engine writes more.
        encoded = encode(problem.structured, mini_tokens, heads_only=True)
        own = [token for token, forced in zip(encoded.token_ids, encoded.layout.forced, strict=True) if not forced]
        assert sorted(label for label in other.labels if label != IGNORED) == sorted([*own, kv.token_ids[-1]])
        assert sum(label != IGNORED for label in kv.labels) < len(own)
        trunk = [t for t, s in zip(other.token_ids, other.segments, strict=True) if s == 0]
        positions = [p for p, s in zip(other.positions, other.segments, strict=True) if s == 0]
        assert positions == list(range(len(trunk)))
        if join == "text":
            assert tuple(trunk) == kv.token_ids
        else:
            assert len(trunk) < len(kv)


def test_a_message_is_the_last_clause(mini_tokenizer: Any, mini_tokens: TokenDialect) -> None:
    def send(text: str) -> str:
        return str(mini_tokenizer.decode(message(mini_tokens.encode(text), mini_tokens)))

    assert send("<Path>\n1: Mia: 7, add 5: 7+5=12, double: 12*2=24.\n</Path>\n") == "<Path>\n1: double: 12*2=24.\n</Path>\n"
    assert send("<Path>\n2.1: 5+3=8: 8-2=6. No.\n</Path>") == "<Path>\n2.1: No.\n</Path>\n"
    assert send("<Path>\n3:\n</Path>\n") == "<Path>\n3:\n</Path>\n"
    inner = render(Document(("x", Block(("a",), (("b, c",),), "d, e")), "")).partition("x")[2].partition("\n</Think>")[0]
    assert send(f"<Path>\n1:{inner}\n</Path>\n") == "<Path>\n1: e\n</Path>\n"


def test_invalid_combinations_are_refused() -> None:
    with pytest.raises(ConfigError, match="join=text needs structured attention and positions"):
        Config("m", ["d"], "o", join="text", positions="linear")
    with pytest.raises(ConfigError, match="join=message needs share_every=None, not 8"):
        Config("m", ["d"], "o", join="message", share_every=8)
