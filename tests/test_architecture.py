"""Who may import whom, who may know a tag, and how big things may grow. All of it read from the source."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from multiverse.structure import DIALECTS

PACKAGE = Path(__file__).parents[1] / "src" / "multiverse"
FILES = sorted(PACKAGE.rglob("*.py"))

BELOW_SERVING = {
    "models",
    "errors",
    "threads",
    "options",
    "common",
    "structure",
    "tasks",
    "attention",
    "backends",
    "engine",
    "llm",
    "streaming",
    "prompting",
    "families",
    "answers",
}
# What each room may import; a room that is not here may import nothing.
ALLOWED: dict[str, set[str]] = {
    "options": {"errors"},
    "common": {"options"},
    "cluster": {"errors"},
    "structure": {"errors"},
    "tasks": {"errors", "structure"},
    "attention": {"errors", "structure"},
    "models": {"errors", "structure"},
    "backends": {"errors", "threads", "attention", "models"},
    "answers": {"structure"},
    "families": {"errors", "structure", "prompting", "answers"},
    "engine": {"errors", "options", "common", "structure", "attention", "backends", "models"},
    "inputs": {"errors", "common", "structure", "engine", "prompting"},
    "progress": set(),
    "llm": {"errors", "structure", "engine", "models", "prompting", "backends", "inputs", "progress", "families"},
    "transport": set(),
    "stock": {*BELOW_SERVING, "common", "options", "inputs", "progress", "transport"},
    "async_llm": {"errors", "engine", "inputs", "llm", "prompting"},
    "streaming": {"errors", "structure", "engine"},
    "data": {"errors", "options", "structure"},
    "training": {
        "errors",
        "threads",
        "options",
        "common",
        "structure",
        "attention",
        "tasks",
        "prompting",
        "data",
        "models",
        "families",
    },
    "training/rl": {
        *BELOW_SERVING,
        *("options", "common", "data", "training", "curation", "evaluation", "inputs", "progress", "transport", "cluster"),
    },
    "pages": {"structure"},
    "curation": {"errors", "options", "common", "structure", "data", "transport", "pages"},
    "serving": {*BELOW_SERVING, "stock", "cluster", "__init__"},
    "evaluation": {*BELOW_SERVING, "data", "transport", "pages"},
    "bench": {*BELOW_SERVING, "data", "stock", "evaluation", "pages"},
    "cli": {
        *BELOW_SERVING,
        "data",
        "training",
        "training/rl",
        "curation",
        "serving",
        "evaluation",
        "stock",
        "pages",
        "bench",
        "__init__",
    },
    "__init__": {"async_llm", "engine", "llm", "stock", "threads"},
    "__main__": {"cli"},
}
TORCH_FREE = [
    "multiverse",
    "multiverse.errors",
    "multiverse.threads",
    "multiverse.inputs",
    "multiverse.progress",
    "multiverse.llm",
    "multiverse.async_llm",
    "multiverse.streaming",
    "multiverse.options",
    "multiverse.common",
    "multiverse.prompting",
    "multiverse.families",
    "multiverse.answers",
    "multiverse.structure",
    "multiverse.models",
    "multiverse.models.fingerprint",
    "multiverse.tasks",
    "multiverse.pages",
    "multiverse.bench.config",
    "multiverse.bench.page",
    "multiverse.bench.processes",
    "multiverse.data",
    "multiverse.training",
    "multiverse.training.config",
    "multiverse.training.corpus",
    "multiverse.training.mixture",
    "multiverse.training.rl.advantages",
    "multiverse.training.rl.algorithms",
    "multiverse.training.rl.rollout",
    "multiverse.training.rl.rewards",
    "multiverse.training.rl.questions",
    "multiverse.engine",
    "multiverse.engine.response_format",
    "multiverse.engine.async_engine",
    "multiverse.engine.event_stream",
    "multiverse.engine.grammar",
    "multiverse.engine.limits",
    "multiverse.engine.queues",
    "multiverse.engine.scoring",
    "multiverse.engine.tree",
    "multiverse.engine.branch",
    "multiverse.engine.prefix_cache",
    "multiverse.engine.events",
    "multiverse.engine.generation",
    "multiverse.engine.params",
    "multiverse.engine.computed",
    "multiverse.engine.request",
    "multiverse.engine.scheduler",
    "multiverse.engine.slots",
    "multiverse.engine.text",
    "multiverse.curation",
    "multiverse.transport.limiter",
    "multiverse.transport.retry",
    "multiverse.stock.llm",
    "multiverse.stock.engine",
    "multiverse.engine.generating",
]


# A folder in a room that is a room of its own.
INNER_ROOMS = {"training/rl"}


def room_of(file: Path) -> str:
    """The first name below the package: a folder, or a module at its top; or the inner room."""
    parts = file.relative_to(PACKAGE).parts
    inner = "/".join(parts[:2])
    return inner if inner in INNER_ROOMS else parts[0].removesuffix(".py")


def imported_rooms(file: Path) -> Iterator[tuple[int, str]]:
    """Line and room of every import of the package's own modules, those for type checking included."""
    here = ["multiverse", *file.relative_to(PACKAGE).parts]
    for node in ast.walk(ast.parse(file.read_text())):
        targets: list[str] = []
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = here[: len(here) - node.level] if node.level else []
            module = ".".join([*base, *(node.module or "").split(".")]).strip(".")
            targets = [f"{module}.{alias.name}" for alias in node.names] if module == "multiverse" else [module]
        for target in targets:
            parts = target.split(".")
            if parts[0] == "multiverse":
                room = parts[1] if len(parts) > 1 else "__init__"
                known = (PACKAGE / room).is_dir() or (PACKAGE / f"{room}.py").is_file()
                inner = "/".join(parts[1:3])
                yield node.lineno, inner if inner in INNER_ROOMS else room if known else "__init__"


def test_there_is_something_to_look_at() -> None:
    assert len(FILES) > 30
    assert {"structure", "attention", "engine", "llm"} <= {room_of(file) for file in FILES}
    assert {room for _, room in imported_rooms(PACKAGE / "llm.py")} == {
        "backends",
        "engine",
        "errors",
        "families",
        "inputs",
        "models",
        "progress",
        "prompting",
        "structure",
    }


def test_imports_run_one_way() -> None:
    wrong = [
        f"{file}:{line} imports {other}"
        for file in FILES
        for line, other in imported_rooms(file)
        if other not in {room_of(file), *ALLOWED.get(room_of(file), set())}
    ]
    assert not wrong, "\n".join(wrong)


def test_what_plans_needs_no_torch() -> None:
    modules = [name for name in TORCH_FREE if name != "multiverse.curation" or (PACKAGE / "curation").is_dir()]
    program = "\n".join(
        [
            "import importlib, sys",
            f"for name in {modules!r}:",
            "    importlib.import_module(name)",
            "    heavy = {'torch', 'transformers'} & sys.modules.keys()",
            "    assert not heavy, f'{name} imports {heavy}'",
        ]
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def imported_modules() -> dict[str, set[str]]:
    """The package's modules that each of its modules imports, anywhere in the file and for type checking, too."""
    files = {".".join(("multiverse", *file.relative_to(PACKAGE).with_suffix("").parts)): file for file in FILES}
    files = {name.removesuffix(".__init__"): file for name, file in files.items()}
    imported: dict[str, set[str]] = {name: set() for name in files}
    for name, file in files.items():
        package = name.split(".") if file.name == "__init__.py" else name.split(".")[:-1]
        for node in ast.walk(ast.parse(file.read_text())):
            targets: list[str] = []
            if isinstance(node, ast.Import):
                targets = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                base = package[: len(package) - node.level + 1] if node.level else []
                module = ".".join([*base, *([node.module] if node.module else [])])
                named = [f"{module}.{alias.name}" for alias in node.names]
                targets = [target if target in files else module for target in named]
            imported[name] |= {target for target in targets if target in files and target != name}
    return imported


def test_no_modules_import_each_other_in_a_circle() -> None:
    # Modules that import nothing that is left are taken away, again and again: what remains is circles, and what needs them.
    left = imported_modules()
    while free := [name for name, others in left.items() if not others & left.keys()]:
        for name in free:
            del left[name]
    assert not left, left


def docstrings(tree: ast.AST) -> set[int]:
    """Identity of every constant that is a docstring, or a string that stands alone as a comment on an attribute."""
    return {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)}


def test_only_structure_spells_a_tag() -> None:
    tags = {tag for dialect in DIALECTS.values() for tag in dialect.tags}
    wrong = []
    for file in FILES:
        if room_of(file) == "structure":
            continue
        tree = ast.parse(file.read_text())
        skipped = docstrings(tree)
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in skipped:
                wrong += [f"{file}:{node.lineno} spells {tag}" for tag in tags if tag in node.value]
    assert not wrong, "\n".join(wrong)


# Where the device may be asked for: what computes on it, training (transformers' Trainer), and the description of a machine.
DEVICE_ROOMS = {"backends", "training", "attention/packed.py", "evaluation/machine.py"}


def test_only_backends_ask_for_the_device() -> None:
    wrong = []
    for file in FILES:
        if room_of(file).partition("/")[0] in DEVICE_ROOMS or str(file.relative_to(PACKAGE)) in DEVICE_ROOMS:
            continue
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Attribute) and ast.unparse(node).endswith(("device.type", ".is_cuda", "torch.cuda")):
                wrong.append(f"{file}:{node.lineno} asks for the device: {ast.unparse(node)}")
    assert not wrong, "\n".join(wrong)


def test_files_stay_readable() -> None:
    wrong = [str(file) for file in FILES if len(file.read_text().splitlines()) > 600]
    assert not wrong, "\n".join(wrong)


Function = ast.FunctionDef | ast.AsyncFunctionDef


def parameters(function: Function) -> list[ast.arg]:
    own = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
    return [argument for argument in own if argument.arg not in ("self", "cls")]


def is_command(function: Function) -> bool:
    """A command's parameters are its options."""
    return any(argument.annotation and "typer." in ast.unparse(argument.annotation) for argument in parameters(function))


# Whose parameters somebody else decides: transformers calls these.
DICTATED = {"tree_attention", "packed_attention"}


def is_kernel(function: Function) -> bool:
    """A kernel gets every pointer, every stride and every size by itself."""
    return any(ast.unparse(decorator) == "triton.jit" for decorator in function.decorator_list)


def test_functions_take_few_parameters() -> None:
    wrong = [
        f"{file}:{node.lineno} {node.name} takes {len(parameters(node))}"
        for file in FILES
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, Function) and len(parameters(node)) > 8
        if node.name not in DICTATED and not is_kernel(node) and not (room_of(file) == "cli" and is_command(node))
    ]
    assert not wrong, "\n".join(wrong)
