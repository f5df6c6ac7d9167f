"""`multiverse curate compose`: a model's own answers to single questions become documents that fork."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..curation.compose.answering import SINGLE_HINTS
from ..curation.compose.config import ComposeConfig
from ..curation.config import IN_PROCESS, BudgetConfig, EndpointConfig
from .curate_input import api_key, print_faults
from .curate_model import BaseUrl, model_here
from .curate_progress import run_job
from .declared import DryRun, Fields, Fresh, Json, Limit, OnError, Out, Seed, expand_options
from .errors import InputError, check_url
from .jsonio import print_json
from .loading import ModelOptions

if TYPE_CHECKING:
    from ..curation.compose import Question

_NOT_OFFERED = ("refilled_distance", "final_distance", "rewrite", "max_nesting", "max_answer", "quoted", "phrase", "attempts")


@expand_options
def compose(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="QUESTIONS...",
            help="Files of single questions: .txt, .jsonl, .parquet, a folder, a hub id.",
            show_default=False,
        ),
    ],
    out: Out,
    endpoint: Annotated[
        EndpointConfig,
        Fields(
            only=("temperature", "concurrency"),
            defaults={"base_url": IN_PROCESS, "model": "", "temperature": 0.0, "concurrency": 64},
            show_default={"temperature": "0"},
        ),
    ],
    config: Annotated[ComposeConfig, Fields(leave_out=_NOT_OFFERED)],
    budget: Annotated[BudgetConfig, Fields(only=("token_budget",))],
    model: Annotated[
        ModelOptions, Fields(only=("model", "device", "dtype", "quantize", "kv_memory"), show_default={"model": "required"})
    ],
    base_url: BaseUrl = None,
    wordings: Annotated[
        Path | None,
        typer.Option(
            "--wordings",
            metavar="FILE",
            help="Wordings of requests in place of the built-in English ones.",
            rich_help_panel="Texts",
            show_default="built in",
        ),
    ] = None,
    limit: Limit = None,
    seed: Seed = 0,
    on_error: OnError = "skip",
    fresh: Fresh = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Let any model teach itself to fork: its own answers, joined into documents.

    The model answers each question of QUESTIONS alone. Answers that end by themselves,
    have the length of a path and do not go round in circles are joined into requests of
    several parts, in many wordings and forms; each part's answer is the path of a block.
    A quarter of the documents has no block: single questions, and requests that do not
    split. Topics and wordings are held out for validation. The folder is like that of
    [bold]multiverse curate[/bold], and a run that was stopped or killed continues.

    [bold]Examples[/bold]
    multiverse curate compose questions.txt --out composed -m smollm2
    multiverse curate compose a.jsonl b.jsonl --out composed -m my/model --max-parts 6
    multiverse curate compose questions.txt --out composed -m my-model \\
        --base-url http://localhost:8000/v1 --conclusion-writer model --judge
    """
    from ..curation.client import Client
    from ..curation.compose import Composition, read_questions
    from ..curation.compose.wordings import OWN, read_wordings

    if model.model is None:
        raise InputError("--model is missing: name the model that is to answer, and to learn from its answers")
    if base_url is not None:
        check_url(base_url)
        endpoint = replace(endpoint, base_url=base_url, api_key=api_key())
    chosen = OWN if wordings is None else wordings
    read_wordings(chosen)
    questions, faults = read_questions(sources, limit)
    print_faults(faults)
    if faults and on_error == "stop":
        raise InputError(f"{len(faults):,} rows of the input cannot be used: correct them, or skip them with --on-error skip")
    if sum(not one.single for one in questions) < config.min_parts:
        raise InputError(
            f"{' '.join(sources)} holds {len(questions):,} questions: a request joins at least {config.min_parts}; give more"
        )
    if dry_run:
        _print_plan(questions, config, as_json=as_json)
        return
    endpoint = replace(endpoint, model=model.name, seed=seed)
    with model_here(model, endpoint) as generate:
        connect = partial(Client, generate=generate)
        name = " ".join(sources)
        job = Composition(
            out, endpoint, config, name, len(questions), budget, connect=connect, questions=questions, wordings=chosen
        )
        run_job(job, tuple, as_json=as_json, fresh=fresh, faults=faults)


def _print_plan(questions: list[Question], config: ComposeConfig, *, as_json: bool) -> None:
    """What would be asked, at most, for the answers; texts that the model is to write for documents come on top."""
    parts = sum(not one.single for one in questions)
    singles = len(questions) - parts
    calls = parts * len(config.hints) + singles * len(SINGLE_HINTS)
    tokens = parts * config.max_part_tokens + singles * config.max_tokens
    plan = {
        "questions": len(questions),
        "parts": parts,
        "singles": singles,
        "topics": len({one.topic for one in questions}),
        "answer_calls_at_most": calls * (2 if config.judge else 1),
        "completion_tokens_about": tokens,
    }
    if as_json:
        print_json(plan)
    else:
        typer.echo("; ".join(f"{name.replace('_', ' ')}: {number:,}" for name, number in plan.items()))
