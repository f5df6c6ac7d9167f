"""`multiverse curate distill`: training data without a teacher."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from ..curation.config import IN_PROCESS, BudgetConfig, DistillConfig, EndpointConfig
from ..prompting import INSTRUCTIONS
from .curate_input import api_key, print_faults
from .curate_model import BaseUrl, model_here
from .curate_progress import run_job
from .declared import Family, Fields, Fresh, Json, Limit, Out, Seed, expand_options
from .errors import InputError, check_url, known
from .loading import ModelOptions

if TYPE_CHECKING:
    from ..curation.distill import Check, Question

_QUESTIONS = 200  # of a family


@expand_options
def distill(
    out: Out,
    endpoint: Annotated[
        EndpointConfig,
        Fields(
            only=("temperature", "concurrency"),
            defaults={"base_url": IN_PROCESS, "model": "", "temperature": 1.0, "concurrency": 32},
        ),
    ],
    config: Annotated[
        DistillConfig,
        Fields(
            only=("samples", "max_tokens", "min_parallelism", "min_difference", "dialect", "validation"),
            defaults={"instruction": INSTRUCTIONS["parallel"]},
        ),
    ],
    budget: Annotated[BudgetConfig, Fields(only=("token_budget",))],
    model: Annotated[ModelOptions, Fields(only=("model", "upstream", "tokenizer", "layout", "device", "dtype", "quantize"))],
    source: Annotated[
        Path | None,
        typer.Argument(metavar="TASKS", help="A .jsonl file with question and answer on each line.", show_default=False),
    ] = None,
    family: Family = None,
    base_url: BaseUrl = None,
    limit: Limit = None,
    seed: Seed = 0,
    fresh: Fresh = False,
    as_json: Json = False,
) -> None:
    """Let a model that forks write its own training data; keep what is good.

    Each question (200 of a family, unless --limit says otherwise) is answered several
    times. An answer is kept if it is well formed, correct, truly parallel (two paths that
    differ and do not depend on each other) and new. The others are rejected, each with
    its reason. The folder is like that of
    [bold]multiverse curate[/bold], and a run that was stopped or killed continues.

    [bold]Examples[/bold]
    multiverse curate distill --family worksheet --limit 200 --out distilled
    multiverse curate distill questions.jsonl --out distilled -m my/model
    multiverse curate distill questions.jsonl --out distilled -m my-model \\
        --base-url http://localhost:8000/v1
    multiverse curate distill --family worksheet --out distilled \\
        --upstream http://localhost:8000/v1 --tokenizer ./my-model
    """
    from ..curation.client import Client
    from ..curation.distill import Distiller, read_sample, rows
    from ..curation.job import Job

    questions = _questions(source, family, limit, seed)
    if base_url is not None:
        check_url(base_url)
        if model.upstream is not None or model.tokenizer is not None:
            raise InputError("--base-url is asked for chats, --upstream runs the model for us: give one of them")
        if model.model is None:
            raise InputError("--model is missing: name the model that the endpoint is to use")
        endpoint = replace(endpoint, base_url=base_url, api_key=api_key())
    endpoint = replace(endpoint, model=model.name, seed=seed if base_url is None else None)
    distiller = Distiller(config, questions.check)
    sampled = partial(rows, questions.all, config.samples)
    with model_here(model, endpoint) as generate:
        connect = partial(Client, generate=generate, read=partial(read_sample, dialect=config.tags))
        job = Job(out, endpoint, config, questions.name, sum(1 for _ in sampled()), budget, connect=connect)
        run_job(job, sampled, as_json=as_json, fresh=fresh, curate=distiller.distil, on_start=distiller.start)


class _Questions(NamedTuple):
    """The questions to sample.

    Attributes:
        name: where they are from.
        check: whether an answer is correct; `None` compares with the reference answer.
    """

    name: str
    all: list[Question]
    check: Check | None = None


def _questions(source: Path | None, family: str | None, limit: int | None, seed: int) -> _Questions:
    from ..curation.distill import Question, read_questions
    from ..tasks import FAMILIES, problems

    if (source is None) == (family is None):
        raise InputError("give either a file of TASKS or --family NAME")
    if source is not None:
        if not source.is_file():
            raise InputError(
                f"there is no such file: {str(source)!r}; give a .jsonl file with question and answer on each line"
            )
        found, faults = read_questions(source)
        print_faults(faults)
        if faults:
            raise InputError(f"{len(faults):,} lines hold no question: nothing was requested; correct or remove them")
        if not found:
            raise InputError(f"{str(source)!r} holds no question: give a file that does")
        return _Questions(str(source), found[:limit])
    assert family is not None
    stream = problems(known("family", family, FAMILIES), seed=seed, split="train")
    drawn = {problem.question: problem for problem in islice(stream, limit or _QUESTIONS)}
    questions = [Question(f"{family}-{number}", one.question, one.answer) for number, one in enumerate(drawn.values(), 1)]
    return _Questions(family, questions, lambda question, _, given: drawn[question].check(given))
