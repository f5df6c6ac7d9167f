"""Measures of a source tree, read with `ast`: how much there is, how it hangs together, and what has grown too large.

- Lines and modules of ``src`` and ``tests``: of Python, blank lines and comments included.
- Import cycles: strongly connected components of more than one module. An import leads to the module that is named, or to the
  package whose ``__init__`` defines the name; that importing a submodule runs its packages, too, is left out. *Runtime* imports
  are all but those under ``if TYPE_CHECKING``, so those inside functions count.
- Levels of a package: modules on the longest path of runtime imports among its own modules, a cycle being one level.
- Functions by lines (decorators left out), modules by lines, functions by parameters (``self`` and ``cls`` left out). Commands,
  whose parameters are their options, and Triton kernels are counted apart.
- Options declared more than once: long names that stand in more than one call of ``typer.Option`` (a call without one has its
  parameter's), and names of fields that are
  declared with `option` in more than one class.
- Classes between `AsyncEngine` and the line of server-sent events: those of modules that a handler of completions reaches by
  imports and that reach the engine's events by imports, in ``serving`` and at the top of the package; and of the modules of
  ``engine`` that these import and that import the events: those of `AsyncEngine` and its streams. Exceptions, pydantic models
  (forms of requests and answers), the engine's events, `LLM` and metrics, which only watch, are no part of the way.

    python -m benchmarks.size --before CHECKOUT --after CHECKOUT
    python -m benchmarks.size --after . --list
"""

from __future__ import annotations

import argparse
import ast
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

PACKAGE = "multiverse"
HANDLERS = ("multiverse.serving.chat", "multiverse.serving.completions")
EVENTS = "multiverse.engine.events"
BESIDE = frozenset({"multiverse.llm", "multiverse.serving.metrics"})
"""Modules that are not on the way from the engine to the client."""
LONG_FUNCTION, LONG_MODULE, MANY_PARAMETERS = 60, 400, 8
Function = ast.FunctionDef | ast.AsyncFunctionDef
Graph = dict[str, set[str]]


@dataclass
class Measures:
    """Figures by name, and what each of them counted."""

    figures: dict[str, int] = field(default_factory=dict)
    lists: dict[str, list[str]] = field(default_factory=dict)

    def add(self, name: str, found: Iterable[str]) -> None:
        """A figure that counts things, and the things."""
        self.lists[name] = sorted(found)
        self.figures[name] = len(self.lists[name])


def measure(root: Path) -> Measures:
    """Everything about the checkout at `root`."""
    measures = Measures()
    for name in ("src", "tests"):
        paths = sorted((root / name).rglob("*.py"))
        measures.figures[f"lines of {name}"] = sum(_lines(path) for path in paths)
        measures.figures[f"modules of {name}"] = len(paths)
    package = root / "src" / PACKAGE
    modules = {_module(path, package): ast.parse(path.read_text()) for path in sorted(package.rglob("*.py"))}
    packages = {_module(path, package) for path in package.rglob("__init__.py")}
    runtime, every = graph(modules, packages, typed=False), graph(modules, packages, typed=True)
    measures.add("import cycles, runtime", (" ".join(sorted(cycle)) for cycle in cycles(runtime)))
    measures.add("import cycles, with TYPE_CHECKING", (" ".join(sorted(cycle)) for cycle in cycles(every)))
    measures.figures["modules in such cycles"] = sum(len(cycle) for cycle in cycles(every))
    measures.figures["levels inside engine"] = levels(inside(runtime, f"{PACKAGE}.engine"))
    measures.add(f"modules over {LONG_MODULE} lines", (_sized(path, package) for path in package.rglob("*.py") if _long(path)))
    functions = [(name, node) for name, tree in modules.items() for node in statements(tree) if isinstance(node, Function)]
    _add_functions(measures, functions)
    measures.add("options declared more than once", _repeated(modules.values(), _typer_options))
    measures.add("fields declared more than once", _repeated(modules.values(), _option_fields))
    measures.add("classes from AsyncEngine to SSE", way(modules, every))
    return measures


def statements(node: ast.AST) -> Iterator[ast.stmt]:
    """The statements inside a node, at any depth. Expressions, which are most of a tree, are not walked."""
    for child in _below(node):
        if isinstance(child, ast.stmt):
            yield child
        yield from statements(child)


def _below(node: ast.AST) -> Iterator[ast.AST]:
    for block in ("body", "handlers", "cases", "orelse", "finalbody"):
        yield from getattr(node, block, ())


def _lines(path: Path) -> int:
    return len(path.read_text().splitlines())


def _long(path: Path) -> bool:
    return _lines(path) > LONG_MODULE


def _sized(path: Path, package: Path) -> str:
    return f"{path.relative_to(package)}: {_lines(path)}"


def _module(path: Path, package: Path) -> str:
    parts = path.relative_to(package.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


# -- imports -----------------------------------------------------------------------------------------------------------


def graph(modules: dict[str, ast.Module], packages: set[str], *, typed: bool) -> Graph:
    """Which of the modules each imports.

    Args:
        packages: those of the modules that are packages.
        typed: count imports under ``if TYPE_CHECKING``, too.
    """
    return {
        name: {
            target
            for node in _imports(tree.body, typed)
            for target in _targets(node, name if name in packages else name.rpartition(".")[0], modules)
        }
        - {name}
        for name, tree in modules.items()
    }


def _imports(nodes: Iterable[ast.AST], typed: bool) -> Iterator[ast.Import | ast.ImportFrom]:
    for node in nodes:
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        elif isinstance(node, ast.If) and not typed and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            yield from _imports(node.orelse, typed)
        else:
            yield from _imports(_below(node), typed)


def _targets(node: ast.Import | ast.ImportFrom, package: str, modules: dict[str, ast.Module]) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names if alias.name in modules)
        return
    base = package.rsplit(".", node.level - 1)[0] if node.level > 1 else package if node.level else ""
    source = ".".join(part for part in (base, node.module or "") if part)
    for alias in node.names:
        if f"{source}.{alias.name}" in modules:
            yield f"{source}.{alias.name}"
        elif source in modules:
            yield source


def components(edges: Graph) -> list[set[str]]:
    """Strongly connected components, those that others lead to first (Tarjan 1972)."""
    number: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []
    found: list[set[str]] = []

    def visit(node: str) -> None:
        number[node] = lowest[node] = len(number)
        stack.append(node)
        for other in sorted(edges[node]):
            if other not in number:
                visit(other)
                lowest[node] = min(lowest[node], lowest[other])
            elif other in stack:
                lowest[node] = min(lowest[node], number[other])
        if lowest[node] == number[node]:
            at = stack.index(node)
            found.append(set(stack[at:]))
            del stack[at:]

    for node in sorted(edges):
        if node not in number:
            visit(node)
    return found


def cycles(edges: Graph) -> list[set[str]]:
    """Sets of modules that import each other, directly or not."""
    return [component for component in components(edges) if len(component) > 1]


def inside(edges: Graph, package: str) -> Graph:
    """The imports among the modules of a package, the package's own ``__init__`` left out."""
    own = {name for name in edges if name.startswith(f"{package}.")}
    return {name: edges[name] & own for name in own}


def levels(edges: Graph) -> int:
    """Modules on the longest path; a cycle is one."""
    depth: dict[str, int] = {}
    for component in components(edges):  # what a module imports comes before it
        below = {other for node in component for other in edges[node]} - component
        depth |= dict.fromkeys(component, 1 + max((depth[other] for other in below), default=0))
    return max(depth.values(), default=0)


def reached(edges: Graph, start: Iterable[str]) -> set[str]:
    """The modules that these import, directly or not, and they themselves."""
    seen: set[str] = set()
    todo = [name for name in start if name in edges]
    while todo:
        name = todo.pop()
        if name not in seen:
            seen.add(name)
            todo += edges[name]
    return seen


# -- functions, options, classes ---------------------------------------------------------------------------------------


def parameters(function: Function) -> list[ast.arg]:
    """Parameters without ``self`` and ``cls``."""
    own = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
    return [argument for argument in own if argument.arg not in ("self", "cls")]


def _add_functions(measures: Measures, functions: list[tuple[str, Function]]) -> None:
    long: list[str] = []
    many: list[str] = []
    exempt: list[str] = []
    for module, node in functions:
        lines = (node.end_lineno or node.lineno) - node.lineno + 1
        if lines > LONG_FUNCTION:
            long.append(f"{module}.{node.name}: {lines}")
        if len(parameters(node)) > MANY_PARAMETERS:
            (exempt if _command(node) or _kernel(node) else many).append(f"{module}.{node.name}: {len(parameters(node))}")
    measures.add(f"functions over {LONG_FUNCTION} lines", long)
    measures.add(f"functions over {MANY_PARAMETERS} parameters", many)
    measures.add("of commands and kernels, further", exempt)


def _command(node: Function) -> bool:
    return any(argument.annotation and "typer." in ast.unparse(argument.annotation) for argument in parameters(node))


def _kernel(node: Function) -> bool:
    return any("jit" in ast.unparse(decorator) for decorator in node.decorator_list)


def _repeated(trees: Iterable[ast.Module], names: Callable[[ast.Module], Iterator[str]]) -> list[str]:
    counts = Counter(name for tree in trees for name in names(tree))
    return [f"{name}: {count}" for name, count in counts.items() if count > 1]


def _typer_options(tree: ast.Module) -> Iterator[str]:
    if not any(alias.name == "typer" for node in _imports(tree.body, typed=True) for alias in node.names):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.arg) and node.annotation is not None:
            calls = [one for one in ast.walk(node.annotation) if _is_typer_option(one)]
            if any(not list(_long_names(call)) for call in calls):
                yield f"--{node.arg.replace('_', '-')}"
        if _is_typer_option(node):
            yield from _long_names(node)


def _is_typer_option(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and ast.unparse(node.func) == "typer.Option"


def _long_names(call: ast.AST) -> Iterator[str]:
    for argument in call.args if isinstance(call, ast.Call) else ():
        if isinstance(argument, ast.Constant) and str(argument.value).startswith("--"):
            yield str(argument.value).partition("/")[0]


def _option_fields(tree: ast.Module) -> Iterator[str]:
    for node in statements(tree):
        if isinstance(node, ast.ClassDef):
            for item in node.body:
                value = item.value if isinstance(item, ast.AnnAssign) else None
                if isinstance(value, ast.Call) and ast.unparse(value.func) == "option":
                    assert isinstance(item, ast.AnnAssign)
                    yield ast.unparse(item.target)


def way(modules: dict[str, ast.Module], edges: Graph) -> list[str]:
    """The classes between `AsyncEngine` and the line of server-sent events: see the module's docstring."""
    engine = next(name for name, tree in modules.items() if any(node.name == "AsyncEngine" for node in _classes(tree)))
    ends = {EVENTS, engine}
    on_the_way = {name for name in reached(edges, HANDLERS) - BESIDE if reached(edges, [name]) & ends}
    outer = {name for name in on_the_way if name.startswith(f"{PACKAGE}.serving.") or name.count(".") == 1}
    outer -= {f"{PACKAGE}.engine"}  # which counts as a module at the top
    used = {target for name in outer for target in edges[name] if target.startswith(f"{PACKAGE}.engine.")}
    chosen = outer | {name for name in used if edges[name] & ends} | {engine}
    parents = {node.name: [ast.unparse(base) for base in node.bases] for tree in modules.values() for node in _classes(tree)}
    return [
        f"{name}.{node.name}"
        for name in chosen
        for node in _classes(modules[name])
        if not any(base == "BaseModel" or base.endswith(("Error", "Exception")) for base in _bases(node.name, parents))
    ]


def _classes(tree: ast.Module) -> Iterator[ast.ClassDef]:
    return (node for node in statements(tree) if isinstance(node, ast.ClassDef))


def _bases(name: str, parents: dict[str, list[str]]) -> set[str]:
    found: set[str] = set()
    todo = [name]
    while todo:
        bases = [base.rpartition(".")[2] for base in parents.get(todo.pop(), [])]
        todo += [base for base in bases if base not in found]
        found |= set(bases)
    return found


def table(sides: dict[str, Measures]) -> str:
    """The figures of each side, one line a figure."""
    names = list(dict.fromkeys(name for measures in sides.values() for name in measures.figures))
    lines = [f"{'':36}" + "".join(f"{side:>10}" for side in sides)]
    for name in names:
        lines.append(f"{name:36}" + "".join(f"{measures.figures[name]:10,}" for measures in sides.values()))
    return "\n".join(lines)


def main() -> None:
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="python -m benchmarks.size", description=__doc__, formatter_class=form)
    parser.add_argument("--before", type=Path, metavar="DIR", help="a checkout")
    parser.add_argument("--after", type=Path, metavar="DIR", default=Path(), help="another checkout, or this one")
    parser.add_argument("--list", action="store_true", help="name what was counted, too")
    parser.add_argument("--json", type=Path, metavar="FILE", help="store the figures and lists")
    options = parser.parse_args()
    chosen = {name: getattr(options, name) for name in ("before", "after") if getattr(options, name) is not None}
    sides = {name: measure(folder) for name, folder in chosen.items()}
    print(table(sides))
    if options.list:
        for side, measures in sides.items():
            for name, found in measures.lists.items():
                print(f"\n{side}: {name}", *found, sep="\n  ")
    if options.json is not None:
        stored = {side: {"figures": measures.figures, "lists": measures.lists} for side, measures in sides.items()}
        options.json.write_text(json.dumps(stored, indent=1) + "\n")


if __name__ == "__main__":
    main()
