"""Record curation: a run against the scripted annotator, and a distillation of the embedded model."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import copyfile

from multiverse.bench.processes import started

from .checkout import Checkout
from .commands import keep
from .masks import mask_lines

FILES = ("outcomes.jsonl", "data", "documents", "set_aside.jsonl", "rejected.jsonl")
"""What of a run's folder is its result; its journal and report hold times."""


def record(checkout: Checkout, out: Path) -> None:
    """Estimate, run, and run again (which asks nothing); list implicit parallelism; distil."""
    out.mkdir(parents=True, exist_ok=True)
    with annotator(checkout) as url:
        run = ("curate", "run", "planted.jsonl", "--out", "curated", "-m", "model", "--base-url", url, "--json")
        how = ("--validation", "0.3", "--keep-xml", "--seed", "1", "--price-in", "1", "--price-out", "10")
        keep(checkout, out / "estimate", checkout.run(*run, *how, "--dry-run"))
        keep(checkout, out / "run", checkout.run(*run, *how))
        keep(checkout, out / "again", checkout.run(*run, *how))
        audit = ("planted.jsonl", "--out", "audit", "-m", "model", "--base-url", url, "--json")
        keep(checkout, out / "audit", checkout.run("curate", "audit", *audit))
    copy(checkout, "curated", out / "curated")
    few = ("--family", "worksheet", "{limit}", "3", "--samples", "2", "--seed", "1", "--temperature", "0.8")
    keep(checkout, out / "distill", checkout.run("curate", "distill", *few, "--out", "distilled", "--json"))
    copy(checkout, "distilled", out / "distilled")


def copy(checkout: Checkout, folder: str, out: Path) -> None:
    """The files of a run that are its result, with volatile fields of JSON masked."""
    for path in sorted((checkout.scratch / folder).rglob("*")):
        name = path.relative_to(checkout.scratch / folder)
        if not path.is_file() or name.parts[0] not in FILES:
            continue
        target = out / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix in (".json", ".jsonl"):
            target.write_text(mask_lines(checkout.mask(path.read_text(encoding="utf-8"))), encoding="utf-8")
        else:
            copyfile(path, target)


@contextmanager
def annotator(checkout: Checkout) -> Iterator[str]:
    """The annotator in a process of its own; its URL. Its traces are in ``planted.jsonl``."""
    # -P: modules in the script's folder must not hide libraries of the same name.
    command = [sys.executable, "-P", str(Path(__file__).with_name("annotator.py")), "planted.jsonl"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with started(command, env=checkout.environment, cwd=checkout.scratch, **pipes) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        if not url:
            raise RuntimeError("the annotator did not start")
        yield url
