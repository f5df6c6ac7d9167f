"""`multiverse tour`: what this is, in a minute: a question answered in lanes, the same in a line, and the clock of both."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..engine.params import SamplingParams
from ..structure import leaves
from .declared import Fields, Json, expand_options
from .jsonio import print_json
from .loading import MINI, ModelOptions
from .watch import watch

if TYPE_CHECKING:
    from rich.table import Table

    from ..engine import Generation
    from ..llm import LLM
    from ..streaming import WireEvent

MODEL = "multiverse-smol"
QUESTIONS = {
    "three parts": "What is bread, why is the sky blue, and how do magnets work?",
    "three things": "Tell me about cats, dogs and owls.",
    "one part": "What is the capital of France?",
}
PUZZLES = {
    "wide": "Mia starts with 7, adds 5, doubles it and takes away 9. Tom starts with 12, triples it, takes away 4 and adds 9. "
    "Ana starts with 30, halves it, adds 6 and adds 20. Ben starts with 9, doubles it, adds 13 and takes away 2. "
    "What is the total?",
    "nested": "Red team: Mia has 14, halves it and takes away 3; Tom has 19, triples it and adds 8. "
    "Blue team: Ana has 5, adds 4 and doubles it; Ben has 2, adds 15 and adds 6. What do both teams have together?",
    "chain": "Start with 21. Take away 4, then double it, then add 7, then take away 11. What do you get?",
}
"""What the puzzle model is asked, in the wording that it knows."""
PARAMS = SamplingParams(temperature=0, max_tokens=1200)
LINE_TOKENS = 256
"""Most tokens of the answer of a model that does not fork, which is timed for each token."""


@dataclass(frozen=True)
class Answered:
    """An answer, and how many seconds it took."""

    generation: Generation
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Plain objects."""
        counts = self.generation.usage.to_json("total_tokens", "critical_path_tokens", "critical_path_steps", "parallelism")
        return {"text": self.generation.text, "answer": self.generation.answer, **counts, "seconds": self.seconds}


@dataclass(frozen=True)
class Guide:
    """Which models are shown, and what they are asked.

    Attributes:
        llm: answers in lanes.
        base: answers in a line; `None` if the same model does, asked to.
        note: why not another model; empty if there is nothing to say.
    """

    name: str
    llm: LLM
    base: LLM | None
    question: str
    note: str = ""


@expand_options
def tour(
    model: Annotated[ModelOptions, Fields(only=("model", "device"), show_default={"model": "multiverse-smol, or -mini"})],
    question: Annotated[
        str | None, typer.Option("--question", metavar="TEXT", help="What to ask.", show_default="one of several parts")
    ] = None,
    as_json: Json = False,
) -> None:
    """See in a minute what this is: a question answered in lanes, the same in a line, and the clock of both.

    The language model multiverse-smol answers, if its base is at hand (multiverse pull
    multiverse-smol fetches it), and its base in a line; else the puzzle model that comes with the package, in both ways.

    [bold]Examples[/bold]
    multiverse tour
    multiverse tour --model ./my-model --question "What is bread, and why is the sky blue?"
    multiverse tour --json | jq .speedup
    """
    guide = _guide(model, question)
    guide.llm.chat(asking(guide.llm, guide.question), replace(PARAMS, max_tokens=8), mode=None, progress=False)  # warms up
    if as_json:
        lanes, line = answer(guide.llm, guide.question, shown=False), in_a_line(guide, shown=False)
        print_json(_json(guide, lanes, line))
        return
    _say(f"[bold]{guide.name}[/bold] answers a question that has several parts." + (f"\n{guide.note}" if guide.note else ""))
    _say("\n[bold]1. In lanes.[/bold] Where parts do not need each other, the model forks, and all are written at once.\n")
    _say(f"[bold cyan]{guide.question}[/bold cyan]\n")
    lanes = answer(guide.llm, guide.question)
    who = "the model that it was made from" if guide.base is not None else "the same model, asked not to fork"
    _say(f"\n[bold]2. In a line.[/bold] The same question to {who}.\n")
    line = in_a_line(guide)
    _say("\n[bold]3. The clock of both.[/bold]\n")
    _say(clock(guide, lanes, line))
    _say(f"\n{_verdict(guide, lanes, line)}")
    _say("\n[bold]Where to go next[/bold]\n")
    for command, what in _next(guide):
        _say(f"  [bold]{command}[/bold]\n      {what}")


def _guide(options: ModelOptions, question: str | None) -> Guide:
    """The models of the tour, loaded."""
    from ..models.registry import ENTRIES
    from ..models.resolve import Named, find

    if options.model is not None:
        own = PUZZLES["wide"] if options.model == MINI else QUESTIONS["three parts"]
        return Guide(options.name, options.load(), None, question or own)
    entry = ENTRIES[MODEL]
    if find(Named(entry, None)) is not None and entry.base is not None and find(Named(ENTRIES[entry.base], None)) is not None:
        llm, base = replace(options, model=MODEL).load(), replace(options, model=entry.base).load()
        return Guide(MODEL, llm, base, question or QUESTIONS["three parts"])
    note = f"(A puzzle model: the base of {MODEL}, a small language model, is not here; multiverse pull {MODEL} fetches it.)"
    return Guide(options.name, options.load(), None, question or PUZZLES["wide"], note)


def asking(llm: LLM, question: str) -> list[dict[str, str]]:
    """A chat that asks for parallel thinking, where the model knows how that is asked for."""
    from ..prompting import ask

    return ask(question, "parallel" if llm.instructed else "as-is")


def answer(llm: LLM, question: str, params: SamplingParams = PARAMS, *, mode: Any = None, shown: bool = True) -> Answered:
    """Ask, and show the answer: live on a terminal, else as text.

    Args:
        mode: as in `LLM.stream`; `None` asks for parallel thinking where the model knows how.
    """
    from ..engine import FinishEvent
    from ..streaming import wire_events

    messages = asking(llm, question) if mode is None else [{"role": "user", "content": question}]
    finished: list[Answered] = []
    began = time.perf_counter()

    def events() -> Iterator[WireEvent]:
        for event in llm.stream(messages, params, mode=mode):
            if isinstance(event, FinishEvent):
                finished.append(Answered(event.generation, time.perf_counter() - began))
            yield from wire_events(event)

    if shown and sys.stdout.isatty():
        watch(events())
    else:
        for _ in events():
            pass
        if shown:
            print(finished[0].generation.text)
    return finished[0]


def in_a_line(guide: Guide, *, shown: bool = True) -> Answered:
    """The answer in a line: of the base, or its beginning; or of the same model without forks."""
    if guide.base is not None:
        return answer(guide.base, guide.question, replace(PARAMS, max_tokens=LINE_TOKENS), shown=shown)
    return answer(guide.llm, guide.question, replace(PARAMS, max_depth=0), mode="sequential", shown=shown)


def line_seconds(llm: LLM, lanes: Answered, line: Answered) -> float:
    """Seconds that the words of the paths would take in a line, at the seconds for each token of the answer in a line."""
    tree, usage = lanes.generation.tree, lanes.generation.usage
    texts = [] if tree is None else [*leaves(tree.thinking or ()), *leaves(tree.answer)]
    words = sum(len(llm.tokenizer.encode(text, add_special_tokens=False)) for text in texts) or usage.total_tokens
    return line.seconds / max(1, line.generation.usage.total_tokens) * words


def _speedup(guide: Guide, lanes: Answered, line: Answered) -> float:
    """How many times as fast lanes are: for the same words, where another model answered; else for the whole answer."""
    seconds = line.seconds if guide.base is None else line_seconds(guide.llm, lanes, line)
    return seconds / lanes.seconds


def clock(guide: Guide, lanes: Answered, line: Answered) -> Table:
    """Both answers, side by side."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column("")
    for heading in ("lanes", "line"):
        table.add_column(heading, justify="right")
    usages = lanes.generation.usage, line.generation.usage
    table.add_row("tokens written", *(f"{usage.total_tokens:,}" for usage in usages))
    table.add_row("one after another (critical path)", *(f"{usage.critical_path_tokens:,}" for usage in usages))
    table.add_row("forwards of the model", *(f"{usage.critical_path_steps:,}" for usage in usages))
    table.add_row("seconds", *(f"{one.seconds:.2f}" for one in (lanes, line)))
    rates = (usage.total_tokens / one.seconds for usage, one in zip(usages, (lanes, line), strict=True))
    table.add_row("tokens a second", *(f"{rate:,.0f}" for rate in rates))
    if guide.base is not None:
        table.add_row("seconds for the lanes' words", f"{lanes.seconds:.2f}", f"{line_seconds(guide.llm, lanes, line):.2f}")
    return table


def _verdict(guide: Guide, lanes: Answered, line: Answered) -> str:
    usage, ratio = lanes.generation.usage, _speedup(guide, lanes, line)
    if not lanes.generation.usage.parallelism > 1:
        return f"{guide.name} did not fork here: it answered in a line both times."
    words = "the lanes' words" if guide.base is not None else "the answer"
    speed = (
        f"{words} came {ratio:.1f} times as fast as in a line" if ratio >= 1 else f"{words} took {1 / ratio:.1f} times as long"
    )
    return f"{usage.parallelism:.1f} tokens for each step of the longest chain; on this machine {speed}."


def _next(guide: Guide) -> list[tuple[str, str]]:
    """Commands, and what each is for."""
    named = f" --model {MODEL}" if guide.name == MODEL else ""
    steps = [
        (f"multiverse chat{named}", "ask your own questions"),
        (f"multiverse serve{named}", "OpenAI's API, and a page that draws the lanes, at http://127.0.0.1:8000"),
        (f"multiverse bench{named}", "how fast this machine is in lanes and in a line, beside other engines"),
        (
            "multiverse recipes copy lora-0.5b",
            "fine-tune a model of your own: multiverse train recipes/lora-0.5b.yaml --dry-run",
        ),
    ]
    return steps if guide.name == MODEL else [(f"multiverse pull {MODEL}", "a small language model; then this again"), *steps]


def _json(guide: Guide, lanes: Answered, line: Answered) -> dict[str, Any]:
    return {
        "model": guide.name,
        "line_model": guide.base.model_path if guide.base is not None else guide.name,
        "note": guide.note,
        "question": guide.question,
        "lanes": lanes.to_json(),
        "line": line.to_json(),
        "speedup": _speedup(guide, lanes, line),
        "next": [command for command, _ in _next(guide)],
    }


def _say(what: Any) -> None:
    from rich.console import Console

    Console(highlight=False).print(what, soft_wrap=isinstance(what, str) and not sys.stdout.isatty())
