"""Reward functions of a user, for models that are never right."""

from __future__ import annotations

from multiverse.training.rl.rollout import Question, Rollout


def letters(question: Question, rollout: Rollout) -> float:  # noqa: ARG001
    """The share of letters in what was written: no two random answers are alike."""
    text = rollout.generation.text
    return sum(map(str.isalpha, text)) / max(1, len(text))
