"""`multiverse show`: check a document against the grammar, and draw its tree."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import StructureError
from .declared import DialectName, Fields, Json, MalformedPolicy, expand_options
from .errors import InputError, known
from .jsonio import print_json
from .loading import ModelOptions

if TYPE_CHECKING:
    from rich.text import Text
    from rich.tree import Tree

    from ..structure import Body, Dialect, Document, Shape


@expand_options
def show(
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="A document; - reads it from standard input.", show_default=False)
    ],
    model: Annotated[ModelOptions, Fields(only=("model",), show_default={"model": "words and tags are counted"})],
    dialect: DialectName = "multiverse",
    malformed: MalformedPolicy = "refuse",
    as_json: Json = False,
) -> None:
    """Check a document and draw its tree.

    A document that breaks the grammar is an error, with the line it happens on.
    A correct one is drawn with its blocks, branches and depth, and its parallelism:
    all tokens over the longest chain of them, counted as the model's tokens.

    [bold]Examples[/bold]
    multiverse show document.xml
    multiverse show document.xml --model path/to/model --json
    multiverse show answer.txt --dialect npr --malformed as-released
    multiverse tasks nested --limit 1 | jq -r .structured | multiverse show -
    """
    from ..structure import DIALECTS, measure, resolve, word_tokens

    tags = replace(DIALECTS[known("dialect", dialect, DIALECTS)], malformed=malformed)
    name = "standard input" if file == "-" else file
    text = _read(file, name)
    document = _parse(text, tags, name)
    if model.model is None:
        tokens, counted = word_tokens(tags), "words and tags"
    else:
        from .loading import open_tokenizer

        tokens, counted = resolve(open_tokenizer(model.model), tags), f"tokens of {model.model}"
    shape = measure(document, tokens)
    if as_json:
        print_json(_json(document, shape, {"file": name, "dialect": dialect}, counted=counted))
    else:
        _print_tree(document, shape, name=name, counted=counted)


def _read(file: str, name: str) -> str:
    try:
        data = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    except FileNotFoundError:
        raise InputError(f"there is no file {name!r}: give the path of a document, or - for standard input") from None
    except IsADirectoryError:
        raise InputError(f"{name!r} is a folder: give the path of a document") from None
    except OSError as error:
        raise InputError(f"{name!r} cannot be read ({error.strerror}): give a document that can be") from None
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise InputError(f"{name!r} is not UTF-8 text (byte {error.start}): give a document as text") from None
    if "\0" in text:
        raise InputError(f"{name!r} is a binary file (a zero byte at {text.index(chr(0))}): give a document as text")
    if not text.strip():
        raise InputError(f"{name!r} is empty: give a document with some text")
    return text


def _parse(text: str, dialect: Dialect, name: str) -> Document:
    from ..structure import DIALECTS, parse

    try:
        document = parse(text, dialect)
    except StructureError as error:
        raise InputError(f"{name}, line {error.line}: {error.problem}, expected {error.expected}") from None
    if not document.branches:
        for other in DIALECTS.values():
            if other.name != dialect.name and other.path.open in text:
                found = f"forks nowhere in dialect {dialect.name!r}, but holds {other.path.open}"
                raise InputError(f"{name!r} {found}: use --dialect {other.name}")
    return document


def _json(document: Document, shape: Shape, source: dict[str, str], *, counted: str) -> dict[str, Any]:
    return {
        **source,
        "blocks": shape.blocks,
        "branches": shape.branches,
        "depth": shape.depth,
        "total_tokens": shape.total_tokens,
        "critical_path_tokens": shape.critical_path_tokens,
        "critical_path_steps": shape.critical_path_steps,
        "parallelism": shape.parallelism,
        "counted": counted,
        "tree": document.to_json(),
    }


def _print_tree(document: Document, shape: Shape, *, name: str, counted: str) -> None:
    from rich.console import Console
    from rich.text import Text
    from rich.tree import Tree

    root = Tree(Text.assemble((name, "bold"), (f"  {shape.own_tokens[0]} in the trunk", "dim")), guide_style="dim")
    # Paths are visited in document order, the order of `own_tokens`.
    counts = iter(shape.own_tokens[1:])
    _grow(root, document.thinking or (), "", counts)
    answer = document.plain_answer
    if answer is None:
        _grow(root.add(Text("Answer", "bold green")), document.answer, "", counts)
    elif answer.strip():
        root.add(_line("Answer: ", answer.strip().removeprefix("Answer:"), "bold green"))
    console = Console()
    console.print(root)
    console.print()
    console.print(
        f"{_many(shape.blocks, 'block')}, {_many(shape.branches, 'branch', 'branches')}, depth {shape.depth}", highlight=False
    )
    console.print(
        f"{shape.total_tokens} {counted}, critical path {shape.critical_path_tokens} in {shape.critical_path_steps} steps, "
        f"parallelism {shape.parallelism:.2f}",
        highlight=False,
        markup=False,
    )


def _grow(tree: Tree, body: Body, label: str, counts: Iterator[int]) -> None:
    from rich.text import Text

    from ..structure import Block, child_label
    from .style import COLORS

    number = 0
    for item in body:
        if not isinstance(item, Block):
            tree.add(_line("", item, ""))
            continue
        number += 1
        block = tree.add(f"[bold]block {number}[/bold] [dim]{_many(len(item.paths), 'path')}[/dim]")
        for index, (written, outline, path) in enumerate(item.titled()):
            child = child_label(label, index)
            color = COLORS[index % len(COLORS)]
            title = Text.assemble(
                (f"{written or child} ", f"bold {color}"), (_flat(outline), "bold"), (f"  {next(counts)}", "dim")
            )
            branch = block.add(title, guide_style=color)
            _grow(branch, path, child, counts)
        if item.conclusion.strip():
            block.add(_line("⇒ ", item.conclusion, "bold"))


def _line(head: str, text: str, style: str) -> Text:
    """One line of a tree: the text, cut to the width of the terminal."""
    from rich.text import Text

    return Text.assemble((head, style), _flat(text), no_wrap=True, overflow="ellipsis")


def _flat(text: str) -> str:
    from .style import clean

    return " ".join(clean(text).split())


def _many(number: int, one: str, more: str = "") -> str:
    return f"{number} {one if number == 1 else more or one + 's'}"
