"""Follow a generation event by event: a line for each branch, and when they fork, end and join."""

from multiverse import LLM, SamplingParams
from multiverse.engine import BranchEndEvent, FinishEvent, ForkEvent, JoinEvent, TokenEvent

QUESTION = (
    "Mia starts with 7, adds 5, doubles it and takes away 9. Tom starts with 12, triples it, takes away 4 and adds 9. "
    "Ana starts with 30, halves it, adds 6 and adds 20. What is the total?"
)


def main() -> None:
    lanes: dict[str, str] = {}
    with LLM() as llm:
        for event in llm.stream([{"role": "user", "content": QUESTION}], SamplingParams(temperature=0)):
            match event:
                case ForkEvent():
                    print(f"fork into {', '.join(event.labels)}, {event.counts.total} tokens so far")
                    lanes.update(dict.fromkeys(event.labels, ""))
                case TokenEvent() if event.branch in lanes and event.role == "text":
                    lanes[event.branch] += event.text
                case BranchEndEvent():
                    print(f"{event.branch}: {lanes[event.branch].strip()}")
                case JoinEvent():
                    print(f"join, {event.counts.total} tokens, the longest chain {event.counts.critical_path}")
                case FinishEvent():
                    print("answer:", event.generation.answer)


if __name__ == "__main__":
    main()
