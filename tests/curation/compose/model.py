"""A scripted model that answers single questions, well or badly, over an endpoint.

python -m tests.curation.compose.model URL FOLDER FILE [OPTION=VALUE...]    # a run in a process of its own, to be killed
"""

from __future__ import annotations

import random
import re
import sys
from pathlib import Path
from typing import Any

from multiverse.curation.compose import ComposeConfig, Composition, read_questions
from multiverse.curation.config import BudgetConfig, EndpointConfig
from multiverse.curation.job import Result
from tests.curation.endpoint import Endpoint

_TEXT = (
    "small large warm cold early late people often use it when they need help with the work of a day and then talk about what"
    " it means for them because it grows slowly near old houses where many hands keep paper stone water bread light and time"
)
WORDS = _TEXT.split()
BAD = {
    "circles": "It is good and it is good and it is good and it is good and it is good and it is good and it is good.",
    "refuses": "I'm sorry, but as a model I cannot say anything at all about this question of yours, not now and not later.",
    "german": "Der Hund ist mit der Katze nicht auf dem Weg, und die Maus ist auch nicht da, es ist ein Haus für sie.",
    "brief": "It is fine.",
}
"""What the model says when a question holds one of these words."""


def answered(question: str) -> str:
    """A good answer to a question: fifty words of its own, with a word of the question among them."""
    for word, text in BAD.items():
        if word in question:
            return text
    draw = random.Random(question)
    content = re.findall(r"\w+", question)[-1]
    words = draw.sample(WORDS, len(WORDS)) + draw.sample(WORDS, 12)
    return f"{content.capitalize()} {' '.join(words)}."


class Model(Endpoint):
    """The endpoint; `rate` of the ways to the answer and of the answers go wrong."""

    def __init__(self, **options: Any) -> None:
        super().__init__(lambda *_: "", {}, **options)

    def _answer(self, body: dict[str, Any]) -> str:
        asked = body["messages"][-1]["content"]
        if "Reply with one word" in asked:
            return "No." if "doubtful" in asked else "Yes, it does."
        if "Shorten this question" in asked:
            return f"## About {re.findall(r'[a-z]+', asked)[-1]}"
        if "one short sentence" in asked:
            return "two lines\nof text" if "doubtful" in asked else "That is all there is to it."
        question, *hint = re.split(r"(?<=[?.]) (?=Answer|Write|Keep)", asked)
        if "stubborn" in question and not (hint and hint[0].startswith("Answer in two")):
            return BAD["circles"]
        return answered(question)


def start(
    url: str, out: Path, source: Path, *, budget: BudgetConfig | None = None, fresh: bool = False, **options: Any
) -> Result:
    """Start a run over the questions of a file."""
    questions, faults = read_questions([str(source)])
    endpoint = EndpointConfig(url, "fake", timeout=5.0, backoff=0.01, concurrency=8, seed=options.pop("seed", 0))
    config = ComposeConfig(**{"validation": 0.2, "held_out": 0.2, "min_part_tokens": 20, **options})
    job = Composition(
        out, endpoint, config, source.name, len(questions), budget or BudgetConfig(), documents=True, questions=questions
    )
    return job.start(tuple, faults=faults, fresh=fresh)


if __name__ == "__main__":
    result = start(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
    if result.ended is not None:
        raise result.ended
