"""Rollouts of a step as files: recordings that the page opens, texts for `multiverse show`, and a list of them. No torch."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from ...errors import writing
from ...evaluation.markdown import cell, table
from ...evaluation.recording import link, recording, slug
from ...evaluation.response import Response
from ...evaluation.sample import Sample
from ...prompting import Mode
from .rollout import Group, Rollout, Scores

SAMPLES = "samples"
LIST = "list.md"


def write_samples(groups: Sequence[Group], folder: Path, *, mode: Mode, model: str) -> None:
    """Write the best and the worst rollout of each of these groups, and a list of them; replaces what is in the folder.

    Args:
        groups: judged ones.
        mode: which instruction ended the questions.
        model: its name on the page.
    """
    with writing(folder):
        if folder.exists():
            shutil.rmtree(folder)
        folder.mkdir(parents=True)
        rows: list[tuple[str, ...]] = []
        for group in groups:
            pairs = sorted(zip(group.rollouts, group.scores, strict=True), key=lambda pair: -pair[1].total)
            for rollout, scores in pairs[:1] + pairs[1:][-1:]:
                rows.append(_write(len(rows) + 1, group, rollout, scores, folder, (mode, model)))
        head = ("question", "reward", "right", "ended", "answer", "expected", "critical path", "parallelism", "page", "text")
        text = table(head, rows)
        (folder / LIST).write_text(
            f"# {folder.name}\n\nOf each question the best rollout and the worst. Open a file in the page of `multiverse "
            f"serve` (*Open*, or drop it there), or a text with `multiverse show`.\n\n{text}\n",
            encoding="utf-8",
        )


def _write(
    number: int, group: Group, rollout: Rollout, scores: Scores, folder: Path, asked: tuple[Mode, str]
) -> tuple[str, ...]:
    """The two files of a rollout, and its line in the list."""
    question, generation = group.question, rollout.generation
    mode, model = asked
    response = Response.from_generation(generation)
    sample = Sample(
        task=question.source,
        id=question.id,
        epoch=0,
        mode=mode,
        question=question.messages[-1]["content"],
        expected=question.reference or "",
        answer=response.answer,
        text=response.text,
        right=bool(scores.correct),
        finish_reason=response.finish_reason,
        malformed=response.malformed,
        forks=response.forks,
        total_tokens=response.total_tokens,
        critical_path_tokens=response.critical_path_tokens,
        critical_path_steps=response.critical_path_steps,
        seconds=response.seconds,
    )
    parts = ", ".join(f"{name} {value:.3g}" for name, value in scores.parts.items())
    recorded = recording(sample, model)
    recorded["note"] = f"reward {scores.total:.3g} ({parts}); {recorded['note']}"
    name = f"{number:02d}-{slug(question.id)}"
    (folder / f"{name}.json").write_text(json.dumps(recorded, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    (folder / f"{name}.txt").write_text(f"{recorded['runs'][0]['text']}\n", encoding="utf-8")
    address = link(recorded)
    opened = f"[file]({name}.json)" + (f", [open]({address})" if address is not None else "")
    right = {None: "", True: "yes", False: "no"}[scores.correct]
    return (
        cell(question.id),
        f"{scores.total:.3g}",
        right,
        response.finish_reason,
        cell(response.answer) or "-",
        cell(question.reference or ""),
        str(response.critical_path_tokens),
        f"{sample.parallelism:.2f}",
        opened,
        f"[text]({name}.txt)",
    )
