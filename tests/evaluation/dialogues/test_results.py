"""Figures of verdicts, by hand and by simulation: shares, errors clustered by dialogue, comparisons, agreement of judges."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("scipy", reason="the extra [eval] is not installed")
pytest.importorskip("PIL", reason="the extra [eval] is not installed")

from multiverse.errors import DataError
from multiverse.evaluation.dialogues.agreement import agreement
from multiverse.evaluation.dialogues.dialogue import CATEGORIES, Dialogue, Item, Turn
from multiverse.evaluation.dialogues.results import MAIN, MAIN_BY_TURN, SUB, TURN, Results, compare_dialogues
from multiverse.evaluation.dialogues.store import Answer, Decision, DialogueRun, Judgement
from multiverse.evaluation.statistics import share_of

Verdicts = dict[str, list[list[bool] | None]]
"""By dialogue, the verdicts of each turn; `None` where there are none."""


def a_run(verdicts: Verdicts, judge: str = "judge", samples: int = 1, name: str = "run") -> DialogueRun:
    """A run with these verdicts; turns without verdicts have a checklist of one item."""
    dialogues, answers, judgements = [], [], []
    for number, (index, turns) in enumerate(verdicts.items()):
        made = tuple(
            Turn(
                f"u{at}",
                f"r{at}",
                tuple(Item(f"q{at}.{item}", ("A", "B")[item % 2], f"s{item}") for item in range(len(met or [True]))),
            )
            for at, met in enumerate(turns)
        )
        categories = dict.fromkeys(CATEGORIES, "") | {"main_task_category": ("count", "name")[number % 2]}
        dialogues.append(Dialogue(index, made, categories=categories))
        for sample in range(samples):
            for at, met in enumerate(turns):
                answers.append(Answer(index, at, sample, "t", "a", "a", "stop", False, 0, 100, 50 * at, 10, 5, 5, 1.0))
                if met is not None:
                    decided = tuple(Decision(one, "") for one in met)
                    key = f"{judge}{index}{at}{sample}"
                    judgements.append(Judgement(index, at, sample, judge, 0, 0, key, "", "", decided))
    return DialogueRun(
        name,
        "model",
        {"repeats": samples},
        "machine",
        "2026-11-30",
        judge=judge,
        dialogues=tuple(dialogues),
        answers=tuple(answers),
        judgements=tuple(judgements),
    )


HAND: Verdicts = {
    "a": [[True, True], [True, False], [True]],
    "b": [[True], [True, True]],
    "c": [[False, True, True], None],
    "d": [[False]],
}


def test_figures_by_hand() -> None:
    found = Results(a_run(HAND)).overall
    assert found is not None
    assert found.turns is not None
    assert found.dialogues is not None
    assert found.score is not None
    # Items: a 4 of 5, b 3 of 3, c 2 of 3, d 0 of 1.
    assert (found.items.mean, found.items.samples, found.items.questions) == (9 / 12, 12, 4)
    deviations = np.array([4 - 5 * 0.75, 3 - 3 * 0.75, 2 - 3 * 0.75, 0 - 0.75])
    assert found.items.stderr == pytest.approx(math.sqrt(4 / 3 * (deviations**2).sum()) / 12)
    # Turns: a yes no yes, b yes yes, c no, d no.
    assert (found.turns.mean, found.turns.samples) == (4 / 7, 7)
    # Dialogues with all verdicts: a no, b yes, d no; c lacks those of its second turn.
    assert (found.dialogues.mean, found.dialogues.questions) == (1 / 3, 3)
    assert found.score.mean == pytest.approx(((1 + 0.5 + 1) / 3 + 1 + 0) / 3)


def test_parts_by_hand() -> None:
    results = Results(a_run(HAND))
    by_turn = results.groups(TURN)
    assert list(by_turn) == ["1", "2", "3"]
    assert [by_turn[name].items.mean for name in by_turn] == [5 / 7, 3 / 4, 1]
    assert [own.turns.mean if own.turns else None for own in by_turn.values()] == [2 / 4, 1 / 2, 1]
    by_main = results.groups(MAIN)
    assert (by_main["A"].items.mean, by_main["A"].items.samples) == (6 / 8, 8)
    assert (by_main["B"].items.mean, by_main["B"].items.samples) == (3 / 4, 4)
    assert list(results.groups(SUB)) == ["s0", "s1", "s2"]
    assert results.groups(MAIN_BY_TURN)["A · turn 2"].items.samples == 2
    by_task = results.groups("main_task_category")
    assert (by_task["count"].items.mean, by_task["name"].items.mean) == (6 / 8, 3 / 4)
    assert by_task["count"].dialogues is not None
    assert by_task["count"].dialogues.samples == 1
    assert results.groups("image_main_category") == {}
    answered = results.answered()
    assert (answered["2"].answers, answered["2"].cached, answered["2"].parallelism.mean) == (3, 0.5, 2.0)


def test_samples_of_one_dialogue_are_one_cluster() -> None:
    once, twice = (Results(a_run(HAND, samples=samples)).overall for samples in (1, 2))
    assert once is not None
    assert twice is not None
    assert twice.items.samples == 2 * once.items.samples
    assert twice.items.stderr == pytest.approx(once.items.stderr)


def test_comparison_by_hand() -> None:
    better: Verdicts = {**HAND, "a": [[True, True], [True, True], [True]], "d": [[True]], "x": [[True]]}
    compared = compare_dialogues(Results(a_run(HAND)), Results(a_run(better, name="better")))
    # Each dialogue counts once: a 1/5, b 0, c 0, d 1; x is in one of them only.
    assert compared.differences["items"].mean == pytest.approx((0.2 + 0 + 0 + 1) / 4)
    assert compared.differences["items"].questions == 4
    assert compared.differences["dialogues"].mean == pytest.approx((1 + 0 + 1) / 3)
    assert compared.differences["items, turn 1"].mean == pytest.approx(1 / 4)
    assert compared.differences["items, turn 2"].mean == pytest.approx((0.5 + 0) / 2)
    other = a_run({"y": [[True]], "z": [[True]]}, name="other")
    with pytest.raises(DataError, match="fewer than two judged dialogues in common"):
        compare_dialogues(Results(a_run(HAND)), Results(other))


def test_the_judge_that_is_asked_for() -> None:
    one, two = a_run(HAND, "j @ host"), a_run({**HAND, "d": [[True]]}, "k")
    both = replace(one, judgements=(*one.judgements, *two.judgements))
    assert Results(both).judge == "j @ host"
    assert Results(both, "j").judge == "j @ host"
    assert [own.decisions[0].met for own in Results(both, "k").judged if own.dialogue.id == "d"] == [True]
    with pytest.raises(DataError, match="no verdicts of 'm': it has those of j @ host, k"):
        Results(both, "m")
    ((first, second, found),) = Results(both).agreements()
    assert (first.judge, second.judge, found.items) == ("j @ host", "k", 12)
    assert found.same == 11 / 12


def test_kappa_by_hand() -> None:
    # 20 both yes, 5 first only, 10 second only, 15 neither: the textbook's example of kappa 0.4.
    first = [True] * 20 + [True] * 5 + [False] * 10 + [False] * 15
    second = [True] * 20 + [False] * 5 + [True] * 10 + [False] * 15
    found = agreement(first, second, list(range(50)))
    assert (found.kappa, found.same) == (pytest.approx(0.4), 0.7)
    assert (found.first_met, found.second_met) == (0.5, 0.6)
    assert found.low < 0.4 < found.high
    # The asymptotic error of kappa with 50 independent items is 0.13.
    assert found.high - found.low == pytest.approx(2 * 2.01 * 0.13, rel=0.1)
    same = agreement([True, True], [True, True], ["a", "b"])
    assert math.isnan(same.kappa)
    assert same.to_json()["kappa"] is None
    assert agreement(first, first, list(range(50))).kappa == 1
    with pytest.raises(ValueError, match="no items"):
        agreement([], [], [])


def dialogue_effects(
    rng: np.random.Generator, dialogues: int, spread: float
) -> tuple[list[np.ndarray], list[int], Callable[[np.ndarray], np.ndarray]]:
    """Chances of items, alike within a dialogue; dialogues have 4 to 16 items."""
    sizes = rng.integers(4, 17, dialogues)
    effects = rng.normal(0, spread, dialogues)
    chance = lambda own: 1 / (1 + np.exp(-own))  # noqa: E731
    return [np.full(size, effect) for size, effect in zip(sizes, effects, strict=True)], list(sizes), chance


def test_intervals_cover_the_truth_under_dialogue_effects() -> None:
    rng = np.random.default_rng(11)
    whole = 1 / (1 + np.exp(-(0.3 + rng.normal(0, 1.0, 2_000_000))))
    truth = float(whole.mean())
    clustered = plain = 0
    draws = 600
    for _ in range(draws):
        effects, sizes, chance = dialogue_effects(rng, 40, 1.0)
        flags = np.concatenate([rng.random(len(own)) < chance(0.3 + own) for own in effects])
        names = np.repeat(np.arange(40), sizes)
        own = share_of(flags.tolist(), names.tolist())
        clustered += own.low <= truth <= own.high
        unclustered = share_of(flags.tolist(), list(range(len(flags))))
        plain += unclustered.low <= truth <= unclustered.high
    assert 0.925 <= clustered / draws <= 0.98
    assert plain / draws < 0.85  # items taken for independent: the error that clustering avoids


def test_kappa_s_interval_covers_the_truth_under_dialogue_effects() -> None:
    rng = np.random.default_rng(12)

    def verdicts(dialogues: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        effects, sizes, chance = dialogue_effects(rng, dialogues, 1.5)
        right = np.concatenate([rng.random(len(own)) < chance(own) for own in effects])
        flip = rng.random((2, len(right))) < 0.15
        return right ^ flip[0], right ^ flip[1], np.repeat(np.arange(dialogues), sizes)

    truth = agreement(*(list(own) for own in verdicts(40_000)), resamples=2).kappa
    covered = 0
    for number in range(300):
        found = agreement(*(list(own) for own in verdicts(30)), seed=number, resamples=400)
        covered += found.low <= truth <= found.high
    assert 0.9 <= covered / 300 <= 0.985
