"""Typer options made from `Options` dataclasses, so that no command repeats a name, a default, a help text or a bound.

    @expand_options
    def generate(
        question: Annotated[str, typer.Argument(metavar="QUESTION")],
        sampling: Annotated[SamplingParams, Fields(leave_out=("logit_bias", "n"), defaults={"temperature": 0.0})],
        model: ModelOptions,
        as_json: Json = False,
    ) -> None: ...

Each parameter annotated with an `Options` dataclass becomes one option per field; the command gets the dataclass, built
and checked. A parameter ``Annotated[dict[str, Any], Fields(of=SamplingParams, only=(...))]`` gets only the values that were
given, for commands that pass them on and have no defaults of their own.

Annotations are evaluated, so the module of a command imports its dataclasses when it is imported.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from difflib import get_close_matches
from functools import wraps
from pathlib import Path
from types import GenericAlias
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import typer

from ..options import Option, Options, alternatives, declared, types
from .complete import OF_FIELD, among
from .errors import InputError

# Options that belong to no dataclass and that several commands have.
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead.", rich_help_panel="Output")]
OUT = typer.Option(
    "--out", "-o", metavar="PATH", help="Where to write the results; a run started again continues there.", show_default=False
)
Out = Annotated[Path, OUT]
Save = Annotated[
    Path | None,
    typer.Option("--save", metavar="FILE", help="Write every question and its generation as JSON lines.", show_default=False),
]
Plot = Annotated[
    Path | None,
    typer.Option("--plot", metavar="FILE", help="Draw the result into an .svg, .png or .pdf file.", show_default=False),
]
KeepXml = Annotated[
    bool, typer.Option("--keep-xml", help="Also write each document to a file of its own.", rich_help_panel="Output")
]
Limit = Annotated[
    int | None,
    typer.Option("--limit", "-n", metavar="N", help="Take only the first N; of each, where several are named.", min=1),
]
Family = Annotated[
    str | None,
    typer.Option(
        "--family",
        "-f",
        metavar="worksheet|cases|countdown|nested|chain",
        help="Problems of this project.",
        show_default=True,
    ),
]
Seed = Annotated[int, typer.Option("--seed", metavar="N", help="Seed of everything random.", min=0)]
Split = Annotated[str | None, typer.Option("--split", metavar="NAME", help="Take only this split, such as train or test.")]
Fresh = Annotated[bool, typer.Option("--fresh", help="Start over in a folder that holds an earlier run.")]
OnError = Annotated[
    Literal["stop", "skip"],
    typer.Option(
        "--on-error",
        metavar="stop|skip",
        help="When rows of the input are faulty: stop, or skip them and list them in faults.jsonl.",
    ),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Check the input and estimate; do not run.")]
DialectName = Annotated[
    str,
    typer.Option(
        "--dialect",
        metavar="multiverse|multiverse-answer|multiverse-compact|npr|threadweaver|threadweaver-conclusion",
        help="Tag set of the documents.",
    ),
]
MalformedPolicy = Annotated[
    Literal["refuse", "as-released", "sequential"],
    typer.Option(
        "--malformed",
        metavar="refuse|as-released|sequential",
        help="Blocks that break the rules of their dialect: refuse them, take them as the family's own code does, or as text "
        "in one line. A guarded model writes none.",
    ),
]

# Former names of options, and what each is called now. One is refused in commands that have the new one; fields that declare
# an earlier name (`was`) are added when a command is made from them.
RENAMED: dict[str, tuple[str, ...]] = {
    "--max-critical-path": ("--max-critical-path-tokens",),
    "--sequential": ("--mode sequential",),
    "--twin": ("--sequential-baseline",),
    "--prompt": ("--mode",),
    "--ask": ("--mode",),
    "--n": ("--limit",),
    "--packed": ("--packed-linears",),
    "--no-packed": ("--no-packed-linears",),
    "--no-ahead": ("--no-async-scheduling",),
    "--tail-tokens": ("--reserved-tokens",),
    "--max-tokens": ("--max-length",),
    "--answer-tokens": ("--max-tokens",),
    "--keep-going": ("--on-error skip",),
    "--guard": ("--guards",),
    "--page": ("--page-url",),
}


@dataclass(frozen=True)
class Fields:
    """Which fields of an `Options` dataclass a command offers, and how.

    Attributes:
        only: the fields offered; `None` offers all.
        leave_out: fields that are not offered.
        defaults: defaults of this command that differ from the declared ones, also of fields that are not offered.
        show_default: how `--help` writes a default, by field, where it differs from the declaration's.
        aliases: a further name of an option of this command, by field.
        of: the dataclass, where the parameter is a dict of the values that were given.
    """

    only: tuple[str, ...] | None = None
    leave_out: tuple[str, ...] = ()
    defaults: Mapping[str, Any] = field(default_factory=dict)
    show_default: Mapping[str, str] = field(default_factory=dict)
    aliases: Mapping[str, str] = field(default_factory=dict)
    of: type[Options] | None = None


def expand_options(command: Callable[..., None]) -> Callable[..., None]:
    """Decorate a typer command: expand its parameters that are `Options` dataclasses into one option per field.

    Raises (of the command, when it runs):
        InputError: a value is not valid; the message names the option.
    """
    hints = get_type_hints(command, include_extras=True)
    parameters: list[inspect.Parameter] = []
    sections: dict[str, _Section] = {}
    for own in inspect.signature(command).parameters.values():
        section = _section(hints[own.name])
        if section is None:
            parameters.append(own.replace(annotation=hints[own.name], kind=own.KEYWORD_ONLY))
        else:
            sections[own.name] = section
            parameters += section.parameters()

    @wraps(command)
    def wrapper(**values: Any) -> None:
        for name, section in sections.items():
            values[name] = section.build({item: values.pop(item) for item in section.names})
        command(**values)

    wrapper.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # raises if a name occurs twice
    wrapper.__annotations__ = {item.name: item.annotation for item in parameters}
    return wrapper


def long_name(name: str, own: Option) -> str:
    """A field's option: ``--top-p`` of `top_p`."""
    return own.name or f"--{name.replace('_', '-')}"


def renamed_option(old: str, known: set[str]) -> str | None:
    """What an option is called now, if it was renamed and its new name is one of a command's."""
    return next((new for new in RENAMED.get(old, ()) if new.split()[0] in known), None)


def _section(hint: Any) -> _Section | None:
    base, extras = (get_args(hint)[0], get_args(hint)[1:]) if get_origin(hint) is Annotated else (hint, ())
    chosen = next((extra for extra in extras if isinstance(extra, Fields)), Fields())
    kind = chosen.of or base
    if not (isinstance(kind, type) and issubclass(kind, Options)):
        return None
    return _Section(kind, chosen, only_given=chosen.of is not None)


class _Section:
    """The options that one parameter of a command is made of.

    Args:
        kind: the dataclass.
        chosen: its fields that are offered.
        only_given: build a dict of the values that were given, not the dataclass.
    """

    def __init__(self, kind: type[Options], chosen: Fields, *, only_given: bool) -> None:
        self.kind, self.chosen, self.only_given = kind, chosen, only_given
        self.options, self.hints = declared(kind), types(kind)
        named = {*(chosen.only or ()), *chosen.leave_out, *chosen.defaults, *chosen.show_default, *chosen.aliases}
        if unknown := named - self.hints.keys():
            raise TypeError(f"{kind.__name__} has no field {', '.join(sorted(unknown))}")
        offered = chosen.only if chosen.only is not None else self.options
        self.names = [name for name in offered if name not in chosen.leave_out]
        for name in self.names:
            own = self.options[name]
            if own.was is not None:
                old, new = f"--{own.was.replace('_', '-')}", long_name(name, own)
                RENAMED[old] = tuple(dict.fromkeys([*RENAMED.get(old, ()), new]))

    def parameters(self) -> list[inspect.Parameter]:
        """A keyword parameter for each option, as typer reads it."""
        found: dict[str, Field[Any]] = {item.name: item for item in fields(self.kind)}  # type: ignore[arg-type]
        return [self._parameter(name, _default(found[name])) for name in self.names]

    def _parameter(self, name: str, default: Any) -> inspect.Parameter:
        own, hint = self.options[name], self.hints[name]
        default = self.chosen.defaults.get(name, None if self.only_given else default)
        kind = _cli_type(self.kind, name, hint)
        if default is None or isinstance(default, tuple):
            default = list(default) if default else None
        long = long_name(name, own)
        pair = kind is bool and default is not False
        also = (own.flag, self.chosen.aliases.get(name))
        shown: str | bool = self.chosen.show_default.get(name) or own.show_default or True
        if shown is True and default in (None, "", []):
            shown = "none" if type(None) in alternatives(hint) else False
        info = typer.Option(
            *[f"{long}/--no-{long.removeprefix('--')}" if pair else long, *(more for more in also if more)],
            help=own.help,
            metavar=own.metavar or _metavar(kind, hint),
            rich_help_panel=own.group,
            envvar=own.env,
            show_envvar=False,
            show_default=shown,
        )
        choices = _choices(hint)
        info.autocompletion = among(lambda: choices) if choices else OF_FIELD.get(name)
        required = default is MISSING
        return inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if required else default,
            annotation=Annotated[kind if required else kind | None, info],
        )

    def build(self, given: Mapping[str, Any]) -> Any:
        """The dataclass with the values that were given, or a dict of them alone."""
        values = {name: self._value(name, value) for name, value in given.items() if value is not None and value != []}
        defaults = {} if self.only_given else self.chosen.defaults
        try:
            made = self.kind(**{**defaults, **values})
        except self.kind.error as error:
            name, equals, rest = str(error).partition("=")
            if not equals or name not in self.names:
                raise
            rest = rest.removesuffix(", or None")
            raise InputError(f"{long_name(name, self.options[name])} {rest}") from None
        return values if self.only_given else made

    def _value(self, name: str, value: Any) -> Any:
        allowed = _choices(self.hints[name])
        for one in value if isinstance(value, list) else [value]:
            if allowed and one not in allowed:
                near = get_close_matches(one, allowed, n=1)
                remedy = f"did you mean {near[0]!r}?" if near else f"choose {', '.join(allowed)}"
                raise InputError(f"{long_name(name, self.options[name])} {one!r} is not valid: {remedy}")
        return tuple(value) if isinstance(value, list) and _sequence(self.hints[name]) is tuple else value


def _default(own: Field[Any]) -> Any:
    return own.default_factory() if own.default_factory is not MISSING else own.default


def _sequence(hint: Any) -> type | None:
    """`list` or `tuple`, if that is what a field holds."""
    return next((origin for one in alternatives(hint) if (origin := get_origin(one)) in (list, tuple)), None)


def _cli_type(kind: type[Options], name: str, hint: Any) -> Any:
    """The type that typer parses: that of the field, a list for a tuple, `str` for a choice."""
    found = [one for one in alternatives(hint) if one not in (None, type(None))]
    several = [one for one in found if get_origin(one) in (list, tuple)]
    one = (several or found)[0]
    if several:
        return GenericAlias(list, str if _choices(one) else get_args(one)[:1])
    if get_origin(one) is Literal:
        return str
    if len(found) == 1 and one in (int, float, str, bool, Path):
        return one
    raise TypeError(f"{kind.__name__}.{name} is {hint}, which no option can give: leave it out")


def _choices(hint: Any) -> tuple[str, ...]:
    """The texts that a field, or each item of one, is one of; empty for any other type."""
    for one in alternatives(hint):
        item = get_args(one)[0] if get_origin(one) in (list, tuple) else one
        if get_origin(item) is Literal:
            return get_args(item)
    return ()


def _metavar(kind: Any, hint: Any) -> str | None:
    if choices := _choices(hint):
        return "|".join(choices)
    item = get_args(kind)[0] if get_origin(kind) is list else kind
    return {int: "N", float: "X", str: "TEXT", Path: "PATH"}.get(item)
