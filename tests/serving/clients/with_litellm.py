"""LiteLLM, unmodified. Run in an environment of its own by test_clients.py."""

from __future__ import annotations

import json
import os
from typing import Any

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # prices come with the package, not from the network

import litellm
from pydantic import BaseModel, Field

QUESTION = "Mia starts with 7, adds 5, doubles it and takes away 9. Tom starts with 12 and triples it. What is the total?"
MESSAGES = [{"role": "user", "content": QUESTION}]
MODEL = "openai/multiverse-mini"


class Total(BaseModel):
    """What the answer is to be."""

    answer: int = Field(ge=0, le=999)
    sure: bool


def ask(**fields: Any) -> Any:
    return litellm.completion(
        model=MODEL,
        messages=fields.pop("messages", MESSAGES),
        temperature=0,
        api_base=os.environ["OPENAI_BASE_URL"],
        api_key=os.environ["OPENAI_API_KEY"],
        **fields,
    )


whole = ask()
message = whole.choices[0].message
assert message.content
assert message.reasoning_content
assert whole.usage.completion_tokens > 20
print("ok: completion")

chunks = list(ask(stream=True, stream_options={"include_usage": True}))
assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == message.content
print("ok: stream")

history = [
    *MESSAGES,
    {"role": "assistant", "content": message.content, "reasoning_content": message.reasoning_content},
    *MESSAGES,
]
assert ask(messages=history).choices[0].message.content
print("ok: conversation")

Total.model_validate_json(ask(response_format=Total).choices[0].message.content)
print("ok: response_format")

assert isinstance(
    json.loads(
        ask(response_format={"type": "json_object"}, max_tokens=2000, logit_bias=json.loads(os.environ["CLOSING"]))
        .choices[0]
        .message.content
    ),
    dict,
)
print("ok: json_object")

refusal = ""
try:
    ask(response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": {"not": {}}}})
except litellm.BadRequestError as error:
    refusal = str(error)
assert "response_format" in refusal
print("ok: refusal")

response = litellm.responses(
    model=MODEL, input=QUESTION, temperature=0, api_base=os.environ["OPENAI_BASE_URL"], api_key=os.environ["OPENAI_API_KEY"]
)
assert [item.type for item in response.output] == ["reasoning", "message"]
print("ok: responses")
