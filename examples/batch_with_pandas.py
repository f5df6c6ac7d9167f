"""A table of questions, answered in one batch: pandas in, pandas out.

`datasets.Dataset.from_pandas(table)` and `dataset.to_pandas()` lead to and from Hugging Face's data sets.
"""

import sys

import pandas as pd

from multiverse import LLM, SamplingParams
from multiverse.tasks import generate


def main(count: str = "8") -> pd.DataFrame:
    problems = generate("worksheet", int(count), seed=1)
    table = pd.DataFrame({"question": [one.question for one in problems], "expected": [one.answer for one in problems]})
    with LLM() as llm:
        asked = [[{"role": "user", "content": question}] for question in table["question"]]
        found = llm.chat(asked, SamplingParams(temperature=0))  # all at once; a progress bar on a terminal
    table["answer"] = [one.answer for one in found]
    table["right"] = table["answer"] == table["expected"]
    table["tokens"] = [one.usage.total_tokens for one in found]
    table["longest_chain"] = [one.usage.critical_path_tokens for one in found]
    print(table.drop(columns="question").to_string())
    print(f"{table['right'].mean():.0%} right, {table['tokens'].sum() / table['longest_chain'].sum():.2f} tokens at a time")
    return table


if __name__ == "__main__":
    main(*sys.argv[1:])
