"""A random model forks, joins and ends as it likes, within the grammar; all of it must agree with a dense forward."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from multiverse import LLM, SamplingParams
from multiverse.engine import Request
from tests.engine.steering import LegalSampler, prompt_ids
from tests.engine.test_oracle import TOLERANCE
from tests.engine.test_sampler import busy


def dense_logprobs(model: Any, request: Request) -> list[list[float]]:
    """Per branch the log-probability of each of its tokens but the first, branch after branch, cut short or not.

    Who sees whom needs no document order here: a token sees the tokens of visible branches at lower positions, and itself.
    """
    ids: list[int] = []
    positions: list[int] = []
    owners: list[int] = []
    for branch in request.tree.branches:
        before = request.prompt if branch is request.trunk else []
        ids += [*before, *branch.token_ids]
        positions += [*range(len(before)), *branch.positions]
        owners += [branch.index] * (len(before) + len(branch.token_ids))
    position_L, owner_L = torch.tensor(positions), torch.tensor(owners)
    visible_SS = torch.from_numpy(request.tree.visible)
    mask_LL = visible_SS[owner_L][:, owner_L] & (position_L[None, :] < position_L[:, None])
    mask_LL |= torch.eye(len(ids), dtype=torch.bool)
    with torch.inference_mode():
        output = model(input_ids=torch.tensor([ids]), position_ids=position_L[None], attention_mask=mask_LL[None, None])
    logprobs_LV = output.logits[0].log_softmax(-1)
    own = [[i for i, owner in enumerate(owners) if owner == branch.index] for branch in request.tree.branches]
    return [[float(logprobs_LV[a, ids[b]]) for a, b in pairwise(line)] for line in own]


@pytest.mark.parametrize("guard", [True, False], ids=["guarded", "raw"])
@pytest.mark.parametrize("budget", [19, 2048])
def test_whatever_it_writes_agrees_with_a_dense_forward(
    llm: LLM, model_folders: dict[str, Path], budget: int, guard: bool
) -> None:
    model = AutoModelForCausalLM.from_pretrained(model_folders["qwen3"], attn_implementation="sdpa").eval()
    engine = llm.engine
    engine.scheduler.max_batch_tokens = budget
    params = SamplingParams(temperature=1, top_p=1, logprobs=True)
    if guard:  # a block is opened only where there is room for all of it
        each = [replace(params, seed=i, max_tokens=240 + 30 * i, max_width=2, logit_bias=busy(llm)) for i in range(6)]
    else:
        engine.sampler = LegalSampler()
        each = [replace(params, seed=i, max_tokens=60 + 30 * i, guard=False) for i in range(8)]
    requests = [engine.submit(prompt_ids(llm, f"{i} is the question<Think>"), own) for i, own in enumerate(each)]
    engine.run(requests)
    compared = 0
    for request in requests:
        for branch, expected in zip(request.tree.branches, dense_logprobs(model, request), strict=True):
            own = [one.logprob for one in branch.drawn[branch is not request.trunk :]]
            for value, reference in zip(own, expected[-len(own) :] if own else [], strict=True):
                if value is not None:
                    assert abs(value - reference) <= TOLERANCE
                    compared += 1
    assert compared > 300
    labels = {branch.label for request in requests for branch in request.tree.branches}
    assert any("." in label for label in labels)
    assert max(len(request.tree.branches) for request in requests) >= 4
    assert any(request.closed for request in requests) == guard
