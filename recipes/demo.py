"""The demonstration of `make demo`: some questions, the forks of their answers, and the clock beside an answer in a line.

It is `multiverse tour` with more questions: a language model answers, multiverse-smol, which is fetched if need be; the same
questions then go to the model that it was made from, which answers in a line. The embedded puzzle model shows forks inside
forks, which the other does not write. Where the language model cannot be had, the puzzle model is shown alone, and the output
says so.
"""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from multiverse import LLM
from multiverse.cli.loading import quietly
from multiverse.cli.tour import MODEL, PUZZLES, QUESTIONS, Answered, Guide, answer, in_a_line, line_seconds
from multiverse.errors import ExtraError, ModelError
from multiverse.models.registry import ENTRIES
from multiverse.models.resolve import pull


def row(name: str, forked: Answered, line: Answered | None, llm: LLM) -> list[str]:
    """A line of the table at the end."""
    usage = forked.generation.usage
    cells = [
        name,
        str(usage.total_tokens),
        str(usage.critical_path_steps),
        f"{usage.parallelism:.2f}",
        f"{forked.seconds:.1f} s",
    ]
    if line is not None:
        seconds = line_seconds(llm, forked, line)
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
        forked = answer(model, question)
        line = in_a_line(Guide(MODEL, model, base, question), shown=False) if base is not None else None
        table.add_row(*row(name, forked, line, model))
    console.print()
    console.print(table)
    if base is not None:
        console.print(f"\nForks inside forks, by the puzzle model:\n[bold]{PUZZLES['nested']}[/bold]\n")
        answer(LLM(), PUZZLES["nested"])


if __name__ == "__main__":
    main()
