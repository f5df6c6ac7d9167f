"""OpenAI's client against `multiverse serve`: a plain answer, then the branches of a stream.

multiverse serve &
python examples/openai_client.py
"""

import sys
from typing import Any

from openai import OpenAI

QUESTION = (
    "Mia starts with 7, adds 5, doubles it and takes away 9. Tom starts with 12, triples it, takes away 4 and adds 9. "
    "What is the total?"
)


def main(base_url: str = "http://127.0.0.1:8000/v1", api_key: str = "none") -> None:
    client = OpenAI(base_url=base_url, api_key=api_key)
    model = client.models.list().data[0].id
    plain = client.chat.completions.create(model=model, messages=[{"role": "user", "content": QUESTION}], temperature=0)
    print("answer:", plain.choices[0].message.content)

    lanes: dict[str, str] = {}
    stream = client.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": QUESTION}],
        temperature=0,
        stream=True,
        extra_body={"multiverse": {"branches": True}},
    )
    for chunk in stream:
        event: dict[str, Any] = chunk.to_dict()["multiverse"]  # type: ignore[assignment]
        if event["event"] == "fork":
            lanes |= dict.fromkeys(event["labels"], "")
        elif event["event"] == "token" and event["branch"] in lanes and event["role"] == "text":
            lanes[event["branch"]] += event["text"]
        elif event["event"] == "branch_end":
            print(f"{event['branch']}: {lanes[event['branch']].strip()}")
        elif event["event"] == "finish":
            print("answer:", event["answer"], f"({event['usage']['parallelism']:.2f} tokens at a time)")


if __name__ == "__main__":
    main(*sys.argv[1:])
