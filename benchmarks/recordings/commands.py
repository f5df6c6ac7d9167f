"""Record what commands print, above all with ``--json``."""

from __future__ import annotations

import json
from pathlib import Path
from shutil import copyfile, copytree

from .checkout import Checkout, Output
from .masks import mask_lines
from .requests import FAMILIES, Problem

BROKEN = "<Think>\n<Parallel>\n<Path>\n1: too soon\n</Path>\n</Parallel>\n</Think>\n\nAnswer: 1\n"


def record(checkout: Checkout, out: Path) -> None:
    """Run every command that needs neither a server nor much time."""
    out.mkdir(parents=True, exist_ok=True)
    lines = ""
    for family in FAMILIES:
        drawn = checkout.run("tasks", family, "{limit}", "3", "--seed", "1")
        keep(checkout, out / f"tasks-{family}", drawn)
        lines += drawn.out
    keep(checkout, out / "tasks-train", checkout.run("tasks", "nested", "{limit}", "2", "--depth", "2", "--split", "train"))
    (checkout.scratch / "problems.jsonl").write_text(lines)
    _generate(checkout, out, Problem.read(lines.splitlines()[0]))
    _show(checkout, out, [Problem.read(line) for line in lines.splitlines()])
    _data(checkout, out)
    _analyse(checkout, out)


def keep(checkout: Checkout, path: Path, done: Output) -> None:
    """Store what a command printed. Of one that failed, its message is kept to be read, but not compared: wording is free."""
    if done.code:
        path.with_suffix(".failed").write_text(f"{done.code}\n")
        path.with_suffix(".error").write_text(checkout.mask(done.error))
    if not done.out:
        return
    path.with_suffix(".json" if done.out.startswith(("{", "[")) else ".txt").write_text(mask_lines(checkout.mask(done.out)))


def _generate(checkout: Checkout, out: Path, problem: Problem) -> None:
    ways = {
        "greedy": (),
        "seeded": ("--temperature", "0.9", "--top-p", "0.95", "--top-k", "30", "--seed", "3"),
        "sequential": ("{sequential}",),
        "critical": ("{critical}", "120"),
        "budget": ("--thinking-budget", "60", "--max-width", "4"),
        "stop": ("--stop", "=", "--max-tokens", "100"),
        "raw": ("--raw", "--max-tokens", "20"),
    }
    for name, options in ways.items():
        keep(checkout, out / f"generate-{name}", checkout.run("generate", "--json", *options, problem.question))
    keep(checkout, out / "generate-piped", checkout.run("generate", "-", text=problem.question))
    keep(checkout, out / "chat-piped", checkout.run("chat", text=f"{problem.question}\nWhy?\n"))


def _show(checkout: Checkout, out: Path, problems: list[Problem]) -> None:
    model = str(checkout.source / "src" / "multiverse" / "models" / "mini")
    for number, problem in enumerate(problems[::3]):
        keep(checkout, out / f"show-{number}", checkout.run("show", "-", "--json", text=problem.structured))
    keep(checkout, out / "show-tokens", checkout.run("show", "-", "--json", "--model", model, text=problems[-4].structured))
    keep(checkout, out / "show-drawn", checkout.run("show", "-", text=problems[-4].structured))
    keep(checkout, out / "show-broken", checkout.run("show", "-", "--json", text=BROKEN))


def _data(checkout: Checkout, out: Path) -> None:
    source = "problems.jsonl"
    (checkout.scratch / "faulty.jsonl").write_text(json.dumps({"question": "Why?", "structured": BROKEN}) + "\n")
    keep(checkout, out / "data-validate", checkout.run("data", "validate", source, "--json"))
    keep(checkout, out / "data-faulty", checkout.run("data", "validate", "faulty.jsonl", "--json"))
    keep(checkout, out / "data-stats", checkout.run("data", "stats", source, "--json"))
    built = ("data", "build", source, "--validation", "0.3", "--out", "built", "--json")
    keep(checkout, out / "data-build", checkout.run(*built))
    if (checkout.scratch / "built").is_dir():
        copytree(checkout.scratch / "built", out / "built", dirs_exist_ok=True)
    baseline = next((name for name in ("sequential", "baseline") if checkout.has("data", name)), "twin")
    keep(checkout, out / "data-sequential", checkout.run("data", baseline, source, "--out", "sequential.jsonl"))
    if (checkout.scratch / "sequential.jsonl").is_file():
        copyfile(checkout.scratch / "sequential.jsonl", out / "sequential.jsonl")


def _analyse(checkout: Checkout, out: Path) -> None:
    few = ("--family", "worksheet", "--json", "{limit}")
    keep(checkout, out / "eval-probe", checkout.run("eval", "probe", *few, "6"))
    keep(checkout, out / "eval-prompting", checkout.run("eval", "prompting", *few, "3", "--temperature", "0"))
