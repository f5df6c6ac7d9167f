"""Every declared setting is read somewhere: an option that is accepted and ignored does not exist."""

from __future__ import annotations

import ast
import importlib
import pkgutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import multiverse
from multiverse.options import Options, declared

PACKAGE = Path(multiverse.__file__).parent
CHECKS = {"__post_init__", "without_effect"}
"""Functions that only check settings: what they read is not used by that."""


def option_classes() -> list[type[Options]]:
    for module in pkgutil.walk_packages([str(PACKAGE)], "multiverse."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    found: list[type[Options]] = []
    waiting = [Options]
    while waiting:
        subclasses = [kind for kind in waiting.pop().__subclasses__() if kind.__module__.startswith("multiverse.")]
        found += subclasses
        waiting += subclasses
    return found


def names_read(node: ast.AST) -> Iterator[str]:
    """Names of attributes that are read, outside functions that only check; also by ``value("name")``, which knows defaults."""
    if isinstance(node, ast.FunctionDef) and node.name in CHECKS:
        return
    if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
        yield node.attr
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "value":
        yield from (argument.value for argument in node.args if isinstance(argument, ast.Constant))
    for child in ast.iter_child_nodes(node):
        yield from names_read(child)


def test_every_setting_is_read_outside_its_declaration_and_checks() -> None:
    read = Counter(name for file in PACKAGE.rglob("*.py") for name in names_read(ast.parse(file.read_text())))
    classes = option_classes()
    assert {"SamplingParams", "Config", "Optimizer", "Lora"} <= {kind.__name__ for kind in classes}
    ignored = [f"{kind.__name__}.{name}" for kind in classes for name in declared(kind) if not read[name]]
    assert not ignored, f"declared and never read: {', '.join(ignored)}"


def test_a_setting_that_is_only_checked_is_found() -> None:
    source = "class A:\n  def __post_init__(self):\n    assert self.unused\n  def use(self):\n    self.set = self.used"
    assert set(names_read(ast.parse(source))) == {"used"}
