"""The `openai-agents` package, unmodified, over both of OpenAI's APIs. Run in an environment of its own by test_clients.py."""

from __future__ import annotations

import asyncio
import os
from typing import Any

from agents import Agent, ModelSettings, OpenAIChatCompletionsModel, OpenAIResponsesModel, Runner, set_tracing_disabled
from openai import AsyncOpenAI
from pydantic import BaseModel, Field

QUESTION = "Mia starts with 7, adds 5, doubles it and takes away 9. Tom starts with 12 and triples it. What is the total?"


class Total(BaseModel):
    """What the answer is to be."""

    answer: int = Field(ge=0, le=999)
    sure: bool


async def main() -> None:
    set_tracing_disabled(True)
    client = AsyncOpenAI(base_url=os.environ["OPENAI_BASE_URL"], api_key=os.environ["OPENAI_API_KEY"])
    for kind in (OpenAIResponsesModel, OpenAIChatCompletionsModel):
        model: Any = kind(model="multiverse-mini", openai_client=client)
        settings = ModelSettings(temperature=0, max_tokens=600)
        agent = Agent(name="counter", instructions="Answer with a number.", model=model, model_settings=settings)

        first = await Runner.run(agent, QUESTION)
        assert first.final_output
        assert first.raw_responses[0].usage.output_tokens > 20
        print("ok: run", kind.__name__)

        again = [*first.to_input_list(), {"role": "user", "content": QUESTION}]
        assert (await Runner.run(agent, again)).final_output
        print("ok: conversation", kind.__name__)

        streamed = Runner.run_streamed(agent, QUESTION)
        deltas = [
            event.data.delta
            async for event in streamed.stream_events()
            if event.type == "raw_response_event" and event.data.type == "response.output_text.delta"
        ]
        assert "".join(deltas) == streamed.final_output == first.final_output
        print("ok: stream", kind.__name__)

        typed = agent.clone(output_type=Total)
        assert isinstance((await Runner.run(typed, QUESTION)).final_output, Total)
        print("ok: output type", kind.__name__)


asyncio.run(main())
