"""LangChain's client for OpenAI against `multiverse serve`: one question, then several in a batch through a chain.

pip install langchain-openai
multiverse serve &
python examples/langchain_client.py
"""

import sys

from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_openai import ChatOpenAI

TEMPLATE = (
    "Mia starts with {mia}, adds 5, doubles it and takes away 9. Tom starts with {tom}, triples it, takes away 4 and adds 9. "
    "What is the total?"
)


def main(base_url: str = "http://127.0.0.1:8000/v1", api_key: str = "none") -> None:
    model = ChatOpenAI(model="multiverse-mini", base_url=base_url, api_key=api_key, temperature=0)
    message = model.invoke(TEMPLATE.format(mia=7, tom=12))
    print("answer:", message.content)
    print("tokens:", message.usage_metadata["output_tokens"])

    chain = ChatPromptTemplate.from_messages([("user", TEMPLATE)]) | model | StrOutputParser()
    rows = [{"mia": mia, "tom": tom} for mia, tom in ((7, 12), (8, 12), (7, 13))]
    for row, answer in zip(rows, chain.batch(rows), strict=True):
        print(row, "->", answer)


if __name__ == "__main__":
    main(*sys.argv[1:])
