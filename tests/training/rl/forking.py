"""Tiny random models that fork by themselves, questions, and the log-probabilities that a trainer has to find."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from transformers import MistralConfig, MistralForCausalLM, Qwen3Config, Qwen3ForCausalLM

from multiverse.attention.packed import register
from multiverse.structure import MULTIVERSE, Block, Dialect, Document, Role, TokenDialect, render, resolve
from multiverse.training import IGNORED, Features
from multiverse.training.batch import collate, visibility_of
from multiverse.training.rl.rollout import Group, Question, Rollout
from tests.conftest import FAMILIES, SHAPE, build_tokenizer

BOTH = replace(MULTIVERSE, blocks="both")
_PULL = 4.0


def forking_model(family: str, dialect: Dialect = BOTH, seed: int = 0, closing: float = 4.0) -> tuple[Any, Any, TokenDialect]:
    """A random model ready to be trained, its tokenizer and its dialect.

    All its embeddings share a large number, to which the head gives the weight of a bias: tags are likely.

    Args:
        closing: bias of the tag that closes a path.
    """
    tokenizer = build_tokenizer(dialect)
    tokens = resolve(tokenizer, dialect)
    torch.manual_seed(seed)
    size = len(tokenizer)
    if family == "sliding":
        shape = {**SHAPE, "sliding_window": 24}
        model: Any = MistralForCausalLM(MistralConfig(vocab_size=size, eos_token_id=None, bos_token_id=None, **shape))
    elif family == "wide":  # heads as the native kernels take them
        model = Qwen3ForCausalLM(Qwen3Config(vocab_size=size, head_dim=32, **SHAPE))
    else:
        model = FAMILIES[family](size)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, 0.2)
        model.get_input_embeddings().weight[:, 0] = _PULL
        model.get_output_embeddings().weight[:, 0] = 0
        for token, bias in _wishes(tokens, closing).items():
            model.get_output_embeddings().weight[token, 0] = bias / 2.5
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.set_attn_implementation(register())
    return model.train(), tokenizer, tokens


def _wishes(tokens: TokenDialect, closing: float) -> dict[int, float]:
    last = Role.OUTLINE_CLOSE if Role.OUTLINE_CLOSE in tokens.ids else Role.GOAL_CLOSE
    wishes = dict.fromkeys(tokens.sep, 5.0)
    wishes |= {tokens.fork_tag: 8.0, tokens.outline_tag: 4.0, tokens.ids[last]: 6.0, tokens.ids[Role.PATH_CLOSE]: closing}
    return wishes | ({tokens.ids[Role.THINK_OPEN]: 9.0} if Role.THINK_OPEN in tokens.ids else {})


def questions(count: int, dialect: Dialect = BOTH) -> list[Question]:
    """Some of them with an earlier turn that has forked."""
    inner = Block(("p", "q"), (("in p",), ("in q, too",)), "inner")
    first = ("one", inner) if dialect.nests else ("one",)
    block = Block(("a", "b"), (first, ("two",)), "sum" if dialect.conclusion is not None else "")
    document = Document(("so", block), "4") if dialect.blocks != "answer" else Document(None, ("so", block))
    if dialect.think is None and dialect.forks_thinking:  # the whole trunk is the thinking
        document = Document(("so", block, "4"), "")
    earlier = render(document, dialect)
    asked: list[Question] = []
    for number in range(count):
        messages: tuple[dict[str, str], ...] = ({"role": "user", "content": f"Why {number}?" * (1 + number % 2)},)
        if number % 3 == 1:
            messages = ({"role": "user", "content": "And?"}, {"role": "assistant", "content": earlier}, *messages)
        asked.append(Question(str(number), messages, reference=str(number)))
    return asked


def rollouts_of(groups: Sequence[Group]) -> list[Rollout]:
    return [rollout for group in groups for rollout in group.rollouts]


def trained_logprobs(model: Any, rollouts: Sequence[Rollout]) -> list[Tensor]:
    """Log-probability of each sampled token of each rollout as the model that is trained has them, all in one packed row."""
    features = [
        Features(one.token_ids, (IGNORED,) * len(one.token_ids), one.positions, one.segments, one.visibility)
        for one in rollouts
    ]
    batch = collate([features], pad_id=0)
    logits_LV = model(
        input_ids=batch["input_ids"], position_ids=batch["position_ids"], visibility=visibility_of(batch), use_cache=False
    ).logits[0]
    found, start = [], 0
    for one in rollouts:
        values = []
        for token, source, support in zip(one.generation.token_ids, one.sources, one.supports, strict=True):
            if source < 0:
                continue
            row_V = logits_LV[start + source].float() / one.temperature
            if support is not None:
                listed_V = torch.zeros(len(row_V), dtype=torch.bool)
                listed_V[list(support.token_ids)] = True
                row_V = row_V.masked_fill(listed_V != support.allowed, -torch.inf)
            values.append(row_V.log_softmax(-1)[token])
        found.append(torch.stack(values) if values else logits_LV.new_zeros(0))
        start += len(one.token_ids)
    return found


def largest_difference(model: Any, rollouts: Sequence[Rollout]) -> float:
    """Between the log-probabilities of the engine and those of the model that is trained, over all sampled tokens."""
    with torch.no_grad():
        found = trained_logprobs(model, rollouts)
    worst = 0.0
    for values, one in zip(found, rollouts, strict=True):
        assert one.generation.logprobs is not None
        engine = torch.tensor([value for value in one.generation.logprobs if value is not None])
        assert len(engine) == len(values) == one.num_sampled
        worst = max(worst, float((values - engine).abs().max())) if len(values) else worst
    return worst
