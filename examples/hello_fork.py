"""Ask the embedded model a question, and see what it did side by side."""

import sys

from multiverse import LLM, SamplingParams

QUESTION = (
    "Mia starts with 7, adds 5, doubles it and takes away 9. Tom starts with 12, triples it, takes away 4 and adds 9. "
    "What is the total?"
)


def main(question: str = QUESTION) -> None:
    with LLM() as llm:  # multiverse-mini; or LLM("a-folder"), LLM("owner/model")
        (found,) = llm.chat([{"role": "user", "content": question}], SamplingParams(temperature=0))
    print("answer:", found.answer)
    if found.tree is not None:
        for _, block in found.tree.blocks():
            for outline, path in zip(block.outlines, block.paths, strict=True):
                print(f"  {outline}: {' '.join(part.strip() for part in path if isinstance(part, str))}")
            print(f"  together: {block.conclusion}")
    usage = found.usage
    print(f"{usage.total_tokens} tokens, the longest chain {usage.critical_path_tokens}: {usage.parallelism:.2f} at a time")


if __name__ == "__main__":
    main(*sys.argv[1:])
