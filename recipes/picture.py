"""Draw the picture of the README: one question to the embedded model, halfway through its fork and when it is done.

python -m recipes.picture                            # writes docs/lanes.svg
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path

from rich.console import Console
from rich.rule import Rule

from multiverse import LLM, SamplingParams
from multiverse.cli.picture import picture, usage_line
from multiverse.cli.view import View
from multiverse.prompting import ask
from multiverse.streaming import wire_events

ROOT = Path(__file__).parents[1]
QUESTION = (
    "Mia starts with 7, adds 5, doubles it and takes away 9. Tom starts with 12, triples it, takes away 4 and adds 9. "
    "Ana starts with 30, halves it, adds 6 and adds 20. What is the total?"
)
HALFWAY = 70
"""Tokens after the fork at which the first picture is taken."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--out", type=Path, default=ROOT / "docs/lanes.svg")
    options = parser.parse_args()
    llm = LLM(options.model)
    console = Console(record=True, width=108, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    console.print(f'[bold]$ multiverse generate[/bold] "{QUESTION}"\n', highlight=False)
    view = View()
    forked, tokens = False, 0
    events = llm.stream(ask(QUESTION), SamplingParams(temperature=0))
    for wired in (wired for event in events for wired in wire_events(event)):
        view.feed(wired)
        forked = forked or wired.event == "fork"
        tokens += forked and wired.event == "token"
        if tokens == HALFWAY:
            console.print(Rule("while the branches are written", style="dim"))
            console.print(picture(view))
            tokens += 1
    console.print(Rule("when it is done", style="dim"))
    console.print(picture(view))
    assert view.finish is not None
    console.print(f"\n[dim]{usage_line(view.finish.usage or {})}[/dim]", highlight=False)
    options.out.write_text(console.export_svg(title="multiverse generate"))


if __name__ == "__main__":
    main()
