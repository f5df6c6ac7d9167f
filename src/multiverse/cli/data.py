"""`multiverse data`: make, check, measure and publish data sets of structured documents."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from ..errors import DialectError
from .data_convert import convert
from .data_output import count, headline, load, print_table, report, summary, warn_of_duplicates, with_progress
from .declared import DialectName, Fields, Json, OnError, Out, Plot, Seed, Split, expand_options
from .errors import InputError, known
from .groups import HELP_OPTIONS
from .jsonio import print_json
from .loading import ModelOptions, open_tokenizer

if TYPE_CHECKING:
    from ..data import Loaded, Row
    from ..structure import Dialect, TokenDialect

CHECKS = "Checks"
SOURCE = "An .xml, .jsonl, .json or .parquet file, a folder of them, or a hub id."

Sources = Annotated[list[str], typer.Argument(metavar="SOURCE", help=SOURCE, show_default=False)]
Tokenizer = Annotated[ModelOptions, Fields(only=("model",))]
AddTags = Annotated[
    bool,
    typer.Option(
        "--add-tags", help="Add the tags to the tokenizer before counting, as training does.", rich_help_panel="Model"
    ),
]
MaxLength = Annotated[
    int | None,
    typer.Option(
        "--max-length",
        metavar="N",
        help="Most tokens of a document with its prompt.",
        min=1,
        rich_help_panel=CHECKS,
        show_default="no limit",
    ),
]
Promptless = Annotated[bool, typer.Option("--promptless", help="Accept documents without a question.", rich_help_panel=CHECKS)]

data = typer.Typer(context_settings=HELP_OPTIONS, rich_markup_mode="rich")
data.command()(convert)


@data.callback(invoke_without_command=True)
def overview(context: typer.Context) -> None:
    """Make, check, measure and publish data sets.

    A source is an .xml file (one document, its question in a .txt file of the
    same name), a .jsonl, .json or .parquet file, a folder of them, or a hub id.
    A record has [bold]messages[/bold], the last one the assistant's; or a [bold]question[/bold] (or
    prompt) with a [bold]structured[/bold] (or solution, completion, text).

    [bold]Examples[/bold]
    multiverse tasks worksheet --limit 500 --split train > problems.jsonl
    multiverse data validate problems.jsonl
    multiverse data build problems.jsonl --out dataset
    multiverse data stats dataset --plot dataset.png
    """
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@data.command()
@expand_options
def build(
    sources: Sources,
    out: Out,
    model: Tokenizer,
    validation: Annotated[
        float,
        typer.Option("--validation", metavar="X", help="Share of the questions to keep for validation.", min=0, max=0.99),
    ] = 0.05,
    seed: Seed = 0,
    dialect: DialectName = "multiverse",
    split: Split = None,
    add_tags: AddTags = False,
    max_length: MaxLength = None,
    promptless: Promptless = False,
    baseline: Annotated[
        bool,
        typer.Option(
            "--sequential-baseline", help="Write the sequential baseline of every document: no tags, goals or conclusions."
        ),
    ] = False,
    unique: Annotated[
        bool, typer.Option("--unique", help="Leave out documents that are the same as an earlier one, prompt included.")
    ] = False,
    on_error: OnError = "stop",
    as_json: Json = False,
) -> None:
    """Read, check and split documents, and write them as a data set.

    The folder has Parquet files with [bold]messages[/bold] and a card with statistics, as the hub
    and the datasets library read them. A question is always on one side of the
    split, also when others are added. Faulty documents are reported with file and
    line, and nothing is written.

    [bold]Examples[/bold]
    multiverse data build problems.jsonl more/ --out dataset --validation 0.1
    multiverse data build problems.jsonl --out sequential --sequential-baseline
    multiverse data build owner/traces --out dataset -m my/model --max-length 8192
    """
    from ..data import card, distinct, publish, survey
    from ..data import split as divide
    from ..data.publish import check_folder

    tags = _dialect(dialect)
    check_folder(out)
    counter = _counter(model.model, tags, add_tags)
    loaded = _checked(load(sources, tags, split), counter, max_length, promptless)
    report(loaded.faults)
    if loaded.faults and on_error == "stop":
        raise InputError(f"{summary(loaded)}: nothing is written; correct them, or skip them with --on-error skip")
    if not loaded.rows:
        raise InputError("no document is left to write")
    repeated = warn_of_duplicates(loaded.rows, "--unique leaves them out" if not unique else "they are left out")
    rows = distinct(loaded.rows) if unique else loaded.rows
    # Split before converting: the side depends on the question alone.
    divided = divide(rows, validation, seed)._asdict()
    sides = {name: _sequential(rows) if baseline else rows for name, rows in divided.items()}
    if not sides["train"]:
        raise InputError(f"--validation {validation} leaves no document to train on: lower it, or give another --seed")
    statistics = survey(with_progress([*sides["train"], *sides["validation"]], "counting"), counter.tokens)
    text = card(out.resolve().name, sides, statistics, tags, counted=counter.counted)
    publish(sides, out, text, tags, faults=loaded.faults)
    sizes = {name: len(rows) for name, rows in sides.items()}
    if as_json:
        print_json(
            {
                "out": str(out),
                **sizes,
                "faults": len(loaded.faults),
                "duplicates": len(repeated),
                "statistics": statistics.as_json(),
            }
        )
        return
    print_table(statistics, counter.counted)
    left_out = f", {count(len(loaded.faults), 'fault')} in faults.jsonl" if loaded.faults else ""
    typer.echo(f"\n{out}: {sizes['train']:,} to train on, {sizes['validation']:,} for validation{left_out}")


@data.command()
@expand_options
def validate(
    sources: Sources,
    model: Tokenizer,
    dialect: DialectName = "multiverse",
    split: Split = None,
    add_tags: AddTags = False,
    max_length: MaxLength = None,
    promptless: Promptless = False,
    as_json: Json = False,
) -> None:
    """Check documents, and list every fault with file and line.

    Faults are everything that training refuses: files and records that cannot be
    read, documents that break the grammar, a missing question,
    and with --max-length documents that are too long. With faults, the exit code
    is 2.

    [bold]Examples[/bold]
    multiverse data validate problems.jsonl dataset/
    multiverse data validate owner/traces -m path/to/model --max-length 8192
    multiverse data validate problems.jsonl --json | jq .faults
    """
    tags = _dialect(dialect)
    loaded = _checked(load(sources, tags, split), _counter(model.model, tags, add_tags), max_length, promptless)
    repeated = warn_of_duplicates(loaded.rows)
    if as_json:
        same = [duplicate._asdict() for duplicate in repeated]
        print_json({"documents": len(loaded.rows), "faults": [fault._asdict() for fault in loaded.faults], "duplicates": same})
        if loaded.faults:
            raise typer.Exit(2)
    elif loaded.faults:
        report(loaded.faults)
        raise InputError(summary(loaded))
    else:
        same_ones = f", {count(len(repeated), 'duplicate')}" if repeated else ""
        typer.echo(f"{count(len(loaded.rows), 'document')}, no fault{same_ones}")


@data.command()
def sequential(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help=SOURCE, show_default=False)],
    out: Out,
    conclusions: Annotated[bool, typer.Option("--conclusions", help="Keep each block's conclusion after its paths.")] = False,
    dialect: DialectName = "multiverse",
    split: Split = None,
) -> None:
    """Write the sequential baseline of every document.

    It has the same text, path after path, without tags, goals and conclusions. A
    model trained on it is what a parallel one is compared with.

    [bold]Examples[/bold]
    multiverse data sequential problems.jsonl --out sequential.jsonl
    multiverse data sequential dataset --split train --out sequential.parquet
    """
    from ..data.write import check_rows_format, write_rows

    tags = _dialect(dialect)
    check_rows_format(out)
    loaded = load([source], tags, split)
    _refuse_faults(loaded)
    write_rows(_sequential(loaded.rows, conclusions), out, tags)
    typer.echo(f"{out}: {count(len(loaded.rows), 'document')}")


@data.command()
@expand_options
def stats(
    sources: Sources,
    model: Tokenizer,
    plot: Plot = None,
    dialect: DialectName = "multiverse",
    split: Split = None,
    add_tags: AddTags = False,
    as_json: Json = False,
) -> None:
    """Measure how much documents fork, how deep, and their parallelism.

    Parallelism is all tokens divided by the critical path, the longest chain of
    tokens. Prompts are not counted.

    [bold]Examples[/bold]
    multiverse data stats dataset
    multiverse data stats problems.jsonl --model path/to/model --plot shape.svg
    multiverse data stats dataset --json | jq .parallelism.mean
    """
    from ..data import plot as draw
    from ..data import survey
    from ..data.plot import check_format

    tags = _dialect(dialect)
    if plot is not None:
        check_format(plot)
    counter = _counter(model.model, tags, add_tags)
    loaded = load(sources, tags, split)
    _refuse_faults(loaded)
    repeated = warn_of_duplicates(loaded.rows)
    statistics = survey(with_progress(loaded.rows, "counting"), counter.tokens)
    if plot is not None:
        draw(statistics, plot, title=f"{headline(statistics)} · {counter.counted}")
    if as_json:
        print_json({"counted": counter.counted, "duplicates": len(repeated), **statistics.as_json()})
    else:
        print_table(statistics, counter.counted)


@data.command()
def publish(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Folder written by `multiverse data build`.", show_default=False)
    ],
    hub_id: Annotated[str, typer.Argument(metavar="HUB_ID", help="Id on the hub, such as owner/name.", show_default=False)],
    private: Annotated[bool, typer.Option("--private", help="Make the data set private.")] = False,
) -> None:
    """Upload a data set to the Hugging Face hub.

    [bold]Example[/bold]
    multiverse data publish dataset owner/name --private
    """
    from ..data import push

    with _status(f"uploading {folder}"):
        typer.echo(push(folder, hub_id, private=private))


class _Counter(NamedTuple):
    """Token counts of one tokenizer.

    Attributes:
        prompt: tokens of a row's prompt.
        counted: which tokens are counted, in words.
    """

    tokens: TokenDialect
    prompt: Callable[[Row], int]
    counted: str


def _counter(model: str | None, dialect: Dialect, add_tags: bool) -> _Counter:
    from ..structure import resolve

    with _status("loading the tokenizer"):
        tokenizer = open_tokenizer(model)
    name = "multiverse-mini" if model is None else model
    if add_tags or model is None:
        tokenizer.add_tokens(list(dialect.tags))
    try:
        tokens = resolve(tokenizer, dialect)
    except DialectError as error:
        raise InputError(f"{name!r}: {error}; use --add-tags to add the tags before counting, as training does") from None
    return _Counter(tokens, lambda row: _prompt_tokens(row, tokenizer, tokens, name), f"tokens of {name}")


def _prompt_tokens(row: Row, tokenizer: Any, tokens: TokenDialect, name: str) -> int:
    from ..errors import RequestError
    from ..structure import ChatEncoder

    messages = [message._asdict() for message in row.prompt]
    if not messages:
        return 0
    if tokenizer.chat_template is None:
        return sum(len(tokenizer.encode(message.content, add_special_tokens=False)) for message in row.prompt)
    try:
        return len(ChatEncoder(tokenizer, tokens)(messages).token_ids)
    except RequestError as error:
        _, _, problem = str(error).partition(": ")
        raise ValueError(f"the chat template of {name!r} refuses the prompt ({problem}): change its messages") from error


def _dialect(name: str) -> Dialect:
    from ..structure import DIALECTS

    return DIALECTS[known("dialect", name, DIALECTS)]


def _checked(loaded: Loaded, counter: _Counter, max_tokens: int | None, promptless: bool) -> Loaded:
    """The rows that can be trained on, and the faults of reading and checking."""
    from ..data import Loaded, check

    rows, faults = check(
        with_progress(loaded.rows, "checking"),
        counter.tokens,
        max_tokens=max_tokens,
        encode_prompt=counter.prompt,
        need_prompt=not promptless,
    )
    return Loaded(rows, [*loaded.faults, *faults])


def _sequential(rows: Iterable[Row], conclusions: bool = False) -> list[Row]:
    from ..structure import sequential_baseline

    return [replace(row, document=sequential_baseline(row.document, conclusions=conclusions), sequential=None) for row in rows]


def _refuse_faults(loaded: Loaded) -> None:
    if loaded.faults:
        report(loaded.faults)
        raise InputError(f"{summary(loaded)}: correct them first")


@contextmanager
def _status(what: str) -> Iterator[None]:
    from rich.console import Console

    with Console(stderr=True, quiet=not sys.stderr.isatty()).status(what):
        yield
