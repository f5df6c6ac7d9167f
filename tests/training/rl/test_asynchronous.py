"""Rollouts one batch behind: against the same computed by hand, and resumed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
import torch
import yaml

from multiverse.attention.packed import register
from multiverse.errors import ConfigError
from multiverse.training.rl import run
from multiverse.training.rl.algorithms import Algorithm
from multiverse.training.rl.collect import Draw, collect
from multiverse.training.rl.config import RLConfig, Sampling, dump, load
from multiverse.training.rl.decoding import Decoded, InProcess
from multiverse.training.rl.policy import Policy
from multiverse.training.rl.processes import share
from multiverse.training.rl.questions import Questions
from multiverse.training.rl.rollout import Group, Question, Scores
from tests.training.rl.forking import rollouts_of, trained_logprobs
from tests.training.rl.paying import letters
from tests.training.rl.runs import configured, log, weights


class Behind(InProcess):
    """Decodes at once what is begun, with the weights as they are then: what replicas do, in one process."""

    begins: list[int]

    def begin(self, questions: Sequence[Question], draw: Draw) -> None:
        self.begins.append(draw.step)
        self._decoded = Decoded(super().collect(questions, draw), 1.5)

    def begun(self) -> Decoded:
        return self._decoded

    def finish(self) -> Decoded:
        return self._decoded._replace(groups=share(self._decoded.groups))


class Letters:
    """In place of `Rewards`: a random model is never right."""

    def __init__(self, *_: Any) -> None:
        pass

    def __enter__(self) -> Letters:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def judge(self, groups: Sequence[Group], step: int) -> list[Group]:  # noqa: ARG002
        return [
            replace(group, scores=[Scores(letters(group.question, rollout)) for rollout in group.rollouts]) for group in groups
        ]


@pytest.fixture
def begins(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Numbers of the batches that runs begin ahead, in this process and without Ray."""
    begins: list[int] = []

    def make(config: RLConfig, policy: Policy, live: Any) -> Behind:
        decoder = Behind(config, policy, live.phase)
        decoder.begins = begins
        return decoder

    monkeypatch.setattr(run, "make_decoder", make)
    monkeypatch.setattr(run, "check_replicas", lambda _: None)
    monkeypatch.setattr(run, "Rewards", Letters)
    return begins


@pytest.fixture
def config(start: Path, tmp_path: Path) -> RLConfig:
    short = replace(configured(start, tmp_path / "run"), group_size=2, sampling=Sampling(max_tokens=16), keep=9)
    return replace(short, rollout_replicas=1, asynchronous=True)


def test_a_run_is_that_of_a_loop_by_hand(config: RLConfig, begins: list[int]) -> None:
    config = replace(config, save_every=9)
    run.train(config)
    records = log(Path(config.out))
    assert begins == [1, 2]
    figures, expected = by_hand(config)
    for record, found in zip(records, figures, strict=True):
        assert {name: record[name] for name in found} == pytest.approx(found, rel=1e-4, abs=1e-6)
    assert [record["staleness"] for record in records] == [0, 1, 1]
    assert records[1]["ratio_max"] > 1.01, "older weights give other probabilities"
    assert "first_ratio_mean" in records[0]
    assert "first_ratio_mean" not in records[1], "which are no sign of a trainer that computes otherwise"
    for name, tensor in weights(Path(config.out)).items():
        torch.testing.assert_close(tensor, expected[name], atol=3e-5, rtol=1e-4)


def by_hand(config: RLConfig) -> tuple[list[dict[str, float]], dict[str, Any]]:
    """The figures of each update, and the weights after the last."""
    start = run.load_start(config)
    model, policy = start.model.train(), start.policy
    model.set_attn_implementation(register())
    questions = Questions(config.questions, config.seed, config.questions_per_batch)
    parameters = list(model.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=config.optimizer.lr, betas=(0.9, 0.95), weight_decay=0.0)

    def decode(step: int, version: int) -> list[Group]:
        draw = Draw(config.seed, step, version)
        asked = questions.batch(step)
        return collect(policy, asked, group_size=config.group_size, draw=draw, params=config.sampling.params())

    figures = []
    following = decode(0, 0)
    for step in range(config.max_steps):
        groups = Letters().judge(following, step)
        questions.observe(step, groups)
        if step + 1 < config.max_steps:
            following = decode(step + 1, step)  # before the update
        rewards = [[scores.total for scores in group.scores] for group in groups]
        advantages = [reward - fmean(group) for group in rewards for reward in group]
        rollouts = rollouts_of(groups)
        count = sum(rollout.num_sampled for rollout in rollouts)
        loss, ratios = torch.zeros(()), []
        for rollout, advantage, logprob_T in zip(rollouts, advantages, trained_logprobs(model, rollouts), strict=True):
            old_T = torch.tensor([value for value in rollout.generation.logprobs or () if value is not None])
            ratio_T = (logprob_T.detach() - old_T).exp()
            loss = loss - (ratio_T.clamp(max=2.0) * advantage * (logprob_T - logprob_T.detach()).exp()).sum() / count
            ratios.append(ratio_T)
        optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        ratio_T = torch.cat(ratios)
        figures.append(
            {
                "reward": fmean(value for group in rewards for value in group),
                "grad_norm": float(norm),
                "ratio_mean": float(ratio_T.mean()),
                "ratio_max": float(ratio_T.max()),
                "importance": float(ratio_T.clamp(max=2.0).mean()),
            }
        )
    return figures, {name: tensor.detach() for name, tensor in model.state_dict().items()}


def test_a_resumed_run_goes_on_with_the_rollouts_of_the_older_weights(config: RLConfig, begins: list[int]) -> None:
    """Resumed between two updates on a batch, while the next one is decoded."""
    config = replace(config, algorithm=Algorithm(updates_per_batch=2), max_steps=4)
    run.train(config)
    out = Path(config.out)
    expected, trained = log(out), weights(out)
    assert [record["staleness"] for record in expected] == [0, 1, 2, 3]
    assert begins == [1]
    begins.clear()
    shutil.rmtree(out / "model")
    for path in out.glob("checkpoint-*"):
        if int(path.name.rpartition("-")[2]) > 1:
            shutil.rmtree(path)
    run.train(config)
    assert begins == [], "batch 1 is in the checkpoint, and there is no other"
    assert log(out) == expected
    assert all(torch.equal(tensor, trained[name]) for name, tensor in weights(out).items())
    record = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()][-2]
    assert record["seconds_rollouts"] == 1.5, "the time that it took to decode them"
    assert record["seconds_waiting"] < 1.5


def test_importance_sampling_is_on_unless_set_otherwise(config: RLConfig, tmp_path: Path) -> None:
    assert config.algorithm.importance_sampling == "token_truncate"
    path = tmp_path / "run.yaml"
    values = yaml.safe_load(dump(config))
    values["algorithm"] = {"name": "dapo"}
    path.write_text(yaml.safe_dump(values))
    found = load(path).algorithm
    assert (found.importance_sampling, found.updates_per_batch) == ("token_truncate", 16)
    values["algorithm"] = {"importance_sampling": "none", "clip_ratio_low": 0.1}
    path.write_text(yaml.safe_dump(values))
    assert load(path).algorithm.importance_sampling == "none"
    values["algorithm"] = {"clip_ratio_low": 0.1}
    path.write_text(yaml.safe_dump(values))
    with pytest.raises(
        ConfigError, match=r"algorithm.clip_ratio_low=0.1 has no effect: it needs algorithm.importance_sampling"
    ):
        load(path)


def test_one_process_cannot_do_both(config: RLConfig) -> None:
    with pytest.raises(ConfigError, match="asynchronous=True needs rollout_replicas of 1 or more"):
        replace(config, rollout_replicas=0)
