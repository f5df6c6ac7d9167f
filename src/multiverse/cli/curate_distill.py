"""`multiverse curate distill`: training data without a teacher."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from .curate_progress import Live, leave, print_summary
from .errors import InputError, check_url, known
from .options import (
    MODEL,
    SAMPLING,
    AnswerTokens,
    Concurrency,
    Device,
    DialectName,
    Dtype,
    DtypeOption,
    FolderTokens,
    Fresh,
    Json,
    Out,
    Validation,
)

if TYPE_CHECKING:
    from ..curation.client import Client, EndpointConfig
    from ..curation.distill import Check, Question, Sample
    from ..curation.outcomes import Outcomes
    from ..data import Fault

QUESTIONS = "Questions"
CHOICE = "What stays"

IN_PROCESS = "in-process"


def distill(
    out: Out,
    source: Annotated[
        Path | None,
        typer.Argument(metavar="TASKS", help="A .jsonl file with question and answer on each line.", show_default=False),
    ] = None,
    family: Annotated[
        str | None,
        typer.Option(
            "--family",
            "-f",
            metavar="NAME",
            help="Problems of this project instead: worksheet, cases, countdown, nested or chain.",
            rich_help_panel=QUESTIONS,
            show_default=False,
        ),
    ] = None,
    n: Annotated[
        int | None,
        typer.Option(
            "--n",
            "-n",
            metavar="N",
            help="How many questions.",
            min=1,
            rich_help_panel=QUESTIONS,
            show_default="all of a file, 200 of a family",
        ),
    ] = None,
    seed: Annotated[
        int,
        typer.Option(
            "--seed",
            metavar="S",
            help="Which problems, and in this process what is drawn; it is not sent to an endpoint.",
            min=0,
            rich_help_panel=QUESTIONS,
        ),
    ] = 0,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            metavar="NAME|PATH",
            help="A served model's name; without --base-url, the folder or hub id of a model to run here.",
            rich_help_panel=MODEL,
            show_default="multiverse-mini",
        ),
    ] = None,
    base_url: Annotated[
        str | None,
        typer.Option(
            "--base-url",
            metavar="URL",
            help="An endpoint that speaks OpenAI's chat completions, up to /v1.",
            rich_help_panel=MODEL,
            show_default="run the model here",
        ),
    ] = None,
    device: Device = "auto",
    dtype: DtypeOption = Dtype.auto,
    samples: Annotated[
        int, typer.Option("--samples", metavar="K", help="Answers to each question.", min=1, rich_help_panel=SAMPLING)
    ] = 4,
    temperature: Annotated[
        float,
        typer.Option(
            "--temperature", "-t", metavar="T", help="Higher is more random; 0 draws nothing.", min=0, rich_help_panel=SAMPLING
        ),
    ] = 1.0,
    min_parallelism: Annotated[
        float,
        typer.Option(
            "--min-parallelism", metavar="X", help="Least parallelism, counted in words.", min=1, rich_help_panel=CHOICE
        ),
    ] = 1.05,
    min_difference: Annotated[
        float,
        typer.Option(
            "--min-difference",
            metavar="X",
            help="Least edit distance, from 0 to 1, between documents for one question.",
            min=0,
            max=1,
            rich_help_panel=CHOICE,
        ),
    ] = 0.05,
    dialect: DialectName = "multiverse",
    validation: Validation = 0.05,
    answer_tokens: AnswerTokens = 4096,
    max_tokens: FolderTokens = None,
    concurrency: Concurrency = 32,
    fresh: Fresh = False,
    as_json: Json = False,
) -> None:
    """Let a model that forks write its own training data; keep what is good.

    Each question is answered several times. An answer stays if it is well formed,
    right, truly parallel (two paths that say different things and do without each
    other) and new. The others are set aside with their reasons. The folder is as
    that of [bold]multiverse curate[/bold], and a run that was stopped or killed goes on.

    [bold]Examples[/bold]
    multiverse curate distill --family worksheet --n 200 --out distilled
    multiverse curate distill questions.jsonl --out distilled -m my/model
    multiverse curate distill questions.jsonl --out distilled -m my-model \\
        --base-url http://localhost:8000/v1
    """
    from ..curation.client import EndpointConfig
    from ..curation.distill import DistillConfig, Distiller, Sampler, rows
    from ..curation.job import Caps, Job
    from ..prompting import INSTRUCTIONS
    from ..structure import DIALECTS

    questions = _questions(source, family, n, seed)
    for fault in questions.faults:
        typer.echo(" ".join(str(fault).split()), err=True)
    if questions.faults:
        raise InputError(f"{len(questions.faults):,} lines hold no question: nothing is asked; mend them, or take them out")
    if base_url is not None:
        check_url(base_url)
    if base_url is not None and model is None:
        raise InputError("--model is missing: name the model that the endpoint is to use")
    rules = DistillConfig(
        n=samples,
        instruction=INSTRUCTIONS["parallel"],
        parallelism=min_parallelism,
        difference=min_difference,
        dialect=known("dialect", dialect, DIALECTS),
        max_tokens=answer_tokens,
    )
    endpoint = EndpointConfig(
        IN_PROCESS if base_url is None else base_url,
        "multiverse-mini" if model is None else model,
        os.environ.get("OPENAI_API_KEY") or "EMPTY",
        temperature,
        seed if base_url is None else None,
        concurrency=concurrency,
    )
    distiller = Distiller(rules, questions.check)
    total = sum(1 for _ in rows(questions.all, samples))
    with _sampling(model, base_url, device, dtype.value, endpoint) as sample:
        job = Job(
            out=out,
            endpoint=endpoint,
            settings=rules,
            source=questions.name,
            rows=total,
            validation=validation,
            connect=partial(Sampler, dialect=rules.tags, sample=sample),
        )
        with Live(total, job.prices) as live:

            def watch(client: Client, outcomes: Outcomes) -> None:
                distiller.beside = client.ask
                live.watch(client, outcomes)

            result = job.start(
                lambda: rows(questions.all, samples),
                caps=Caps(tokens=max_tokens),
                fresh=fresh,
                curate=distiller.distil,
                watch=watch,
            )
    print_summary(result, as_json=as_json)
    leave(result.ended)


class _Questions(NamedTuple):
    """What is asked.

    Attributes:
        name: where the questions are from.
        check: what makes an answer right; `None` is the same answer.
    """

    name: str
    all: list[Question]
    faults: list[Fault]
    check: Check | None = None


def _questions(source: Path | None, family: str | None, n: int | None, seed: int) -> _Questions:
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
        if not found and not faults:
            raise InputError(f"{str(source)!r} holds no question: give a file that does")
        return _Questions(str(source), found[:n], faults)
    assert family is not None
    stream = problems(known("family", family, FAMILIES), seed=seed, split="train")
    drawn = {problem.question: problem for problem in islice(stream, 200 if n is None else n)}
    asked = [Question(f"{family}-{number}", one.question, one.answer) for number, one in enumerate(drawn.values(), 1)]
    return _Questions(family, asked, [], lambda question, _, given: drawn[question].check(given))


@contextmanager
def _sampling(
    model: str | None, base_url: str | None, device: str, dtype: str, endpoint: EndpointConfig
) -> Iterator[Sample | None]:
    """A model in this process, as a way to take samples; `None` where an endpoint is asked."""
    if base_url is not None:
        yield None
        return
    from ..curation.errors import RefusedError
    from ..curation.types import Completion, Request
    from ..engine import SamplingParams
    from ..engine.aio import AsyncEngine
    from ..errors import RequestError
    from .loading import open_model

    llm = open_model(model, device=device, dtype=dtype)
    engine = AsyncEngine(llm.engine)

    async def sample(request: Request) -> Completion:
        drawn = hashlib.sha256(request.key(**endpoint.settings).encode()).digest()
        params = SamplingParams(
            temperature=endpoint.temperature or 0.0,
            top_p=1.0,
            max_tokens=request.max_tokens,
            seed=int.from_bytes(drawn[:4]),
        )
        messages = [{"role": role, "content": content} for role, content in request.messages]
        text = llm.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        try:
            found = await engine.generate(llm.tokenizer.encode(text, add_special_tokens=False), params)
        except RequestError as error:
            raise RefusedError(str(error)) from None
        reason = "stop" if found.finish_reason == "stop" else "length"  # wound up for a bound is cut short, too
        return Completion(found.text, reason, found.usage.prompt_tokens, found.usage.total_tokens)

    try:
        yield sample
    finally:
        asyncio.run(engine.aclose())
