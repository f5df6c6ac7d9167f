"""The demonstration of `make demo`: some questions, the forks of their answers, and the clock beside an answer in a line.

A language model answers, multiverse-smol; the same questions then go to the model that it was made from, which answers in a
line: its seconds for each token say what the words of the paths would have taken there. The embedded puzzle model shows forks
inside forks, which the other does not write. Where that model cannot be had, the puzzle model is shown alone, and the output
says so.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

from rich.console import Console
from rich.table import Table

from multiverse import LLM, SamplingParams
from multiverse.cli.loading import quietly
from multiverse.cli.watch import watch
from multiverse.engine import FinishEvent, Generation
from multiverse.errors import ExtraError, ModelError
from multiverse.models.registry import ENTRIES
from multiverse.models.resolve import pull
from multiverse.prompting import ask
from multiverse.streaming import WireEvent, wire_events
from recipes.smol.measure import LINE_TOKENS, leaves

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


@dataclass(frozen=True)
class Answered:
    """An answer, and how many seconds it took."""

    generation: Generation
    seconds: float


def show(llm: LLM, question: str) -> Answered:
    """Ask, and show the answer: live on a terminal, else as text."""
    messages = ask(question, "parallel" if llm.instructed else "as-is")
    began = time.perf_counter()
    finished: list[Answered] = []

    def events() -> Iterator[WireEvent]:
        for event in llm.stream(messages, PARAMS, mode=None):
            if isinstance(event, FinishEvent):
                finished.append(Answered(event.generation, time.perf_counter() - began))
            yield from wire_events(event)

    if sys.stdout.isatty():
        watch(events())
    else:
        for _ in events():
            pass
        print(finished[0].generation.text)
    return finished[0]


def in_a_line(llm: LLM, question: str) -> Answered:
    """The answer of a model that does not fork, or the beginning of a long one."""
    began = time.perf_counter()
    (generation,) = llm.chat(ask(question, "as-is"), replace(PARAMS, max_tokens=LINE_TOKENS), mode=None)
    return Answered(generation, time.perf_counter() - began)


def row(name: str, forked: Answered, line: Answered | None, llm: LLM) -> list[str]:
    """A line of the table at the end."""
    usage, tree = forked.generation.usage, forked.generation.tree
    cells = [
        name,
        str(usage.total_tokens),
        str(usage.critical_path_steps),
        f"{usage.parallelism:.2f}",
        f"{forked.seconds:.1f} s",
    ]
    if line is not None:
        paths = leaves(tree.answer) if tree is not None else []
        words = sum(len(llm.tokenizer.encode(text, add_special_tokens=False)) for text in paths) or usage.total_tokens
        seconds = line.seconds / line.generation.usage.total_tokens * words
        cells += [f"{seconds:.1f} s", f"{seconds / forked.seconds:.1f}"]
    return cells


def main() -> None:
    console = Console()
    try:
        if MODEL not in ENTRIES:
            raise ModelError(f"{MODEL} is not part of this version")
        pull(MODEL)
        with quietly(MODEL):
            model, base = LLM(MODEL), LLM(str(ENTRIES[MODEL].base))
        questions = QUESTIONS
        console.print(
            f"[bold]{MODEL}[/bold]: a language model of 135M parameters that forks where a question has several parts."
        )
    except (ModelError, ExtraError) as error:
        console.print(
            f"{MODEL} cannot be shown: {error}\nInstead, the puzzle model that comes with the package:", style="yellow"
        )
        model, base, questions = LLM(), None, PUZZLES
    columns = ["question", "tokens", "steps", "parallelism", "seconds"]
    table = Table(*columns, *(["in a line", "times as fast"] if base is not None else []))
    for name, question in questions.items():
        console.print(f"\n[bold]{question}[/bold]\n")
        forked = show(model, question)
        table.add_row(*row(name, forked, in_a_line(base, question) if base is not None else None, model))
    console.print()
    console.print(table)
    if base is not None:
        console.print(f"\nForks inside forks, by the puzzle model:\n[bold]{PUZZLES['nested']}[/bold]\n")
        show(LLM(), PUZZLES["nested"])


if __name__ == "__main__":
    main()
