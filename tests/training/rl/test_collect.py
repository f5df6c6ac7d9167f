"""Groups of rollouts: their seeds, what is refused, and what happens to a batch when something fails in it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from multiverse import SamplingParams
from multiverse.errors import EngineError, RequestError
from multiverse.training.rl.collect import Draw, collect
from multiverse.training.rl.policy import Policy
from multiverse.training.rl.rollout import Question
from tests.training.rl.forking import forking_model, largest_difference, questions, rollouts_of

PARAMS = SamplingParams(temperature=1.0, top_p=1.0, max_tokens=60, max_width=3)
DRAW = Draw(seed=7, step=3, version=5)


@pytest.fixture(scope="module")
def policy() -> Policy:
    return Policy(*forking_model("qwen3"), kv_memory=1 << 20)


@pytest.fixture(autouse=True)
def idle(policy: Policy) -> Iterator[None]:
    yield
    assert policy.sleeping
    with policy.decoding() as llm:
        assert not llm.engine.busy
        llm.engine.check_integrity()
        assert llm.engine.slots.owned == 0


def test_a_group_a_question_in_order(policy: Policy) -> None:
    asked, seen = questions(3), []
    groups = collect(
        policy, asked, group_size=4, draw=DRAW, params=PARAMS, on_progress=lambda done, total: seen.append((done, total))
    )
    assert [group.question for group in groups] == asked
    assert [len(group.rollouts) for group in groups] == [4, 4, 4]
    assert seen == [(number, 12) for number in range(1, 13)]
    for group in groups:
        assert len({one.generation.prompt_token_ids for one in group.rollouts}) == 1
        assert [one.seed for one in group.rollouts] == [DRAW.seed_of(group.question.id, sample) for sample in range(4)]
        assert len({one.generation.token_ids for one in group.rollouts}) == 4
        assert group.scores == ()
    for one in rollouts_of(groups):
        assert (one.version, one.temperature) == (5, 1.0)
        assert len(one.positions) == len(one.segments) == len(one.token_ids)
        assert len(one.sources) == len(one.supports) == len(one.generation.token_ids)
        assert all(source < index for index, source in enumerate(one.sources, len(one.generation.prompt_token_ids)))
    assert collect(policy, [], group_size=4, draw=DRAW, params=PARAMS) == []


def test_a_rollout_depends_on_its_own_seed_alone(policy: Policy) -> None:
    asked = questions(3)
    together = collect(policy, asked, group_size=3, draw=DRAW, params=PARAMS)
    alone = collect(policy, asked[1:2], group_size=2, draw=DRAW, params=PARAMS)[0]
    assert [one.generation.token_ids for one in alone.rollouts] == [
        one.generation.token_ids for one in together[1].rollouts[:2]
    ]
    for other in (replace(DRAW, seed=8), replace(DRAW, step=4), replace(DRAW, attempt=1)):
        drawn = collect(policy, asked[1:2], group_size=2, draw=other, params=PARAMS)[0]
        assert not {one.seed for one in drawn.rollouts} & {one.seed for one in alone.rollouts}
        assert [one.generation.token_ids for one in drawn.rollouts] != [one.generation.token_ids for one in alone.rollouts]


def test_without_forks_in_sequential_mode(policy: Policy) -> None:
    groups = collect(policy, questions(2), group_size=3, draw=DRAW, params=PARAMS, mode="sequential")
    assert all(set(one.generation.branches) == {""} for one in rollouts_of(groups))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"temperature": 0}, "temperature=0 cannot be used for rollouts: nothing is drawn there"),
        ({"repetition_penalty": 1.02}, "repetition_penalty=1.02 cannot be used for rollouts: the update computes"),
        ({"path_repetition_penalty": 1.1}, "path_repetition_penalty=1.1"),
        ({"presence_penalty": 0.5}, "presence_penalty=0.5"),
        ({"frequency_penalty": 0.5}, "frequency_penalty=0.5"),
        ({"logit_bias": {3: 1.0}}, r"logit_bias=\{3: 1.0\}"),
        ({"share_every": 4}, "share_every=4 cannot be used for rollouts: rollouts do not say"),
        ({"n": 2}, "n=2 cannot be used for rollouts: each rollout is a request of its own: use group_size"),
        ({"seed": 3}, "seed=3 cannot be used for rollouts: each rollout has a seed of its own"),
        ({"prompt_logprobs": 1}, "prompt_logprobs=1"),
    ],
)
def test_what_could_not_be_replayed_is_refused(policy: Policy, values: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        collect(policy, questions(1), group_size=2, draw=DRAW, params=replace(PARAMS, **values))


def test_a_question_that_cannot_be_asked_is_named_before_anything_runs(policy: Policy) -> None:
    calls: list[int] = []
    for bad, message in (
        (Question("huge", ({"role": "user", "content": "x" * 5000},)), "question 'huge': .* tokens"),
        (Question("odd", ({"role": "user"},)), "question 'odd': "),
    ):
        with pytest.raises(RequestError, match=message):
            collect(
                policy, [*questions(1), bad], group_size=1, draw=DRAW, params=PARAMS, on_progress=lambda *_: calls.append(1)
            )
    with pytest.raises(RequestError, match="group_size=0 is not valid"):
        collect(policy, questions(1), group_size=0, draw=DRAW)
    assert calls == []


class Failing:
    """Runs the backend's forwards, but for some."""

    def __init__(self, run: Any, error: BaseException, fails: range) -> None:
        self.run, self.error, self.fails, self.calls = run, error, fails, 0

    def __call__(self, batch: Any) -> Any:
        self.calls += 1
        if self.calls - 1 in self.fails:
            raise self.error
        return self.run(batch)


def test_a_forward_that_fails_takes_its_own_rollouts_only(policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    with policy.decoding() as llm:
        engine = llm.engine
        engine.scheduler.max_requests = 4
        monkeypatch.setattr(engine.backend, "run", Failing(engine.backend.run, RuntimeError("out of memory"), range(12, 13)))
        rollouts = rollouts_of(collect(policy, questions(3), group_size=4, draw=DRAW, params=PARAMS))
    broken = [one for one in rollouts if one.generation.finish_reason == "error"]
    assert 0 < len(broken) <= 4
    assert all("the forward failed: RuntimeError: out of memory" in (one.generation.structure_error or "") for one in broken)
    assert any(one.num_sampled for one in broken)
    assert largest_difference(policy.model, rollouts) <= 1e-4


def test_if_all_fail_that_is_an_error(policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    with policy.decoding() as llm:
        backend = llm.engine.backend
        monkeypatch.setattr(backend, "run", Failing(backend.run, RuntimeError("broken"), range(10**6)))
        with pytest.raises(EngineError, match="every rollout ended with an error: the forward failed: RuntimeError: broken"):
            collect(policy, questions(2), group_size=2, draw=DRAW, params=PARAMS)


def test_an_interrupt_leaves_the_engine_whole(policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    with policy.decoding() as llm:
        backend = llm.engine.backend
        run = backend.run
        monkeypatch.setattr(backend, "run", Failing(run, KeyboardInterrupt(), range(9, 10)))
        with pytest.raises(KeyboardInterrupt):
            collect(policy, questions(2), group_size=2, draw=DRAW, params=PARAMS)
        assert not llm.engine.busy
        llm.engine.check_integrity()
        monkeypatch.setattr(backend, "run", run)
        again = rollouts_of(collect(policy, questions(2), group_size=2, draw=DRAW, params=PARAMS))
    assert all(one.generation.finish_reason != "error" for one in again)
