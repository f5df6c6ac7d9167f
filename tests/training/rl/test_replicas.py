"""Replicas under a real Ray, on CPU: the same rollouts as in one process, a replica that is killed, and whole runs."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from multiverse import cluster
from multiverse.errors import ConfigError, ExtraError
from multiverse.training.rl import replicas as module
from multiverse.training.rl.collect import Draw
from multiverse.training.rl.config import RLConfig, Sampling
from multiverse.training.rl.decoding import InProcess
from multiverse.training.rl.dryrun import dry_run
from multiverse.training.rl.questions import Questions
from multiverse.training.rl.replicas import Replicas
from multiverse.training.rl.rollout import Group
from multiverse.training.rl.run import load_policy, train
from tests.forks import Fork, Server, forks
from tests.training.rl.forking import rollouts_of
from tests.training.rl.runs import PAID, command, configured, log

needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs ray")


@pytest.fixture
def config(start: Path, tmp_path: Path) -> RLConfig:
    short = replace(configured(start, tmp_path / "run"), group_size=2, questions_per_batch=3, sampling=Sampling(max_tokens=24))
    return replace(short, rollout_replicas=2)


def test_without_ray_the_extra_is_named_before_anything_is_loaded(config: RLConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: Any) -> Any:
        raise ExtraError("ray", "ray")

    monkeypatch.setattr(cluster, "require", missing)
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    config = replace(config, model="no such model")
    for attempt in (train, dry_run):
        with pytest.raises(ExtraError, match=r"this needs ray, which is not installed: pip install 'multiverse-llm\[ray\]'"):
            attempt(config)
    assert not Path(config.out).exists()


@pytest.mark.parametrize(("visible", "free"), [(None, ["1", "2", "3"]), ("4,5,6", ["5", "6"])])
def test_replicas_take_the_gpus_that_do_not_train(
    monkeypatch: pytest.MonkeyPatch, visible: str | None, free: list[str]
) -> None:
    """Not run on GPUs: what torch says of them is made up."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert module._free_gpus(2) == free
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="rollout_replicas=3 needs 3 GPUs beside the 2 that train, and"):
        module._free_gpus(3)


def test_a_dry_run_says_what_replicas_need(config: RLConfig) -> None:
    alone, scaled = dry_run(replace(config, rollout_replicas=0)), dry_run(replace(config, asynchronous=True, precision="bf16"))
    assert {"keys and values"} <= alone.memory.keys()
    assert not {"keys and values", "decoding copy"} & scaled.memory.keys()
    assert scaled.replica_memory == {"weights": 2 * scaled.parameters, "keys and values": 8 << 20}
    assert scaled.seconds_per_step == max(scaled.seconds.values())
    assert alone.seconds_per_step == sum(alone.seconds.values())
    assert (alone.replicas, alone.replica_memory) == (0, {})


def assert_same(found: list[Group], expected: list[Group]) -> None:
    assert [group.question for group in found] == [group.question for group in expected]
    for one, other in zip(rollouts_of(found), rollouts_of(expected), strict=True):
        assert one.token_ids == other.token_ids
        assert (one.positions, one.segments, one.visibility) == (other.positions, other.segments, other.visibility)
        assert (one.sources, one.supports, one.temperature) == (other.sources, other.supports, other.temperature)
        assert (one.seed, one.version) == (other.seed, other.version)
        assert one.generation.logprobs == pytest.approx(other.generation.logprobs, abs=1e-5)


@needs_ray
@pytest.mark.slow
def test_replicas_decode_what_one_process_decodes_whatever_becomes_of_them(config: RLConfig) -> None:
    policy = load_policy(config)
    alone = InProcess(config, policy)
    questions = Questions(config.questions, 0, 3).batch(0)
    lost: list[str] = []
    decoder = Replicas(config, policy, load_policy, on_lost=lost.append)
    try:
        assert_same(decoder.collect(questions, Draw(0, 0, 0)), alone.collect(questions, Draw(0, 0, 0)))
        with torch.no_grad():
            for parameter in policy.model.parameters():
                parameter.mul_(1.05)
        expected = alone.collect(questions, Draw(0, 1, 1))
        found = decoder.collect(questions, Draw(0, 1, 1))
        assert_same(found, expected)
        assert {rollout.version for rollout in rollouts_of(found)} == {1}
        assert [one.rollouts[0].token_ids for one in decoder.answer(questions, Draw(0, -1, 1))] == [
            one.rollouts[0].token_ids for one in alone.answer(questions, Draw(0, -1, 1))
        ]

        # The weights change while it decodes, and one is killed: the questions are asked again, of the older weights.
        victim = decoder._ray.get(decoder._actors[0].status.remote()).pid
        decoder.begin(questions, Draw(0, 2, 1))
        os.kill(victim, signal.SIGKILL)
        expected = alone.collect(questions, Draw(0, 2, 1))
        with torch.no_grad():
            for parameter in policy.model.parameters():
                parameter.mul_(1.05)
        assert_same(decoder.finish().groups, expected)
        assert decoder.lost == 1
        (sentence,) = lost
        assert sentence.startswith("replica 0 died")
        assert sentence.endswith("its 2 questions are asked again")
        assert_same(decoder.collect(questions, Draw(0, 3, 2)), alone.collect(questions, Draw(0, 3, 2)))
    finally:
        decoder.close()


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Server]:
    with forks(tmp_path, "multiverse.cli", "multiverse.training.rl.run", "accelerate") as server:
        yield server


MARK = "MULTIVERSE_TEST_OF_REPLICAS"


def marked(mark: str) -> list[str]:
    """What runs with this mark in its environment."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if f"{MARK}={mark}".encode() in (folder / "environ").read_bytes():
                found.append((folder / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            continue
    return found


def wait_until_gone(mark: str) -> None:
    end = time.monotonic() + 120
    while (left := marked(mark)) and time.monotonic() < end:
        time.sleep(0.5)
    assert not left


@needs_ray
@pytest.mark.slow
def test_whole_runs(config: RLConfig, processes: Server, tmp_path: Path) -> None:
    """Synchronous, as without replicas; one step behind, killed, and resumed to the same curve; and stopped with Ctrl-C."""
    config = replace(config, rewards=PAID, validation_questions=2, eval_every=2, keep=9, max_steps=4)
    folders = ("alone", "same", "behind", "cut", "stopped")
    alone, same, behind, cut, stopped = (replace(config, out=str(tmp_path / name)) for name in folders)
    behind, cut, stopped = (replace(one, asynchronous=True) for one in (behind, cut, stopped))

    def start(one: RLConfig) -> Fork:
        module, *line = command(one, tmp_path)
        return processes.start(module, *line, env={MARK: Path(one.out).name})

    train(replace(alone, rollout_replicas=0))
    for one in (same, behind):
        running = start(one)
        assert running.wait(900) == 0, running.stderr
        wait_until_gone(Path(one.out).name)
    for expected, found in zip(log(Path(alone.out)), log(Path(same.out)), strict=True):
        assert found.pop("lost_replicas", 0) == 0
        assert found == pytest.approx(expected, rel=1e-4, abs=1e-5)
        assert found.get("first_ratio_deviation", 0) < 1e-3
    steps = [record for record in log(Path(behind.out)) if "loss" in record]
    assert [record["staleness"] for record in steps] == [0, 1, 1, 1]

    running = start(cut)
    while running.poll() is None and not (Path(cut.out) / "checkpoint-2" / "complete").exists():
        time.sleep(0.05)
    running.kill()
    assert running.wait() == -signal.SIGKILL
    wait_until_gone("cut")
    for path in Path(cut.out).glob("checkpoint-*"):
        if int(path.name.rpartition("-")[2]) > 2:
            shutil.rmtree(path)
    running = start(cut)
    assert running.wait(900) == 0, running.stderr
    for expected, found in zip(log(Path(behind.out)), log(Path(cut.out)), strict=True):
        assert found == pytest.approx(expected, rel=1e-4, abs=1e-5)

    running = start(stopped)
    while running.poll() is None and not (Path(stopped.out) / "checkpoint-1" / "complete").exists():
        time.sleep(0.05)
    running.send_signal(signal.SIGINT)
    assert running.wait(900) == 130, running.stderr
    wait_until_gone("stopped")
    assert "start again to continue" in running.stderr
