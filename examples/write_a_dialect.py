"""A dialect of your own: which tags a model writes, as a value. Everything else follows from it.

A document is written in it, read back, and laid out: positions, and which token sees which. A model gets it by
`LLM(model, dialect=LANES)` if its tags are single tokens of the model's tokenizer; training adds them.
"""

from multiverse.errors import StructureError
from multiverse.structure import Block, Dialect, Document, Tag, measure, parse, render, word_tokens

LANES = Dialect(
    name="lanes",
    think=None,
    block=Tag("<lanes>", "</lanes>"),
    goal=Tag("<plan>", "</plan>"),
    outline=Tag("<lane>", ""),  # the next one, or the end of the plan, closes it
    path=Tag("<do>", "</do>"),
    conclusion=Tag("<merge>", "</merge>"),
    labels="number",  # 1, 2, 3 in every block, not 2.1
    blocks="answer",
    nests=False,
    max_paths=4,
)


def main() -> None:
    document = Document(None, (Block(("bread", "water"), (("Flour, and time.",), ("Two gases, burnt.",)), "Both take heat."),))
    text = render(document, LANES)
    print(text)
    assert parse(text, LANES) == document

    shape = measure(document, word_tokens(LANES))
    print(f"{shape.total_tokens} words and tags, the longest chain {shape.critical_path_tokens}")

    try:
        parse(text.replace("2:", "7:"), LANES)
    except StructureError as error:
        print("a wrong label:", error)


if __name__ == "__main__":
    main()
