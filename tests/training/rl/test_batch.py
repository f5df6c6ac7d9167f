"""Groups as packed rows: packing, splitting, weights of tokens; log-probabilities and gradients as of one at a time."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, MistralConfig, MistralForCausalLM

from multiverse.attention import dense_mask
from multiverse.attention.packed import register
from multiverse.errors import DataError
from multiverse.structure import TokenDialect, layout
from multiverse.training.batch import visibility_of
from multiverse.training.rl.advantages import advantages
from multiverse.training.rl.algorithms import Algorithm
from multiverse.training.rl.batch import Packing, RolloutBatch, Totals, make_batches
from multiverse.training.rl.logprobs import policy_logprobs
from multiverse.training.rl.loss import policy_loss
from multiverse.training.rl.rollout import Group, Rollout
from tests.conftest import SHAPE
from tests.training.rl.made import make_group, make_rollout

FAMILIES = ("qwen2", "qwen3", "llama")
WIDE = Packing(pad_id=0, packed_length=4096)
APART = Packing(pad_id=0, packed_length=1, group_packing=False)
GRPO = Algorithm()


@pytest.fixture(scope="module")
def models(model_folders: dict[str, Path]) -> dict[str, Any]:
    found = {name: AutoModelForCausalLM.from_pretrained(model_folders[name]) for name in FAMILIES}
    for model in found.values():
        model.set_attn_implementation(register())
    return found


def made(groups: list[Group], packing: Packing, algorithm: Algorithm = GRPO, **options: Any) -> list[RolloutBatch]:
    return make_batches(advantages(groups, algorithm).groups, algorithm, packing, **options)


def by_rollout(batches: list[RolloutBatch], values: list[Tensor]) -> dict[int, list[float]]:
    """Values of tokens with loss by rollout (its id as an object), in the order of the rollout."""
    found: dict[int, list[float]] = defaultdict(list)
    for batch, value_T in zip(batches, values, strict=True):
        for index, value in zip(batch.tokens.rollout_T.tolist(), value_T.tolist(), strict=True):
            found[id(batch.rollouts[index])].append(value)
    return found


def test_a_prompt_stands_once(groups: list[Group]) -> None:
    shared, apart = made(groups, WIDE), made(groups, WIDE._replace(group_packing=False))
    prompts = [len(group.rollouts[0].generation.prompt_token_ids) for group in groups]
    answers = sum(len(rollout.generation.token_ids) for group in groups for rollout in group.rollouts)
    assert len(shared) == len(apart) == 1
    assert shared[0].num_tokens == sum(prompts) + answers
    assert apart[0].num_tokens == 4 * sum(prompts) + answers
    assert len(shared[0]) == len(apart[0]) == sum(rollout.num_sampled for group in groups for rollout in group.rollouts)


def test_one_prompt_token_predicts_the_first_token_of_every_answer(groups: list[Group]) -> None:
    batch = made(groups[:1], WIDE)[0]
    prompt = groups[0].rollouts[0].generation.prompt_token_ids
    firsts = [rollout.generation.token_ids[0] for rollout in groups[0].rollouts]
    found = batch.target_T[batch.column_T == len(prompt) - 1].tolist()
    assert found == firsts


def test_every_answer_sees_its_prompt_and_itself_as_in_the_engine(groups: list[Group], tokens: TokenDialect) -> None:
    batch = made(groups, WIDE)[0]
    mask_LL = visibility_of({**batch.rows}).mask()[0, 0]
    start = 0
    for group in groups:
        rollouts = group.rollouts
        prompt = list(range(start, start + len(rollouts[0].generation.prompt_token_ids)))
        start += len(prompt)
        for rollout in rollouts:
            own = [*prompt, *range(start, start + len(rollout.generation.token_ids))]
            start += len(rollout.generation.token_ids)
            expected = dense_mask(layout(rollout.token_ids, tokens))
            assert torch.equal(mask_LL[own][:, own], expected)
            assert batch.rows["input_ids"][0, own].tolist() == list(rollout.token_ids)
            assert batch.rows["position_ids"][0, own].tolist() == list(rollout.positions)
            others = sorted(set(range(mask_LL.shape[1])) - set(own))
            assert not mask_LL[own[len(prompt) :]][:, others].any()


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("family", FAMILIES)
def test_log_probabilities_are_those_of_one_dense_forward(
    models: dict[str, Any], model_folders: dict[str, Path], groups: list[Group], tokens: TokenDialect, family: str
) -> None:
    untouched = AutoModelForCausalLM.from_pretrained(model_folders[family], attn_implementation="sdpa").eval()
    expected: dict[int, list[float]] = {}
    for rollout in (rollout for group in groups for rollout in group.rollouts):
        mask_LL = dense_mask(layout(rollout.token_ids, tokens))[None, None]
        ids, positions = torch.tensor([rollout.token_ids]), torch.tensor([rollout.positions])
        with torch.no_grad():
            logits_LV = untouched(input_ids=ids, position_ids=positions, attention_mask=mask_LL).logits[0]
        drawn = zip(rollout.sources, rollout.generation.token_ids, strict=True)
        logprobs_LV = logits_LV.log_softmax(-1)
        expected[id(rollout)] = [float(logprobs_LV[source, token]) for source, token in drawn if source >= 0]
    packings = {
        "shared": WIDE,
        "own prompts": WIDE._replace(group_packing=False),
        "one at a time": APART,
        "split groups": WIDE._replace(packed_length=330),
        "rows of a batch": WIDE._replace(packed_length=330, micro_batch_size=3),
        "block mask": WIDE._replace(kind="block"),
    }
    for name, packing in packings.items():
        batches = made(groups, packing)
        with torch.no_grad():
            found = by_rollout(batches, [policy_logprobs(models[family], batch).logprob_T for batch in batches])
        assert found.keys() == expected.keys(), name
        for key, values in expected.items():
            assert found[key] == pytest.approx(values, abs=2e-5), name


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_sliding_windows_count_positions(tokenizer: Any, groups: list[Group]) -> None:
    torch.manual_seed(1)
    model = MistralForCausalLM(MistralConfig(vocab_size=len(tokenizer), sliding_window=16, **SHAPE))
    model.set_attn_implementation(register())
    found = []
    for packing in (WIDE, APART, WIDE._replace(kind="block")):
        batches = made(groups, packing)
        with torch.no_grad():
            found.append(by_rollout(batches, [policy_logprobs(model, batch).logprob_T for batch in batches]))
    for key, values in found[1].items():
        assert found[0][key] == pytest.approx(values, abs=2e-5)
        assert found[2][key] == pytest.approx(values, abs=2e-5)


def gradient(model: Any, batches: list[RolloutBatch], algorithm: Algorithm) -> Tensor:
    """Of all weights, summed over the batches."""
    model.zero_grad()
    for batch in batches:
        logprob_T, entropy_T = policy_logprobs(model, batch, entropy_gradient=algorithm.entropy_coef > 0)
        policy_loss(logprob_T, entropy_T, batch.tokens, algorithm)[0].backward()  # type: ignore[no-untyped-call]
    return torch.cat([weight.grad.flatten() for weight in model.parameters()])


def distance(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


ALGORITHMS = [
    Algorithm(entropy_coef=0.01),
    Algorithm(name="dapo"),
    Algorithm(name="dr-grpo", loss_divisor=50),
    Algorithm(name="npr"),
    Algorithm(name="apr", kl_coef=0.0),
    Algorithm(loss_aggregation="sequence-mean", importance_sampling="sequence_truncate"),
]


@pytest.mark.parametrize("algorithm", ALGORITHMS, ids=lambda one: one.loss_aggregation + "-" + one.name)
def test_gradients_of_shared_prompts_are_those_of_one_rollout_at_a_time(
    models: dict[str, Any], groups: list[Group], algorithm: Algorithm
) -> None:
    model, algorithm = models["qwen3"], algorithm.bound(1000)
    expected = gradient(model, made(groups, APART, algorithm), algorithm)
    assert expected.norm() > 0
    # Micro-batches of unequal size are only sums, too.
    for packing in (WIDE, WIDE._replace(packed_length=330), WIDE._replace(packed_length=330, micro_batch_size=2)):
        assert distance(gradient(model, made(groups, packing, algorithm), algorithm), expected) < 1e-5


def test_processes_that_share_an_update_add_up(models: dict[str, Any], groups: list[Group]) -> None:
    model = models["qwen2"]
    parts = advantages(groups, GRPO).groups
    whole = gradient(model, make_batches(parts, GRPO, WIDE), GRPO)
    totals = Totals.of(parts)
    shares = [make_batches([part], GRPO, WIDE, totals, at_least=2) for part in parts]
    assert [len(share) for share in shares] == [2, 2]
    assert len(shares[0][1]) == 0
    summed = torch.stack([gradient(model, share, GRPO) for share in shares]).sum(0)
    assert distance(summed, whole) < 1e-5


def test_a_batch_without_loss_gives_every_weight_a_gradient_of_0(models: dict[str, Any]) -> None:
    batch = make_batches([], GRPO, WIDE, at_least=1)[0]
    found = gradient(models["qwen2"], [batch], GRPO)
    assert torch.equal(found, torch.zeros_like(found))


def weights(rollouts: list[Rollout], algorithm: Algorithm) -> list[list[float]]:
    """Weights of the tokens of each rollout."""
    group = make_group([float(index) for index in range(len(rollouts))], rollouts)
    batches = made([group], WIDE, algorithm)
    found = by_rollout(batches, [batch.tokens.weight_T for batch in batches])
    return [found.get(id(rollout), []) for rollout in rollouts]


def test_weights_of_every_aggregation() -> None:
    # Three rollouts of 2, 4 and 2 sampled tokens; the last one has no loss.
    rollouts = [make_rollout(2, forced=3), make_rollout(4), make_rollout(2, finish_reason="abort")]
    expected = {
        "token-mean": [[1 / 6] * 2, [1 / 6] * 4, []],
        "constant": [[1 / 20] * 2, [1 / 20] * 4, []],
        "sequence-mean": [[1 / 4] * 2, [1 / 8] * 4, []],
        "branch-mean": [[1 / 4] * 2, [1 / 8] * 4, []],
    }
    for aggregation, values in expected.items():
        found = weights(rollouts, Algorithm(loss_aggregation=aggregation, loss_divisor=10))  # type: ignore[arg-type]
        assert found == [pytest.approx(one) for one in values], aggregation


def test_branches_of_a_rollout_weigh_alike() -> None:
    plain = make_rollout(4)
    # Three tokens of the trunk, of which one is forced, and two of a path.
    forked = replace(
        make_rollout(4, forced=1), segments=(0, 0, 0, 0, 1, 1, 0), visibility=((1, 1), (1, 1)), sources=(-1, 2, 3, 4, 5)
    )
    found = weights([plain, forked], Algorithm(name="apr"))
    assert found == [pytest.approx([1 / 8] * 4), pytest.approx([1 / 8, 1 / 8, 1 / 8, 1 / 8])]
    forked = replace(forked, segments=(0, 0, 0, 0, 1, 1, 1))
    assert weights([plain, forked], Algorithm(name="apr"))[1] == pytest.approx([1 / 4, 1 / 12, 1 / 12, 1 / 12])


def rows_of(batches: list[RolloutBatch]) -> list[int]:
    """Tokens of each row."""
    return [int(count) for batch in batches for count in (batch.rows["documents"] >= 0).sum(1)]


def test_groups_that_do_not_fit_are_split_and_long_rollouts_have_rows_of_their_own() -> None:
    # A prompt of 2 tokens; answers of 3, 4, 5, and 30.
    rollouts = [make_rollout(count, seed=count) for count in (3, 4, 5, 30)]
    batches = made([make_group([0.0, 1.0, 0.0, 1.0], rollouts)], Packing(pad_id=0, packed_length=12))
    assert sorted(rows_of(batches)) == [7, 9, 32]
    assert sum(map(len, batches)) == 42
    with pytest.raises(DataError, match=r"rollout 3 of question 'q' has 32 tokens with its prompt, more than max_length=20"):
        made([make_group([0.0, 1.0, 0.0, 1.0], rollouts)], Packing(pad_id=0, packed_length=12, max_length=20))


def test_several_groups_share_a_row() -> None:
    groups = [make_group([0.0, 1.0], [make_rollout(3), make_rollout(4)]) for _ in range(3)]
    batches = made(groups, Packing(pad_id=0, packed_length=20, micro_batch_size=2))
    assert rows_of(batches) == [18, 9]
    assert len(batches) == 1
    assert batches[0].rows["documents"][0, :18].tolist() == [*[0] * 2, *[1] * 3, *[2] * 4, *[3] * 2, *[4] * 3, *[5] * 4]
    assert batches[0].rows["prefixes"][0, :18].tolist() == [*[-1] * 2, *[0] * 7, *[-1] * 2, *[3] * 7]


def test_a_rollout_without_log_probabilities_is_refused() -> None:
    rollout = make_rollout(2)
    rollout = replace(rollout, generation=replace(rollout.generation, logprobs=None))
    with pytest.raises(DataError, match="rollout 0 of question 'q' comes without log-probabilities"):
        made([make_group([1.0, 0.0], [rollout, make_rollout(2)])], WIDE)


def test_groups_that_are_skipped_are_not_computed() -> None:
    groups = [make_group([1.0, 1.0]), make_group([1.0, 0.0])]
    batches = made(groups, WIDE, Algorithm(no_spread="skip"))
    assert len(batches) == 1
    assert rows_of(batches) == [6]
