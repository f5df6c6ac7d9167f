"""Answers to held-out questions, greedy or sampled, one each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from ...engine import Generation, SamplingParams
from ...inputs import mode_of
from ...prompting import Instruction
from .collect import Draw, encode_questions
from .policy import Policy
from .rollout import Group, Question, Rollout


def answer(
    policy: Policy,
    questions: Sequence[Question],
    params: SamplingParams,
    *,
    mode: Instruction,
    draw: Draw,
    on_progress: Callable[[int, int], None] = lambda *_: None,
) -> list[Group]:
    """Groups of a single rollout, which hold the generation alone: nothing is trained on them.

    Args:
        params: their seed is replaced, and their temperature may be 0.
        draw: which answers, where the temperature is above 0.
        on_progress: called with the numbers of answers that have finished, and of all.
    """
    if not questions:
        with policy.decoding():  # with sharded weights, every process has to
            return []
    asked_in = mode_of(mode)
    seeds = [draw.seed_of(question.id, 0) for question in questions]
    done = 0

    def finish(_index: int, _generation: Generation) -> None:
        nonlocal done
        done += 1
        on_progress(done, len(questions))

    with policy.decoding() as llm:
        prompts = encode_questions(llm, questions, params, asked_in)
        own = llm.params_of([replace(params, seed=seed) for seed in seeds], len(questions), asked_in, chat=True)
        generations = llm.generate(prompts, own, on_finish=finish, progress=False)
    return [
        Group(question, [_rollout(generation, params.temperature, draw.version, seed)])
        for question, generation, seed in zip(questions, generations, seeds, strict=True)
    ]


def _rollout(generation: Generation, temperature: float, version: int, seed: int) -> Rollout:
    return Rollout(
        generation=generation,
        positions=(),
        segments=(),
        visibility=(),
        sources=(),
        supports=(),
        temperature=temperature,
        version=version,
        seed=seed,
    )
