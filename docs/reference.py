"""Write docs/cli.md, docs/configuration.md and docs/modules.md from the code: ``python docs/reference.py``."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from dataclasses import MISSING, Field, fields
from importlib import import_module
from pathlib import Path
from typing import Any

import typer

from multiverse.cli.app import app
from multiverse.options import Options, declared, describe, types

DOCS = Path(__file__).parent
PACKAGE = DOCS.parent / "src" / "multiverse"

CLI_HEADER = """\
# Command line

Written by `python docs/reference.py` from the commands themselves; do not edit. `multiverse COMMAND --help` prints the same.
"""
CONFIGURATION_HEADER = """\
# Configuration

Every declared option: Python parameters, keys of YAML files, and what the command line ([cli.md](cli.md)) offers of them.
Written by `python docs/reference.py` from the declarations; do not edit. A value that is not allowed is refused, with a message
that names the option, the value and what is allowed, before anything is loaded.
"""
MODULES_HEADER = """\
# Modules

Every module of the package: what it is, and the public classes and functions that it defines. How they work together is
described in [architecture.md](architecture.md). Written by `python docs/reference.py` from the docstrings; do not edit.
"""


def cli_page() -> str:
    """docs/cli.md."""
    commands = _commands("multiverse", typer.main.get_command(app))
    return "\n".join([CLI_HEADER, *(section for path, command in commands for section in _command(path, command))])


def _commands(path: str, command: Any) -> Iterator[tuple[str, Any]]:
    yield path, command
    for name, inner in getattr(command, "commands", {}).items():
        yield from _commands(f"{path} {name}", inner)


def _command(path: str, command: Any) -> Iterator[str]:
    """Heading, usage, description and options of one command."""
    arguments = [param for param in command.params if param.param_type_name == "argument"]
    options = [param for param in command.params if param.param_type_name == "option"]
    group = hasattr(command, "commands")
    usage = [path, "COMMAND ..." if group else "[OPTIONS]", *(_metavar(param) for param in arguments)]
    yield f"## {path}\n"
    yield f"    {' '.join(usage)}\n"
    yield from _description(command.help or "")
    rows = [(f"`{_metavar(param)}`", _cell(param.help or ""), "") for param in arguments]
    rows += [(_names(param), _cell(param.help or ""), _default(param)) for param in options]
    if rows:
        yield _table(("option", "meaning", "default"), rows)


def _description(text: str) -> Iterator[str]:
    """A docstring without markup; what stands below a bold heading is code."""
    for paragraph in re.split(r"\n\s*\n", text.replace("\b", "").strip()):
        heading, _, rest = paragraph.partition("\n")
        if match := re.fullmatch(r"\[bold\](\w+)\[/bold\]", heading.strip()):
            yield f"{match[1]}:\n"
            yield "\n".join(f"    {line.rstrip()}" for line in rest.splitlines()) + "\n"
        else:
            yield re.sub(r"\[/?bold\]", "", " ".join(paragraph.split())) + "\n"


def _metavar(param: Any) -> str:
    return str(param.metavar or param.name.upper())


def _names(param: Any) -> str:
    names = ", ".join(f"`{name}`" for name in [*param.opts, *param.secondary_opts])
    flag = getattr(param, "is_flag", False)
    return names if flag else f"{names} `{_metavar(param)}`".replace("|", "\\|")


def _default(param: Any) -> str:
    shown, default = param.show_default, param.default
    if param.required:
        return "required"
    if isinstance(shown, str):
        return _cell(shown)
    if getattr(param, "is_flag", False) and not default:
        return ""
    if getattr(param, "is_flag", False):
        return f"`{param.opts[0]}`"
    if not shown or default is None or default in ("", []):
        return ""
    value = default.value if hasattr(default, "value") else default
    return f"`{', '.join(map(str, value)) if isinstance(value, list) else value}`"


def configuration_page() -> str:
    """docs/configuration.md."""
    return "\n".join([CONFIGURATION_HEADER, *(section for kind in option_classes() for section in _class(kind))])


def option_classes() -> list[type[Options]]:
    """Every dataclass of the package whose options are declared, by module."""
    found: list[type[Options]] = []
    for file in sorted(PACKAGE.rglob("*.py")):
        for node in ast.parse(file.read_text()).body:
            if isinstance(node, ast.ClassDef) and any(ast.unparse(base) == "Options" for base in node.bases):
                module = ".".join(file.relative_to(PACKAGE.parent).with_suffix("").parts)
                found.append(getattr(import_module(module), node.name))
    return found


def _class(kind: type[Options]) -> Iterator[str]:
    yield f"## {kind.__name__}\n"
    yield f"`{kind.__module__}.{kind.__name__}`: {_cell((kind.__doc__ or '').strip().partition(chr(10) * 2)[0])}\n"
    hints, items = types(kind), {item.name: item for item in fields(kind)}  # type: ignore[arg-type]
    rows = []
    for name, own in declared(kind).items():
        allowed = _cell(own.allowed or describe(hints[name], own))
        rows.append((f"`{name}`", _cell(own.help), _field_default(items[name], own.show_default), allowed))
    yield _table(("name", "meaning", "default", "allowed"), rows)


def _field_default(item: Field[Any], shown: str | None) -> str:
    if item.default is MISSING and item.default_factory is MISSING:
        return "required"
    value = item.default_factory() if item.default_factory is not MISSING else item.default
    if isinstance(value, Options):
        return f"see {type(value).__name__}"
    return f"`{value!r}`" + (f": {_cell(shown)}" if shown else "")


def modules_page() -> str:
    """docs/modules.md."""
    rooms: dict[str, list[tuple[str, ...]]] = {}
    for file in sorted(PACKAGE.rglob("*.py"), key=lambda file: (file.relative_to(PACKAGE).parent.parts, file.name)):
        tree = ast.parse(file.read_text())
        about = (ast.get_docstring(tree) or "").partition("\n\n")[0]
        defined = [node.name for node in tree.body if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)]
        public = ", ".join(f"`{name}`" for name in defined if not name.startswith("_"))
        if about or public:
            folder = file.relative_to(PACKAGE).parent.as_posix()
            rooms.setdefault(folder, []).append((f"`{file.name}`", _cell(about), public))
    sections = [
        f"## {'multiverse' if folder == '.' else f'{folder}/'}\n\n{_table(('module', 'what it is', 'defines'), rows)}"
        for folder, rows in rooms.items()
    ]
    return "\n".join([MODULES_HEADER, *sections])


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _table(headings: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [headings, ("---",) * len(headings), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


PAGES = {"cli.md": cli_page, "configuration.md": configuration_page, "modules.md": modules_page}

if __name__ == "__main__":
    for name, page in PAGES.items():
        (DOCS / name).write_text(page())
