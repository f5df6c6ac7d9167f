"""Dialogues as an inspect task: a sample is one dialogue, the solver asks its turns in order, the scorer has them judged.

What inspect does: the event loop, dialogues side by side, providers with their connections and retries, cancellation, and logs.
What it does not: it resumes by whole samples, so every turn and every judgement is kept by `store.py`; and it takes one number
a sample, so that figures by item, turn and criterion come from there, too. Its logs hold no images.

Needs inspect, so it is imported by `run.evaluate_dialogues` only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import fmean

from inspect_ai import Task
from inspect_ai.dataset import MemoryDataset
from inspect_ai.dataset import Sample as InspectSample
from inspect_ai.model import GenerateConfig, ModelOutput, get_model
from inspect_ai.scorer import Score, Scorer, Target, mean, scorer, stderr
from inspect_ai.solver import Generate, Solver, TaskState, solver

from ...errors import DiskError, first_line
from ..inspecting import response_of, sample_seed
from .chat import as_chat
from .config import Setting
from .dialogue import Dialogue
from .judging import BudgetError, Case, Judge
from .messages import Message, request
from .store import Answer, SetAside, Store, TurnKey

_FATAL = (401, 402, 403, 404)
"""Statuses with which no other request would succeed either."""


@dataclass
class Work:
    """One start of a run.

    Attributes:
        judges: whose verdicts are wanted; the first one's are the run's.
        repeats: how often each judges.
        on_answer, on_verdicts: called after each turn was answered, and judged by the first judge with so many items met of so
            many.
        stopped: why nothing more is asked; `judging_stopped`: why nothing more is judged.
    """

    setting: Setting
    store: Store
    judges: Sequence[Judge]
    repeats: int
    on_answer: Callable[[], None] = lambda: None
    on_verdicts: Callable[[int, int], None] = lambda _met, _items: None
    stopped: list[Exception] = field(default_factory=list)
    judging_stopped: list[Exception] = field(default_factory=list)


def build_task(dialogues: Sequence[Dialogue], work: Work) -> Task:
    """The task."""
    by_id = {dialogue.id: dialogue for dialogue in dialogues}
    samples = [InspectSample(id=one.id, input=one.turns[0].utterance, target=one.turns[-1].reference) for one in dialogues]
    return Task(
        dataset=MemoryDataset(samples, name=work.setting.name),
        solver=_solver(by_id, work)(),
        scorer=_scorer(by_id, work)(),
        epochs=work.setting.repeats,
        name=work.setting.name,
        metadata=work.setting.recorded(),
    )


def _solver(by_id: dict[str, Dialogue], work: Work) -> Callable[[], Solver]:
    @solver(name="dialogue")
    def build_solver() -> Solver:
        async def solve(state: TaskState, generate: Generate) -> TaskState:  # noqa: ARG001 (inspect's signature)
            dialogue, sample = by_id[str(state.sample_id)], state.epoch - 1
            for number in range(len(dialogue.turns)):
                if TurnKey(dialogue.id, number, sample) in work.store.answers:
                    continue
                if work.stopped:
                    break
                if not await _answer(dialogue, number, sample, work) and work.setting.history == "own":
                    why = f"it goes on from turn {number + 1}, which has no answer"
                    for later in range(number + 1, len(dialogue.turns)):
                        work.store.put_aside(SetAside("answer", dialogue.id, later, sample, "", why))
                    break
            answered = [one for one in work.store.answers.values() if (one.dialogue, one.sample) == (dialogue.id, sample)]
            state.output = ModelOutput.from_content(str(state.model), answered[-1].answer if answered else "")
            return state

        return solve

    return build_solver


async def _answer(dialogue: Dialogue, number: int, sample: int, work: Work) -> bool:
    """Ask one turn and keep the answer; `False` if there is none."""
    store, setting = work.store, work.setting
    said = {key.turn: one.said for key, one in store.answers.items() if (key.dialogue, key.sample) == (dialogue.id, sample)}
    chat = [as_chat(message) for message in request(dialogue, number, said, setting)]
    seed = sample_seed(setting.seed, setting.name, f"{dialogue.id}/{number}", sample) if setting.temperature > 0 else None
    try:
        output = await get_model().generate(chat, config=GenerateConfig(seed=seed))
        answer = _measured(output, TurnKey(dialogue.id, number, sample))
        store.add_answer(answer)
    except DiskError as error:
        work.stopped.append(error)
        raise
    except Exception as error:  # of any provider
        if getattr(error, "status", None) in _FATAL:
            work.stopped.append(error)
        store.put_aside(SetAside("answer", dialogue.id, number, sample, "", first_line(error)))
        return False
    work.on_answer()
    return True


def _measured(output: ModelOutput, key: TurnKey) -> Answer:
    response = response_of(output)
    said = (output.metadata or {}).get("said", response.text)
    return Answer(
        *key,
        text=response.text,
        answer=response.whole,
        said=str(said).encode(errors="replace").decode(),  # half a character cannot be sent
        finish_reason=response.finish_reason,
        malformed=response.malformed,
        forks=response.forks,
        prompt_tokens=output.usage.input_tokens if output.usage is not None else 0,
        cached_tokens=response.cached_tokens,
        total_tokens=response.total_tokens,
        critical_path_tokens=response.critical_path_tokens,
        critical_path_steps=response.critical_path_steps,
        seconds=response.seconds,
    )


def _scorer(by_id: dict[str, Dialogue], work: Work) -> Callable[[], Scorer]:
    @scorer(metrics=[mean(), stderr()], name="checklist")
    def build_scorer() -> Scorer:
        async def score(state: TaskState, target: Target) -> Score:  # noqa: ARG001 (inspect's signature)
            dialogue, sample = by_id[str(state.sample_id)], state.epoch - 1
            met = []
            for number, turn in enumerate(dialogue.turns):
                answer = work.store.answers.get(TurnKey(dialogue.id, number, sample))
                if answer is not None and turn.checklist:
                    met += await _judged(Case(dialogue, answer, history(dialogue, answer, work)), work)
            return Score(value=fmean(met)) if met else Score.unscored(explanation="nothing was judged")

        return score

    return build_scorer


async def _judged(case: Case, work: Work) -> list[bool]:
    """Have an answer judged by all judges; the first one's verdicts."""
    first: list[bool] | None = None
    for judge in work.judges:
        for repeat in range(work.repeats):
            if work.judging_stopped or (work.stopped and isinstance(work.stopped[-1], DiskError)):
                return first or []
            try:
                verdicts = await judge.judge(case, repeat, work.store)
                reason = verdicts.reason
            except DiskError as error:
                work.stopped.append(error)
                raise
            except BudgetError as error:
                work.judging_stopped.append(error)
                return first or []
            except Exception as error:  # of any provider
                if getattr(error, "status", None) in _FATAL:
                    work.judging_stopped.append(error)
                verdicts, reason = None, first_line(error)
            if reason:
                work.store.put_aside(SetAside("judgement", *case.answer.key, judge.name, reason))
            if first is None:
                first = [one.met for one in verdicts.decisions] if verdicts is not None else []
                work.on_verdicts(sum(first), len(first))
    return first or []


def history(dialogue: Dialogue, answer: Answer, work: Work) -> tuple[Message, ...]:
    """The conversation before an answer as judges see it, without instructions of a mode.

    With the model's own history that is what the model has seen. A judge needs earlier turns to understand the last one in any
    case: where the model has not seen any, the references stand there.
    """
    own = work.setting.history == "own"
    found: list[Message] = []
    for number in range(answer.turn + 1):
        turn = dialogue.turns[number]
        found.append(Message("user", turn.utterance, dialogue.image if number == 0 else None))
        if number < answer.turn:
            earlier = work.store.answers.get(TurnKey(dialogue.id, number, answer.sample)) if own else None
            found.append(Message("assistant", earlier.answer if earlier is not None else turn.reference))
    return tuple(found)
