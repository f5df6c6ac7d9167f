"""The command line of recordings: see the package's docstring."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import benchmarks.recordings as package

from . import commands, curation, evaluation, streams, training
from .checkout import Checkout
from .compare import RENAMED, compare, report

SECTIONS: dict[str, Callable[[Checkout, Path], None]] = {
    "streams": streams.record,
    "commands": commands.record,
    "evaluation": evaluation.record,
    "curation": curation.record,
    "training": training.record,
}


def main() -> None:
    options = _options()
    if options.command == "compare":
        renamed = RENAMED | dict(pair.split("=", 1) for pair in options.renamed)
        sections = compare(options.before, options.after, renamed)
        print(report(sections))
        sys.exit(not all(section.same for section in sections))
    record(options.source, options.out, options.only or list(SECTIONS))


def record(source: Path, out: Path, names: list[str]) -> None:
    """Record these sections; how long each took is in ``about.json``."""
    out.mkdir(parents=True, exist_ok=True)
    took: dict[str, float] = {}
    with TemporaryDirectory() as scratch:
        checkout = Checkout(source, Path(scratch))
        for name in names:
            began = time.monotonic()
            SECTIONS[name](checkout, out / name)
            took[name] = round(time.monotonic() - began, 1)
            print(f"{name}: {took[name]} s", file=sys.stderr, flush=True)
        about = out / "about.json"
        earlier = json.loads(about.read_text())["seconds"] if about.is_file() else {}
        about.write_text(json.dumps({"revision": checkout.revision, "seconds": earlier | took}, indent=1) + "\n")


def _options() -> argparse.Namespace:
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="python -m benchmarks.recordings", description=package.__doc__, formatter_class=form)
    actions = parser.add_subparsers(dest="command", required=True)
    recording = actions.add_parser("record", help="record a checkout")
    recording.add_argument("out", type=Path, help="folder of the recording")
    recording.add_argument("--source", type=Path, required=True, help="folder of the checkout")
    recording.add_argument("--only", nargs="+", choices=tuple(SECTIONS), help="record only these sections")
    comparing = actions.add_parser("compare", help="compare two recordings; exit status 1 if they differ")
    comparing.add_argument("before", type=Path)
    comparing.add_argument("after", type=Path)
    comparing.add_argument("--renamed", nargs="*", default=[], metavar="OLD=NEW", help="further renamed keys of JSON")
    return parser.parse_args()


if __name__ == "__main__":
    main()
