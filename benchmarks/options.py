"""Command lines of the benchmarks: common options, and options of settings that are declared with `multiverse.options`."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin

from multiverse.errors import ConfigError
from multiverse.options import Options, declared, types

Settings = TypeVar("Settings", bound=Any)


def make_parser(
    doc: str | None, *, json: str | None = "", plot: str | None = None, load: bool = False, quick: bool = False
) -> ArgumentParser:
    """A parser whose help is a module's docstring.

    Args:
        doc: the docstring.
        json: adds ``--json FILE``; says when the file is written, if it is written more than once. `None` leaves it out.
        plot: adds ``--plot FILE``; says in which formats. `None` leaves it out.
        load: adds ``--load FILE``.
        quick: adds ``--quick``.
    """
    parser = ArgumentParser(description=doc, formatter_class=RawDescriptionHelpFormatter)
    if quick:
        parser.add_argument("--quick", action="store_true", help="small sizes: shows that everything runs, not how fast")
    if json is not None:
        parser.add_argument("--json", type=Path, metavar="FILE", help=f"write the figures to this file{json and ', ' + json}")
    if plot is not None:
        parser.add_argument("--plot", type=Path, metavar="FILE", help=f"draw the run to this file, as {plot}")
    if load:
        parser.add_argument("--load", type=Path, metavar="FILE", help="show a stored run and measure nothing")
    return parser


def add_settings(parser: ArgumentParser, kind: type[Options]) -> None:
    """Add an option for each declared field of a dataclass; `settings_from` reads them."""
    for name, own in declared(kind).items():
        hint: Any = types(kind)[name]
        item = get_args(hint)[0] if get_origin(hint) is tuple else hint
        choices = get_args(item) if get_origin(item) is Literal else None
        parser.add_argument(
            f"--{name.replace('_', '-')}",
            type=str if choices else item,
            choices=choices,
            nargs="*" if item is not hint else None,
            metavar=own.metavar,
            help=own.help,
        )


def settings_from(parser: ArgumentParser, options: Namespace, base: Settings) -> Settings:
    """`base` with the values that were given on the command line; a value that is not valid ends the program."""
    given = {name: getattr(options, name) for name in declared(type(base))}
    changes = {name: tuple(value) if isinstance(value, list) else value for name, value in given.items() if value is not None}
    try:
        return replace(base, **changes)
    except ConfigError as error:
        parser.error(str(error))
