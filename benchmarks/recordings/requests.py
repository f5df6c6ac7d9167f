"""The 200 requests whose answers are recorded, and ten that are refused."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
FAMILIES = ("worksheet", "cases", "countdown", "nested", "chain")
EACH = 10
"""Requests of each kind."""
STOPS = (["="], ["\n2:", "add"], ["Conclusion"], ["</Path>"], ["Answer"], ["7"], [", "], ["total", "+"], ["\n\n"], ["A"])


class Problem(NamedTuple):
    """A question, and its solution as a structured document."""

    question: str
    structured: str

    @classmethod
    def read(cls, line: str) -> Problem:
        """From a line of ``multiverse tasks``."""
        fields = json.loads(line)
        return cls(fields["question"], fields["structured"])


class Asked(NamedTuple):
    """A request: its name, path and body."""

    name: str
    path: str
    body: dict[str, Any]


Fields = dict[str, Any]
Make = Callable[[int], Fields]
GREEDY: Fields = {"temperature": 0}
BRANCHES: Fields = {"multiverse": {"branches": True}}
USAGE: Fields = {"stream_options": {"include_usage": True}}


def seeded(number: int) -> Fields:
    """Sampled, from a seed of its own."""
    return {"temperature": 0.9, "top_p": 0.95, "seed": 100 + number}


def limits(number: int) -> Fields:
    """A limit of the structure or of the critical path, each in turn."""
    chosen: Sequence[Fields] = (
        {"max_critical_path_tokens": 90},
        {"thinking_budget": 50},
        {"max_branch_tokens": 12},
        {"max_depth": 0},
        {"max_width": 1},
        {"max_branches": 2},
        {"max_critical_path_tokens": 120, "tail_tokens": 40},
        {"guard": False},
        {"share_every": 8},
        {"mode": "as-is"},
    )
    return {"multiverse": {**chosen[number % len(chosen)], "branches": number % 2 == 0}}


CHATS: Mapping[str, Make] = {
    "greedy": lambda _: GREEDY,
    "seeded": seeded,
    "branches-greedy": lambda _: GREEDY | BRANCHES | USAGE,
    "branches-seeded": lambda i: seeded(i) | BRANCHES,
    "two": lambda i: seeded(i) | {"n": 2} | USAGE,
    "branches-hot": lambda i: seeded(i) | BRANCHES | {"temperature": 1.3, "top_p": 1},
    "stop": lambda i: GREEDY | {"stop": STOPS[i]} | USAGE,
    "branches-stop": lambda i: GREEDY | BRANCHES | {"stop": STOPS[i]},
    "logprobs": lambda i: GREEDY | {"logprobs": True, "top_logprobs": i % 4},
    "branches-logprobs": lambda i: seeded(i) | BRANCHES | {"logprobs": True, "top_logprobs": 1},
    "limits": lambda i: GREEDY | limits(i),
    "length": lambda i: GREEDY | {"max_tokens": 1 + 9 * i} | ({} if i % 2 else BRANCHES),
    "sequential": lambda i: GREEDY | USAGE | {"multiverse": {"mode": "sequential", "branches": i % 2 == 0}},
    "penalty": lambda i: seeded(i) | {"repetition_penalty": 1.2, "top_k": 20, "min_p": 0.05, "logit_bias": {"65": 1}},
    "whole": lambda i: (GREEDY if i % 2 else seeded(i)) | {"stream": False},
    "whole-two": lambda i: seeded(i) | {"stream": False, "n": 2, "logprobs": True, "top_logprobs": 2, "stop": STOPS[i]},
}
TEXTS: Mapping[str, Make] = {
    "text": lambda i: GREEDY | ({} if i % 2 else USAGE),
    "text-seeded": lambda i: seeded(i) | {"n": 1 + i % 2, "stop": STOPS[i]},
    "text-whole": lambda i: GREEDY | {"stream": False} | ({"logprobs": i % 3} if i % 2 else {"echo": True}),
}
REFUSED: Sequence[Fields] = (
    {"temperature": -1},
    {"n": 0},
    {"max_tokens": 0},
    {"top_p": 2},
    {"tools": [{"type": "function"}]},
    {"no_such_parameter": 1},
    {"multiverse": {"max_depth": -1}},
    {"multiverse": {"no_such_field": 1}},
    {"model": "no-such-model"},
    {"messages": []},
)


def questions(problems: Sequence[Problem]) -> Iterator[Asked]:
    """All 200: `EACH` of every kind, each about another problem, and as many second turns of a conversation."""
    shared: Fields = {"stream": True, "max_tokens": 220}
    for kind, make in CHATS.items():
        for number in range(EACH):
            messages = [{"role": "user", "content": problems[number % len(problems)].question}]
            yield Asked(f"{kind}-{number}", CHAT, {"messages": messages} | shared | make(number))
    for kind, make in TEXTS.items():
        for number in range(EACH):
            prompt = f"{problems[number % len(problems)].question}\n"
            yield Asked(f"{kind}-{number}", COMPLETIONS, {"prompt": prompt} | shared | {"max_tokens": 60} | make(number))
    for number in range(EACH):
        problem, other = problems[number % len(problems)], problems[(number + 1) % len(problems)]
        thinking, _, answer = problem.structured.removeprefix("<Think>\n").partition("\n</Think>")
        messages = [
            {"role": "user", "content": problem.question},
            {"role": "assistant", "reasoning": thinking, "content": answer.strip()},
            {"role": "user", "content": other.question},
        ]
        yield Asked(f"turn-{number}", CHAT, {"messages": messages} | shared | GREEDY | BRANCHES)


def refused() -> Iterator[Asked]:
    """Requests that are answered with an error."""
    for number, fields in enumerate(REFUSED):
        yield Asked(f"refused-{number}", CHAT, {"messages": [{"role": "user", "content": "Why?"}]} | fields)
