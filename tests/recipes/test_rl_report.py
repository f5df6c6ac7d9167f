"""The runs of reinforcement learning: their settings, mismatch on purpose, and what tables say of finished ones."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from multiverse.engine.model import embedded_model
from multiverse.errors import DataError
from multiverse.structure import encode, layout, resolve
from multiverse.tasks import generate
from multiverse.training.rl import decoding
from multiverse.training.rl.rollout import Group, Question, Rollout, Support
from recipes.rl import report
from recipes.rl.measure import Asked
from recipes.rl.mismatch import MISMATCHES, patched, released_positions, without_guard
from recipes.rl.run import config_of, curve
from recipes.rl.runs import RUNS
from tests.training.rl.made import structured_rollout


@pytest.mark.parametrize("name", RUNS)
def test_the_settings_of_every_run_read(name: str) -> None:
    config = config_of(name, 3)
    assert config.seed == 3
    assert config.out == f"runs/rl/{name}-3"
    assert config.max_steps % config.updates == 0, "the last rollouts are used for all of their updates"


@pytest.fixture(scope="module")
def rollout() -> tuple[Rollout, Any, Any]:
    """The solution of a worksheet of two calculations, its tokenizer and dialect; one place has a support."""
    tokenizer = AutoTokenizer.from_pretrained(embedded_model())
    tokens = resolve(tokenizer)
    (problem,) = generate("worksheet", 1, seed=1, width=2)
    answer = [*encode(problem.structured, tokens).token_ids, tokenizer.eos_token_id]
    prompt = tokenizer.encode("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n", add_special_tokens=False)
    made = structured_rollout(prompt, answer, tokens, support=lambda token: Support((token,), True))
    return made, tokenizer, tokens


def test_the_released_positions(rollout: tuple[Rollout, Any, Any]) -> None:
    made, tokenizer, tokens = rollout
    changed = released_positions(made, tokenizer, tokens)
    start, answer = len(made.generation.prompt_token_ids), list(made.generation.token_ids)
    assert changed.positions[:start] == made.positions[:start]
    lag = [old - new for old, new in zip(made.positions, changed.positions, strict=True)]
    paths = layout(answer[:-1], tokens).branches
    first = next(at for at, branch in enumerate(paths) if branch)
    assert set(lag[: start + first - 1]) == {0}, "before the block nothing differs"
    assert lag[-1] == 2, "what follows a block of paths is two earlier"
    inside = [lag[start + at] for at, branch in enumerate(paths) if branch and answer[at] not in tokenizer.encode("\n")]
    assert set(inside) == {1}, "paths begin one earlier"
    assert replace(changed, positions=made.positions) == made


def test_without_the_guard_everything_could_be_drawn(rollout: tuple[Rollout, Any, Any]) -> None:
    made, tokenizer, tokens = rollout
    assert any(made.supports)
    changed = without_guard(made, tokenizer, tokens)
    assert not any(changed.supports)
    assert replace(changed, supports=made.supports) == made


def test_rollouts_are_changed_between_engine_and_update(
    rollout: tuple[Rollout, Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    made, tokenizer, tokens = rollout

    class Decodes:
        pass

    policy = Decodes()
    policy.tokenizer, policy.tokens = tokenizer, tokens  # type: ignore[attr-defined]
    group = Group(Question("q", ()), (made,))
    monkeypatch.setattr("recipes.rl.mismatch.collect", lambda *_, **__: [group])
    original = decoding.collect
    with patched(MISMATCHES["guard"]):
        (changed,) = decoding.collect(policy, [], group_size=1, draw=None)  # type: ignore[arg-type]
        assert not any(changed.rollouts[0].supports)
    assert decoding.collect is original
    with patched(None):
        assert decoding.collect is original


def test_the_curve_has_a_point_for_each_batch_of_rollouts(tmp_path: Path) -> None:
    lines = [
        {"step": 1, "reward": 0.5, "right": 0.5, "first_ratio_mean": 1.0, "learning_rate": 1},
        {"step": 2, "loss": 0.1, "ratio_mean": 1.1},
        {"step": 3, "reward": 0.6, "right/nested": 0.1},
    ]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    first, second = curve(tmp_path / "log.jsonl")
    assert first == {"step": 1, "reward": 0.5, "right": 0.5, "first_ratio_mean": 1.0}
    assert second == {"step": 3, "reward": 0.6, "right/nested": 0.1}


def make_result(run: str = "correctness", seed: int = 0) -> dict[str, Any]:
    """A finished run of four problems: two more are right, at half the critical path."""
    before = Asked("worksheet", "parallel", 0.0, [0, 0, 1, 0], [0, 1, 0, 0], [100] * 4, [200] * 4, [2] * 4)
    after = replace(before, right=[1, 0, 1, 1], malformed=[0] * 4, critical=[50] * 4)
    step = {
        "seconds": 60.0,
        "right": 0.5,
        "parallelism": 2.0,
        "critical_path_tokens": 75.0,
        "sampled_tokens": 1_000_000.0,
        "first_ratio_mean": 1.0,
        "first_ratio_deviation": 2e-6,
    }
    return {
        "run": run,
        "seed": seed,
        "what": "correct",
        "start": "form",
        "machine": "a machine",
        "date": "2026-11-30",
        "settings": {"questions_per_batch": 2, "group_size": 4, "updates": 2},
        "before": [asdict(before)],
        "after": [asdict(after)],
        "curve": [step, step | {"seconds": 120.0}],
    }


def test_tables_of_a_finished_run(tmp_path: Path) -> None:
    (tmp_path / "correctness-0.json").write_text(json.dumps(make_result()))
    results = report.read(tmp_path)
    runs = report.runs_table(results).splitlines()[-1]
    assert "| 25.0 ± 25.0 | 75.0 ± 25.0 | +50.0 ± 28.9 | 2.000 ± 0.000 | 0.500 ± 0.000 | 100% → 100% |" in runs
    families = report.families_table(results).splitlines()[-1]
    assert "| 2.00 → 4.00 | 100 → 50 | 1 → 0 of 4 |" in families
    cost = report.cost_table(results).splitlines()[-1]
    assert cost.startswith("| correctness | 0 | correct | 2 | 16 | 2.00 M | 4 | 2 | 1.000000 to 1.000000 | 2.0e-06 |")
    text = report.markdown(results, ["rl-correctness"])
    assert "Not run: acceleration, " in text
    assert "correctness" not in text.partition("\n")[0].removeprefix("Not run: ")


def test_curves_are_drawn(tmp_path: Path) -> None:
    for run in ("correctness", "sequential"):
        (tmp_path / f"{run}-0.json").write_text(json.dumps(make_result(run)))
    runs, keys, across = report.PLOTS["rl-correctness"]
    results = report.read(tmp_path)
    assert {result.run for result in results} == set(runs)
    axes = report.draw(results, keys, across).axes
    assert [line.get_label() for line in axes[0].lines] == ["correctness", "sequential"]
    assert list(axes[0].lines[0].get_xdata()) == [1.0, 2.0]
    assert list(axes[0].lines[0].get_ydata()) == [50.0, 50.0]


def test_a_page_is_filled_between_its_markers(tmp_path: Path) -> None:
    page = tmp_path / "rl.md"
    page.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n")
    report.fill(page, "new")
    assert page.read_text() == f"before\n{report.BEGIN}\n\nnew\n\n{report.END}\nafter\n"
    page.write_text("nothing")
    with pytest.raises(DataError, match="has no place for the tables"):
        report.fill(page, "new")


def test_a_file_that_is_no_result_is_named(tmp_path: Path) -> None:
    (tmp_path / "correctness-0.json").write_text("{}")
    with pytest.raises(DataError, match=r"correctness-0\.json is no result"):
        report.read(tmp_path)
