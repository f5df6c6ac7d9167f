"""Configurations are read strictly, and refused before anything is loaded."""

from __future__ import annotations

from pathlib import Path

import pytest

from multiverse.errors import ConfigError
from multiverse.training.config import Optimizer
from multiverse.training.rl.config import RLConfig, Sampling, dump, load, load_stored
from multiverse.training.rl.questions import QuestionSource
from multiverse.training.rl.rewards import Reward

RECIPES = [path for path in (Path(__file__).parents[3] / "recipes").rglob("*.yaml") if "\nquestions:" in path.read_text()]
START = "model: m\nquestions: [{family: worksheet}]\nout: o\n"


def write(folder: Path, text: str) -> Path:
    path = folder / "rl.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_the_recipes_are_valid(path: Path) -> None:
    load(path)


def test_three_settings_are_enough(tmp_path: Path) -> None:
    config = load(write(tmp_path, START))
    assert config == RLConfig(model="m", questions=[QuestionSource(family="worksheet")], out="o")
    assert (config.sampling.temperature, config.sampling.top_p, config.algorithm.name) == (1.0, 1.0, "grpo")
    assert [reward.name for reward in config.rewards] == ["correct", "acceleration"]


def test_a_section_keeps_the_defaults_of_rl_for_what_it_does_not_give(tmp_path: Path) -> None:
    config = load(write(tmp_path, START + "optimizer: {lr: 3.0e-5}"))
    assert config.optimizer == Optimizer(lr=3e-5, schedule="constant", warmup=0.0, weight_decay=0.0, betas=[0.9, 0.999])
    assert load(write(tmp_path, START), {"optimizer.lr": "3e-5"}) == config


def test_a_preset_decides_what_is_not_given(tmp_path: Path) -> None:
    config = load(write(tmp_path, START + "algorithm: {name: dapo, clip_ratio_high: 0.3}"))
    assert (config.algorithm.no_spread, config.algorithm.clip_ratio_high) == ("resample", 0.3)
    assert config.updates == 16


def test_a_dumped_configuration_reads_back(tmp_path: Path) -> None:
    text = START + "algorithm: {name: npr}\nrewards: [{name: correct}, {name: well_formed, alternate: [2, 10], weight: 0.1}]"
    config = load(write(tmp_path, text + "\nlora: {rank: 4}\nsampling: {max_tokens: 64}"))
    assert load_stored(write(tmp_path, dump(config))) == config
    assert config.sampling == Sampling(max_tokens=64)
    assert config.rewards[1] == Reward(name="well_formed", alternate=[2, 10], weight=0.1)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("model: m\nout: o", "questions is missing"),
        ("questions: []\nmodel: m\nout: o", "questions is empty"),
        (START + "qestions_per_batch: 3", "unknown setting qestions_per_batch: did you mean 'questions_per_batch'?"),
        (START + "group_size: 1", "group_size=1 is not valid: it must be a whole number of 2 or more"),
        (START + "algorithm: {name: ppo}", "algorithm.name='ppo' is not valid"),
        (
            START + "algorithm: {kl_estimator: k2}",
            "algorithm.kl_estimator='k2' has no effect: it needs algorithm.kl_coef above 0",
        ),
        (START + "rewards: [{name: corect}]", "did you mean 'correct'?"),
        (START + "rewards: [{name: correct}, {name: correct}]", "the reward 'correct' stands 2 times"),
        (START + "sampling: {repetition_penalty: 1.1}", "sampling.repetition_penalty is not for rollouts"),
        (START + "sampling: {temperature: 0}", "sampling.temperature=0.0 is not valid: it must be above 0"),
        (START + "sampling: {max_tokens: 8, min_tokens: 9}", "min_tokens=9"),
        (START + "early_stopping: {forks: 0.1}", "unknown setting early_stopping.forks: did you mean 'forked'?"),
        (START + "eval_every: 5\nvalidation_questions: 0", "eval_every=5 has no effect: it needs validation_questions above 0"),
        (
            START + "optimizer: {schedule: wsd, stable_ratio: 0.0, warmup: 0.5}",
            "optimizer.stable_ratio=0.0 is below warmup=0.5",
        ),
        (START + "fsdp: true\noptimizer: {name: muon}", "optimizer.name='muon' needs whole matrices"),
        (
            "questions: [{family: worksheet}, {file: x, width: 2}]\nmodel: m\nout: o",
            "questions[1].width=2 has no effect with file",
        ),
    ],
)
def test_what_is_wrong_is_named_with_the_way_out(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(write(tmp_path, text))
    assert words in str(caught.value)
