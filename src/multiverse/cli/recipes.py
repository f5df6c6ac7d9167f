"""`multiverse recipes`: the recipes that come with the package, listed, and copied to where their paths hold."""

from __future__ import annotations

import ast
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from .complete import among
from .declared import Json
from .errors import InputError, known
from .groups import HELP_OPTIONS

ALL = "all"
_HIDDEN = ("__init__.py", "__pycache__")
# What a recipe uses of another one: an import, or a path in a YAML file.
_USES = re.compile(r"^\s*(?:from|import) recipes\.(\w+)|^\s*\w+: recipes/([^\s#]+)", re.MULTILINE)


def folder() -> Path:
    """Where the recipes are: in the installed package, or beside its source.

    Raises:
        InputError: this installation has none.
    """
    package = Path(__file__).parents[1]
    for place in (package / "recipes", package.parents[1] / "recipes"):
        if (place / "__init__.py").is_file():
            return place
    raise InputError(f"there are no recipes beside {str(package)!r}: install multiverse-llm from a wheel, or from a clone")


def names() -> list[str]:
    """Names of recipes: a file's without its ending, or a folder's."""
    return sorted(path.stem if path.is_file() else path.name for path in folder().iterdir() if path.name not in _HIDDEN)


def about(path: Path) -> str:
    """What a recipe is: its docstring, its title, or the comment that it begins with; on one line."""
    if path.is_dir():
        return about(next(file for name in ("README.md", "__init__.py") if (file := path / name).is_file()))
    text = path.read_text()
    if path.suffix == ".py":
        text = (ast.get_docstring(ast.parse(text)) or "").partition("\n\n")[0]
    elif path.suffix == ".md":
        text = text.partition("\n")[0].lstrip("# ")
    else:
        comment = re.match(r"(?:# ?\S.*\n)*", text)  # a command in it is indented
        text = re.sub("^# ", "", comment[0], flags=re.MULTILINE) if comment else ""
    return " ".join(text.split())


def files(name: str) -> list[Path]:
    """The files of a recipe and of what it uses, relative to the folder of recipes.

    Raises:
        InputError: there is no recipe of that name; the message names the nearest.
    """
    root = folder()
    if name == ALL:
        return sorted(_below(root, root))
    path = _path(root, known("recipe", name, [*names(), ALL]))
    taken: set[Path] = set()
    wanted = {path}
    while wanted:
        new = {file for one in wanted for file in _below(one, root)} - taken
        taken |= new
        wanted = {_path(root, used) for file in new for used in _uses(root / file)}
    if any(file.suffix == ".py" for file in taken):
        taken.add(Path("__init__.py"))
    return sorted(taken)


def _below(path: Path, root: Path) -> Iterator[Path]:
    inside = path.rglob("*") if path.is_dir() else (path,)
    return (file.relative_to(root) for file in inside if file.is_file() and "__pycache__" not in file.parts)


def _path(root: Path, name: str) -> Path:
    """A recipe by its name, or by its path below `recipes/`."""
    return next(path for path in (root / name, root / f"{name}.yaml", root / f"{name}.py") if path.exists())


def _uses(file: Path) -> Iterator[str]:
    if file.suffix in (".py", ".yaml"):
        for module, path in _USES.findall(file.read_text()):
            yield module or path


recipes = typer.Typer(context_settings=HELP_OPTIONS, rich_markup_mode="rich")


@recipes.callback(invoke_without_command=True)
def overview(context: typer.Context) -> None:
    """List and copy the recipes that come with the package.

    A recipe is a training configuration, or a folder of configurations and scripts.
    Recipes name each other, and their data, by paths that hold in the folder which
    [bold]recipes/[/bold] is copied to.

    [bold]Examples[/bold]
    multiverse recipes list
    multiverse recipes copy lora-0.5b
    multiverse train recipes/lora-0.5b.yaml --dry-run
    """
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@recipes.command("list")
def list_(as_json: Json = False) -> None:
    """List the recipes, and say what each is.

    [bold]Examples[/bold]
    multiverse recipes list
    """
    from .jsonio import dump

    root = folder()
    rows = {name: about(_path(root, name)) for name in names()}
    if as_json:
        listed = [{"name": name, "about": what, "files": list(map(str, files(name)))} for name, what in rows.items()]
        typer.echo(dump(listed))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("name", no_wrap=True)
    table.add_column("what")
    for name, what in rows.items():
        table.add_row(name, what)
    console = Console()
    console.print(table)
    console.print("multiverse recipes copy NAME  copies one to ./recipes", style="dim")


@recipes.command()
def copy(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME", help="A recipe, or all.", show_default=False, autocompletion=among(lambda: [*names(), ALL])
        ),
    ],
    destination: Annotated[
        Path, typer.Argument(metavar="DEST", help="The folder that gets recipes/.", show_default="this folder")
    ] = Path(),
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files that differ from the recipe's.")] = False,
    as_json: Json = False,
) -> None:
    """Copy a recipe, and the files that it uses, into recipes/ of a folder.

    Files that are there already are left alone if they are the same, and refused if they differ.

    [bold]Examples[/bold]
    multiverse recipes copy lora-0.5b
    multiverse recipes copy serving ./deployment
    """
    root, target = folder(), destination / "recipes"
    chosen = files(name)
    if target.resolve() == root.resolve():
        raise InputError(f"{str(target)!r} is where the recipes are: they can be used there, or copied to another folder")
    differ = [file for file in chosen if (there := target / file).exists() and not _same(root / file, there)]
    if differ and not overwrite:
        raise InputError(
            f"{str(target / differ[0])!r} is there and differs from the recipe's: "
            "move it, choose another folder, or give --overwrite"
        )
    from ..errors import writing

    with writing(target):
        for file in chosen:
            (target / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(root / file, target / file)
    if as_json:
        from .jsonio import dump

        typer.echo(dump({"name": name, "files": [str(target / file) for file in chosen]}))
        return
    for file in chosen:
        typer.echo(target / file)
    if (config := Path(f"{name}.yaml")) in chosen:
        path = shlex.quote(str(Path("recipes") / config))
        where = "" if destination == Path() else f"cd {shlex.quote(str(destination))} && "
        typer.echo(f"try it with  {where}multiverse train {path} --dry-run", err=True)


def _same(one: Path, other: Path) -> bool:
    return other.is_file() and one.read_bytes() == other.read_bytes()


def hint(path: Path) -> str:
    """What to do about a configuration that is not there, if a recipe has its name; otherwise nothing."""
    try:
        is_recipe = path.suffix == ".yaml" and path.stem in names() and (folder() / path.name).is_file()
    except InputError:
        return ""
    return f"multiverse recipes copy {path.stem}  copies the recipe of that name into recipes/" if is_recipe else ""
